"""The command line: one line says what is wrong, the exit code says of which kind."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny

from parity.__main__ import main
from parity.pipeline import dag, dispatch
from parity.run import errors
from parity.run.experiment import Run

CODES = {
    errors.ParityError: 1,
    errors.BadConfig: 2,
    errors.BadData: 3,
    errors.StaleInput: 4,
    errors.Contaminated: 5,
    errors.Mismatch: 6,
    errors.KaggleRejected: 7,
    errors.OutcomeUnknown: 8,
    errors.RunFailed: 9,
    errors.ResultsDiffer: 10,
}
NO_FACTS = {"git_commit": "", "build_date": ""}
USAGE = 2  # what argparse returns, as for a wrong setting
MACHINES = ("publish", "push", "follow", "submit", "plan", "doctor")  # with `--json`


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(root)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def process(words: Sequence[str], *, code: str = "", **options: int) -> "subprocess.Popen[str]":
    asked = ["-c", code] if code else ["-m", "parity"]
    return subprocess.Popen(
        [sys.executable, *asked, *words],
        stdout=options.get("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
    )


def told(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return exit code and the one line of a command that fails."""
    code = main(words)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    return code, err.removeprefix("error: ").rstrip("\n")


def usage(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == USAGE
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("error", CODES)
def test_each_kind_of_error_has_its_code_and_one_line(
    error: type[errors.ParityError],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error("a size differs:\n\tlayer 1")

    monkeypatch.setattr(dispatch, "start", fail)
    assert told(["prepare"], capsys) == (CODES[error], "a size differs: layer 1")


def test_every_error_class_has_a_code_of_its_own() -> None:
    classes = [var for var in vars(errors).values() if isinstance(var, type)]
    assert {
        class_: class_.exit_code for class_ in classes if issubclass(class_, errors.ParityError)
    } == CODES
    assert len(set(CODES.values())) == len(CODES)


def test_a_fault_of_the_tool_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(dispatch, "start", fail)
    with pytest.raises(ZeroDivisionError):
        main(["prepare"])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["prepare", "nowhere/x.toml"], "nowhere/x.toml: no such run file (there: none)"),
        (["prepare", "--set", "training.epoch=3"], "runs/demo.toml: training.epoch: unknown key"),
        (["prepare", "--set", "trainer.epochs=3"], "runs/demo.toml: trainer: unknown key"),
        (["prepare", "--set", "epochs=3"], "--set epochs=3: want section.key=value"),
        (["story", "runs/eedi.toml", "--set", "split.kind=x"], "runs/eedi.toml: split.kind: Input"),
        (["mine", "--round", "-1"], "round -1 does not exist; rounds start at 0"),
        (["demo", "--data", "nowhere"], "--data nowhere: no such folder; it must hold"),
        (["push", "nowhere/x.toml"], "nowhere/x.toml: no such run file (there: none)"),
        (["submit", "--round", "-1"], "round -1 does not exist; rounds start at 0"),
        (
            ["publish", "--set", "shipping.license=x"],
            "runs/demo.toml: shipping.license: unknown key",
        ),
        (["push", "--set", "shipping.model=a/b"], "runs/demo.toml: shipping.model: String should"),
        (["plan", "--device", "tpu"], "device 'tpu': Kaggle's are cpu, t4x2, "),
        (["image", "--base", "python:latest"], "--base python:latest: want name@sha256:digest, or"),
        (["image.lock", "--freeze", "nowhere.txt"], "--freeze nowhere.txt: no such file; in the"),
    ],
)
def test_a_wrong_setting_is_named(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = told(words, capsys)
    assert code == 2
    assert line.startswith(problem)


def test_a_missing_run_file_lists_the_ones_there(
    capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    _, line = told(["story", "runs/dem.toml"], capsys)
    there = sorted(f"runs/{path.name}" for path in (root / "runs").glob("*.toml"))
    assert line == f"runs/dem.toml: no such run file (there: {', '.join(there)})"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "required: STAGE"),
        (["evaluate"], "argument STAGE: invalid choice: 'evaluate' (choose from "),
        (["mine", "--round", "one"], "argument --round: invalid int value: 'one'"),
        (["mine", "--round", "1.0"], "argument --round: invalid int value: '1.0'"),
        (["mine", "--depth", "9"], "unrecognized arguments: --depth"),
        (["mine", "a.toml", "b.toml"], "unrecognized arguments: b.toml"),
        (["story", "--round", "1"], "unrecognized arguments: --round"),
        (["prepare", "--set"], "argument --set: expected one argument"),
        (["predict", "--adapter", "base"], "unrecognized arguments: --adapter"),
        (["mine", "--where", "there"], "argument --where: invalid choice: 'there' (choose from "),
        (["package", "--where", "image"], "unrecognized arguments: --where"),
        (["push", "--as", "gist"], "argument --as: invalid choice: 'gist' (choose from "),
        (["follow", "--minutes", "soon"], "argument --minutes: invalid number value: 'soon'"),
        (["follow", "--dry-run"], "unrecognized arguments: --dry-run"),
        (["follow", "--minutes", "-1"], "argument --minutes: -1: want 0.0 or more"),
        (["plan", "--queries", "-5"], "argument --queries: -5: want 0 or more"),
        (["plan", "--queries", "1e4"], "argument --queries: invalid number value: '1e4'"),
        (["image.lock"], "the following arguments are required: --freeze"),
        (["wheels", "--json"], "unrecognized arguments: --json"),
    ],
)
def test_e28_words_that_nobody_knows_are_refused(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = usage(words, capsys)
    assert re.match(r"parity( [\w.]+)?: error: ", line)
    assert problem in line


@pytest.mark.parametrize("value", ["False", "no", "0", '"false"', "''"])
def test_e28_a_switch_is_true_or_false_and_nothing_else(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told_of = "runs/demo.toml: training.gradient_checkpointing: Input should be a valid boolean"
    words = ["prepare", "--set", f"training.gradient_checkpointing={value}"]
    assert told(words, capsys) == (2, told_of)


@pytest.mark.parametrize("flag", ["--accept", "--accept-contaminate", "--roun=1", "--adapt=base"])
def test_e30_a_flag_has_one_spelling(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"unrecognized arguments: {flag}" in usage(["eval", flag], capsys)


@pytest.mark.parametrize("words", [["push", "--accept"], ["push", "--dry"], ["plan", "--dev=cpu"]])
def test_e30_so_has_each_flag_of_the_way_to_kaggle(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"unrecognized arguments: {words[1]}" in usage(words, capsys)


def test_faulty_data_is_an_error_of_data_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny.write_competition(tmp_path / "tiny")
    (source / "test.csv").write_text("QuestionId\n1\n")
    code, line = told(["prepare", "--set", f"data.source={source}"], capsys)
    assert (code, line.startswith(f"{source}/test.csv, header, column")) == (3, True)
    code, line = told(["prepare", "--set", "data.source=nowhere"], capsys)
    assert (code, line.startswith("data.source = 'nowhere': no such folder; put")) == (3, True)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "words",
    [
        *([stage] for stage in (*dag.STAGES[1:], "report")),
        *([stage, "--dry-run"] for stage in ("publish", "push", "submit")),
        ["push", "--as=notebook", "--accept-risk"],
    ],
    ids=" ".join,
)
def test_a_stage_before_its_time_names_the_command(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = told([*words, "--set", "split.seed=7"], capsys)
    command = "invoke prepare --run runs/demo.toml --set=split.seed=7"
    assert (code, line) == (4, f"prepare has not been made; run: {command}")
    assert not (tmp_path / "data").exists()


def test_a_plan_before_its_time_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    told_of = "prepare is missing or stale; run: invoke prepare --run runs/demo.toml"
    assert told(["plan"], capsys) == (4, told_of)


def test_without_a_login_kaggle_is_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = told(["publish", "--base", "--dry-run"], capsys)
    assert (code, line.startswith("no login for Kaggle: ")) == (2, True)
    assert line.endswith("; then: invoke doctor")


def test_a_finished_stage_is_silent_on_stderr_and_ends_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny.write_competition(tmp_path / "tiny")
    words = ["--set", f"data.source={source}", "--set", "split.kind=full"]
    assert main(["prepare", *words]) == 0
    assert main(["story", "runs/demo.toml", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "11 labeled rows, 6 rows to predict, 5 misconceptions" in out
    assert "next: invoke mine" in out


# What a machine is told


def test_a_machine_is_told_one_object_and_a_person_beside_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretended(*_: object) -> dict[str, object]:
        sys.stdout.write("for a person\n")
        return {"version": 3, "key": "é"}

    monkeypatch.setattr(dispatch, "start", pretended)
    for stage in MACHINES:
        assert main([stage, "--json"]) == 0
        out, err = capsys.readouterr()
        assert (json.loads(out), out.count("\n")) == ({"version": 3, "key": "é"}, 1)
        assert err == "for a person\n"
        assert main([stage]) == 0
        assert capsys.readouterr() == ("for a person\n", "")


@pytest.mark.parametrize("error", CODES)
def test_a_machine_is_told_an_error_too(
    error: type[errors.ParityError],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        sys.stdout.write("for a person\n")
        found = error("a size differs:\n\tlayer 1")
        found.add_note('{"findings": [1]}')
        raise found

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


@pytest.mark.parametrize("stage", MACHINES[:-1])
def test_a_machine_is_told_of_a_stage_before_its_time(
    stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([stage, "--json"])
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert (code, record["class"], record["exit_code"]) == (4, "StaleInput", 4)
    assert record["error"].endswith("run: invoke prepare --run runs/demo.toml")
    assert err == f"error: {record['error']}\n"


# Which function is started


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Call no stage, but note which would be, and whether it takes what it is given."""
    found: list[Any] = []
    module_of = dispatch._of

    class Noted:
        def __init__(self, stage: str) -> None:
            self.stage = stage

        def __getattr__(self, name: str) -> Any:
            module = module_of(self.stage)
            taken = inspect.signature(getattr(module, name))

            def call(*given: Any, **options: Any) -> None:
                taken.bind(*given, **options)
                bare = [one for one in given if not isinstance(one, Run)]
                found.append((f"{self.stage}.{name}", bare, options))

            return call

    monkeypatch.setattr(dispatch, "_of", Noted)
    return found


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["story"], ("story.story", [None, ()], {})),
        (["demo", "--quick"], ("demo.demo", [None], {"quick": True, "overrides": ()})),
        (["prepare"], ("prepare.prepare", [], {})),
        (["mine", "--import", "n.jsonl"], ("mine.mine", [Path("n.jsonl")], {})),
        (["train", "--where=image"], ("inside.inside", [["train", "--where=image"]], {})),
        (
            ["eval"],
            ("evaluate.evaluate", ["best"], {"against": None, "accept_contaminated": False}),
        ),
        (["rehearse"], ("rehearse.rehearse", [], {})),
        (["rehearse", "--image"], ("rehearse_image.rehearse_image", [], {})),
        (["rehearse", "--where", "image"], ("rehearse_image.rehearse_image", [], {})),
        (["reload", "runs/demo.toml", "--out", "x"], ("roundtrip.reload", [Path("x")], {})),
        (["publish"], ("publish.publish", ["bundle"], {})),
        (["publish", "--base", "--dry-run"], ("publish.show", ["base"], {})),
        (["push"], ("push.push", ["script"], {"risk": False})),
        (["push", "--as=notebook", "--accept-risk"], ("push.push", ["notebook"], {"risk": True})),
        (["push", "--as=notebook", "--dry-run"], ("push.show", ["notebook"], {})),
        (["follow"], ("follow.follow", [0.0], {})),
        (["follow", "--minutes", "1.5"], ("follow.follow", [1.5], {})),
        (["submit"], ("submit.submit", [], {})),
        (["submit", "--dry-run"], ("submit.show", [], {})),
        (["plan", "--queries=9"], ("plan.plan", [], {"device": "", "queries": 9})),
        (["doctor"], ("doctor.doctor", ["offline"], {})),
        (["doctor", "--online"], ("doctor.doctor", ["online"], {})),
        (["image", "--base", "localhost/a:1"], ("image.build", ["localhost/a:1"], {})),
        (["image.lock", "--freeze", "f"], ("image.lock", [Path("f"), NO_FACTS], {})),
    ],
    ids=str,
)
def test_words_start_one_function_with_what_it_takes(
    words: list[str], wanted: tuple[object, ...], called: list[Any]
) -> None:
    assert main(words) == 0
    assert called == [wanted]


def test_nothing_of_python_is_shown() -> None:
    out, err = process(["prepare", "runs/nope.toml"]).communicate(timeout=60)
    assert out == ""
    assert err.startswith("error: runs/nope.toml: no such run file")
    assert len(err.splitlines()) == 1


WAITING = """
import sys, time
from parity.stages import start
from parity.__main__ import main
start.start = lambda asked, words: (print("under way", flush=True), time.sleep(60))
raise SystemExit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_cleanly_with_130() -> None:
    started = process(["prepare"], code=WAITING)
    assert started.stdout is not None
    assert started.stdout.readline() == "under way\n"
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert err == "\ninterrupted; the same command goes on from here\n"


@pytest.mark.parametrize("words", [["story"], ["--help"], ["prepare", "--help"]])
def test_a_reader_that_has_gone_is_no_error_worth_a_word(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    started = process(words, stdout=writer)
    os.close(writer)
    assert started.communicate(timeout=60)[1] == ""
    assert started.returncode == 141


LOADED = """
import sys
from parity.__main__ import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "transformers", "peft", "pandas", "sklearn", "kaggle", "numpy", "pydantic"}
    print(*sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def test_help_loads_nothing_and_is_there_in_a_moment() -> None:
    seconds = []
    for _ in range(3):  # the machine may be busy: the best of three is the command's own
        started = time.monotonic()
        out, err = process(["--help"], code=LOADED).communicate(timeout=60)
        seconds.append(time.monotonic() - started)
        assert "STAGE" in out
        assert err.strip() == ""
    assert min(seconds) < 1


def test_the_story_loads_no_model() -> None:
    out, err = process(["story"], code=LOADED).communicate(timeout=60)
    assert "invoke demo" in out
    assert not {"torch", "transformers", "peft", "kaggle"} & set(err.split())
