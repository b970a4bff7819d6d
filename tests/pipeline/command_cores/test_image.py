"""The commands `image` and `image.lock`, with a script for docker that records its arguments.

`test_standin_image.py` runs them with a real engine.
"""

import json
import sys
from pathlib import Path

import pytest
from deploy.wheelhouse import wheelhouses

from parity.deploy.image import image_lock as images
from parity.deploy.wheelhouse import wheel_lock
from parity.pipeline.command_cores import image
from parity.run import environment, files
from parity.run.errors import BadConfig, BadData, Mismatch, StaleInput
from parity.run.experiment import Run, open_run

DOCKER = f"""#!{sys.executable}
import json, os, pathlib, sys
home, words = pathlib.Path(__file__).parent, sys.argv[1:]
if words[0] in ("version", "--version"):
    print("27.1")
elif words[0] == "build":
    args = dict(w.split("=", 1) for f, w in zip(words, words[1:]) if f == "--build-arg")
    base = args.pop("BASE_IMAGE")
    names = dict(IMAGE_LOCK="image-lock", WHEELS_LOCK="wheels-lock", CODE="code")
    labels = {{"kaggle-parity." + names[k]: v for k, v in args.items()}}
    labels["org.opencontainers.image.base.name"] = base
    sent = sorted(str(p.relative_to(words[-1])) for p in pathlib.Path(words[-1]).rglob("*.*"))
    tag = words[words.index("-t") + 1]
    (home / "built.json").write_text(json.dumps([tag, labels, sent]))
elif words[:2] == ["image", "inspect"]:
    if words[2].startswith(("localhost/base", "gcr.io")):
        print(json.dumps([{{"Id": "sha256:b", "Config": {{}}}}]))
    else:
        tag, labels, _ = json.loads((home / "built.json").read_text())
        labels |= json.loads(os.environ.get("LABELS", "{{}}"))
        print(json.dumps([{{"Id": "sha256:" + "cd" * 32, "Config": {{"Labels": labels}}}}]))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run in a new folder, with a copy of the project and a script for docker."""
    checkout = wheelhouses.copy_checkout(tmp_path / "checkout")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / "small.toml").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    wheelhouses.use_checkout(checkout, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return open_run(Path("small.toml"))


# Building


def test_the_image_is_built_recorded_and_reported(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image.build(run, "localhost/base:1")
    lines = capsys.readouterr().out.splitlines()
    record = files.read_json(Path("data/image.json"))
    assert lines[0] == "building with docker 27.1, without a network, on localhost/base:1"
    assert lines[1].startswith(f"{record['tag']}: image {'cd' * 6}, built in ")
    assert lines[1].endswith("s with docker 27.1")
    assert "is not the locked image" in lines[2]
    assert (record["engine"], record["id"]) == ("docker", "cd" * 32)
    _, labels, sent = json.loads((tmp_path / "bin" / "built.json").read_text())
    assert labels["kaggle-parity.image-lock"] == images.read(run.workspace.image_lock).digest()
    lock = wheel_lock.read(run.workspace.wheelhouse / "wheels.lock")
    assert labels["kaggle-parity.wheels-lock"] == lock.digest()
    assert labels["kaggle-parity.code"] == environment.code()
    assert [Path(name).name for name in sent] == [
        *("kernel.py", "kaggle_parity-0.1.0-py3-none-any.whl", "requirements.txt"),
        "toy-1.0-py3-none-any.whl",
    ]


def test_the_default_base_is_the_locked_image(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    image.build(run)
    output = capsys.readouterr().out
    assert f"on {images.read(run.workspace.image_lock).reference}" in output
    assert "is not the locked image" not in output


def test_a_base_that_is_not_pinned_is_refused(run: Run) -> None:
    for base in ("gcr.io/kaggle-gpu-images/python:latest", "localhost/base:latest"):
        with pytest.raises(BadConfig, match=":latest is refused"):
            image.build(run, base)


def test_a_label_that_differs_from_the_lock_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELS", '{"kaggle-parity.wheels-lock": "other"}')
    with pytest.raises(Mismatch, match=r"label kaggle-parity\.wheels-lock is not"):
        image.build(run, "localhost/base:1")
    assert not Path("data/image.json").exists()


def test_a_missing_wheel_is_refused_before_the_build(run: Run, tmp_path: Path) -> None:
    next(run.workspace.wheelhouse.glob("toy-*.whl")).unlink()
    with pytest.raises(StaleInput, match=r"toy-1\.0\S+ is missing or changed"):
        image.build(run, "localhost/base:1")
    assert not (tmp_path / "bin" / "built.json").exists()


@pytest.mark.parametrize("fault", ["missing", "of another image"])
def test_a_wheelhouse_of_another_image_is_refused_with_the_fix(run: Run, fault: str) -> None:
    (run.workspace.wheelhouse / "wheels.lock").unlink()
    if fault != "missing":
        wheelhouses.lock_toy(run.workspace.wheelhouse, "0" * 64)
    with pytest.raises(StaleInput, match=r"wheels\.lock is missing or was made") as error:
        image.build(run, "localhost/base:1")
    assert error.value.fix == ("wheels",)


def test_without_an_engine_the_error_names_a_package_to_install(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bin" / "docker").unlink()
    with pytest.raises(BadConfig, match="no working docker, podman or buildah"):
        image.build(run, "localhost/base:1")


# A measured freeze


def frozen(run: Run) -> str:
    return images.read_freeze(run.workspace.image_lock)


def test_a_measured_freeze_is_locked_and_the_difference_is_shown(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = images.read(run.workspace.image_lock)
    Path("real.txt").write_text(frozen(run).replace("numpy==2.0.2", "numpy==2.0.3"))
    image.lock_from_freeze(Path("real.txt"), git_commit="0a1b")
    after = images.read(run.workspace.image_lock)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["~ numpy 2.0.2 → 2.0.3", "0 added, 0 removed, 1 changed"]
    assert lines[2] == f"image.lock: digest {before.digest()[:12]} → {after.digest()[:12]}"
    assert after.facts["freeze_sha256"].origin == images.MEASURED
    assert after.value("git_commit") == "0a1b"
    assert "numpy==2.0.3" in frozen(run)
    image.lock_from_freeze(Path("real.txt"), git_commit="0a1b")
    assert images.read(run.workspace.image_lock) == after


def test_an_invalid_freeze_changes_nothing(run: Run) -> None:
    before = frozen(run)
    Path("wrong.txt").write_text("numpy==2.0.2\n")
    with pytest.raises(BadData):
        image.lock_from_freeze(Path("wrong.txt"))
    with pytest.raises(BadConfig, match="--freeze absent: no such file"):
        image.lock_from_freeze(Path("absent"))
    assert frozen(run) == before
