"""The lock of wheels: read as written, and a run gets what it names and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from parity.deploy.image import freeze, image_lock
from parity.deploy.wheelhouse import wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Lock, Wheel, needed_by
from parity.run import digest, files
from parity.run.config import run_file as configs
from parity.run.errors import BadData, StaleInput

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "offline_wheels" / "wheels.lock"


def wheel(name: str, *reason: str, version: str = "1.0") -> Wheel:
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return Wheel(name, version, file, digest.of_text(file), 1000, reason or ("wanted",))


LOCK = Lock(
    freeze="now",
    wheels=(
        wheel("bits"),
        wheel("deep", needed_by("search"), needed_by("other")),
        wheel("other", "wanted", needed_by("search")),
        wheel("search"),
    ),
)


def test_the_kept_lock_is_of_the_kept_freeze_and_holds_what_every_run_names() -> None:
    frozen = freeze.parse(image_lock.freeze(ROOT / "kaggle" / "image.lock"))
    lock = wheel_lock.read(KEPT)
    for file in sorted((ROOT / "runs").glob("*.toml")):
        wants = configs.load(file).shipping.wheels
        assert not wants or lock.fits(wants, freeze.fingerprint(frozen)), file.name
    assert "bitsandbytes" in lock.wants
    assert not {one.name for one in lock.wheels} & frozen.keys()


def test_the_kept_lock_is_as_the_tool_writes_it(tmp_path: Path) -> None:
    wheel_lock.write(tmp_path / "again.lock", wheel_lock.read(KEPT))
    assert (tmp_path / "again.lock").read_bytes() == KEPT.read_bytes()


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    wheel_lock.write(tmp_path / "wheels.lock", LOCK)
    assert wheel_lock.read(tmp_path / "wheels.lock") == LOCK
    assert wheel_lock.read(tmp_path / "none.lock") == Lock()


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"schema": 2, "wheels": []},
        {"schema": 1},
        {"schema": 1, "wheels": [{"name": "a"}]},
        {"schema": 1, "wheels": [], "more": 1},
    ],
)
def test_what_is_no_lock_is_refused_with_what_to_do(record: object, tmp_path: Path) -> None:
    files.write_json(tmp_path / "wheels.lock", record)
    with pytest.raises(BadData, match=r"^wheels\.lock: no lock .* then run: invoke wheels$"):
        wheel_lock.read(tmp_path / "wheels.lock")


@pytest.mark.parametrize(
    ("wants", "names"),
    [
        ((), []),
        (("bits",), ["bits"]),
        (("Bits",), ["bits"]),
        (("other",), ["deep", "other"]),
        (("search",), ["deep", "other", "search"]),
        (("bits", "other"), ["bits", "deep", "other"]),
    ],
)
def test_a_run_gets_what_it_names_and_what_that_needs(
    wants: tuple[str, ...], names: list[str]
) -> None:
    found = wheel_lock.select(LOCK, wants, under="now", mend="x")
    assert [one.name for one in found] == names


def test_what_came_along_for_another_is_no_answer_to_who_names_it() -> None:
    with pytest.raises(StaleInput, match=r"does not hold deep; run: invoke wheels --run a\.toml"):
        wheel_lock.select(LOCK, ("deep",), under="now", mend="invoke wheels --run a.toml")


def test_a_lock_for_another_image_is_stale() -> None:
    for lock, under in (
        (LOCK, "then"),
        (replace(LOCK, python="3.11"), "now"),
        (replace(LOCK, platform="manylinux_2_28_x86_64"), "now"),
    ):
        assert not lock.fits(("bits",), under)
        with pytest.raises(StaleInput, match="made for another image; run: mend"):
            wheel_lock.select(lock, ("bits",), under=under, mend="mend")
        assert wheel_lock.select(lock, (), under=under, mend="mend") == ()


def test_missing_is_what_is_not_there_or_has_other_bytes(tmp_path: Path) -> None:
    files_ = {name: f"{name}-1.0.whl".encode() for name in ("here", "other", "gone")}
    wheels = [
        Wheel(name, "1.0", f"{name}.whl", digest.of_bytes(data), len(data), ("wanted",))
        for name, data in files_.items()
    ]
    (tmp_path / "here.whl").write_bytes(files_["here"])
    (tmp_path / "other.whl").write_bytes(files_["here"])
    assert [one.name for one in wheel_lock.missing(wheels, tmp_path)] == ["other", "gone"]


def test_a_difference_is_a_line_a_wheel() -> None:
    new = Lock(
        freeze="now",
        wheels=(wheel("bits", version="2.0"), wheel("new"), *LOCK.wheels[2:]),
    )
    assert wheel_lock.difference(LOCK, new) == [
        "~ bits 1.0 (wanted) → 2.0 (wanted)",
        "- deep 1.0",
        "+ new 1.0 (wanted)",
    ]
    assert wheel_lock.difference(new, new) == []
    assert LOCK.digest() != new.digest()
