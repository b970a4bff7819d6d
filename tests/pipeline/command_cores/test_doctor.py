"""`doctor` prints every result, in eighty columns or as JSON, and raises the first error."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.deploy.bundle import bundle_checks
from parity.deploy.image import image_checks
from parity.deploy.image.image_checks import CheckResult
from parity.deploy.kaggle_api import login_checks
from parity.pipeline.command_cores import doctor
from parity.run import environment, files
from parity.run.command_line import PROGRAM
from parity.run.errors import BadConfig, Mismatch


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Replace what the checks read by a machine without problems."""
    for name in os.environ:
        if name.startswith(("PIP_", "UV_", "HF_", "KAGGLE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "engines", SimpleNamespace(find=lambda: "buildah 1.28.2"))
    monkeypatch.setattr(image_checks, "query_gpus", lambda: "")
    monkeypatch.setattr(
        doctor, "tempfile", SimpleNamespace(gettempdir=lambda: str(tmp_path / "scratch"))
    )


def check(small_run: RunFixture, *sets: str) -> list[CheckResult]:
    run = small_run.open(*sets)
    return list(doctor.check_machine(run.config, run.workspace, run.round))


def about(findings: list[CheckResult], words: str) -> CheckResult:
    (result,) = (finding for finding in findings if words in finding.message)
    return result


def errors(findings: list[CheckResult]) -> list[str]:
    return [finding.message for finding in findings if finding.level == "error"]


def test_a_machine_without_fault_ends_well(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    record = doctor.doctor(small_run.open())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("no error, ")
    kinds = {line[:9].strip() for line in lines[:-1]}
    assert kinds <= {"ok", "warning", ""}
    assert {item["level"] for item in record["findings"]} <= {"ok", "warning"}
    assert len(record["findings"]) >= 14


def test_every_part_of_the_machine_is_checked(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)  # doctor reports what the tests run under
    text = "\n".join(item.line() for item in check(small_run))
    for words in (
        *("Python 3.", "requirements.lock", "image lock v", "differs from the image"),
        *("heel", "Kaggle client", "Kaggle login", "variable", "upload state"),
        *("Kaggle's image", "/kaggle/input", "GPU", "builds images with", "Python of the image"),
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
def test_the_first_error_is_raised_with_its_fix_and_all_findings(
    level: Any,
    kind: Any,
    error: type[Exception],
    code: int,
    small_run: RunFixture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = CheckResult(level, "a size is wrong", "repair it", kind)
    second = CheckResult(
        "error", "another", "", "local" if kind == "configuration" else "configuration"
    )
    results = [CheckResult("warning", "a doubt"), first, second]
    monkeypatch.setattr(doctor, "check_machine", lambda *_: results)
    with pytest.raises(error) as failure:
        doctor.doctor(small_run.open())
    assert str(failure.value) == (
        "doctor found 2 errors and 1 warnings; the first: a size is wrong. Fix: repair it"
    )
    assert failure.value.exit_code == code  # type: ignore[attr-defined]
    (note,) = failure.value.__notes__
    assert [item["message"] for item in json.loads(note)["findings"]] == [
        item.message for item in results
    ]
    assert "error    a size is wrong — repair it" in capsys.readouterr().out


def test_the_command_line_returns_the_class_of_the_first_error(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor", "small.toml"]) == 0
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
    assert main(["doctor", "small.toml"]) == 2


def test_findings_are_json_for_a_program(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "small.toml", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    findings = json.loads(line)["findings"]
    assert all(finding.keys() == {"level", "message", "fix", "kind"} for finding in findings)


def test_a_client_of_another_version_is_an_error(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = environment.version
    monkeypatch.setattr(
        environment, "version", lambda name: "2.2.4" if name == "kaggle" else version(name)
    )
    assert errors(check(small_run)) == ["kaggle must be 2.2.5 but is 2.2.4"]


def test_upload_state_in_the_temporary_folder_is_seen(
    small_run: RunFixture, tmp_path: Path
) -> None:
    state = tmp_path / "scratch" / f".kaggle-uploads-{os.getuid()}" / "one"
    files.write_text(state, "")
    assert about(check(small_run), "upload state").level == "warning"


def test_an_image_that_is_not_the_locked_one_is_seen(
    small_run: RunFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = tmp_path / "git_commit"
    commit.write_text("d" * 40 + "\n")
    monkeypatch.setattr(doctor, "_COMMIT", commit)
    assert about(check(small_run), "inside an image").level == "error"


def test_what_kaggle_mounts_is_named_and_nothing_mounted_is_a_warning(
    small_run: RunFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    monkeypatch.setattr(doctor, "_INPUT", folder)
    assert about(check(small_run), f"{folder} is empty").level == "warning"
    (folder / "small-bundle").mkdir()
    assert about(check(small_run), "holds small-bundle").level == "ok"


def test_bf16_is_checked_against_the_gpu(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_checks, "query_gpus", lambda: "Tesla T4, 15360 MiB, 7.5\n")
    assert errors(check(small_run)) == []
    (message,) = errors(check(small_run, "encoder.precision=bf16"))
    assert message == "encoder.precision = bf16: capability 7.5 does not support it"


@pytest.mark.parametrize(("free", "level"), [(6e9, "ok"), (4e9, "warning"), (5e8, "error")])
def test_a_disk_that_runs_full_is_seen(
    free: float, level: str, small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_checks, "free_bytes", lambda _: int(free))
    assert about(check(small_run), "data folder").level == level


def test_no_engine_and_no_other_python_are_warnings(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise BadConfig("none here; install one")

    monkeypatch.setattr(doctor, "engines", SimpleNamespace(find=none))
    monkeypatch.setattr(doctor, "interpreters", SimpleNamespace(find=none))
    results = [item for item in check(small_run) if item.message.startswith("none here")]
    assert [result.level for result in results] == ["warning", "warning"]


def test_without_a_checkout_all_else_is_checked(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_checkout", lambda: None)
    results = check(small_run)
    assert about(results, "no requirements.lock").level == "ok"
    assert about(results, "Kaggle client").level == "ok"
    assert errors(results) == []


def test_a_fix_is_a_complete_command(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROGRAM, "./inv")
    missing = CheckResult("warning", "a wheel is missing", ("wheels",))
    monkeypatch.setattr(doctor, "check_machine", lambda *_: [missing])
    record = doctor.doctor(small_run.open("split.seed=7", round_=1))
    (finding,) = record["findings"]
    assert finding["fix"] == "`./inv wheels --run small.toml --set=split.seed=7`"


def test_an_adapter_is_checked_against_its_base(predicted_run: RunFixture) -> None:
    assert about(check(predicted_run), "adapter of small, round 0: LoRA of rank 4").level == "ok"
    result = about(check(predicted_run, "encoder.num_layers=1"), "trained on 0 layers")
    assert (result.level, result.kind, result.fix) == ("error", "local", ("train",))
    record = predicted_run.open().workspace.adapter(0) / "adapter.json"
    files.write_json(record, {**files.read_json(record), "base": "0" * 64})
    assert "trained on a base of digest 000000000000" in "".join(errors(check(predicted_run)))


def test_a_run_without_an_adapter_is_ok(small_run: RunFixture) -> None:
    assert about(check(small_run), "adapter of small").message.endswith("none yet")


def test_kaggle_is_checked_only_on_request(
    small_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    competitions: list[str] = []

    def answer(_: object, competition: str) -> list[CheckResult]:
        competitions.append(competition)
        return [CheckResult("ok", "Kaggle accepts the login of ann")]

    monkeypatch.setattr(login_checks, "check_access", answer)
    doctor.doctor(small_run.open())
    assert competitions == []
    record = doctor.doctor(small_run.open(), "online")
    assert competitions == ["small"]
    assert record["findings"][-1]["message"] == "Kaggle accepts the login of ann"
