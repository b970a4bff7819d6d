"""The command line: errors with the command that fixes them, JSON, and the function it starts."""

import inspect
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from command_runs import CODES, failure

from parity.cli import build_parser, main
from parity.pipeline import checkout_tools, dispatch, registry
from parity.run import errors
from parity.run.command_line import PROGRAM
from parity.run.experiment import Run

WITH_JSON = tuple(name for name, command in registry.table().items() if command.has_json)


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv(PROGRAM, "./inv")
    monkeypatch.chdir(root)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


# The command that fixes an error


@pytest.mark.parametrize(
    "words",
    [
        *([stage] for stage in (*registry.stage_names()[1:], "report")),
        *([stage, "--dry-run"] for stage in ("publish", "push", "submit")),
        ["push", "--as=notebook", "--accept-risk"],
    ],
    ids=" ".join,
)
def test_a_stage_without_its_inputs_prints_the_command(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = failure([*words, "--set", "split.seed=7"], capsys)
    command = "./inv prepare --run runs/demo.toml --set=split.seed=7"
    assert (code, line) == (4, f"prepare is missing. Run: `{command}`")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["./inv", "invoke", "parity", ""])
def test_printed_commands_are_accepted_and_keep_run_and_overrides(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PROGRAM, name)
    override = 'prompt.query={question} it\'s "so"'
    chosen = ["--run", "runs/eedi-quick.toml", "--set", override]
    for words in (["mine"], ["mine", "--round", "2"], ["submit", "--round", "1"], ["plan"]):
        _, line = failure([*words, *chosen], capsys)
        (command,) = re.findall(r"Run: `(.*)`$", line)
        expected = name or "python -m parity"
        assert command.startswith(f"{expected} ")
        parsed = build_parser().parse_args(shlex.split(command.removeprefix(expected)))
        assert (parsed.command, Path(parsed.run)) == ("prepare", Path("runs/eedi-quick.toml"))
        assert parsed.overrides == [override]


def test_a_fix_is_completed_with_what_the_user_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fixes = [("mine",), ("wheels",), ("eval", "--model", "base"), ("image.lock", "--freeze=f")]
    expected = [
        "./inv mine --run a.toml --set=x.y=1 --round 3",
        "./inv wheels --run a.toml --set=x.y=1",
        "./inv eval --run a.toml --set=x.y=1 --round 3 --model base",
        "./inv image.lock --freeze=f",
    ]
    for fix, command in zip(fixes, expected, strict=True):

        def fail(*_: object, fix: tuple[str, ...] = fix) -> None:
            raise errors.StaleInput("something is missing.", fix=fix)

        monkeypatch.setattr(dispatch, "start", fail)
        _, line = failure(["predict", "a.toml", "--set=x.y=1", "--round=3"], capsys)
        assert line == f"something is missing. Run: `{command}`"
        build_parser().parse_args(shlex.split(command)[1:])


def test_a_command_on_all_runs_names_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    _, line = failure(["reconcile", "demo/round-0/eval", "0.3"], capsys)
    assert "runs/demo.toml" not in line


def test_without_a_login_kaggle_is_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = failure(["publish", "--base", "--dry-run"], capsys)
    assert (code, "login" in line) == (2, True)
    assert line.endswith("Run: `./inv doctor --run runs/demo.toml`")


def test_a_finished_stage_is_silent_on_stderr_and_ends_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny.write_competition(tmp_path / "tiny")
    words = ["--set", f"data.source={source}", "--set", "split.kind=full"]
    assert main(["prepare", *words]) == 0
    assert main(["status", "runs/demo.toml", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "11 labeled rows, 6 rows to predict, 5 " in out
    assert "next: ./inv mine" in out


def test_the_version_has_commit_and_lock(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--version"])
    assert error.value.code == 0
    line = capsys.readouterr().out
    commit = r", commit [0-9a-f]{12}" if (root / ".git").exists() else ""
    assert re.fullmatch(rf"parity \d+\.\d+\S*{commit}, lock [0-9a-f]{{12}}\n", line)


@pytest.mark.parametrize("words", [["test"], ["bench", "encode"]])
def test_without_a_checkout_its_tools_say_so(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkout_tools, "find_checkout", lambda: None)
    code, line = failure(words, capsys)
    assert (code, "needs a checkout" in line) == (2, True)


# Output for programs


def test_json_is_one_object_and_text_goes_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretended(*_: object) -> dict[str, object]:
        sys.stdout.write("for a person\n")
        return {"version": 3, "key": "é"}

    monkeypatch.setattr(dispatch, "start", pretended)
    for name in WITH_JSON:
        assert main([name, "--json"]) == 0
        out, err = capsys.readouterr()
        assert (json.loads(out), out.count("\n")) == ({"version": 3, "key": "é"}, 1)
        assert err == "for a person\n"
        assert main([name]) == 0
        assert capsys.readouterr() == ("for a person\n", "")


@pytest.mark.parametrize("error", CODES)
def test_json_holds_an_error_and_its_notes(
    error: type[errors.ParityError],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        sys.stdout.write("for a person\n")
        failed = error("a size differs:\n\tlayer 1")
        failed.add_note('{"findings": [1]}')
        raise failed

    monkeypatch.setattr(dispatch, "start", fail)
    assert main(["doctor", "--json"]) == CODES[error]
    out, err = capsys.readouterr()
    assert err == "for a person\nerror: a size differs: layer 1\n"
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "class": error.__name__,
        "error": "a size differs: layer 1",
        "exit_code": CODES[error],
        "findings": [1],
    }


@pytest.mark.parametrize("stage", ["publish", "push", "follow", "submit", "plan"])
def test_json_holds_the_command_that_fixes_an_error(
    stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([stage, "--json"])
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert (code, record["class"], record["exit_code"]) == (4, "StaleInput", 4)
    assert record["fix"] == "./inv prepare --run runs/demo.toml"
    assert record["error"].endswith(f". Run: `{record['fix']}`")
    assert err == f"error: {record['error']}\n"


# Which function is started


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Call no command, but note its function and options, which must fit the signature."""
    calls: list[Any] = []
    resolve = registry.import_function

    def note(dotted: str) -> Any:
        signature = inspect.signature(resolve(dotted))

        def call(*arguments: Any, **options: Any) -> None:
            signature.bind(*arguments, **options)
            values = [item for item in arguments if not isinstance(item, Run)]
            calls.append((dotted.rpartition(".")[2], values, options))

        return call

    monkeypatch.setattr(registry, "import_function", note)
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["status"], ("status:status", [None], {"overrides": ()})),
        (["demo", "--quick"], ("demo:demo", [], {"data": None, "quick": True, "overrides": ()})),
        (["prepare"], ("prepare:prepare", [], {})),
        (
            ["mine", "--import", "n.jsonl"],
            ("mine:mine", [], {"model": "", "imported": Path("n.jsonl")}),
        ),
        (
            ["mine", "--model", "round-0/epoch-1"],
            ("mine:mine", [], {"model": "round-0/epoch-1", "imported": None}),
        ),
        (
            ["train", "--where=image"],
            ("run_in_image:run_stage_in_image", [["train", "--where=image"]], {}),
        ),
        (
            ["eval"],
            (
                "evaluate:evaluate",
                [],
                {
                    "model": "",
                    "evaluation": "",
                    "against": None,
                    "csv": None,
                    "accept_contaminated": False,
                },
            ),
        ),
        (
            ["eval", "--all", "--csv", "scores.csv"],
            (
                "evaluate:evaluate",
                [],
                {
                    "model": "all",
                    "evaluation": "",
                    "against": None,
                    "csv": Path("scores.csv"),
                    "accept_contaminated": False,
                },
            ),
        ),
        (
            ["predict", "--model=base", "--as", "plain"],
            ("predict:predict", [], {"model": "base", "evaluation": "plain"}),
        ),
        (
            ["package", "--model", "../adapter"],
            ("package:package", [], {"model": "../adapter", "evaluation": ""}),
        ),
        (["follow", "--minutes", "1.5"], ("follow:follow", [], {"minutes": 1.5})),
        (["submit", "--dry-run"], ("submit:submit_or_show", [], {"dry_run": True})),
        (["doctor", "--online"], ("doctor:doctor", [], {"reach": "online"})),
        (["image", "--base", "localhost/a:1"], ("image:build", [], {"base": "localhost/a:1"})),
    ],
    ids=str,
)
def test_words_start_one_function_with_its_options(
    words: list[str], expected: tuple[object, ...], called: list[Any]
) -> None:
    assert main(words) == 0
    assert called == [expected]
