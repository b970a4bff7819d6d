"""The project's own wheel: equal code has equal bytes, and it runs where nothing is installed."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from parity.run import digest
from parity.run.errors import BadData
from parity.container import wheels

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build_own(ROOT, tmp_path_factory.mktemp("wheels"))


def copied(folder: Path) -> Path:
    """Return a checkout in another folder, with other file times."""
    for name in ("README.md", "LICENSE", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", copy_function=shutil.copy)
    return folder


def test_two_builds_have_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    again = wheels.build_own(copied(tmp_path), tmp_path / "elsewhere")
    assert again.name == wheel.name == "kaggle_parity-0.1.0-py3-none-any.whl"
    assert digest.of_file(again) == digest.of_file(wheel)


def test_a_wheel_holds_the_package_and_nothing_of_this_machine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        texts = [archive.read(name).decode() for name in archive.namelist()]
    sources = (ROOT / "src" / "parity").rglob("*.py")
    assert names == {path.relative_to(ROOT / "src").as_posix() for path in sources}
    assert not any(str(ROOT) in text for text in texts)


def test_a_wheel_of_another_version_does_not_stay(tmp_path: Path, wheel: Path) -> None:
    for version in ("0.0.9", "9.0.0"):
        shutil.copy(wheel, tmp_path / f"kaggle_parity-{version}-py3-none-any.whl")
    (tmp_path / "gguf-1.0.0-py3-none-any.whl").touch()
    built = wheels.build_own(ROOT, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gguf-1.0.0-py3-none-any.whl",
        built.name,
    ]


def test_a_wheel_is_imported_from_the_path_without_being_installed(
    wheel: Path, tmp_path: Path
) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import parity.run.config, parity.competition.tables, parity.shipping.bundle
print(parity.run.config.__file__)
"""
    answer = subprocess.run(
        [sys.executable, "-I", "-c", code, str(wheel)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.stdout, answer.stderr) == (f"{wheel}/parity/run/config.py\n", "")


def test_a_build_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "kaggle-parity"\n')
    with pytest.raises(BadData) as caught:
        wheels.build_own(tmp_path, tmp_path / "wheels")
    message = str(caught.value)
    assert message.startswith("the project's own wheel could not be built: ")
    assert "version" in message
    assert "\n" not in message
