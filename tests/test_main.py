"""Errors and processes: one line says what is wrong, and the exit code says its kind."""

import os
import re
import signal
from pathlib import Path

import pytest
import tiny
from command_runs import CODES, failure, process, usage

from parity.cli import main
from parity.pipeline import dispatch
from parity.run import errors
from parity.run.command_line import PROGRAM


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv(PROGRAM, "./inv")
    monkeypatch.chdir(root)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.mark.parametrize("error", CODES)
def test_each_kind_of_error_has_its_code_and_one_line(
    error: type[errors.ParityError],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error("a size differs:\n\tlayer 1")

    monkeypatch.setattr(dispatch, "start", fail)
    assert failure(["prepare"], capsys) == (CODES[error], "a size differs: layer 1")


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
        (["prepare", "nowhere/x.toml"], "nowhere/x.toml: no such run file "),
        (["prepare", "--set", "training.epoch=3"], "runs/demo.toml: training.epoch: unknown key"),
        (["prepare", "--set", "trainer.epochs=3"], "runs/demo.toml: trainer: unknown key"),
        (["prepare", "--set", "epochs=3"], "--set epochs=3: expected section.key=value"),
        (["status", "runs/eedi.toml", "--set", "split.folds=x"], "runs/eedi.toml: split.folds: "),
        (["mine", "--round", "-1"], "round -1 does not exist; rounds start at 0"),
        (["demo", "--data", "nowhere"], "--data nowhere: no such folder; it must hold"),
        (
            ["push", "--run", "nowhere/x.toml"],
            "nowhere/x.toml: no such run file ",
        ),
        (["submit", "--round", "-1"], "round -1 does not exist; rounds start at 0"),
        (
            ["publish", "--set", "shipping.licenses=x"],
            "runs/demo.toml: shipping.licenses: unknown key",
        ),
        (["push", "--set", "shipping.model=a/b"], "runs/demo.toml: shipping.model: String should"),
        (["image", "--base", "python:latest"], "--base python:latest is not pinned"),
        (["image.lock", "--freeze", "nowhere.txt"], "--freeze nowhere.txt: no such file"),
    ],
)
def test_a_wrong_setting_is_named(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = failure(words, capsys)
    assert code == 2
    assert line.startswith(problem)


def test_a_missing_run_file_lists_the_existing_ones(
    capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    _, line = failure(["status", "runs/dem.toml"], capsys)
    names = sorted(f"runs/{path.name}" for path in (root / "runs").glob("*.toml"))
    assert line == f"runs/dem.toml: no such run file (in its folder: {', '.join(names)})"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "required: COMMAND"),
        (["evaluate"], "argument COMMAND: invalid choice: 'evaluate' (choose from "),
        (["mine", "--round", "one"], "argument --round: invalid int value: 'one'"),
        (["mine", "--round", "1.0"], "argument --round: invalid int value: '1.0'"),
        (["mine", "--depth", "9"], "unrecognized arguments: --depth"),
        (["mine", "a.toml", "b.toml"], "unrecognized arguments: b.toml"),
        (["mine", "a.toml", "--run", "b.toml"], "not allowed with argument FILE"),
        (["status", "--round", "1"], "unrecognized arguments: --round"),
        (["prepare", "--round", "1"], "unrecognized arguments: --round"),
        (["prepare", "--set"], "argument --set: expected one argument"),
        (["predict", "--adapter", "base"], "unrecognized arguments: --adapter"),
        (["train", "--model", "base"], "unrecognized arguments: --model"),
        (["mine", "--as", "plain"], "unrecognized arguments: --as"),
        (["mine", "--model", "base", "--import", "a"], "not allowed with argument --model"),
        (["mine", "--import", "a", "--model", "base"], "not allowed with argument --import"),
        (["eval", "--all", "--model", "base"], "--model: not allowed with argument --all"),
        (["mine", "--where", "there"], "argument --where: invalid choice: 'there' (choose from "),
        (["package", "--where", "image"], "unrecognized arguments: --where"),
        (["push", "--as", "gist"], "argument --as: invalid choice: 'gist' (choose from "),
        (["follow", "--minutes", "soon"], "argument --minutes: invalid number value: 'soon'"),
        (["follow", "--dry-run"], "unrecognized arguments: --dry-run"),
        (["follow", "--minutes", "-1"], "argument --minutes: -1: must be 0.0 or more"),
        (["plan", "--queries", "-5"], "argument --queries: -5: must be 0 or more"),
        (["plan", "--queries", "1e4"], "argument --queries: invalid number value: '1e4'"),
        (["image.lock"], "the following arguments are required: --freeze"),
        (["wheels", "--json"], "unrecognized arguments: --json"),
        (["reconcile", "--import", "a", "--attribute"], "not allowed with argument --import"),
    ],
)
def test_e28_unknown_words_are_refused(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = usage(words, capsys)
    assert re.match(r"parity( [\w.]+)?: error: ", line)
    assert problem in line


@pytest.mark.parametrize("value", ["False", "no", "0", '"false"', "''"])
def test_e28_a_switch_is_true_or_false_and_nothing_else(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = "runs/demo.toml: training.gradient_checkpointing: Input should be a valid boolean"
    words = ["prepare", "--set", f"training.gradient_checkpointing={value}"]
    assert failure(words, capsys) == (2, expected)


@pytest.mark.parametrize("flag", ["--accept", "--accept-contaminate", "--roun=1", "--mode=base"])
def test_e30_a_flag_has_one_spelling(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"unrecognized arguments: {flag}" in usage(["eval", flag], capsys)


@pytest.mark.parametrize("words", [["push", "--accept"], ["push", "--dry"], ["plan", "--dev=cpu"]])
def test_e30_each_flag_on_the_way_to_kaggle_has_one_spelling(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"unrecognized arguments: {words[1]}" in usage(words, capsys)


def test_faulty_data_is_an_error_of_data_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny.write_competition(tmp_path / "tiny")
    (source / "test.csv").write_text("QuestionId\n1\n")
    code, line = failure(["prepare", "--set", f"data.source={source}"], capsys)
    assert (code, line.startswith(f"{source}/test.csv, header, column")) == (3, True)
    code, line = failure(["prepare", "--set", "data.source=nowhere"], capsys)
    assert (code, line.startswith("data.source = 'nowhere': no such folder")) == (3, True)
    assert not (tmp_path / "data").exists()


def test_no_traceback_is_shown() -> None:
    out, err = process(["prepare", "runs/nope.toml"]).communicate(timeout=60)
    assert out == ""
    assert err.startswith("error: runs/nope.toml: no such run file")
    assert len(err.splitlines()) == 1


WAITING = """
import signal, sys, time
from parity.pipeline import dispatch
from parity.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
dispatch.start = lambda *_: (print("running", flush=True), time.sleep(60))
raise SystemExit(main(sys.argv[1:]))
"""


def test_ctrl_c_ends_cleanly_with_130() -> None:
    started = process(["prepare"], code=WAITING)
    assert started.stdout is not None
    assert started.stdout.readline() == "running\n"
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert err == "\ninterrupted; run the same command again to continue\n"


@pytest.mark.parametrize("words", [["status"], ["--help"], ["prepare", "--help"]])
def test_a_closed_pipe_prints_nothing(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    started = process(words, stdout=writer)
    os.close(writer)
    assert started.communicate(timeout=60)[1] == ""
    assert started.returncode == 141


LOADED = """
import sys
from parity.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "transformers", "peft", "pandas", "sklearn", "kaggle", "numpy", "pydantic"}
    print(*sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_loads_no_package(words: list[str]) -> None:
    out, err = process(words, code=LOADED).communicate(timeout=60)
    assert "options:" in out
    assert err.strip() == ""


def test_status_loads_no_model() -> None:
    out, err = process(["status"], code=LOADED).communicate(timeout=60)
    assert "next: ./inv demo" in out
    assert not {"torch", "transformers", "peft", "kaggle"} & set(err.split())
