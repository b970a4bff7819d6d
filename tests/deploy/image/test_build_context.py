"""The folder an image is built in: what travels, by which hash, and under which name."""

from dataclasses import replace
from pathlib import Path

import pytest

from parity.deploy.image import build_context
from parity.deploy.image.build_context import ImageDigests
from parity.deploy.wheelhouse.wheel_lock import Lock, Wheel
from parity.run import digest
from parity.run.errors import StaleInput

ROOT = Path(__file__).parents[3]
LAYERS = ImageDigests("localhost/base:1", "a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout with what travels and much that must not."""
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
def own(tmp_path: Path) -> Path:
    path = tmp_path / "kaggle_parity-0.1.0-py3-none-any.whl"
    path.write_text("own")
    return path


@pytest.fixture
def lock(checkout: Path) -> Lock:
    path = checkout / "offline_wheels/toy-1.0-py3-none-any.whl"
    return Lock("f" * 64, (Wheel("toy", "1.0", path.name, digest.of_file(path), 3, ("wanted",)),))


def test_nothing_travels_but_what_the_dockerfile_uses(
    checkout: Path, own: Path, lock: Lock, tmp_path: Path
) -> None:
    folder = tmp_path / "context"
    build_context.assemble(folder, checkout, own, lock)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {
        *("Dockerfile", "kaggle/kernel.py", "offline_wheels/requirements.txt"),
        *("offline_wheels/toy-1.0-py3-none-any.whl", f"offline_wheels/{own.name}"),
    }


def test_pip_is_told_the_hash_of_every_wheel(
    checkout: Path, own: Path, lock: Lock, tmp_path: Path
) -> None:
    build_context.assemble(tmp_path / "context", checkout, own, lock)
    told = (tmp_path / "context/offline_wheels/requirements.txt").read_text().splitlines()
    assert told == [
        f"toy==1.0 --hash=sha256:{lock.wheels[0].sha256}",
        f"kaggle_parity==0.1.0 --hash=sha256:{digest.of_file(own)}",
    ]


@pytest.mark.parametrize("fault", ["gone", "changed"])
def test_a_locked_wheel_that_is_not_there_is_named_with_what_mends_it(
    checkout: Path, own: Path, lock: Lock, tmp_path: Path, fault: str
) -> None:
    path = checkout / "offline_wheels" / lock.wheels[0].file
    path.unlink() if fault == "gone" else path.write_text("another")
    with pytest.raises(StaleInput, match=r"toy-1\.0\S+ is missing or changed; run: invoke wheels"):
        build_context.assemble(tmp_path / "context", checkout, own, lock)
    assert not (tmp_path / "context").exists()


def test_each_layer_reaches_its_label_and_gives_the_image_another_name() -> None:
    assert LAYERS.labels == {
        "org.opencontainers.image.base.name": "localhost/base:1",
        "kaggle-parity.image-lock": "a" * 64,
        "kaggle-parity.wheels-lock": "b" * 64,
        "kaggle-parity.code": "c" * 64,
    }
    others = [replace(LAYERS, **{name: "other"}) for name in ImageDigests.__dataclass_fields__]
    assert len({LAYERS.tag, *(one.tag for one in others)}) == 5
    assert LAYERS.tag == replace(LAYERS).tag
