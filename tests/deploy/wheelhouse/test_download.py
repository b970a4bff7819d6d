"""Wheels are downloaded by sha256 and only for the image's glibc."""

import shutil
from pathlib import Path

import pytest
from deploy.wheelhouse import packages
from deploy.wheelhouse.packages import Index

from parity.deploy.wheelhouse import download
from parity.deploy.wheelhouse.wheel_lock import Wheel
from parity.run import digest
from parity.run.errors import Mismatch, StaleInput

CODE = "cp312-cp312-{}_x86_64"


def locked(file: Path) -> Wheel:
    name, version = file.name.split("-")[:2]
    size = file.stat().st_size
    return Wheel(name, version, file.name, digest.of_file(file), size, ("wanted",))


def test_only_missing_or_damaged_wheels_are_downloaded(index: Index, tmp_path: Path) -> None:
    paths = [index.add(name, "1.0") for name in ("one", "two", "three")]
    wheels = [locked(path) for path in paths]
    folder = tmp_path / "wheels"
    folder.mkdir()
    shutil.copy(paths[0], folder)
    (folder / paths[1].name).write_bytes(b"half of it")
    before = (folder / paths[0].name).stat().st_ino
    assert download.fetch_locked(wheels, folder) == [paths[1].name, paths[2].name]
    assert sorted(digest.of_tree(folder).values()) == sorted(wheel.sha256 for wheel in wheels)
    assert (folder / paths[0].name).stat().st_ino == before


@pytest.mark.usefixtures("dead_index")
def test_the_index_is_not_contacted_if_no_wheel_is_missing(tmp_path: Path) -> None:
    file = packages.wheel(tmp_path / "wheels", "one", "1.0")
    assert download.fetch_locked([locked(file)], file.parent) == []


@pytest.mark.usefixtures("dead_index")
def test_an_index_that_does_not_respond_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    wheel = locked(packages.wheel(tmp_path / "source", "one", "1.0"))
    with pytest.raises(StaleInput, match=r"^the package index has no wheel for one==1\.0: ERROR: "):
        download.fetch_locked([wheel], tmp_path / "wheels")
    assert not (tmp_path / "wheels").exists()


def test_other_bytes_under_the_same_name_are_refused(index: Index, tmp_path: Path) -> None:
    wheel = locked(index.add("one", "1.0"))
    index.add("one", "1.0", ["something"])
    with pytest.raises(
        Mismatch, match=r"^one==1\.0 has other bytes in the index than in .*wheels\.lock"
    ):
        download.fetch_locked([wheel], tmp_path / "wheels")
    assert not (tmp_path / "wheels").exists()


def test_the_same_bytes_under_another_name_are_refused(index: Index, tmp_path: Path) -> None:
    path = index.add("one", "1.0")
    wheel = locked(path)
    path.rename(path.with_name("one-1.0-py2.py3-none-any.whl"))
    index.list("one")
    with pytest.raises(Mismatch, match=r"returned one-1\.0-py2\.py3-none-any\.whl, not the locked"):
        download.fetch_locked([wheel], tmp_path / "wheels")


@pytest.mark.parametrize("tag", ["manylinux_2_24", "manylinux1"])
def test_a_wheel_for_an_older_glibc_is_downloaded(tag: str, index: Index, tmp_path: Path) -> None:
    path = index.add("one", "1.0", tag=CODE.format(tag))
    assert download.fetch_new("one", "1.0", ("wanted",), tmp_path / "wheels") == locked(path)
    assert digest.of_file(tmp_path / "wheels" / path.name) == digest.of_file(path)


def test_a_wheel_that_the_image_cannot_load_is_not_downloaded(index: Index, tmp_path: Path) -> None:
    for tag in ("manylinux_2_36_x86_64", "manylinux_2_28_aarch64", "win_amd64"):
        index.add("one", "1.0", tag=f"cp312-cp312-{tag}")
    index.add("one", "1.0", tag="cp311-cp311-manylinux2014_x86_64")
    with pytest.raises(
        StaleInput, match=r"no wheel for one==1\.0: ERROR: No matching distribution found"
    ):
        download.fetch_new("one", "1.0", ("wanted",), tmp_path / "wheels")


def test_a_source_package_is_never_downloaded(index: Index, tmp_path: Path) -> None:
    path = index.add("one", "1.0")
    path.rename(path.with_name("one-1.0.tar.gz"))
    index.list("one")
    with pytest.raises(StaleInput, match="No matching distribution found"):
        download.fetch_new("one", "1.0", ("wanted",), tmp_path / "wheels")


def test_a_folder_of_wheels_in_pips_settings_is_ignored(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = locked(packages.wheel(tmp_path / "links", "one", "1.0"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    assert index.folder.is_dir()
    with pytest.raises(StaleInput):
        download.fetch_locked([wheel], tmp_path / "wheels")


def test_the_platform_tags_go_from_the_images_glibc_to_the_oldest() -> None:
    tags = download.platform_tags()
    assert tags[0] == "manylinux_2_35_x86_64"
    assert {"manylinux_2_24_x86_64", "manylinux_2_5_x86_64", "manylinux2014_x86_64"} <= set(tags)
    assert len(tags) == len(set(tags)) == 34
