"""What `pip freeze` said of an image is read whole, or refused."""

from pathlib import Path

import pytest

from parity.deploy.image import freeze
from parity.run.errors import BadData

ROOT = Path(__file__).parents[3]
REAL = (ROOT / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8")


def test_the_kept_freeze_is_read_to_its_last_line() -> None:
    frozen = freeze.parse(REAL)
    assert len(frozen) == len(REAL.splitlines()) == 931
    assert frozen["torch"] == "2.10.0+cu128"
    assert frozen["jupyter-server"] == "2.12.5"
    assert not {"bitsandbytes", "faiss-cpu", "faiss-gpu"} & frozen.keys()


def test_every_form_that_pip_freeze_prints_is_known() -> None:
    text = """\
# Editable install with no version control
six==1.17.0
Foo.Bar @ https://a.b/foo_bar-2.0%2Bcu12-cp312-cp312-linux_x86_64.whl#sha256=00
name[extra] @ file:///x/name-3.1.tar.gz
learntools @ git+https://a.b/learntools@0123
-e git+https://a.b/tool@0123#egg=some_tool

"""
    assert freeze.parse(text) == {
        "six": "1.17.0",
        "foo-bar": "2.0+cu12",
        "name": "",
        "learntools": "",
        "some-tool": "",
    }


@pytest.mark.parametrize(
    "line", ["six", "six>=1.17", "six == 1.17", "Traceback (most recent", "=="]
)
def test_a_line_that_nobody_understands_is_named(line: str) -> None:
    with pytest.raises(BadData, match=r"^freeze, line 2: .* is no line of pip freeze$"):
        freeze.parse(f"numpy==2.0.2\n{line}\n")


def test_a_package_with_two_versions_is_refused_and_one_that_is_repeated_is_not() -> None:
    assert freeze.parse("A_b==1\na-b==1\n") == {"a-b": "1"}
    with pytest.raises(BadData, match="line 2: a-b is there twice"):
        freeze.parse("A_b==1\na.b==2\n")


def test_an_empty_freeze_is_none() -> None:
    with pytest.raises(BadData, match="it: no package in it"):
        freeze.parse("# nothing\n", "it")


def test_constraints_hold_what_an_index_can_have() -> None:
    frozen = freeze.parse(REAL)
    lines = freeze.constraints(frozen).splitlines()
    assert {"torch==2.10.0", "numpy==2.0.2"} <= set(lines)
    assert not [line for line in lines if "+" in line]
    named = {line.partition("==")[0] for line in lines}
    assert set(frozen) - named == freeze.DIRECT  # all of which are in the freeze


def test_the_fingerprint_changes_with_any_version_and_not_with_order_or_comments() -> None:
    frozen = freeze.parse(REAL)
    turned = freeze.parse("# turned\n" + "\n".join(reversed(REAL.splitlines())))
    assert freeze.fingerprint(turned) == freeze.fingerprint(frozen)
    assert freeze.fingerprint({**frozen, "six": "1.16.0"}) != freeze.fingerprint(frozen)
    fewer = {name: version for name, version in frozen.items() if name != "six"}
    assert freeze.fingerprint(fewer) != freeze.fingerprint(frozen)


def test_drift_names_what_differs_and_a_build_only_where_both_name_one() -> None:
    frozen = {"torch": "2.10.0+cu128", "numpy": "2.0.2", "peft": "0.19.1", "six": "1.17.0"}
    installed = {"torch": "2.10.0", "numpy": "2.0.2", "Peft": "0.20.0", "six": "", "faiss": ""}
    found = freeze.drift(frozen, installed)
    assert [str(one) for one in found] == [
        "peft 0.20.0 (image: 0.19.1)",
        "six absent (image: 1.17.0)",
    ]
    (built,) = freeze.drift(frozen, {"torch": "2.10.0+cpu"})
    assert (built.name, built.image, built.here) == ("torch", "2.10.0+cu128", "2.10.0+cpu")
