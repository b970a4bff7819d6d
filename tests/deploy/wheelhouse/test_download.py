"""Wheels come from the index by their sha256, for the image's glibc, or not at all."""

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


def test_what_is_missing_or_damaged_is_fetched_and_the_rest_left_alone(
    index: Index, tmp_path: Path
) -> None:
    made = [index.add(name, "1.0") for name in ("one", "two", "three")]
    wheels = [locked(file) for file in made]
    folder = tmp_path / "wheels"
    folder.mkdir()
    shutil.copy(made[0], folder)
    (folder / made[1].name).write_bytes(b"half of it")
    before = (folder / made[0].name).stat().st_ino
    assert download.fetch(wheels, folder) == [made[1].name, made[2].name]
    assert sorted(digest.of_tree(folder).values()) == sorted(wheel.sha256 for wheel in wheels)
    assert (folder / made[0].name).stat().st_ino == before


@pytest.mark.usefixtures("dead")
def test_nothing_is_asked_when_all_are_there(tmp_path: Path) -> None:
    file = packages.wheel(tmp_path / "wheels", "one", "1.0")
    assert download.fetch([locked(file)], file.parent) == []


@pytest.mark.usefixtures("dead")
def test_an_index_that_does_not_answer_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = locked(packages.wheel(tmp_path / "made", "one", "1.0"))
    with pytest.raises(StaleInput, match=r"^one==1\.0: the package index gave no wheel: ERROR: "):
        download.fetch([wheel], tmp_path / "wheels")
    assert not (tmp_path / "wheels").exists()


def test_other_bytes_under_the_same_name_are_refused(index: Index, tmp_path: Path) -> None:
    wheel = locked(index.add("one", "1.0"))
    index.add("one", "1.0", ["something"])
    with pytest.raises(Mismatch, match=r"^one==1\.0: the index has other bytes than .*lock names"):
        download.fetch([wheel], tmp_path / "wheels")
    assert not (tmp_path / "wheels").exists()


def test_the_same_bytes_under_another_name_are_refused(index: Index, tmp_path: Path) -> None:
    made = index.add("one", "1.0")
    wheel = locked(made)
    made.rename(made.with_name("one-1.0-py2.py3-none-any.whl"))
    index.list("one")
    with pytest.raises(Mismatch, match=r"gives one-1\.0-py2\.py3-none-any\.whl, not the locked"):
        download.fetch([wheel], tmp_path / "wheels")


@pytest.mark.parametrize("tag", ["manylinux_2_24", "manylinux1"])
def test_a_wheel_for_an_older_glibc_is_taken(tag: str, index: Index, tmp_path: Path) -> None:
    made = index.add("one", "1.0", tag=CODE.format(tag))
    assert download.first("one", "1.0", ("wanted",), tmp_path / "wheels") == locked(made)
    assert digest.of_file(tmp_path / "wheels" / made.name) == digest.of_file(made)


def test_what_the_image_could_not_load_is_not_there(index: Index, tmp_path: Path) -> None:
    for tag in ("manylinux_2_36_x86_64", "manylinux_2_28_aarch64", "win_amd64"):
        index.add("one", "1.0", tag=f"cp312-cp312-{tag}")
    index.add("one", "1.0", tag="cp311-cp311-manylinux2014_x86_64")
    with pytest.raises(StaleInput, match="gave no wheel: ERROR: No matching distribution found"):
        download.first("one", "1.0", ("wanted",), tmp_path / "wheels")


def test_a_source_package_is_never_taken(index: Index, tmp_path: Path) -> None:
    made = index.add("one", "1.0")
    made.rename(made.with_name("one-1.0.tar.gz"))
    index.list("one")
    with pytest.raises(StaleInput, match="No matching distribution found"):
        download.first("one", "1.0", ("wanted",), tmp_path / "wheels")


def test_a_folder_of_wheels_that_this_machine_knows_is_not_looked_into(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = locked(packages.wheel(tmp_path / "known", "one", "1.0"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "known"))
    assert index.folder.is_dir()
    with pytest.raises(StaleInput):
        download.fetch([wheel], tmp_path / "wheels")


def test_the_tags_go_from_the_images_glibc_down_to_the_oldest_and_no_further() -> None:
    tags = download.platforms()
    assert tags[0] == "manylinux_2_35_x86_64"
    assert {"manylinux_2_24_x86_64", "manylinux_2_5_x86_64", "manylinux2014_x86_64"} <= set(tags)
    assert len(tags) == len(set(tags)) == 34
