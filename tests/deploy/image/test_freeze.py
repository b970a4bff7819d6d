"""The output of `pip freeze` is read completely or refused."""

from pathlib import Path

import pytest

from parity.deploy.image import freeze
from parity.run.errors import BadData

ROOT = Path(__file__).parents[3]
REAL = (ROOT / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8")


def test_the_freeze_in_git_is_read_to_its_last_line() -> None:
    frozen = freeze.parse_freeze(REAL)
    assert len(frozen) == len(REAL.splitlines()) == 931
    assert frozen["torch"] == "2.10.0+cu128"
    assert frozen["jupyter-server"] == "2.12.5"
    assert not {"bitsandbytes", "faiss-cpu", "faiss-gpu"} & frozen.keys()


def test_every_form_that_pip_freeze_prints_is_read() -> None:
    text = """\
# Editable install with no version control
six==1.17.0
Foo.Bar @ https://a.b/foo_bar-2.0%2Bcu12-cp312-cp312-linux_x86_64.whl#sha256=00
name[extra] @ file:///x/name-3.1.tar.gz
learntools @ git+https://a.b/learntools@0123
-e git+https://a.b/tool@0123#egg=some_tool

"""
    assert freeze.parse_freeze(text) == {
        "six": "1.17.0",
        "foo-bar": "2.0+cu12",
        "name": "",
        "learntools": "",
        "some-tool": "",
    }


@pytest.mark.parametrize(
    "line", ["six", "six>=1.17", "six == 1.17", "Traceback (most recent", "=="]
)
def test_an_unreadable_line_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(BadData, match=r"is not `pip freeze` output in freeze, line 2$"):
        freeze.parse_freeze(f"numpy==2.0.2\n{line}\n")


def test_a_package_with_two_versions_is_refused_but_a_repeated_line_is_not() -> None:
    assert freeze.parse_freeze("A_b==1\na-b==1\n") == {"a-b": "1"}
    with pytest.raises(BadData, match="a-b has two versions in freeze, line 2"):
        freeze.parse_freeze("A_b==1\na.b==2\n")


def test_an_empty_freeze_is_refused() -> None:
    with pytest.raises(BadData, match=r"^no package in file\.txt$"):
        freeze.parse_freeze("# nothing\n", "file.txt")


def test_constraints_hold_only_versions_that_an_index_has() -> None:
    frozen = freeze.parse_freeze(REAL)
    lines = freeze.constraints(frozen).splitlines()
    assert {"torch==2.10.0", "numpy==2.0.2"} <= set(lines)
    assert not [line for line in lines if "+" in line]
    names = {line.partition("==")[0] for line in lines}
    assert set(frozen) - names == freeze.DIRECT  # all of which are in the freeze


def test_the_fingerprint_depends_on_versions_but_not_on_order_or_comments() -> None:
    frozen = freeze.parse_freeze(REAL)
    lines = reversed(REAL.splitlines())
    assert freeze.fingerprint(freeze.parse_freeze("# reversed\n" + "\n".join(lines))) == (
        freeze.fingerprint(frozen)
    )
    assert freeze.fingerprint({**frozen, "six": "1.16.0"}) != freeze.fingerprint(frozen)
    fewer = {name: version for name, version in frozen.items() if name != "six"}
    assert freeze.fingerprint(fewer) != freeze.fingerprint(frozen)


def test_drift_ignores_a_local_version_that_only_the_image_has() -> None:
    frozen = {"torch": "2.10.0+cu128", "numpy": "2.0.2", "peft": "0.19.1", "six": "1.17.0"}
    installed = {"torch": "2.10.0", "numpy": "2.0.2", "Peft": "0.20.0", "six": "", "faiss": ""}
    assert [str(drift) for drift in freeze.find_drift(frozen, installed)] == [
        "peft 0.20.0 (image: 0.19.1)",
        "six absent (image: 1.17.0)",
    ]
    (drift,) = freeze.find_drift(frozen, {"torch": "2.10.0+cpu"})
    assert (drift.name, drift.image, drift.installed) == ("torch", "2.10.0+cu128", "2.10.0+cpu")
