"""Which image a kernel runs in, and whether what its wheelhouse brought is complete."""

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
def test_the_locked_image_is_known_by_its_commit(tmp_path: Path, commit: str) -> None:
    found = environment_check.image(LOCKED, identity(tmp_path, commit))
    assert found["identity"] == "as locked"
    assert (found["commit"], found["built"]) == (commit, "20260629-123456")


def test_an_image_that_does_not_know_its_commit_is_told_and_not_refused(tmp_path: Path) -> None:
    found = environment_check.image(LOCKED, identity(tmp_path, "unknown"))
    assert (found["identity"], found["commit"]) == ("not Kaggle's image", "")


@pytest.mark.parametrize("commit", ["0" * 40, "fc61d5e"])
def test_another_image_is_refused_in_one_line(tmp_path: Path, commit: str) -> None:
    with pytest.raises(Mismatch) as caught:
        environment_check.image(LOCKED, identity(tmp_path, commit))
    told = f"this is Kaggle's image of commit {commit[:12]}, built 20260629-123456; the bundle is"
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_what_is_no_image_of_kaggles_is_told_and_not_refused(
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
    """Return a folder on the path in which packages of no content can be put."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(folder: Path, name: str, version: str, *requires: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    wants = "".join(f"Requires-Dist: {require}\n" for require in requires)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wants}"
    )
    importlib.invalidate_caches()


def test_what_was_brought_is_told_with_its_version(installed: Path) -> None:
    install(installed, "bitten", "0.50.2", "numpy>=1.17", 'absent; extra == "test"')
    install(installed, "built", "2.10.0+cu128")
    install(installed, "upon", "1", "built<3,>=2.3", 'absent>=3; python_version < "3.0"')
    pins = ["bitten==0.50.2", "upon==1"]
    assert environment_check.vendored(pins) == {"bitten": "0.50.2", "upon": "1"}
    assert environment_check.vendored([]) == {}


@pytest.mark.parametrize(
    ("pin", "told"),
    [
        ("bitten==0.50.3", "bitten: the wheelhouse has 0.50.3, here is 0.50.2"),
        ("absent==1", "absent: the wheelhouse has 1, here is none"),
        ("upon==1", "upon 1 requires bitten>=0.51, here is 0.50.2"),
        ("over==1", "over 1 requires absent, here is none"),
    ],
)
def test_what_is_not_met_is_named(installed: Path, pin: str, told: str) -> None:
    install(installed, "bitten", "0.50.2")
    install(installed, "upon", "1", "bitten>=0.51")
    install(installed, "over", "1", "absent")
    with pytest.raises(Mismatch) as caught:
        environment_check.vendored([pin])
    assert str(caught.value) == told
