"""The proof: pip, over the image's names and versions alone, chooses what is locked."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deploy.wheelhouse import packages

from parity.deploy.image import freeze
from parity.deploy.wheelhouse import interpreters, verification, wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Wheel
from parity.run import digest
from parity.run.errors import BadConfig, Mismatch

FROZEN = {"torch": "2.10.0+cu128", "numpy": "2.0.2", "learntools": ""}


@pytest.fixture(scope="module")
def python() -> Path:
    """Return a Python like the image's."""
    try:
        return interpreters.find("3.12")
    except BadConfig as error:
        pytest.skip(str(error))


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a wheelhouse of what the image above lacks."""
    folder = tmp_path / "wheels"
    tag = "cp310-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    packages.wheel(folder, "bits", "0.50.2", ["torch>=2.3", "numpy>=1.17"])
    packages.wheel(folder, "search", "1.15", ["helper-lib>=1", "numpy"], tag=tag)
    packages.wheel(folder, "helper-lib", "1.2")
    return folder


def locked(folder: Path) -> list[Wheel]:
    """Return every wheel that lies there, as a lock has it."""
    found = []
    for file in sorted(folder.glob("*.whl")):
        name, version = file.name.split("-")[:2]
        facts = digest.of_file(file), file.stat().st_size, ("wanted",)
        found.append(Wheel(freeze.normal(name), version, file.name, *facts))
    return found


@pytest.mark.usefixtures("python")
def test_what_is_locked_is_what_pip_would_install(house: Path) -> None:
    found = verification.verify(locked(house), house, FROZEN)
    assert found.proven
    assert found.told.startswith("proven: into the image, 3 packages, pip would install what is ")
    assert "3 of 3 wheels, and nothing else" in found.told


def test_a_run_that_names_nothing_has_nothing_to_prove(tmp_path: Path) -> None:
    assert (
        verification.verify([], tmp_path, FROZEN).told
        == "nothing to prove: the run names no wheels"
    )


@pytest.mark.usefixtures("python")
def test_a_locked_wheel_that_does_not_lie_there_is_refused(house: Path) -> None:
    wheels = locked(house)
    (house / wheels[0].file).unlink()
    with pytest.raises(Mismatch, match=r"bits-.*-any\.whl is missing or no wheel; run:"):
        verification.verify(wheels, house, FROZEN)


@pytest.mark.usefixtures("python")
def test_what_a_wheel_needs_and_is_nowhere_is_refused_whatever_pip_is_told_of(
    house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (house / "helper_lib-1.2-py3-none-any.whl").rename(
        elsewhere / "helper_lib-1.2-py3-none-any.whl"
    )
    (tmp_path / "pip").mkdir()
    for settings in (tmp_path / "pip.conf", tmp_path / "pip" / "pip.conf"):
        settings.write_text(f"[global]\nfind-links = {elsewhere}\nno-index = false\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(elsewhere))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        Mismatch, match=r"not what the image lacks: ERROR: No matching .* helper-lib"
    ):
        verification.verify(locked(house), house, FROZEN)


@pytest.mark.usefixtures("python")
def test_what_comes_along_unlocked_is_refused(house: Path) -> None:
    wheels = [wheel for wheel in locked(house) if wheel.name != "helper-lib"]
    told = (
        "of helper-lib the lock has nothing, pip would install 1.2 helper_lib-1.2-py3-none-any.whl"
    )
    with pytest.raises(Mismatch, match=told):
        verification.verify(wheels, house, FROZEN)


@pytest.mark.usefixtures("python")
def test_another_file_of_the_same_version_is_refused(house: Path) -> None:
    wheels = locked(house)
    packages.wheel(house, "bits", "0.50.2", tag="cp312-cp312-manylinux_2_17_x86_64")
    with pytest.raises(
        Mismatch, match=r"of bits the lock has 0\.50\.2 bits-.*-any\.whl, pip would"
    ):
        verification.verify(wheels, house, FROZEN)


def test_what_would_move_a_package_of_the_image_is_refused(python: Path, tmp_path: Path) -> None:
    frozen = freeze.parse("peft==0.19.1\nnumpy==2.0.2\n")
    for version in ("0.50.2", "0.60"):
        packages.wheel(tmp_path, "bits", version, ["peft>=0.19"])
    packages.wheel(tmp_path, "bits", "0.70", ["peft>=0.19.2"])
    found = verification.would_install(["bits<0.60"], tmp_path, frozen, python=python)
    assert found == {"bits": ("0.50.2", "bits-0.50.2-py3-none-any.whl")}
    for asked in ("peft>=0.19.2", "bits==0.70"):
        with pytest.raises(Mismatch, match=r"No matching distribution found for peft>=0\.19\.2"):
            verification.would_install([asked], tmp_path, frozen, python=python)


def test_the_whole_freeze_stands_for_the_image(python: Path, tmp_path: Path, root: Path) -> None:
    frozen = freeze.parse((root / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8"))
    asked = ["torch==2.10.0", "peft>=0.19.1", "numpy"]
    assert verification.would_install(asked, tmp_path, frozen, python=python) == {}
    with pytest.raises(Mismatch, match="No matching distribution found for bitsandbytes"):
        verification.would_install(["bitsandbytes"], tmp_path, frozen, python=python)


def test_without_a_python_like_the_images_nothing_is_called_proven(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(minor: str) -> Path:
        raise BadConfig(f"no Python {minor} here")

    monkeypatch.setattr(interpreters, "find", none)
    monkeypatch.delenv("PARITY_PYTHON312", raising=False)
    found = verification.verify(locked(house), house, FROZEN)
    assert (found.proven, found.told) == (False, "not proven: no Python 3.12 here")


def test_a_python_that_was_named_and_is_none_is_an_error(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_PYTHON312", str(house / "python"))
    with pytest.raises(BadConfig, match=r"is no Python 3\.12 that runs"):
        verification.verify(locked(house), house, FROZEN)


def test_stubs_are_what_pip_takes_for_installed_packages(python: Path, tmp_path: Path) -> None:
    verification.write_stubs(FROZEN, tmp_path)
    code = (
        "import importlib.metadata as m, sys\n"
        "for d in sorted(m.distributions(path=[sys.argv[1]]), key=lambda d: d.name):\n"
        "    print(d.name, d.version, d.read_text('INSTALLER').strip())\n"
    )
    words = [str(python), "-I", "-c", code, str(tmp_path)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [
        "learntools 0 stub",
        "numpy 2.0.2 stub",
        "torch 2.10.0+cu128 stub",
    ]


def test_where_our_pip_does_not_run_there_the_other_pythons_own_does(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = verification.pip(python, python, str(tmp_path))
    assert ours[0] == sys.executable
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert verification.pip(python, python, str(tmp_path)) == [str(python), *ours[1:]]
    nothing = Path(sys.executable)
    with pytest.raises(BadConfig, match=r"no pip here runs under Python 3\.12"):
        verification.pip(nothing, nothing, str(tmp_path))


@pytest.mark.slow
def test_the_kept_lock_is_proven_where_its_wheels_lie(root: Path) -> None:
    folder = root / "offline_wheels"
    lock = wheel_lock.read(folder / "wheels.lock")
    if gone := wheel_lock.missing(lock.wheels, folder):
        pytest.skip(f"{gone[0].file} was not fetched; run: invoke wheels")
    frozen = freeze.parse((root / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8"))
    assert verification.verify(lock.wheels, folder, frozen).proven
