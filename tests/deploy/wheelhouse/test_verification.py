"""The verification: with only the image's names and versions, pip chooses the locked wheels."""

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
    """Return a wheelhouse of packages missing from `FROZEN`."""
    folder = tmp_path / "wheels"
    tag = "cp310-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64"
    packages.wheel(folder, "bits", "0.50.2", ["torch>=2.3", "numpy>=1.17"])
    packages.wheel(folder, "search", "1.15", ["helper-lib>=1", "numpy"], tag=tag)
    packages.wheel(folder, "helper-lib", "1.2")
    return folder


def locked(folder: Path) -> list[Wheel]:
    """Return the lock entry of every wheel in a folder."""
    wheels = []
    for file in sorted(folder.glob("*.whl")):
        name, version = file.name.split("-")[:2]
        facts = digest.of_file(file), file.stat().st_size, ("wanted",)
        wheels.append(Wheel(freeze.normalize_name(name), version, file.name, *facts))
    return wheels


@pytest.mark.usefixtures("python")
def test_a_complete_wheelhouse_is_verified(house: Path) -> None:
    result = verification.verify(locked(house), house, FROZEN)
    assert result.is_verified
    assert result.message.startswith("verified: into the image's 3 packages, pip would install ")
    assert "exactly the locked wheels, 3 of 3 " in result.message


def test_a_run_without_wheels_has_nothing_to_verify(tmp_path: Path) -> None:
    assert (
        verification.verify([], tmp_path, FROZEN).message
        == "nothing to verify: the run names no wheels"
    )


@pytest.mark.usefixtures("python")
def test_a_locked_wheel_that_is_missing_is_refused(house: Path) -> None:
    wheels = locked(house)
    (house / wheels[0].file).unlink()
    with pytest.raises(Mismatch, match=r"bits-.*-any\.whl is missing or not a wheel$"):
        verification.verify(wheels, house, FROZEN)


@pytest.mark.usefixtures("python")
def test_a_missing_dependency_is_refused_even_if_pips_settings_have_it(
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
        Mismatch, match=r"the wheelhouse is incomplete: ERROR: No matching .* helper-lib"
    ):
        verification.verify(locked(house), house, FROZEN)


@pytest.mark.usefixtures("python")
def test_a_dependency_that_is_not_locked_is_refused(house: Path) -> None:
    wheels = [wheel for wheel in locked(house) if wheel.name != "helper-lib"]
    message = (
        "for helper-lib the lock has nothing, pip would install 1.2 helper_lib-1.2-py3-none-any.whl"
    )
    with pytest.raises(Mismatch, match=message):
        verification.verify(wheels, house, FROZEN)


@pytest.mark.usefixtures("python")
def test_another_file_of_the_same_version_is_refused(house: Path) -> None:
    wheels = locked(house)
    packages.wheel(house, "bits", "0.50.2", tag="cp312-cp312-manylinux_2_17_x86_64")
    with pytest.raises(
        Mismatch, match=r"for bits the lock has 0\.50\.2 bits-.*-any\.whl, pip would"
    ):
        verification.verify(wheels, house, FROZEN)


def test_a_wheel_that_needs_another_version_of_the_image_is_refused(
    python: Path, tmp_path: Path
) -> None:
    frozen = freeze.parse_freeze("peft==0.19.1\nnumpy==2.0.2\n")
    for version in ("0.50.2", "0.60"):
        packages.wheel(tmp_path, "bits", version, ["peft>=0.19"])
    packages.wheel(tmp_path, "bits", "0.70", ["peft>=0.19.2"])
    planned = verification.dry_run_install(["bits<0.60"], tmp_path, frozen, python=python)
    assert planned == {"bits": ("0.50.2", "bits-0.50.2-py3-none-any.whl")}
    for requirement in ("peft>=0.19.2", "bits==0.70"):
        with pytest.raises(Mismatch, match=r"No matching distribution found for peft>=0\.19\.2"):
            verification.dry_run_install([requirement], tmp_path, frozen, python=python)


def test_the_freeze_in_git_can_stand_for_the_image(
    python: Path, tmp_path: Path, root: Path
) -> None:
    frozen = freeze.parse_freeze((root / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8"))
    requirements = ["torch==2.10.0", "peft>=0.19.1", "numpy"]
    assert verification.dry_run_install(requirements, tmp_path, frozen, python=python) == {}
    with pytest.raises(Mismatch, match="No matching distribution found for bitsandbytes"):
        verification.dry_run_install(["bitsandbytes"], tmp_path, frozen, python=python)


def test_without_a_python_like_the_images_nothing_is_verified(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(minor: str) -> Path:
        raise BadConfig(f"no Python {minor}")

    monkeypatch.setattr(interpreters, "find", fail)
    monkeypatch.delenv("PARITY_PYTHON312", raising=False)
    result = verification.verify(locked(house), house, FROZEN)
    assert (result.is_verified, result.message) == (False, "not verified: no Python 3.12")


def test_a_variable_that_does_not_name_a_python_is_an_error(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_PYTHON312", str(house / "python"))
    with pytest.raises(BadConfig, match=r"is not a working Python 3\.12"):
        verification.verify(locked(house), house, FROZEN)


def test_stubs_look_like_installed_packages(python: Path, tmp_path: Path) -> None:
    verification.write_stubs(FROZEN, tmp_path)
    code = (
        "import importlib.metadata as m, sys\n"
        "for d in sorted(m.distributions(path=[sys.argv[1]]), key=lambda d: d.name):\n"
        "    print(d.name, d.version, d.read_text('INSTALLER').strip())\n"
    )
    words = [str(python), "-I", "-c", code, str(tmp_path)]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == [
        "learntools 0 stub",
        "numpy 2.0.2 stub",
        "torch 2.10.0+cu128 stub",
    ]


def test_the_other_pythons_pip_is_used_if_ours_does_not_support_it(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = verification.pip_command(python, python, str(tmp_path))
    assert command[0] == sys.executable
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert verification.pip_command(python, python, str(tmp_path)) == [str(python), *command[1:]]
    program = Path(sys.executable)
    with pytest.raises(BadConfig, match=r"no pip on this machine supports Python 3\.12"):
        verification.pip_command(program, program, str(tmp_path))


@pytest.mark.slow
def test_the_lock_in_git_is_verified_if_its_wheels_are_downloaded(root: Path) -> None:
    folder = root / "offline_wheels"
    lock = wheel_lock.read(folder / "wheels.lock")
    if missing := wheel_lock.missing_wheels(lock.wheels, folder):
        pytest.skip(f"{missing[0].file} is not downloaded")
    frozen = freeze.parse_freeze((root / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8"))
    assert verification.verify(lock.wheels, folder, frozen).is_verified
