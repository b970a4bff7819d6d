"""The lock of wheels: it is read as written, and a run gets only the wheels that it needs."""

from dataclasses import replace
from pathlib import Path

import pytest

from parity.deploy.image import freeze, image_lock
from parity.deploy.wheelhouse import wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Wheel, WheelLock, needed_by
from parity.run import digest, files
from parity.run.config import run_file as configs
from parity.run.errors import BadData, StaleInput

ROOT = Path(__file__).parents[3]
LOCK_IN_GIT = ROOT / "offline_wheels" / "wheels.lock"


def wheel(name: str, *reason: str, version: str = "1.0") -> Wheel:
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return Wheel(name, version, file, digest.of_text(file), 1000, reason or ("wanted",))


LOCK = WheelLock(
    freeze="now",
    wheels=(
        wheel("bits"),
        wheel("deep", needed_by("search"), needed_by("other")),
        wheel("other", "wanted", needed_by("search")),
        wheel("search"),
    ),
)


def test_the_lock_in_git_fits_the_freeze_and_every_run_file() -> None:
    frozen = freeze.parse_freeze(image_lock.read_freeze(ROOT / "kaggle" / "image.lock"))
    lock = wheel_lock.read(LOCK_IN_GIT)
    for file in sorted((ROOT / "runs").glob("*.toml")):
        wants = configs.load(file).shipping.wheels
        assert not wants or lock.is_current(wants, freeze.fingerprint(frozen)), file.name
    assert "bitsandbytes" in lock.wants
    assert not {wheel.name for wheel in lock.wheels} & frozen.keys()


def test_the_lock_in_git_is_as_the_tool_writes_it(tmp_path: Path) -> None:
    wheel_lock.write(tmp_path / "copy.lock", wheel_lock.read(LOCK_IN_GIT))
    assert (tmp_path / "copy.lock").read_bytes() == LOCK_IN_GIT.read_bytes()


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    wheel_lock.write(tmp_path / "wheels.lock", LOCK)
    assert wheel_lock.read(tmp_path / "wheels.lock") == LOCK
    assert wheel_lock.read(tmp_path / "none.lock") == WheelLock()


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
def test_an_invalid_lock_is_refused_with_the_fix(record: object, tmp_path: Path) -> None:
    files.write_json(tmp_path / "wheels.lock", record)
    with pytest.raises(
        BadData, match=r"^wheels\.lock is not a lock of wheels .* Remove it"
    ) as error:
        wheel_lock.read(tmp_path / "wheels.lock")
    assert error.value.fix == ("wheels",)


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
def test_a_run_gets_the_wheels_that_it_names_and_their_dependencies(
    wants: tuple[str, ...], names: list[str]
) -> None:
    selected = wheel_lock.select(LOCK, wants, freeze="now")
    assert [wheel.name for wheel in selected] == names


def test_a_dependency_of_another_run_must_be_locked_by_name() -> None:
    with pytest.raises(StaleInput, match=r"deep is missing in offline_wheels/wheels\.lock"):
        wheel_lock.select(LOCK, ("deep",), freeze="now")


def test_a_lock_for_another_image_is_stale() -> None:
    for lock, freeze_digest in (
        (LOCK, "before"),
        (replace(LOCK, python="3.11"), "now"),
        (replace(LOCK, platform="manylinux_2_28_x86_64"), "now"),
    ):
        assert not lock.is_current(("bits",), freeze_digest)
        with pytest.raises(StaleInput, match="made for another image"):
            wheel_lock.select(lock, ("bits",), freeze=freeze_digest)
        assert wheel_lock.select(lock, (), freeze=freeze_digest) == ()


def test_missing_wheels_are_absent_or_have_other_bytes(tmp_path: Path) -> None:
    contents = {name: f"{name}-1.0.whl".encode() for name in ("here", "other", "gone")}
    wheels = [
        Wheel(name, "1.0", f"{name}.whl", digest.of_bytes(data), len(data), ("wanted",))
        for name, data in contents.items()
    ]
    (tmp_path / "here.whl").write_bytes(contents["here"])
    (tmp_path / "other.whl").write_bytes(contents["here"])
    assert [wheel.name for wheel in wheel_lock.missing_wheels(wheels, tmp_path)] == [
        "other",
        "gone",
    ]


def test_a_difference_is_one_line_per_wheel() -> None:
    new = WheelLock(
        freeze="now",
        wheels=(wheel("bits", version="2.0"), wheel("new"), *LOCK.wheels[2:]),
    )
    assert wheel_lock.compare_locks(LOCK, new) == [
        "~ bits 1.0 (wanted) → 2.0 (wanted)",
        "- deep 1.0",
        "+ new 1.0 (wanted)",
    ]
    assert wheel_lock.compare_locks(new, new) == []
    assert LOCK.digest() != new.digest()
