"""The doctor tells all it finds, in eighty columns or as JSON, and ends by the first error."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pipeline.run_fixture import Bench

from parity.__main__ import main
from parity.deploy.bundle import bundle_checks as shipping
from parity.deploy.image import image_checks
from parity.deploy.image.image_checks import CheckResult
from parity.deploy.kaggle_api import login_checks as outside
from parity.pipeline.command_cores import doctor
from parity.run import environment, files
from parity.run.errors import BadConfig, Mismatch
from parity.run.paths import RunPaths


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Look at a machine that is as it should be, whatever this one is."""
    for name in os.environ:
        if name.startswith(("PIP_", "UV_", "HF_", "KAGGLE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "engines", SimpleNamespace(find=lambda: "buildah 1.28.2"))
    monkeypatch.setattr(image_checks, "ask_gpu", lambda: "")
    monkeypatch.setattr(
        doctor, "tempfile", SimpleNamespace(gettempdir=lambda: str(tmp_path / "scratch"))
    )


def look(bench: Bench, *sets: str) -> list[CheckResult]:
    return list(doctor.local(bench.run(*sets)))


def about(findings: list[CheckResult], words: str) -> CheckResult:
    (found,) = (finding for finding in findings if words in finding.what)
    return found


def errors(findings: list[CheckResult]) -> list[str]:
    return [finding.what for finding in findings if finding.level == "error"]


def test_a_machine_without_fault_ends_well(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    told = doctor.doctor(bench.run())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("no error, ")
    kinds = {line[:9].strip() for line in lines[:-1]}
    assert kinds <= {"ok", "warning", ""}
    assert {one["level"] for one in told["findings"]} <= {"ok", "warning"}
    assert len(told["findings"]) >= 14


def test_everything_that_was_asked_for_is_looked_at(bench: Bench) -> None:
    text = "\n".join(one.line() for one in look(bench))
    for words in (
        *("Python 3.", "requirements.lock", "image lock v", "differs from the image"),
        *("heel", "Kaggle client", "login for Kaggle", "variable", "upload state"),
        *("Kaggle's image", "/kaggle/input", "GPU", "builds images with", "image's Python"),
        *("data folder", "temporary folder", "adapter of small, round 0"),
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("level", "kind", "error", "code"),
    [
        ("error", "configuration", BadConfig, 2),
        ("error", "local", Mismatch, 6),
    ],
)
def test_the_first_error_is_raised_with_its_mend_and_all_findings(
    level: Any,
    kind: Any,
    error: type[Exception],
    code: int,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = CheckResult(level, "a thing is wrong", "mend it", kind)
    second = CheckResult(
        "error", "another", "", "local" if kind == "configuration" else "configuration"
    )
    found = [CheckResult("warning", "a doubt"), first, second]
    monkeypatch.setattr(doctor, "local", lambda run: found)
    with pytest.raises(error) as caught:
        doctor.doctor(bench.run())
    assert str(caught.value) == (
        "doctor found 2 errors and 1 warnings; the first: a thing is wrong; run: mend it"
    )
    assert caught.value.exit_code == code  # type: ignore[attr-defined]
    (note,) = caught.value.__notes__
    assert [one["what"] for one in json.loads(note)["findings"]] == [one.what for one in found]
    assert "error    a thing is wrong — mend it" in capsys.readouterr().out


def test_the_command_line_returns_the_class_of_the_first_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor", "small.toml"]) == 0
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    assert main(["doctor", "small.toml"]) == 2


def test_findings_are_json_for_a_program(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "small.toml", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    findings = json.loads(line)["findings"]
    assert all(finding.keys() == {"level", "what", "mend", "kind"} for finding in findings)


def test_a_client_of_another_version_is_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = environment.version
    monkeypatch.setattr(
        environment, "version", lambda name: "2.2.4" if name == "kaggle" else version(name)
    )
    assert errors(look(bench)) == ["kaggle 2.2.4; wanted 2.2.5 exactly"]


def test_upload_state_in_the_temporary_folder_is_seen(bench: Bench, tmp_path: Path) -> None:
    state = tmp_path / "scratch" / f".kaggle-uploads-{os.getuid()}" / "one"
    files.write_text(state, "")
    assert about(look(bench), "upload state").level == "warning"


def test_an_image_that_is_not_the_locked_one_is_seen(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = tmp_path / "git_commit"
    commit.write_text("d" * 40 + "\n")
    monkeypatch.setattr(doctor, "_COMMIT", commit)
    assert about(look(bench), "inside an image").level == "error"


def test_what_kaggle_mounts_is_named_and_nothing_mounted_is_a_warning(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "input"
    place.mkdir()
    monkeypatch.setattr(doctor, "_INPUT", place)
    assert about(look(bench), f"{place} is empty").level == "warning"
    (place / "small-bundle").mkdir()
    assert about(look(bench), "holds small-bundle").level == "ok"


def test_bf16_is_checked_against_the_gpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_checks, "ask_gpu", lambda: "Tesla T4, 15360 MiB, 7.5\n")
    assert errors(look(bench)) == []
    (said,) = errors(look(bench, "encoder.precision=bf16"))
    assert said == "encoder.precision = bf16: capability 7.5 has no units for it"


@pytest.mark.parametrize(("free", "level"), [(6e9, "ok"), (4e9, "warning"), (5e8, "error")])
def test_a_disk_that_runs_full_is_seen(
    free: float, level: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "free", lambda _: int(free))
    assert about(look(bench), "data folder").level == level


def test_no_engine_and_no_other_python_are_warnings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise BadConfig("none here; install one")

    monkeypatch.setattr(doctor, "engines", SimpleNamespace(find=none))
    monkeypatch.setattr(doctor, "interpreters", SimpleNamespace(find=none))
    found = [one for one in look(bench) if one.what.startswith("none here")]
    assert [one.level for one in found] == ["warning", "warning"]


def test_outside_a_checkout_the_rest_is_still_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: RunPaths) -> Path:
        raise BadConfig("this needs a checkout of the project, not only its wheel: git clone it")

    monkeypatch.setattr(RunPaths, "checkout", property(none))
    found = look(bench)
    assert about(found, "needs a checkout").level == "warning"
    assert about(found, "Kaggle client").level == "ok"
    assert errors(found) == []


def test_an_adapter_is_checked_against_its_base(made: Bench) -> None:
    assert about(look(made), "adapter of small, round 0: LoRA of rank 4").level == "ok"
    found = about(look(made, "encoder.num_layers=1"), "trained on 0 layers")
    assert (found.level, found.kind, found.mend) == ("error", "local", "invoke train")
    record = made.run().workspace.adapter(0) / "adapter.json"
    files.write_json(record, {**files.read_json(record), "base": "0" * 64})
    assert "trained on a base of digest 000000000000" in "".join(errors(look(made)))


def test_a_run_without_an_adapter_is_well(bench: Bench) -> None:
    assert about(look(bench), "adapter of small").what.endswith("none yet")


def test_kaggle_is_asked_only_when_told_to(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(_: object, competition: str) -> list[CheckResult]:
        asked.append(competition)
        return [CheckResult("ok", "Kaggle accepts the login of ann")]

    monkeypatch.setattr(outside, "asked", answer)
    doctor.doctor(bench.run())
    assert asked == []
    told = doctor.doctor(bench.run(), "online")
    assert asked == ["small"]
    assert told["findings"][-1]["what"] == "Kaggle accepts the login of ann"
