"""The kernel identifies its image and checks the packages of its wheelhouse."""

import importlib
from pathlib import Path

import pytest

from parity.deploy.kernel import environment_check
from parity.run.errors import Mismatch

LOCKED = {"git_commit": "fc61d5cda7da39530055bae9bd0e92865f995cd9", "build_date": "2026-06-29"}


def identity(folder: Path, commit: str) -> Path:
    (folder / "git_commit").write_text(f"{commit}\n")
    (folder / "build_date").write_text("20260629-123456\n")
    return folder


@pytest.mark.parametrize("commit", [LOCKED["git_commit"], LOCKED["git_commit"][:7]])
def test_the_locked_image_is_identified_by_its_commit(tmp_path: Path, commit: str) -> None:
    result = environment_check.image(LOCKED, identity(tmp_path, commit))
    assert result["identity"] == "as locked"
    assert (result["commit"], result["built"]) == (commit, "20260629-123456")


def test_an_image_without_a_commit_is_reported_and_accepted(tmp_path: Path) -> None:
    result = environment_check.image(LOCKED, identity(tmp_path, "unknown"))
    assert (result["identity"], result["commit"]) == ("not Kaggle's image", "")


@pytest.mark.parametrize("commit", ["0" * 40, "fc61d5e"])
def test_another_image_is_refused_in_one_line(tmp_path: Path, commit: str) -> None:
    with pytest.raises(Mismatch) as error:
        environment_check.image(LOCKED, identity(tmp_path, commit))
    expected = (
        f"this is Kaggle's image of commit {commit[:12]}, built 20260629-123456; the bundle is"
    )
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


def test_an_image_not_from_kaggle_is_reported_and_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARITY_IMAGE", "localhost/standin:py312")
    assert environment_check.image(LOCKED, tmp_path) == {
        "commit": "",
        "built": "",
        "identity": "not Kaggle's image",
        "reference": "localhost/standin:py312",
    }


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an importable folder for empty packages."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(folder: Path, name: str, version: str, *requires: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    requirements = "".join(f"Requires-Dist: {require}\n" for require in requires)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirements}"
    )
    importlib.invalidate_caches()


def test_wheelhouse_packages_are_returned_with_their_versions(installed: Path) -> None:
    install(installed, "bitten", "0.50.2", "numpy>=1.17", 'absent; extra == "test"')
    install(installed, "built", "2.10.0+cu128")
    install(installed, "upon", "1", "built<3,>=2.3", 'absent>=3; python_version < "3.0"')
    pins = ["bitten==0.50.2", "upon==1"]
    assert environment_check.vendored(pins) == {"bitten": "0.50.2", "upon": "1"}
    assert environment_check.vendored([]) == {}


@pytest.mark.parametrize(
    ("pin", "expected"),
    [
        ("bitten==0.50.3", "bitten: the wheelhouse has 0.50.3, here is 0.50.2"),
        ("absent==1", "absent: the wheelhouse has 1, here is none"),
        ("upon==1", "upon 1 requires bitten>=0.51, here is 0.50.2"),
        ("over==1", "over 1 requires absent, here is none"),
    ],
)
def test_a_wrong_version_or_a_missing_requirement_is_named(
    installed: Path, pin: str, expected: str
) -> None:
    install(installed, "bitten", "0.50.2")
    install(installed, "upon", "1", "bitten>=0.51")
    install(installed, "over", "1", "absent")
    with pytest.raises(Mismatch) as error:
        environment_check.vendored([pin])
    assert str(error.value) == expected
