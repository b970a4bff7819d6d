"""Each wrong state of Python, packages, image, wheels and GPU is told, with what mends it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from parity.deploy.image import freeze as freezes
from parity.deploy.image import image_checks, image_lock
from parity.deploy.image.image_checks import CheckResult
from parity.deploy.image.image_lock import MEASURED, Fact, ImageLock
from parity.deploy.wheelhouse import wheel_lock
from parity.deploy.wheelhouse.wheel_lock import Lock, Wheel
from parity.run import digest
from parity.run.errors import BadConfig, BadData, Mismatch

FREEZE = "numpy==2.0.2\ntorch==2.10.0+cu128\ntransformers==5.0.0\nkaggle==2.0.2\n"
FROZEN = freezes.parse(FREEZE)
UNDER = freezes.fingerprint(FROZEN)
LOCK = """\
# a comment
numpy==2.0.2 \\
    --hash=sha256:00
transformers==5.0.0 ; sys_platform == 'linux' \\
    --hash=sha256:00
"""


def levels(findings: list[CheckResult]) -> list[str]:
    return [finding.level for finding in findings]


# Findings


def test_a_finding_is_a_line_with_its_mend() -> None:
    assert CheckResult("ok", "all is well").line() == "ok       all is well"
    told = CheckResult("warning", "a thing", "do this").line()
    assert told == "warning  a thing — do this"


def test_an_error_becomes_a_finding_whose_mend_is_its_command() -> None:
    found = image_checks.failed(Mismatch("two\n things differ; run: invoke train"))
    assert found == CheckResult("error", "two things differ", "invoke train", "local")
    assert image_checks.failed(BadConfig("odd")) == CheckResult("error", "odd", "", "configuration")


def test_a_check_that_raises_is_found_at_the_level_it_was_given() -> None:
    def wrong() -> str:
        raise BadData("cannot; run: that")

    assert image_checks.attempt("it:", wrong, "warning").level == "warning"
    assert image_checks.attempt("it:", lambda: "is there") == CheckResult("ok", "it: is there")


def test_the_first_error_decides() -> None:
    warning, first, second = (CheckResult(level, level) for level in ("warning", "error", "error"))
    assert image_checks.worst([warning, first, second]) is first
    assert image_checks.worst([warning]) is None


# Python and packages


def test_another_python_than_the_images_is_named_and_well() -> None:
    found = image_checks.python((3, 11, 7), "3.12.13")
    assert (found.level, found.what) == ("ok", "Python 3.11.7 (image: 3.12.13; may differ)")
    assert image_checks.python((3, 12, 13), "3.12.13").what == "Python 3.12.13"


@pytest.mark.parametrize("version", [(3, 10, 1), (3, 13, 0)])
def test_a_python_that_is_not_supported_is_an_error(version: tuple[int, int, int]) -> None:
    found = image_checks.python(version, "3.12.13")
    assert (found.level, found.kind) == ("error", "configuration")
    assert "wanted 3.11 or 3.12" in found.what


def test_packages_of_the_lock_are_well() -> None:
    here = {"numpy": "2.0.2", "transformers": "5.0.0", "torch": "2.13.0+cpu"}
    (found,) = image_checks.packages(here, LOCK)
    assert (found.level, found.what.split()[0]) == ("ok", "2")


def test_a_package_that_is_not_of_the_lock_or_missing_is_an_error() -> None:
    found = image_checks.packages({"numpy": "2.1.0", "transformers": "", "torch": ""}, LOCK)
    assert levels(found) == ["error", "error"]
    assert found[0].what == "numpy 2.1.0; the lock has 2.0.2"
    assert found[1].what == "transformers is not installed; the lock has 5.0.0"
    assert all(one.mend.startswith("./inv") for one in found)


def test_what_differs_from_the_image_is_named_and_only_torch_and_what_it_lacks_may() -> None:
    here = {
        "torch": "2.13.0+cpu",
        "numpy": "2.0.2",
        "transformers": "5.0.0",
        "bitsandbytes": "0.50.2",
    }
    (found,) = image_checks.drifts(here, FROZEN)
    assert found.level == "ok"
    assert "torch 2.13.0+cpu (image: 2.10.0+cu128)" in found.what
    assert "bitsandbytes 0.50.2 (image: absent)" in found.what
    odd, _ = image_checks.drifts({**here, "transformers": "5.1.0"}, FROZEN)
    assert odd.level == "warning"
    assert odd.what.startswith("transformers 5.1.0 (image: 5.0.0)")


# The image


def locked(folder: Path, **values: str) -> Path:
    """Write a freeze and an image lock that names it, some facts changed, and return the lock."""
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
    told = {name: Fact(value, "approximated from a list") for name, value in facts.items()}
    told |= {name: Fact(value, MEASURED) for name, value in values.items()}
    ImageLock(told).write(folder / "image.lock")
    return folder / "image.lock"


def test_a_freeze_that_nobody_measured_is_a_warning(tmp_path: Path) -> None:
    (found,) = image_checks.locked_image(locked(tmp_path))
    assert (found.level, "invoke image.lock --freeze FILE" in found.mend) == ("warning", True)
    (found,) = image_checks.locked_image(locked(tmp_path, freeze="image-freeze.txt"))
    assert (
        found.what == "image lock v170-GPU, sha256:bbbbbbbbbbbb, freeze measured in the container"
    )
    assert found.level == "ok"


def test_a_lock_that_is_not_there_not_pinned_or_of_another_freeze_is_an_error(
    tmp_path: Path,
) -> None:
    (found,) = image_checks.locked_image(tmp_path / "image.lock")
    assert (found.level, found.what) == ("error", "image.lock is not there")
    (found,) = image_checks.locked_image(locked(tmp_path, digest="latest"))
    assert (found.level, found.kind) == ("error", "configuration")
    assert "not pinned" in found.what
    path = locked(tmp_path)
    (tmp_path / "image-freeze.txt").write_text(FREEZE + "six==1.17.0\n")
    (found,) = image_checks.locked_image(path)
    assert (found.level, found.kind) == ("error", "local")
    assert found.mend.startswith("invoke image.lock --freeze")


def test_the_running_image_is_the_locked_one_or_an_error(tmp_path: Path) -> None:
    lock = image_lock.read(locked(tmp_path))
    assert image_checks.running_image(lock, "").what == "not inside Kaggle's image"
    assert image_checks.running_image(lock, "c" * 40).level == "ok"
    found = image_checks.running_image(lock, "d" * 40)
    assert (found.level, found.kind) == ("error", "local")
    assert "dddddddddddd; the lock pins cccccccccccc" in found.what


# The wheelhouse


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a wheelhouse of one locked wheel and the project's own."""
    (tmp_path / "extra-1.0-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "kaggle_parity-0.1.0-py3-none-any.whl").write_bytes(b"own")
    file, sha256 = "extra-1.0-py3-none-any.whl", digest.of_bytes(b"wheel")
    wheel = Wheel("extra", "1.0", file, sha256, 5, (wheel_lock.WANTED,))
    wheel_lock.write(tmp_path / "wheels.lock", Lock(UNDER, (wheel,)))
    return tmp_path


def look(house: Path, under: str = UNDER, wants: tuple[str, ...] = ("extra",)) -> list[CheckResult]:
    return image_checks.wheelhouse(house, wants, under, "invoke wheels")


def test_a_whole_wheelhouse_is_well(house: Path) -> None:
    assert look(house) == [
        CheckResult("ok", "wheelhouse holds extra 1.0 and the project's own wheel")
    ]


def test_a_wheel_with_other_bytes_is_an_error(house: Path) -> None:
    (house / "extra-1.0-py3-none-any.whl").write_bytes(b"other")
    (found,) = look(house)
    assert (found.level, found.kind, found.mend) == ("error", "local", "invoke wheels")


def test_a_wheel_that_is_missing_is_a_warning(house: Path) -> None:
    (house / "extra-1.0-py3-none-any.whl").unlink()
    (house / "kaggle_parity-0.1.0-py3-none-any.whl").unlink()
    found = look(house)
    assert levels(found) == ["warning", "warning"]
    assert found[0].what == "wheelhouse lacks extra-1.0-py3-none-any.whl"
    assert found[1].what == "wheelhouse lacks the project's own wheel"


def test_a_lock_without_the_package_for_another_image_or_broken_is_a_warning(house: Path) -> None:
    for found in (look(house, wants=("other",)), look(house, under="0" * 64)):
        assert levels(found) == ["warning"]
        assert found[0].mend == "invoke wheels"
    (house / "wheels.lock").write_text("{}")
    assert levels(look(house)) == ["warning"]
    (house / "wheels.lock").unlink()
    assert levels(look(house)) == ["warning"]


# The GPU


def test_a_gpu_is_told_with_what_it_can_do() -> None:
    found = image_checks.gpu("Tesla T4, 15360 MiB, 7.5\nTesla T4, 15360 MiB, 7.5\n", "auto")
    assert [one.what for one in found] == [
        "Tesla T4, 15360 MiB, capability 7.5: fp16, never bf16"
    ] * 2
    (found_,) = image_checks.gpu("NVIDIA H100 80GB HBM3, 81559 MiB, 9.0\n", "bf16")
    assert (found_.level, found_.what.rpartition(" ")[2]) == ("ok", "bf16")


def test_bf16_on_a_gpu_without_units_for_it_is_an_error() -> None:
    *_, last = image_checks.gpu("NVIDIA L4, 23034 MiB, 8.9\nTesla T4, 15360 MiB, 7.5\n", "bf16")
    assert (last.level, last.mend) == ("error", "--set=encoder.precision=fp16")
    assert "capability 7.5" in last.what


def test_8_bit_floats_on_a_gpu_without_units_for_them_are_an_error() -> None:
    *_, last = image_checks.gpu("NVIDIA A100-SXM4-40GB, 40960 MiB, 8.0\n", "auto", "mining")
    assert (last.level, last.mend) == ("error", "--set=mining.quantize=none")
    assert "capability 8 has no units" in last.what
    assert levels(image_checks.gpu("NVIDIA L4, 23034 MiB, 8.9\n", "auto", "encoder")) == ["ok"]


def test_no_gpu_is_well_and_one_that_does_not_answer_is_a_warning() -> None:
    assert levels(image_checks.gpu("", "auto")) == ["ok"]
    for said in ("nvidia-smi does not answer", "Tesla T4, [N/A], [N/A]"):
        assert levels(image_checks.gpu(said, "auto")) == ["warning"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'Tesla T4, 15360 MiB, 7.5'", "Tesla T4, 15360 MiB, 7.5\n"),
        ("echo no driver >&2; exit 9", "nvidia-smi does not answer"),
        ("sleep 20", "nvidia-smi does not answer"),
    ],
)
def test_nvidia_smi_is_asked_and_not_waited_for(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nexec 1>&1\n{script}\n".replace("sleep", "exec sleep"))
    tool.chmod(0o755)
    monkeypatch.setattr(image_checks, "shutil", SimpleNamespace(which=lambda _: str(tool)))
    monkeypatch.setattr(image_checks, "_SMI_SECONDS", 2)
    assert image_checks.ask_gpu() == said


def test_without_nvidia_smi_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_checks, "shutil", SimpleNamespace(which=lambda _: None))
    assert image_checks.ask_gpu() == ""
