"""What is lacking is found under the image's freeze, and the image keeps all it has."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from deploy.wheelhouse.packages import Index

from parity.deploy.image import freeze
from parity.deploy.wheelhouse import download, resolver, wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Lock, needed_by
from parity.run.errors import BadConfig, Mismatch, StaleInput

FROZEN = {"torch": "2.10.0+cu128", "numpy": "2.0.2", "glue": "1.0", "google-colab": "1.0"}


@pytest.fixture
def served(index: Index) -> Index:
    """Return an index that has newer versions of the image's packages, as the real one has."""
    for version in ("2.10.0", "2.13.0"):
        index.add("torch", version, ["numpy"])
    for version in ("2.0.2", "2.5.5"):
        index.add("numpy", version)
    index.add("glue", "1.0", ["deep"])
    index.add("deep", "3.0")
    index.add("bits", "0.50.2", ["torch>=2.3", "numpy>=1.17"])
    index.add("search", "1.15", ["numpy", "Helper_Lib>=1", "glue"])
    index.add("helper-lib", "1.2", ["numpy>=2"])
    return index


@pytest.mark.usefixtures("served")
def test_only_what_the_image_lacks_is_locked(tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    lock = resolver.resolve(["bits"], FROZEN, Lock(), folder)
    assert [(wheel.pin, wheel.reason) for wheel in lock.wheels] == [("bits==0.50.2", ("wanted",))]
    assert lock.freeze == freeze.fingerprint(FROZEN)
    assert [path.name for path in folder.iterdir()] == ["bits-0.50.2-py3-none-any.whl"]
    assert wheel_lock.missing(lock.wheels, folder) == []


@pytest.mark.usefixtures("served")
def test_what_comes_along_says_for_whom_also_through_a_package_of_the_image() -> None:
    found = resolver.pins(["Search", "bits", "deep"], FROZEN)
    assert [(pin.name, pin.version, pin.reason) for pin in found] == [
        ("bits", "0.50.2", ("wanted",)),
        ("deep", "3.0", ("wanted", needed_by("search"))),
        ("helper-lib", "1.2", (needed_by("search"),)),
        ("search", "1.15", ("wanted",)),
    ]


def test_a_locked_version_stays_and_is_not_fetched_again(served: Index, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    old = resolver.resolve(["bits"], FROZEN, Lock(), folder)
    served.add("bits", "0.60", ["torch>=2.3"])
    shutil.rmtree(folder)
    new = resolver.resolve(["bits", "deep"], FROZEN, old, folder)
    assert [wheel.pin for wheel in new.wheels] == ["bits==0.50.2", "deep==3.0"]
    assert new.wheels[0] == old.wheels[0]
    assert [path.name for path in folder.iterdir()] == ["deep-3.0-py3-none-any.whl"]
    fresh = resolver.resolve(["bits"], FROZEN, Lock(), folder)
    assert [wheel.pin for wheel in fresh.wheels] == ["bits==0.60"]


@pytest.mark.usefixtures("served")
def test_a_lock_for_another_python_is_of_no_use(tmp_path: Path) -> None:
    old = resolver.resolve(["deep"], FROZEN, Lock(), tmp_path / "wheels")
    shutil.rmtree(tmp_path / "wheels")
    new = resolver.resolve(["deep"], FROZEN, replace(old, python="3.11"), tmp_path / "wheels")
    assert (new, len(list((tmp_path / "wheels").iterdir()))) == (old, 1)


def test_another_freeze_gives_another_lock(served: Index, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        served.add("new", version, [f"numpy{'<' if version == '1.0' else '>='}2.5"])
    folder = tmp_path / "wheels"
    old = resolver.resolve(["new"], FROZEN, Lock(), folder)
    new = resolver.resolve(["new"], {**FROZEN, "numpy": "2.5.5"}, old, folder)
    assert [one.pin for one in (*old.wheels, *new.wheels)] == ["new==1.0", "new==2.0"]
    assert old.freeze != new.freeze


@pytest.mark.usefixtures("served")
def test_what_the_image_has_cannot_be_wanted() -> None:
    with pytest.raises(BadConfig, match=r"numpy is in the image \(2\.0\.2\); take it out"):
        resolver.pins(["NumPy"], FROZEN)


@pytest.mark.parametrize("want", ["bits==0.50.2", "bits[extra]", "-r file", "", "a b", "../bits"])
def test_a_want_is_a_name_and_nothing_else(want: str) -> None:
    with pytest.raises(BadConfig, match="is no package's name; the lock holds versions"):
        resolver.pins([want], FROZEN)


def test_what_excludes_a_version_of_the_image_cannot_be_had(served: Index) -> None:
    served.add("greedy", "1.0", ["numpy>=2.5"])
    with pytest.raises(BadConfig, match=r"greedy: not to be had for the image: .*numpy") as caught:
        resolver.pins(["greedy"], FROZEN)
    assert "\n" not in str(caught.value)


def test_what_would_overwrite_a_package_that_no_index_has_is_refused(served: Index) -> None:
    served.add("google-colab", "2.0")
    served.add("greedy", "1.0", ["google-colab"])
    with pytest.raises(Mismatch, match=r"would put google-colab 2\.0 over the image's 1\.0"):
        resolver.pins(["greedy"], FROZEN)


def test_what_is_on_no_index_is_one_line(served: Index) -> None:
    assert served.folder.is_dir()
    with pytest.raises(BadConfig, match=r"nowhere: not to be had for the image: .*nowhere"):
        resolver.pins(["nowhere"], FROZEN)


@pytest.mark.usefixtures("dead")
def test_an_index_that_does_not_answer_is_not_the_run_files_fault() -> None:
    with pytest.raises(StaleInput, match=r"^the package index gave no answer: ") as caught:
        resolver.pins(["bits"], FROZEN)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("dead")
def test_nothing_wanted_is_nothing_asked(tmp_path: Path) -> None:
    assert resolver.resolve([], FROZEN, Lock(), tmp_path).wheels == ()


@pytest.mark.slow
def test_of_the_real_index_each_search_library_is_one_more_wheel(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = wheel_lock.read(root / "offline_wheels" / "wheels.lock")
    frozen = freeze.parse((root / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8"))
    try:
        found = resolver.resolve(["bitsandbytes"], frozen, kept, tmp_path)
    except StaleInput as error:
        pytest.skip(f"no package index here: {error}")
    assert found == kept
    for want in ("faiss-cpu", "faiss-gpu"):
        more = resolver.pins(["bitsandbytes", want], frozen, [wheel.pin for wheel in kept.wheels])
        assert [(pin.name, pin.reason) for pin in more] == [
            ("bitsandbytes", ("wanted",)),
            (want, ("wanted",)),
        ]
    assert download.fetch(kept.wheels, tmp_path) == [wheel.file for wheel in kept.wheels]
    assert download.fetch(kept.wheels, tmp_path) == []
