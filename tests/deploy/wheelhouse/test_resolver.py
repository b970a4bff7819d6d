"""Missing packages are resolved under the image's freeze, and no package of the image changes."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from deploy.wheelhouse.packages import Index

from parity.deploy.image import freeze
from parity.deploy.wheelhouse import download, resolver, wheel_lock
from parity.deploy.wheelhouse.wheel_lock import WheelLock, needed_by
from parity.run.errors import BadConfig, Mismatch, StaleInput

FROZEN = {"torch": "2.10.0+cu128", "numpy": "2.0.2", "glue": "1.0", "google-colab": "1.0"}


@pytest.fixture
def served(index: Index) -> Index:
    """Return an index with newer versions of the image's packages, like the real one."""
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
def test_only_packages_missing_from_the_image_are_locked(tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    lock = resolver.resolve(["bits"], FROZEN, WheelLock(), folder)
    assert [(wheel.pin, wheel.reason) for wheel in lock.wheels] == [("bits==0.50.2", ("wanted",))]
    assert lock.freeze == freeze.fingerprint(FROZEN)
    assert [path.name for path in folder.iterdir()] == ["bits-0.50.2-py3-none-any.whl"]
    assert wheel_lock.missing_wheels(lock.wheels, folder) == []


@pytest.mark.usefixtures("served")
def test_a_dependency_names_the_package_that_needs_it_even_through_the_image() -> None:
    pins = resolver.resolve_pins(["Search", "bits", "deep"], FROZEN)
    assert [(pin.name, pin.version, pin.reason) for pin in pins] == [
        ("bits", "0.50.2", ("wanted",)),
        ("deep", "3.0", ("wanted", needed_by("search"))),
        ("helper-lib", "1.2", (needed_by("search"),)),
        ("search", "1.15", ("wanted",)),
    ]


def test_a_locked_version_stays_and_is_not_downloaded_again(served: Index, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    old = resolver.resolve(["bits"], FROZEN, WheelLock(), folder)
    served.add("bits", "0.60", ["torch>=2.3"])
    shutil.rmtree(folder)
    new = resolver.resolve(["bits", "deep"], FROZEN, old, folder)
    assert [wheel.pin for wheel in new.wheels] == ["bits==0.50.2", "deep==3.0"]
    assert new.wheels[0] == old.wheels[0]
    assert [path.name for path in folder.iterdir()] == ["deep-3.0-py3-none-any.whl"]
    fresh = resolver.resolve(["bits"], FROZEN, WheelLock(), folder)
    assert [wheel.pin for wheel in fresh.wheels] == ["bits==0.60"]


@pytest.mark.usefixtures("served")
def test_a_lock_for_another_python_is_not_used(tmp_path: Path) -> None:
    old = resolver.resolve(["deep"], FROZEN, WheelLock(), tmp_path / "wheels")
    shutil.rmtree(tmp_path / "wheels")
    new = resolver.resolve(["deep"], FROZEN, replace(old, python="3.11"), tmp_path / "wheels")
    assert (new, len(list((tmp_path / "wheels").iterdir()))) == (old, 1)


def test_another_freeze_gives_another_lock(served: Index, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        served.add("new", version, [f"numpy{'<' if version == '1.0' else '>='}2.5"])
    folder = tmp_path / "wheels"
    old = resolver.resolve(["new"], FROZEN, WheelLock(), folder)
    new = resolver.resolve(["new"], {**FROZEN, "numpy": "2.5.5"}, old, folder)
    assert [wheel.pin for wheel in (*old.wheels, *new.wheels)] == ["new==1.0", "new==2.0"]
    assert old.freeze != new.freeze


@pytest.mark.usefixtures("served")
def test_a_package_of_the_image_is_refused() -> None:
    with pytest.raises(
        BadConfig, match=r"numpy in .* is in the image already \(2\.0\.2\)\. Remove"
    ):
        resolver.resolve_pins(["NumPy"], FROZEN)


@pytest.mark.parametrize("want", ["bits==0.50.2", "bits[extra]", "-r file", "", "a b", "../bits"])
def test_only_package_names_are_accepted(want: str) -> None:
    with pytest.raises(BadConfig, match="is not a package name"):
        resolver.resolve_pins([want], FROZEN)


def test_a_package_that_conflicts_with_the_image_is_refused(served: Index) -> None:
    served.add("greedy", "1.0", ["numpy>=2.5"])
    with pytest.raises(BadConfig, match=r"no compatible wheel for greedy in .*: .*numpy") as error:
        resolver.resolve_pins(["greedy"], FROZEN)
    assert "\n" not in str(error.value)


def test_a_package_that_would_overwrite_an_unpinned_one_is_refused(served: Index) -> None:
    served.add("google-colab", "2.0")
    served.add("greedy", "1.0", ["google-colab"])
    with pytest.raises(Mismatch, match=r"would install google-colab 2\.0 over the image's 1\.0"):
        resolver.resolve_pins(["greedy"], FROZEN)


def test_a_package_on_no_index_is_an_error_of_one_line(served: Index) -> None:
    assert served.folder.is_dir()
    with pytest.raises(BadConfig, match=r"no compatible wheel for nowhere in .*: .*nowhere"):
        resolver.resolve_pins(["nowhere"], FROZEN)


@pytest.mark.usefixtures("dead_index")
def test_an_index_that_does_not_respond_is_not_an_error_of_the_run_file() -> None:
    with pytest.raises(StaleInput, match=r"^the package index could not be used: ") as error:
        resolver.resolve_pins(["bits"], FROZEN)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("dead_index")
def test_without_packages_the_index_is_not_contacted(tmp_path: Path) -> None:
    assert resolver.resolve([], FROZEN, WheelLock(), tmp_path).wheels == ()


@pytest.mark.slow
def test_each_search_library_adds_one_wheel_from_the_real_index(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lock = wheel_lock.read(root / "offline_wheels" / "wheels.lock")
    frozen = freeze.parse_freeze((root / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8"))
    try:
        resolved = resolver.resolve(["bitsandbytes"], frozen, lock, tmp_path)
    except StaleInput as error:
        pytest.skip(f"no package index: {error}")
    assert resolved == lock
    for want in ("faiss-cpu", "faiss-gpu"):
        pins = resolver.resolve_pins(
            ["bitsandbytes", want], frozen, [wheel.pin for wheel in lock.wheels]
        )
        assert [(pin.name, pin.reason) for pin in pins] == [
            ("bitsandbytes", ("wanted",)),
            (want, ("wanted",)),
        ]
    assert download.fetch_locked(lock.wheels, tmp_path) == [wheel.file for wheel in lock.wheels]
    assert download.fetch_locked(lock.wheels, tmp_path) == []
