"""The image lock: its required content, and how a measured freeze replaces an approximated one."""

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
        name: Fact(value, "approximated from a list") for name, value in (values | changed).items()
    }


@pytest.fixture
def lock_path(tmp_path: Path) -> Path:
    """Return the path of a lock with its freeze in the same folder."""
    ImageLock(facts()).write(tmp_path / "image.lock")
    (tmp_path / "freeze.txt").write_text(OLD)
    return tmp_path / "image.lock"


def change_fact(lock_path: Path, name: str, **fact: str) -> Path:
    record = files.read_json(lock_path)
    record["facts"][name] |= fact
    files.write_json(lock_path, record)
    return lock_path


# The lock in git


def test_the_lock_in_git_pins_the_image_by_digest_and_names_its_freeze() -> None:
    lock = image_lock.read(LOCK)
    name, _, sha256 = lock.reference.partition("@sha256:")
    assert name == "gcr.io/kaggle-gpu-images/python"
    assert len(sha256) == 64
    assert len(freezes.parse_freeze(image_lock.read_freeze(LOCK))) == 931
    assert lock.value("tag").startswith("v170-GPU")


def test_each_fact_in_git_has_an_origin() -> None:
    record = json.loads(LOCK.read_text(encoding="utf-8"))
    assert set(record["facts"]) == set(FACTS)
    for name, fact in record["facts"].items():
        assert fact["origin"].startswith((MEASURED, "approximated from ", "published in ")), name


def test_the_freeze_in_git_is_not_marked_as_measured() -> None:
    assert "nobody here has run the image" in image_lock.read(LOCK).facts["freeze"].origin


# Reading


def test_a_lock_is_read_as_it_was_written(lock_path: Path) -> None:
    lock = image_lock.read(lock_path)
    assert lock == ImageLock(facts())
    assert lock.reference == "gcr.io/some/python@sha256:" + "0a" * 32
    assert image_lock.read_freeze(lock_path) == OLD


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
    lock_path: Path, fact: dict[str, str]
) -> None:
    ImageLock(facts(**fact)).write(lock_path)
    with pytest.raises(BadConfig, match="is not pinned"):
        image_lock.read(lock_path)


@pytest.mark.parametrize("origin", ["", "measured", "somebody said so"])
def test_a_fact_without_an_origin_is_refused(lock_path: Path, origin: str) -> None:
    with pytest.raises(
        BadConfig, match=r"python has no value or no valid origin \(.*\) in image\.lock"
    ):
        image_lock.read(change_fact(lock_path, "python", origin=origin))


def test_an_empty_fact_is_refused(lock_path: Path) -> None:
    with pytest.raises(BadConfig, match="glibc"):
        image_lock.read(change_fact(lock_path, "glibc", value=""))


@pytest.mark.parametrize("name", ["python", "oven"])
def test_a_missing_or_unknown_fact_is_refused(lock_path: Path, name: str) -> None:
    record = files.read_json(lock_path)
    if name in record["facts"]:
        del record["facts"][name]
    else:
        record["facts"][name] = asdict(Fact("1", MEASURED))
    files.write_json(lock_path, record)
    with pytest.raises(BadConfig, match=rf"missing or unknown in image\.lock: {name}"):
        image_lock.read(lock_path)


@pytest.mark.parametrize("record", [[], {}, {"schema": 2, "facts": {}}, {"schema": 1, "facts": []}])
def test_a_file_of_another_schema_is_refused(lock_path: Path, record: object) -> None:
    files.write_json(lock_path, record)
    with pytest.raises(BadConfig):
        image_lock.read(lock_path)


def test_a_freeze_that_differs_from_the_lock_is_refused_with_the_fix(
    lock_path: Path,
) -> None:
    lock_path.with_name("freeze.txt").write_text(OLD + "new==1\n")
    with pytest.raises(Mismatch, match=r"freeze\.txt is missing or differs from its") as error:
        image_lock.read_freeze(lock_path)
    freeze = lock_path.with_name("freeze.txt").as_posix()
    assert error.value.fix == ("image.lock", "--freeze", freeze)


def test_the_digest_depends_on_every_fact_and_origin_but_not_on_formatting(lock_path: Path) -> None:
    original = image_lock.read(lock_path).digest()
    lock_path.write_text(json.dumps(json.loads(lock_path.read_text())))
    assert image_lock.read(lock_path).digest() == original
    digests = {original}
    for name in FACTS:
        digests.add(ImageLock(facts(**{name: "other"})).digest())
    digests.add(image_lock.read(change_fact(lock_path, "python", origin=MEASURED)).digest())
    assert len(digests) == len(FACTS) + 2


# Other bases


@pytest.mark.parametrize(
    "reference", ["localhost/standin:py312", "gcr.io/some/python@sha256:" + "0a" * 32]
)
def test_a_base_is_pinned_by_digest_or_is_a_local_tag(reference: str) -> None:
    assert image_lock.validate_base(reference) == reference


@pytest.mark.parametrize(
    "reference",
    [
        *("python", "gcr.io/some/python", "gcr.io/some/python:latest", "gcr.io/some/python:v170"),
        *("localhost/standin", "localhost/standin:latest", "", "-x", "a@sha256:0a"),
    ],
)
def test_any_other_base_is_refused(reference: str) -> None:
    with pytest.raises(BadConfig, match=":latest is refused"):
        image_lock.validate_base(reference)


# A measured freeze


def test_a_measured_freeze_replaces_the_old_one_and_shows_the_difference() -> None:
    lock = ImageLock(facts())
    new, text, difference = image_lock.replace_freeze(
        lock, OLD, NEW, {"git_commit": "abc", "build_date": ""}
    )
    assert difference.lines() == [
        "+ cudf-cu12 26.2.0",
        "+ learntools of unknown version",
        "- six 1.17.0",
        "~ numpy 2.0.2 → 2.0.3",
        "2 added, 1 removed, 1 changed",
    ]
    assert new.facts["freeze_sha256"] == Fact(digest.of_text(text), MEASURED)
    assert new.facts["freeze"] == Fact("freeze.txt", MEASURED)
    assert new.facts["git_commit"] == Fact("abc", MEASURED)
    unchanged = set(FACTS) - {"freeze", "freeze_sha256", "git_commit"}
    assert {name: new.facts[name] for name in unchanged} == {n: lock.facts[n] for n in unchanged}
    assert "/rapids" not in text  # no path of another machine
    assert freezes.parse_freeze(text)["cudf-cu12"] == "26.2.0"


def test_an_equal_freeze_changes_no_package() -> None:
    _, text, difference = image_lock.replace_freeze(ImageLock(facts()), OLD, OLD, {})
    assert text == OLD
    assert difference.lines() == ["0 added, 0 removed, 0 changed"]


@pytest.mark.parametrize("text", ["numpy==2.0.2\n", OLD.replace("torch", "tensor")])
def test_the_freeze_of_another_image_is_refused(text: str) -> None:
    with pytest.raises(BadData, match="it is not `pip freeze` of Kaggle's image"):
        image_lock.replace_freeze(ImageLock(facts()), OLD, text, {})


def test_other_text_is_refused() -> None:
    for text in ("", "Package Version\nnumpy 2.0.2\n"):
        with pytest.raises(BadData):
            image_lock.replace_freeze(ImageLock(facts()), OLD, text, {})


def test_a_measured_fact_with_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadConfig, match="color is not a fact of the image"):
        image_lock.replace_freeze(ImageLock(facts()), OLD, OLD, {"color": "blue"})


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]+)?", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]\.[0-9]{1,2}(\+cu12)?", fullmatch=True)
FREEZES = st.dictionaries(NAMES, VERSIONS, min_size=1, max_size=8)


@given(FREEZES, FREEZES)
def test_a_difference_lists_every_change(old: dict[str, str], new: dict[str, str]) -> None:
    texts = ["".join(f"{n}=={v}\n" for n, v in freeze.items()) for freeze in (old, new)]
    result = image_lock.compare_freezes(texts[0], texts[1])
    changed = {name: after for name, (_, after) in result.changed.items()}
    rebuilt = {name: v for name, v in old.items() if name not in result.removed}
    assert rebuilt | changed | result.added == new
    assert all(old[name] == before for name, (before, _) in result.changed.items())
    assert image_lock.normalize_freeze(
        image_lock.normalize_freeze(texts[1])
    ) == image_lock.normalize_freeze(texts[1])
