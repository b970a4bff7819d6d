"""A wheel that would hide something, or not load, is refused by name."""

import zipfile
from pathlib import Path

import pytest
from deploy.wheelhouse import packages

from parity.deploy.wheelhouse import conflicts
from parity.deploy.wheelhouse.wheel_lock import Wheel
from parity.run.errors import Mismatch

FROZEN = {"torch": "2.10.0", "numpy": "2.0.2", "opencv-python": "4.9"}


def locked(file: Path) -> Wheel:
    name, version = file.name.split("-")[:2]
    return Wheel(name.replace("_", "-"), version, file.name, "", 0, ("wanted",))


def refused(*made: Path, frozen: dict[str, str] | None = None) -> str:
    with pytest.raises(Mismatch) as caught:
        conflicts.refuse([locked(file) for file in made], made[0].parent, frozen or FROZEN)
    return str(caught.value)


def test_wheels_that_hide_nothing_pass(tmp_path: Path) -> None:
    made = [packages.wheel(tmp_path, name, "1.0") for name in ("bitsandbytes", "faiss-cpu")]
    conflicts.refuse([locked(file) for file in made], tmp_path, FROZEN)


def test_a_package_that_the_image_has_is_refused(tmp_path: Path) -> None:
    made = packages.wheel(tmp_path, "torch", "2.13.0")
    told = "torch-2.13.0-py3-none-any.whl would shadow the image's torch; leave it out"
    assert refused(made) == told


def test_an_import_name_that_the_image_has_is_refused(tmp_path: Path) -> None:
    made = packages.wheel(tmp_path, "fast-numpy", "1.0", module="numpy")
    told = "fast-numpy and the image's numpy both hold `import numpy`; keep one"
    assert refused(made) == told


def test_two_packages_of_one_import_name_are_refused(tmp_path: Path) -> None:
    cpu = packages.wheel(tmp_path, "faiss-cpu", "1.15", module="faiss")
    gpu = packages.wheel(tmp_path, "faiss-gpu", "1.15", module="faiss")
    assert refused(cpu, gpu) == "faiss-cpu and faiss-gpu both hold `import faiss`; keep one"
    told = "faiss-gpu and the image's faiss-cpu both hold `import faiss`; keep one"
    assert refused(gpu, frozen={"faiss-cpu": "1.15"}) == told


@pytest.mark.parametrize("tag", ["manylinux_2_36_x86_64", "linux_x86_64", "manylinux_2_28_aarch64"])
def test_a_wheel_that_the_image_could_not_load_is_refused(tag: str, tmp_path: Path) -> None:
    made = packages.wheel(tmp_path, "bits", "1.0", tag=f"cp312-cp312-{tag}")
    assert "is not for the image, which is manylinux_2_35_x86_64" in refused(made)


def test_a_wheel_with_several_tags_passes_by_any(tmp_path: Path) -> None:
    tag = "cp310-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    made = packages.wheel(tmp_path, "bits", "1.0", tag=tag)
    conflicts.refuse([locked(made)], tmp_path, FROZEN)


def test_modules_are_what_can_be_imported_and_no_shared_folder(tmp_path: Path) -> None:
    path = tmp_path / "odd-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (
            *("one.py", "two.cpython-312-x86_64-linux-gnu.so", "three/__init__.py"),
            *("shared/part/__init__.py", "odd-1.0.dist-info/METADATA", "docs/readme.txt"),
            *("odd-1.0.data/purelib/four/__init__.py", "odd-1.0.data/scripts/tool.py"),
        ):
            archive.writestr(name, "")
    assert conflicts.modules(path) == {"one", "two", "three", "four"}


def test_a_file_that_is_missing_or_no_wheel_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "bad-1.0.whl").write_bytes(b"not a zip")
    for name in ("bad-1.0.whl", "gone-1.0.whl"):
        with pytest.raises(Mismatch, match=f"^{name} is missing or no wheel; run: invoke wheels$"):
            conflicts.modules(tmp_path / name)
