"""A kernel is laid out as on Kaggle and run; a failure is reported in one line."""

import os
import sys
from pathlib import Path

import pytest

from parity.deploy.kernel import mounts, rehearsal
from parity.deploy.kernel.sandbox import Sandbox
from parity.run.errors import Mismatch


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    rehearsal.lay_out(tmp_path / "kaggle", {}, mounts.slug)
    return tmp_path / "kaggle"


def run(kaggle: Path, code: str) -> str:
    """Run a kernel without isolation and return its output."""
    plain = Sandbox("none", [sys.executable, "-c", f"import os, sys\n{code}"], dict(os.environ))
    return rehearsal.run(kaggle, plain, 1.0).output


def failure(kaggle: Path, code: str) -> str:
    with pytest.raises(Mismatch) as error:
        run(kaggle, code)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("layout", mounts.LAYOUTS.values())
def test_every_file_is_in_its_folder_and_not_copied(tmp_path: Path, layout: mounts.Layout) -> None:
    (tmp_path / "weights").write_text("w" * 9)
    (tmp_path / "link").symlink_to("weights")
    root, model = tmp_path / "kaggle", "ann/llm/transformers/7b/1"
    base = {"model.safetensors": tmp_path / "weights", "m": tmp_path / "link"}
    rehearsal.lay_out(root, {model: base, "ann/small-bundle": {}, "buggy-rules": {}}, layout)
    laid = root / "input" / layout(model) / "model.safetensors"
    assert laid.samefile(tmp_path / "weights")
    assert laid.with_name("m").samefile(laid)
    assert not laid.with_name("m").is_symlink()
    for name in ("ann/small-bundle", "buggy-rules"):
        assert (root / "input" / layout(name)).is_dir()
    assert list((root / "working").iterdir()) == []


def test_a_disk_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "weights").write_text("w")
    attached = {"ann/base": {"weights": tmp_path / "weights"}}
    rehearsal.lay_out(tmp_path / "kaggle", attached, mounts.slug)
    assert (tmp_path / "kaggle" / "input" / "base" / "weights").read_text() == "w"


def test_files_of_an_earlier_layout_are_removed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    root = tmp_path / "kaggle"
    rehearsal.lay_out(root, {"ann/old": {"file": tmp_path / "file"}}, mounts.slug)
    (root / "working" / "submission.csv").touch()
    rehearsal.lay_out(root, {"ann/new": {}}, mounts.slug)
    assert [path.name for path in (root / "input").iterdir()] == ["new"]
    assert list((root / "working").iterdir()) == []
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise ValueError('no such\\nlayer texts')", "exit code 1: layer texts"),
        ("raise SystemExit('error: want one bundle')", "exit code 1: want one bundle"),
        ("print('half'); os._exit(9)", "exit code 9: no error message"),
        ("os.abort()", "exit code -6: no error message"),
        ("def", "exit code 1: SyntaxError: invalid syntax"),
    ],
)
def test_the_last_line_of_a_failing_kernel_is_reported(
    kaggle: Path, code: str, expected: str
) -> None:
    assert failure(kaggle, code) == f"the kernel failed with {expected}"


def test_a_kernel_may_print_much_to_both_streams(kaggle: Path) -> None:
    code = """
for _ in range(3000):
    print("x" * 99)
    print("noise " * 20, file=sys.stderr)
"""
    assert run(kaggle, code) == ("x" * 99 + "\n") * 3000


def test_progress_is_shown_and_noise_is_not(
    kaggle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "print('é', 1)\nprint('noise\\nencode  50%|##  | 1/2\\nnoise', file=sys.stderr)"
    assert run(kaggle, code) == "é 1\n"
    assert capsys.readouterr() == ("", "encode  50%|##  | 1/2\n")


def test_a_kernel_runs_in_the_working_folder_and_is_timed(kaggle: Path) -> None:
    words = [sys.executable, "-c", "import os, time; time.sleep(0.2); print(os.getcwd())"]
    ran = rehearsal.run(kaggle, Sandbox("an engine", words, {}), 1.0)
    assert ran.output == f"{kaggle / 'working'}\n"
    assert ran.isolation == "an engine"
    assert 0.2 <= ran.seconds < 20
