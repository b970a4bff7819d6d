"""The image's lock: what it must say, what it refuses, and how a real freeze replaces a guess."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.deploy.image import freeze as freezes
from parity.deploy.image import image_lock
from parity.deploy.image.image_lock import FACTS, MEASURED, Fact, ImageLock
from parity.run import digest, files
from parity.run.errors import BadConfig, BadData, Mismatch

LOCK = Path(__file__).parents[3] / "kaggle" / "image.lock"
OLD = "kaggle==2.0.2\nnumpy==2.0.2\nsix==1.17.0\ntorch==2.10.0+cu128\n"
NEW = """\
kaggle==2.0.2
numpy==2.0.3
torch==2.10.0+cu128
cudf-cu12 @ file:///rapids/cudf_cu12-26.2.0-cp312-cp312-manylinux_2_28_x86_64.whl#sha256=ab
learntools @ git+https://github.com/Kaggle/learntools@01ab
"""


def facts(**changed: str) -> dict[str, Fact]:
    values = dict.fromkeys(FACTS, "1") | {
        "image": "gcr.io/some/python",
        "digest": "sha256:" + "0a" * 32,
        "freeze": "freeze.txt",
        "freeze_sha256": digest.of_text(OLD),
    }
    return {
        name: Fact(value, "approximated from here") for name, value in (values | changed).items()
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a lock with its freeze beside it."""
    ImageLock(facts()).write(tmp_path / "image.lock")
    (tmp_path / "freeze.txt").write_text(OLD)
    return tmp_path / "image.lock"


def spoilt(place: Path, name: str, **fact: str) -> Path:
    record = files.read_json(place)
    record["facts"][name] |= fact
    files.write_json(place, record)
    return place


# The lock that is kept


def test_the_kept_lock_pins_the_image_by_its_digest_and_names_its_freeze() -> None:
    lock = image_lock.read(LOCK)
    name, _, sha256 = lock.reference.partition("@sha256:")
    assert name == "gcr.io/kaggle-gpu-images/python"
    assert len(sha256) == 64
    assert len(freezes.parse(image_lock.freeze(LOCK))) == 931
    assert lock.value("tag").startswith("v170-GPU")


def test_each_fact_of_it_says_where_it_came_from() -> None:
    record = json.loads(LOCK.read_text(encoding="utf-8"))
    assert set(record["facts"]) == set(FACTS)
    for name, fact in record["facts"].items():
        assert fact["origin"].startswith((MEASURED, "approximated from ", "published in ")), name


def test_what_nobody_has_measured_is_not_called_measured() -> None:
    assert "nobody here has run the image" in image_lock.read(LOCK).facts["freeze"].origin


# Reading


def test_a_lock_comes_back_as_it_was_written(place: Path) -> None:
    lock = image_lock.read(place)
    assert lock == ImageLock(facts())
    assert lock.reference == "gcr.io/some/python@sha256:" + "0a" * 32
    assert image_lock.freeze(place) == OLD


@pytest.mark.parametrize(
    "fact",
    [
        {"image": "gcr.io/some/python:latest"},
        {"image": "gcr.io/some/python:v170"},
        {"digest": "latest"},
        {"digest": "sha256:0a"},
        {"digest": "sha256:" + "0A" * 32},
    ],
)
def test_an_image_that_is_not_pinned_by_its_digest_is_refused(
    place: Path, fact: dict[str, str]
) -> None:
    ImageLock(facts(**fact)).write(place)
    with pytest.raises(BadConfig, match="is not pinned"):
        image_lock.read(place)


@pytest.mark.parametrize("origin", ["", "measured", "somebody said so"])
def test_a_fact_of_no_stated_origin_is_refused(place: Path, origin: str) -> None:
    with pytest.raises(BadConfig, match=r"python: .*does not say where it came from"):
        image_lock.read(spoilt(place, "python", origin=origin))


def test_an_empty_fact_is_refused(place: Path) -> None:
    with pytest.raises(BadConfig, match="glibc"):
        image_lock.read(spoilt(place, "glibc", value=""))


@pytest.mark.parametrize("name", ["python", "oven"])
def test_a_missing_and_an_unknown_fact_are_named(place: Path, name: str) -> None:
    record = files.read_json(place)
    if name in record["facts"]:
        del record["facts"][name]
    else:
        record["facts"][name] = asdict(Fact("1", MEASURED))
    files.write_json(place, record)
    with pytest.raises(BadConfig, match=f"missing or unknown: {name}"):
        image_lock.read(place)


@pytest.mark.parametrize("record", [[], {}, {"schema": 2, "facts": {}}, {"schema": 1, "facts": []}])
def test_something_else_is_no_lock(place: Path, record: object) -> None:
    files.write_json(place, record)
    with pytest.raises(BadConfig):
        image_lock.read(place)


def test_a_freeze_that_was_changed_without_the_lock_is_named_with_what_mends_it(
    place: Path,
) -> None:
    place.with_name("freeze.txt").write_text(OLD + "new==1\n")
    with pytest.raises(Mismatch, match=r"run: invoke image\.lock --freeze \S+freeze\.txt"):
        image_lock.freeze(place)


def test_the_digest_depends_on_every_fact_and_origin_and_on_no_formatting(place: Path) -> None:
    known = image_lock.read(place).digest()
    place.write_text(json.dumps(json.loads(place.read_text())))
    assert image_lock.read(place).digest() == known
    seen = {known}
    for name in FACTS:
        seen.add(ImageLock(facts(**{name: "other"})).digest())
    seen.add(image_lock.read(spoilt(place, "python", origin=MEASURED)).digest())
    assert len(seen) == len(FACTS) + 2


# Other bases


@pytest.mark.parametrize(
    "reference", ["localhost/standin:py312", "gcr.io/some/python@sha256:" + "0a" * 32]
)
def test_a_base_is_a_digest_or_a_tag_of_this_machine(reference: str) -> None:
    assert image_lock.base(reference) == reference


@pytest.mark.parametrize(
    "reference",
    [
        *("python", "gcr.io/some/python", "gcr.io/some/python:latest", "gcr.io/some/python:v170"),
        *("localhost/standin", "localhost/standin:latest", "", "-x", "a@sha256:0a"),
    ],
)
def test_any_other_base_is_refused(reference: str) -> None:
    with pytest.raises(BadConfig, match=":latest is refused"):
        image_lock.base(reference)


# A real freeze


def test_a_real_freeze_replaces_the_guess_and_shows_what_differs() -> None:
    lock = ImageLock(facts())
    new, kept, difference = image_lock.relock(
        lock, OLD, NEW, {"git_commit": "abc", "build_date": ""}
    )
    assert difference.lines() == [
        "+ cudf-cu12 26.2.0",
        "+ learntools of no stated version",
        "- six 1.17.0",
        "~ numpy 2.0.2 → 2.0.3",
        "2 added, 1 removed, 1 changed",
    ]
    assert new.facts["freeze_sha256"] == Fact(digest.of_text(kept), MEASURED)
    assert new.facts["freeze"] == Fact("freeze.txt", MEASURED)
    assert new.facts["git_commit"] == Fact("abc", MEASURED)
    untold = set(FACTS) - {"freeze", "freeze_sha256", "git_commit"}
    assert {name: new.facts[name] for name in untold} == {n: lock.facts[n] for n in untold}
    assert "/rapids" not in kept  # no place of another machine is kept
    assert freezes.parse(kept)["cudf-cu12"] == "26.2.0"


def test_the_same_freeze_again_changes_no_package() -> None:
    _, kept, difference = image_lock.relock(ImageLock(facts()), OLD, OLD, {})
    assert kept == OLD
    assert difference.lines() == ["0 added, 0 removed, 0 changed"]


@pytest.mark.parametrize("text", ["numpy==2.0.2\n", OLD.replace("torch", "tensor")])
def test_the_freeze_of_some_other_place_is_refused(text: str) -> None:
    with pytest.raises(BadData, match="it is not `pip freeze` of Kaggle's image"):
        image_lock.relock(ImageLock(facts()), OLD, text, {})


def test_something_that_is_no_freeze_is_refused() -> None:
    for text in ("", "Package Version\nnumpy 2.0.2\n"):
        with pytest.raises(BadData):
            image_lock.relock(ImageLock(facts()), OLD, text, {})


def test_a_fact_that_no_image_has_is_refused() -> None:
    with pytest.raises(BadConfig, match="color: no such fact"):
        image_lock.relock(ImageLock(facts()), OLD, OLD, {"color": "blue"})


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]+)?", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]\.[0-9]{1,2}(\+cu12)?", fullmatch=True)
FREEZES = st.dictionaries(NAMES, VERSIONS, min_size=1, max_size=8)


@given(FREEZES, FREEZES)
def test_a_difference_says_all_that_differs(old: dict[str, str], new: dict[str, str]) -> None:
    texts = ["".join(f"{n}=={v}\n" for n, v in one.items()) for one in (old, new)]
    found = image_lock.compare(texts[0], texts[1])
    changed = {name: now for name, (_, now) in found.changed.items()}
    rebuilt = {name: v for name, v in old.items() if name not in found.removed}
    assert rebuilt | changed | found.added == new
    assert all(old[name] == was for name, (was, _) in found.changed.items())
    assert image_lock.tidy(image_lock.tidy(texts[1])) == image_lock.tidy(texts[1])
