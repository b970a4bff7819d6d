"""Each fault of Python, packages, image, wheels or GPU gives a check result with its fix."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from parity.deploy.image import freeze as freezes
from parity.deploy.image import image_checks, image_lock
from parity.deploy.image.image_checks import CheckResult
from parity.deploy.image.image_lock import MEASURED, Fact, ImageLock
from parity.deploy.wheelhouse import wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Wheel, WheelLock
from parity.run import digest
from parity.run.errors import BadConfig, BadData, Mismatch

FREEZE = "numpy==2.0.2\ntorch==2.10.0+cu128\ntransformers==5.0.0\nkaggle==2.0.2\n"
FROZEN = freezes.parse_freeze(FREEZE)
FINGERPRINT = freezes.fingerprint(FROZEN)
LOCK = """\
# a comment
numpy==2.0.2 \\
    --hash=sha256:00
transformers==5.0.0 ; sys_platform == 'linux' \\
    --hash=sha256:00
"""


def levels(results: list[CheckResult]) -> list[str]:
    return [result.level for result in results]


# Results


def test_a_result_is_one_line_with_its_fix() -> None:
    assert CheckResult("ok", "all is well").line() == "ok       all is well"
    line = CheckResult("warning", "a message", "do this").line()
    assert line == "warning  a message — do this"
    line = CheckResult("error", "a message", ("wheels", "--dry-run")).line()
    assert line == "error    a message — wheels --dry-run"


def test_the_result_of_an_error_has_its_fix_and_kind() -> None:
    result = image_checks.error_result(Mismatch("two\n files differ", fix=("train",)))
    assert result == CheckResult("error", "two files differ", ("train",), "local")
    result = image_checks.error_result(BadConfig("wrong"))
    assert result == CheckResult("error", "wrong", "", "configuration")


def test_an_error_in_a_check_gets_the_given_level() -> None:
    def fail() -> str:
        raise BadData("cannot")

    assert image_checks.run_check("disk:", fail, "warning").level == "warning"
    expected = CheckResult("ok", "disk: 5 GB")
    assert image_checks.run_check("disk:", lambda: "5 GB") == expected


def test_the_first_error_decides() -> None:
    warning, first, second = (CheckResult(level, level) for level in ("warning", "error", "error"))
    assert image_checks.first_error([warning, first, second]) is first
    assert image_checks.first_error([warning]) is None


# Python and packages


def test_another_supported_python_than_the_images_is_ok() -> None:
    result = image_checks.check_python((3, 11, 7), "3.12.13")
    assert (result.level, result.message) == ("ok", "Python 3.11.7 (image: 3.12.13; may differ)")
    assert image_checks.check_python((3, 12, 13), "3.12.13").message == "Python 3.12.13"


@pytest.mark.parametrize("version", [(3, 10, 1), (3, 13, 0)])
def test_an_unsupported_python_is_an_error(version: tuple[int, int, int]) -> None:
    result = image_checks.check_python(version, "3.12.13")
    assert (result.level, result.kind) == ("error", "configuration")
    assert "expected 3.11 or 3.12" in result.message


def test_packages_with_locked_versions_are_ok() -> None:
    installed = {"numpy": "2.0.2", "transformers": "5.0.0", "torch": "2.13.0+cpu"}
    (result,) = image_checks.check_packages(installed, LOCK)
    assert (result.level, result.message.split()[0]) == ("ok", "2")


def test_a_package_that_is_missing_or_not_of_the_locked_version_is_an_error() -> None:
    installed = {"numpy": "2.1.0", "transformers": "", "torch": ""}
    results = image_checks.check_packages(installed, LOCK)
    assert levels(results) == ["error", "error"]
    assert results[0].message == "numpy 2.1.0; the lock has 2.0.2"
    assert results[1].message == "transformers is not installed; the lock has 5.0.0"
    assert all(str(result.fix).startswith("./inv") for result in results)


def test_only_a_few_packages_may_differ_from_the_image() -> None:
    installed = {
        "torch": "2.13.0+cpu",
        "numpy": "2.0.2",
        "transformers": "5.0.0",
        "bitsandbytes": "0.50.2",
    }
    (result,) = image_checks.check_drift(installed, FROZEN)
    assert result.level == "ok"
    assert "torch 2.13.0+cpu (image: 2.10.0+cu128)" in result.message
    assert "bitsandbytes 0.50.2 (image: absent)" in result.message
    drift, _ = image_checks.check_drift({**installed, "transformers": "5.1.0"}, FROZEN)
    assert drift.level == "warning"
    assert drift.message.startswith("transformers 5.1.0 (image: 5.0.0)")


# The image


def write_lock(folder: Path, **values: str) -> Path:
    """Write a freeze and an image lock that names it, some facts changed; return the lock."""
    facts = dict.fromkeys(image_lock.FACTS, "known")
    facts |= {
        "image": "gcr.io/kaggle-gpu-images/python",
        "digest": "sha256:" + "b" * 64,
        "tag": "v170-GPU",
        "git_commit": "c" * 40,
        "python": "3.12.13",
        "freeze": "image-freeze.txt",
        "freeze_sha256": digest.of_text(FREEZE),
    }
    (folder / "image-freeze.txt").write_text(FREEZE)
    records = {name: Fact(value, "approximated from a list") for name, value in facts.items()}
    records |= {name: Fact(value, MEASURED) for name, value in values.items()}
    ImageLock(records).write(folder / "image.lock")
    return folder / "image.lock"


def test_a_freeze_that_was_not_measured_is_a_warning(tmp_path: Path) -> None:
    (result,) = image_checks.check_image_lock(write_lock(tmp_path))
    assert (result.level, result.fix) == ("warning", ("image.lock", "--freeze", "FILE"))
    (result,) = image_checks.check_image_lock(write_lock(tmp_path, freeze="image-freeze.txt"))
    assert (
        result.message
        == "image lock v170-GPU, sha256:bbbbbbbbbbbb, freeze measured in the container"
    )
    assert result.level == "ok"


def test_a_lock_that_is_missing_not_pinned_or_of_another_freeze_is_an_error(
    tmp_path: Path,
) -> None:
    (result,) = image_checks.check_image_lock(tmp_path / "image.lock")
    assert (result.level, result.message) == ("error", "image.lock is missing")
    (result,) = image_checks.check_image_lock(write_lock(tmp_path, digest="latest"))
    assert (result.level, result.kind) == ("error", "configuration")
    assert "not pinned" in result.message
    path = write_lock(tmp_path)
    (tmp_path / "image-freeze.txt").write_text(FREEZE + "six==1.17.0\n")
    (result,) = image_checks.check_image_lock(path)
    assert (result.level, result.kind) == ("error", "local")
    assert result.fix[:2] == ("image.lock", "--freeze")


def test_another_running_image_than_the_locked_one_is_an_error(tmp_path: Path) -> None:
    lock = image_lock.read(write_lock(tmp_path))
    assert image_checks.check_running_image(lock, "").message == "not inside Kaggle's image"
    assert image_checks.check_running_image(lock, "c" * 40).level == "ok"
    result = image_checks.check_running_image(lock, "d" * 40)
    assert (result.level, result.kind) == ("error", "local")
    assert "dddddddddddd, but the lock pins cccccccccccc" in result.message


# The wheelhouse


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a wheelhouse with one locked wheel and the project's own."""
    (tmp_path / "extra-1.0-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "kaggle_parity-0.1.0-py3-none-any.whl").write_bytes(b"own")
    file, sha256 = "extra-1.0-py3-none-any.whl", digest.of_bytes(b"wheel")
    wheel = Wheel("extra", "1.0", file, sha256, 5, (wheel_lock.WANTED,))
    wheel_lock.write(tmp_path / "wheels.lock", WheelLock(FINGERPRINT, (wheel,)))
    return tmp_path


def check(
    house: Path, freeze: str = FINGERPRINT, wants: tuple[str, ...] = ("extra",)
) -> list[CheckResult]:
    return image_checks.check_wheelhouse(house, wants, freeze)


def test_a_complete_wheelhouse_is_ok(house: Path) -> None:
    message = "wheelhouse holds extra 1.0 and the project's wheel"
    assert check(house) == [CheckResult("ok", message)]


def test_a_wheel_with_other_bytes_is_an_error(house: Path) -> None:
    (house / "extra-1.0-py3-none-any.whl").write_bytes(b"other")
    (result,) = check(house)
    assert (result.level, result.kind, result.fix) == ("error", "local", ("wheels",))


def test_a_missing_wheel_is_a_warning(house: Path) -> None:
    (house / "extra-1.0-py3-none-any.whl").unlink()
    (house / "kaggle_parity-0.1.0-py3-none-any.whl").unlink()
    results = check(house)
    assert levels(results) == ["warning", "warning"]
    assert results[0].message == "wheelhouse: extra-1.0-py3-none-any.whl missing"
    assert results[1].message == "wheelhouse: the project's wheel is missing"


def test_a_lock_that_is_broken_or_not_for_this_run_is_a_warning(house: Path) -> None:
    for results in (check(house, wants=("other",)), check(house, freeze="0" * 64)):
        assert levels(results) == ["warning"]
        assert results[0].fix == ("wheels",)
    (house / "wheels.lock").write_text("{}")
    assert levels(check(house)) == ["warning"]
    (house / "wheels.lock").unlink()
    assert levels(check(house)) == ["warning"]


# The GPUs


def test_each_gpu_is_listed_with_its_precision() -> None:
    report = "Tesla T4, 15360 MiB, 7.5\nTesla T4, 15360 MiB, 7.5\n"
    results = image_checks.check_gpus(report, "auto")
    message = "Tesla T4, 15360 MiB, capability 7.5: fp16, never bf16"
    assert [result.message for result in results] == [message] * 2
    (h100,) = image_checks.check_gpus("NVIDIA H100 80GB HBM3, 81559 MiB, 9.0\n", "bf16")
    assert (h100.level, h100.message.rpartition(" ")[2]) == ("ok", "bf16")


def test_bf16_on_a_gpu_that_does_not_support_it_is_an_error() -> None:
    report = "NVIDIA L4, 23034 MiB, 8.9\nTesla T4, 15360 MiB, 7.5\n"
    *_, last = image_checks.check_gpus(report, "bf16")
    assert (last.level, last.fix) == ("error", "--set=encoder.precision=fp16")
    assert "capability 7.5" in last.message


def test_fp8_on_a_gpu_that_does_not_support_it_is_an_error() -> None:
    report = "NVIDIA A100-SXM4-40GB, 40960 MiB, 8.0\n"
    *_, last = image_checks.check_gpus(report, "auto", "mining")
    assert (last.level, last.fix) == ("error", "--set=mining.quantize=none")
    assert "capability 8 does not support it" in last.message
    report = "NVIDIA L4, 23034 MiB, 8.9\n"
    assert levels(image_checks.check_gpus(report, "auto", "encoder")) == ["ok"]


def test_a_machine_without_a_gpu_is_ok_but_a_silent_gpu_is_a_warning() -> None:
    assert levels(image_checks.check_gpus("", "auto")) == ["ok"]
    for report in ("nvidia-smi does not respond", "Tesla T4, [N/A], [N/A]"):
        assert levels(image_checks.check_gpus(report, "auto")) == ["warning"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'Tesla T4, 15360 MiB, 7.5'", "Tesla T4, 15360 MiB, 7.5\n"),
        ("echo no driver >&2; exit 9", "nvidia-smi does not respond"),
        ("sleep 20", "nvidia-smi does not respond"),
    ],
)
def test_nvidia_smi_is_called_with_a_timeout(
    script: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nexec 1>&1\n{script}\n".replace("sleep", "exec sleep"))
    tool.chmod(0o755)
    monkeypatch.setattr(image_checks, "shutil", SimpleNamespace(which=lambda _: str(tool)))
    monkeypatch.setattr(image_checks, "_SMI_SECONDS", 2)
    assert image_checks.query_gpus() == expected


def test_without_nvidia_smi_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_checks, "shutil", SimpleNamespace(which=lambda _: None))
    assert image_checks.query_gpus() == ""
