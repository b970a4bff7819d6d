"""A wheel that would shadow a package, or that the image cannot load, is refused."""

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


def error_message(*paths: Path, frozen: dict[str, str] | None = None) -> str:
    with pytest.raises(Mismatch) as error:
        conflicts.check_conflicts(
            [locked(path) for path in paths], paths[0].parent, frozen or FROZEN
        )
    return str(error.value)


def test_wheels_without_a_conflict_pass(tmp_path: Path) -> None:
    paths = [packages.wheel(tmp_path, name, "1.0") for name in ("bitsandbytes", "faiss-cpu")]
    conflicts.check_conflicts([locked(path) for path in paths], tmp_path, FROZEN)


def test_a_package_that_the_image_has_is_refused(tmp_path: Path) -> None:
    path = packages.wheel(tmp_path, "torch", "2.13.0")
    expected = (
        "torch-2.13.0-py3-none-any.whl would shadow the image's torch. Remove it from the run file"
    )
    assert error_message(path) == expected


def test_an_import_name_that_the_image_has_is_refused(tmp_path: Path) -> None:
    path = packages.wheel(tmp_path, "fast-numpy", "1.0", module="numpy")
    expected = "fast-numpy and the image's numpy both provide `import numpy`. Keep only one"
    assert error_message(path) == expected


def test_two_packages_of_one_import_name_are_refused(tmp_path: Path) -> None:
    cpu = packages.wheel(tmp_path, "faiss-cpu", "1.15", module="faiss")
    gpu = packages.wheel(tmp_path, "faiss-gpu", "1.15", module="faiss")
    assert (
        error_message(cpu, gpu)
        == "faiss-cpu and faiss-gpu both provide `import faiss`. Keep only one"
    )
    expected = "faiss-gpu and the image's faiss-cpu both provide `import faiss`. Keep only one"
    assert error_message(gpu, frozen={"faiss-cpu": "1.15"}) == expected


@pytest.mark.parametrize("tag", ["manylinux_2_36_x86_64", "linux_x86_64", "manylinux_2_28_aarch64"])
def test_a_wheel_that_the_image_could_not_load_is_refused(tag: str, tmp_path: Path) -> None:
    path = packages.wheel(tmp_path, "bits", "1.0", tag=f"cp312-cp312-{tag}")
    assert (
        "does not run in the image, whose newest platform is manylinux_2_35_x86_64"
        in error_message(path)
    )


def test_a_wheel_passes_if_any_of_its_tags_fits(tmp_path: Path) -> None:
    tag = "cp310-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    path = packages.wheel(tmp_path, "bits", "1.0", tag=tag)
    conflicts.check_conflicts([locked(path)], tmp_path, FROZEN)


def test_importable_modules_leave_out_folders_that_packages_share(tmp_path: Path) -> None:
    path = tmp_path / "odd-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (
            *("one.py", "two.cpython-312-x86_64-linux-gnu.so", "three/__init__.py"),
            *("shared/part/__init__.py", "odd-1.0.dist-info/METADATA", "docs/readme.txt"),
            *("odd-1.0.data/purelib/four/__init__.py", "odd-1.0.data/scripts/tool.py"),
        ):
            archive.writestr(name, "")
    assert conflicts.importable_modules(path) == {"one", "two", "three", "four"}


def test_a_missing_or_invalid_wheel_is_refused_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "bad-1.0.whl").write_bytes(b"not a zip")
    for name in ("bad-1.0.whl", "gone-1.0.whl"):
        with pytest.raises(Mismatch, match=f"^{name} is missing or not a wheel$") as error:
            conflicts.importable_modules(tmp_path / name)
        assert error.value.fix == ("wheels",)
