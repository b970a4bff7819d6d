"""The project's own wheel: equal code gives equal bytes, and it runs without an installation."""

import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from deploy.wheelhouse import wheelhouses

from parity.deploy.image import freeze
from parity.deploy.wheelhouse import (
    build,
    download,
    interpreters,
    package_index,
    verification,
    wheel_lock,
)
from parity.run import digest
from parity.run.errors import BadConfig, BadData, StaleInput

ROOT = Path(__file__).parents[3]
HOUSE = ROOT / "offline_wheels"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build_project_wheel(tmp_path_factory.mktemp("wheels"))


def test_two_builds_have_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    wheelhouses.copy_sources(tmp_path / "checkout")
    second = build.build_project_wheel(
        tmp_path / "elsewhere", tmp_path / "checkout" / "src" / "parity"
    )
    assert second.name == wheel.name == "kaggle_parity-0.1.0-py3-none-any.whl"
    assert digest.of_file(second) == digest.of_file(wheel)


def test_a_wheel_holds_the_package_and_no_path_of_this_machine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        texts = [archive.read(name).decode() for name in archive.namelist()]
    paths = (path for path in (ROOT / "src" / "parity").rglob("*") if path.is_file())
    sources = (path for path in paths if path.suffix != ".pyc")  # code and its tables
    assert names == {path.relative_to(ROOT / "src").as_posix() for path in sources}
    assert not any(str(ROOT) in text for text in texts)


def test_a_wheel_does_not_depend_on_zlib_a_clock_or_an_order(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
    assert {entry.date_time for entry in entries} == {(2020, 1, 1, 0, 0, 0)}
    assert {(entry.create_system, entry.external_attr >> 16) for entry in entries} == {
        (3, 0o100644)
    }
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)


def test_the_record_of_a_wheel_is_correct(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        lines = [line.split(",") for line in archive.read(record).decode().splitlines()]
        assert [name for name, _, _ in lines if name == record] == [record]
        assert sorted(name for name, _, _ in lines) == archive.namelist()
        for name, stated, size in lines:
            data = archive.read(name)
            if name != record:
                sha256 = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
                assert (stated, size) == (f"sha256={sha256.rstrip('=')}", str(len(data)))


def test_a_wheel_with_the_same_bytes_is_not_touched(wheel: Path) -> None:
    before = wheel.stat()
    assert build.build_project_wheel(wheel.parent) == wheel
    assert (wheel.stat().st_ino, wheel.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    wheel.write_bytes(wheel.read_bytes() + b"more")
    build.build_project_wheel(wheel.parent)
    assert wheel.stat().st_size == before.st_size


def test_wheels_of_other_versions_are_removed(tmp_path: Path, wheel: Path) -> None:
    for version in ("0.0.9", "9.0.0"):
        shutil.copy(wheel, tmp_path / f"kaggle_parity-{version}-py3-none-any.whl")
    (tmp_path / "gguf-1.0.0-py3-none-any.whl").touch()
    built = build.build_project_wheel(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gguf-1.0.0-py3-none-any.whl",
        built.name,
    ]


def test_a_wheel_can_be_imported_from_the_path_without_an_installation(
    wheel: Path, tmp_path: Path
) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import parity.run.config.run_file, parity.competition.eedi.kaggle_files, parity.deploy.bundle.bundle
print(parity.run.config.run_file.__file__)
"""
    answer = subprocess.run(
        [sys.executable, "-I", "-c", code, str(wheel)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.stdout, answer.stderr) == (f"{wheel}/parity/run/config/run_file.py\n", "")


def test_a_package_without_a_version_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text('"""Nothing."""\n')
    with pytest.raises(BadData, match=r"states no __version__$"):
        build.build_project_wheel(tmp_path / "wheels", tmp_path)


# Installation, as in the image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return the Python of an empty environment of the image's version."""
    try:
        python = interpreters.find("3.12")
    except BadConfig as error:
        pytest.skip(str(error))
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "image"], check=True)
    return tmp_path / "image" / "bin" / "python"


def install(python: Path, *words: str) -> None:
    """Install without an index and settings, as the kernel does."""
    home = str(python.parents[1])
    subprocess.run(
        [
            *verification.pip_command(python, python, home),
            "install",
            "-q",
            "--no-index",
            "--no-deps",
            *words,
        ],
        env=package_index.isolated_environment(home),
        cwd=home,
        check=True,
        timeout=120,
    )


def output_of(python: Path, code: str) -> str:
    """Return what code prints in an environment, outside this checkout."""
    answer = subprocess.run(
        [python, "-I", "-c", code],
        cwd=python.parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert answer.stderr == ""
    return answer.stdout.strip()


def test_a_wheel_can_be_installed_into_the_images_python_without_a_network(
    wheel: Path, image: Path
) -> None:
    install(image, "--find-links", str(wheel.parent), "kaggle-parity==0.1.0")
    code = (
        "import sys, parity.run.digest as d; print(d.__file__, d.of_text(''), sys.version_info[1])"
    )
    folder = image.parents[1] / "lib" / "python3.12" / "site-packages" / "parity" / "run"
    assert output_of(image, code) == f"{folder / 'digest.py'} {digest.of_text('')} 12"


@pytest.mark.slow
def test_the_locked_wheels_can_be_installed_and_the_kernels_modules_imported(
    wheel: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = wheel_lock.read(HOUSE / "wheels.lock")
    house = tmp_path / "house"
    house.mkdir()
    try:
        for locked in lock.wheels:
            if (HOUSE / locked.file).is_file():
                shutil.copy(HOUSE / locked.file, house)
        download.fetch_locked(lock.wheels, house)
        numpy = download.fetch_new("numpy", "2.0.2", (), tmp_path / "of-the-image")
    except StaleInput as error:
        pytest.skip(f"no package index: {error}")
    install(image, str(tmp_path / "of-the-image" / numpy.file))
    frozen = freeze.parse_freeze((ROOT / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8"))
    stubs = {name: version for name, version in frozen.items() if name != "numpy"}
    verification.write_stubs(stubs, image.parents[1] / "lib" / "python3.12" / "site-packages")
    shutil.copy(wheel, house)
    pins = [locked.pin for locked in lock.wheels]
    install(image, "--find-links", str(house), *pins, "kaggle-parity==0.1.0")
    code = """
import importlib.metadata, numpy
import parity.run.files, parity.deploy.bundle.sealed_folder, parity.deploy.image.freeze
print(numpy.__version__, *map(importlib.metadata.version, ("bitsandbytes", "kaggle-parity")))
"""
    (bits,) = (locked.version for locked in lock.wheels if locked.name == "bitsandbytes")
    assert output_of(image, code) == f"2.0.2 {bits} 0.1.0"
