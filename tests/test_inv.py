"""The bootstrap script, with stand-ins for Python and uv that log their arguments."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PYTHON = """\
#!/bin/bash
here=$(dirname "$0")
case "$*" in
  *version_info*) echo 3.11; exit 0 ;;
  *ensurepip*) [[ ! -e $ROOT/no-ensurepip ]] ;;
  *fcntl*) exec python3 "$@" ;;
  --version) echo Python 3.11.0 ;;
  "-m venv "*) echo venv >>"$ROOT/log"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip install -q uv=="*) cp "$ROOT/uv" "$here/uv" ;;
  *) exit 97 ;;
esac
"""
UV = """\
#!/bin/bash
echo "uv $*" >>"$ROOT/log"
[[ ! -e $ROOT/offline ]] || { echo "no route to host" >&2; exit 2; }
case "$*" in
  *--dry-run*) cat "$ROOT/plan" ;;
  *"-e .") printf '#!/bin/bash\\necho "$PARITY_PROGRAM, invoke $*"; exit 3\\n' >.venv/bin/invoke
           chmod +x .venv/bin/invoke ;;
esac
"""


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class BootstrapFolder:
    """A folder with the real script, two short requirement files and the stand-ins."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        shutil.copy(root / "inv", folder / "inv")
        (folder / "requirements.in").write_text("uv==1.2.3  # why\ntorch==4.5.6\n")
        (folder / "requirements.lock").write_text("six==1.17.0 --hash=sha256:0\n")
        (folder / "plan").write_text(" + torch==4.5.6+cpu\n")
        script(folder / "uv", UV)
        script(folder / "bin/python3.11", PYTHON)
        script(folder / "bin/sleep", "#!/bin/bash\n")
        self.env = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "ROOT": str(folder),
            "PARITY_PYTHON": "python3.11",
        }

    def start(self, *words: str, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["./inv", *words],
            cwd=self.folder,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: str, **env: str) -> tuple[int, str, str]:
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> BootstrapFolder:
    return BootstrapFolder(tmp_path, root)


def test_the_first_call_builds_and_the_second_only_starts(checkout: BootstrapFolder) -> None:
    assert checkout.call("mine", "--round", "1")[:2] == (3, "./inv, invoke mine --round 1\n")
    lock, plan, torch, itself = (line.split(".venv/bin/python ")[1] for line in checkout.log()[1:])
    assert lock == "--no-deps --require-hashes -r requirements.lock"
    assert plan == torch == "torch==4.5.6"
    assert itself == "--no-deps --no-build-isolation -e ."
    before = checkout.log()
    assert checkout.call() == (3, "./inv, invoke \n", "")
    assert checkout.log() == before


@pytest.mark.parametrize("name", ["requirements.lock", "requirements.in"])
def test_a_changed_pin_brings_the_environment_up_to_date(
    checkout: BootstrapFolder, name: str
) -> None:
    checkout.call()
    (checkout.folder / ".venv/mine").touch()
    text = (checkout.folder / name).read_text()
    (checkout.folder / name).write_text(
        text.replace("==1.17.0", "==1.17.1").replace("4.5.6", "4.5.7")
    )
    checkout.call()
    assert checkout.log().count("venv") == 2
    assert (checkout.folder / ".venv/mine").exists()


def test_an_interrupted_build_starts_again(checkout: BootstrapFolder) -> None:
    checkout.call()
    (checkout.folder / ".venv/.parity-lock").write_text("unfinished\n")
    (checkout.folder / ".venv/half-written").touch()
    code, _, err = checkout.call()
    assert code == 3
    assert "unfinished" in err
    assert not (checkout.folder / ".venv/half-written").exists()


def test_a_copy_of_the_folder_does_not_run_from_the_old_place(
    checkout: BootstrapFolder, tmp_path: Path
) -> None:
    checkout.call()
    moved = tmp_path / "moved"
    shutil.copytree(checkout.folder, moved, ignore=shutil.ignore_patterns("moved"))
    subprocess.run(["./inv"], cwd=moved, env=checkout.env, capture_output=True, check=False)
    assert (moved / ".venv/.parity-lock").read_text().strip().endswith(str(moved))
    assert checkout.log().count("venv") == 2


def test_two_at_once_build_once(checkout: BootstrapFolder) -> None:
    processes = [checkout.start("one"), checkout.start("two")]
    ends = [process.communicate(timeout=60) for process in processes]
    assert [out for out, _ in ends] == ["./inv, invoke one\n", "./inv, invoke two\n"]
    assert checkout.log().count("venv") == 1


def test_an_environment_made_by_somebody_else_is_left_alone(checkout: BootstrapFolder) -> None:
    (checkout.folder / ".venv").mkdir()
    code, out, err = checkout.call()
    assert (code, out) == (1, "")
    assert err.startswith("inv: .venv exists and was not created by ./inv")
    assert checkout.log() == []


def test_without_venv_the_missing_package_is_named(checkout: BootstrapFolder) -> None:
    (checkout.folder / "no-ensurepip").touch()
    code, _, err = checkout.call()
    assert code == 1
    assert "apt-get install python3.11-venv" in err
    assert len(err.splitlines()) == 1


def test_without_python_one_line_says_what_to_install(checkout: BootstrapFolder) -> None:
    code, _, err = checkout.call(PARITY_PYTHON="no-such-python")
    assert code == 1
    assert "no Python 3.11 or 3.12" in err
    assert len(err.splitlines()) == 1


def test_a_download_is_tried_three_times_and_then_reported_in_one_line(
    checkout: BootstrapFolder,
) -> None:
    (checkout.folder / "offline").touch()
    code, _, err = checkout.call()
    assert code == 1
    assert sum("requirements.lock" in line for line in checkout.log()) == 3
    assert err.splitlines()[-1].startswith("inv: installing requirements.lock: failed three times")
    (checkout.folder / "offline").unlink()
    assert checkout.call()[0] == 3


def test_gigabytes_of_cuda_are_announced_and_avoidable(checkout: BootstrapFolder) -> None:
    (checkout.folder / "plan").write_text(" + nvidia-cublas==13\n + torch==4.5.6\n")
    assert ("PARITY_TORCH_INDEX" in checkout.call()[2]) is not Path("/dev/nvidia0").exists()
    shutil.rmtree(checkout.folder / ".venv")
    checkout.call(PARITY_TORCH_INDEX="file:///wheels")
    assert "--index file:///wheels torch==4.5.6" in checkout.log()[-2]


def test_uv_sees_the_wheels_that_pip_sees(checkout: BootstrapFolder) -> None:
    script(
        checkout.folder / "uv",
        UV.replace("echo", 'echo "links $UV_FIND_LINKS" >>"$ROOT/log"; echo', 1),
    )
    checkout.call(PIP_FIND_LINKS="/wheels /more")
    assert "links /wheels,/more" in checkout.log()
