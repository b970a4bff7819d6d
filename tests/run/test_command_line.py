"""A printed command is complete, quoted for a shell, and spelled as the program was started."""

import shlex
from pathlib import Path

import pytest

from parity.run.command_line import PROGRAM, build_command, command_words, join_command, program


@pytest.mark.parametrize("name", ["./inv", "invoke", "parity"])
def test_a_command_is_spelled_as_the_program_was_started(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRAM, name)
    assert build_command("mine") == f"{name} mine"


def test_without_a_wrapper_the_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROGRAM, raising=False)
    assert build_command("mine") == "python -m parity mine"
    monkeypatch.setenv(PROGRAM, "")
    assert program() == "python -m parity"


@pytest.mark.parametrize(("started", "printed"), [("parity", "./inv"), ("invoke", "invoke")])
def test_a_task_of_the_checkout_is_spelled_for_invoke(
    started: str, printed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRAM, started)
    assert build_command("dev.lock") == f"{printed} dev.lock"


def test_run_file_overrides_round_and_flags_follow_the_verb() -> None:
    words = command_words(
        "push", "--accept-risk", run_file=Path("runs/a.toml"), overrides=["x.y=1"], round_=2
    )
    assert words == (
        *("push", "--run", "runs/a.toml", "--set=x.y=1", "--round", "2", "--accept-risk"),
    )


def test_a_command_can_be_pasted_into_a_shell() -> None:
    override = 'prompt.query={question} it\'s "so"'
    command = join_command(command_words("mine", run_file=Path("a run.toml"), overrides=[override]))
    words = shlex.split(command)
    assert words[-3:] == ["--run", "a run.toml", f"--set={override}"]


def test_round_0_is_the_default_and_is_not_printed() -> None:
    assert "--round" not in command_words("mine", round_=0)
