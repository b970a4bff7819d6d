"""The build context: which files it holds, the wheels' hashes, and the image's name."""

from dataclasses import replace
from pathlib import Path

import pytest

from parity.deploy.image import build_context
from parity.deploy.image.build_context import ImageDigests
from parity.deploy.wheelhouse.wheel_lock import Wheel, WheelLock
from parity.run import digest
from parity.run.errors import StaleInput

ROOT = Path(__file__).parents[3]
DIGESTS = ImageDigests("localhost/base:1", "a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout with the files that the Dockerfile uses and others that it must not see."""
    root = tmp_path / "checkout"
    for name in ("offline_wheels", "kaggle", "data", "runs", ".git"):
        (root / name).mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM x\n")
    (root / "kaggle/kernel.py").write_text("print()\n")
    for name in ("kaggle/other.py", "data/train.csv", "runs/a.toml", ".git/config", "token"):
        (root / name).write_text("must stay\n")
    (root / "offline_wheels/toy-1.0-py3-none-any.whl").write_text("toy")
    (root / "offline_wheels/old-0.9-py3-none-any.whl").write_text("of another run")
    return root


@pytest.fixture
def project_wheel(tmp_path: Path) -> Path:
    path = tmp_path / "kaggle_parity-0.1.0-py3-none-any.whl"
    path.write_text("own")
    return path


@pytest.fixture
def lock(checkout: Path) -> WheelLock:
    path = checkout / "offline_wheels/toy-1.0-py3-none-any.whl"
    wheel = Wheel("toy", "1.0", path.name, digest.of_file(path), 3, ("wanted",))
    return WheelLock("f" * 64, (wheel,))


def test_the_context_holds_only_what_the_dockerfile_uses(
    checkout: Path, project_wheel: Path, lock: WheelLock, tmp_path: Path
) -> None:
    folder = tmp_path / "context"
    build_context.assemble(folder, checkout, project_wheel, lock)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *("Dockerfile", "kaggle/kernel.py", "offline_wheels/requirements.txt"),
        *("offline_wheels/toy-1.0-py3-none-any.whl", f"offline_wheels/{project_wheel.name}"),
    }


def test_pip_gets_the_hash_of_every_wheel(
    checkout: Path, project_wheel: Path, lock: WheelLock, tmp_path: Path
) -> None:
    build_context.assemble(tmp_path / "context", checkout, project_wheel, lock)
    lines = (tmp_path / "context/offline_wheels/requirements.txt").read_text().splitlines()
    assert lines == [
        f"toy==1.0 --hash=sha256:{lock.wheels[0].sha256}",
        f"kaggle_parity==0.1.0 --hash=sha256:{digest.of_file(project_wheel)}",
    ]


@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_a_locked_wheel_that_is_missing_or_changed_is_refused_with_the_fix(
    checkout: Path, project_wheel: Path, lock: WheelLock, tmp_path: Path, fault: str
) -> None:
    path = checkout / "offline_wheels" / lock.wheels[0].file
    path.unlink() if fault == "missing" else path.write_text("another")
    with pytest.raises(StaleInput, match=r"toy-1\.0\S+ is missing or changed$") as error:
        build_context.assemble(tmp_path / "context", checkout, project_wheel, lock)
    assert error.value.fix == ("wheels",)
    assert not (tmp_path / "context").exists()


def test_each_input_has_a_label_and_changes_the_tag() -> None:
    assert DIGESTS.labels == {
        "org.opencontainers.image.base.name": "localhost/base:1",
        "kaggle-parity.image-lock": "a" * 64,
        "kaggle-parity.wheels-lock": "b" * 64,
        "kaggle-parity.code": "c" * 64,
    }
    fields = ImageDigests.__dataclass_fields__
    changed = [replace(DIGESTS, **{name: "other"}) for name in fields]
    assert len({DIGESTS.tag, *(digests.tag for digests in changed)}) == 5
    assert DIGESTS.tag == replace(DIGESTS).tag
