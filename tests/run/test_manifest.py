"""A stage without a manifest has not finished, and changed outputs are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from parity.run import digest, files, manifest
from parity.run.config.encoder import EncoderConfig
from parity.run.config.run_file import Config
from parity.run.errors import StaleInput
from parity.run.manifest import Manifest

FIX = ("mine", "--run", "first.toml")
DRAFT = Manifest(
    stage="mine",
    config={"mining": {"count": 15}},
    inputs={"ranking": "aa"},
    outputs={},
    facts={"rows": 3},
    seconds=1.23456,
)


def stage(folder: Path) -> Path:
    """Write the folder of a stage with two outputs, and a log that is not an output."""
    files.write_text(folder / "negatives.jsonl", "1\n")
    files.write_text(folder / "deep" / "weights.bin", "2\n")
    files.write_text(folder / "log.txt", "x\n")
    return folder


def finished(folder: Path) -> Manifest:
    return manifest.write(stage(folder), DRAFT, ["negatives.jsonl", "deep/weights.bin"])


def refusal(folder: Path) -> str:
    with pytest.raises(StaleInput) as error:
        manifest.require(folder, FIX)
    assert error.value.fix == FIX
    return str(error.value)


def test_a_manifest_has_the_digests_of_its_outputs(tmp_path: Path) -> None:
    done = finished(tmp_path / "mine")
    assert done.outputs == {
        "negatives.jsonl": digest.of_text("1\n"),
        "deep/weights.bin": digest.of_text("2\n"),
    }
    assert done.seconds == 1.235
    assert done.environment["packages"]["numpy"]


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    done = finished(tmp_path / "mine")
    assert manifest.read(tmp_path / "mine") == done
    assert manifest.require(tmp_path / "mine", FIX) == done
    assert done == replace(
        DRAFT, outputs=done.outputs, environment=done.environment, seconds=done.seconds
    )


def test_a_missing_output_leaves_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        manifest.write(stage(tmp_path / "mine"), DRAFT, ["negatives.jsonl", "other.jsonl"])
    assert manifest.read(tmp_path / "mine") is None


def test_a_stage_without_a_manifest_has_not_finished(tmp_path: Path) -> None:
    assert refusal(tmp_path / "mine") == "stage mine has not finished"
    assert refusal(stage(tmp_path / "mine")) == "stage mine has not finished"


def test_a_restarted_stage_has_not_finished(tmp_path: Path) -> None:
    finished(tmp_path / "mine")
    manifest.forget(tmp_path / "mine")
    assert refusal(tmp_path / "mine") == "stage mine has not finished"
    manifest.forget(tmp_path / "mine")  # a missing manifest is fine


@pytest.mark.parametrize("name", ["negatives.jsonl", "deep/weights.bin"])
def test_a_changed_or_missing_output_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mine"
    finished(folder)
    problem = f"{folder / name} is missing or has changed since it was written"
    files.write_text(folder / name, "other\n")
    assert refusal(folder) == problem
    (folder / name).unlink()
    assert refusal(folder) == problem


def test_a_file_that_is_not_an_output_may_change(tmp_path: Path) -> None:
    done = finished(tmp_path / "mine")
    files.write_text(tmp_path / "mine" / "log.txt", "longer\n")
    assert manifest.require(tmp_path / "mine", FIX) == done


def test_the_digest_ignores_time_machine_facts_and_config() -> None:
    elsewhere = replace(
        DRAFT,
        seconds=99.0,
        environment={"cpus": 128},
        facts={"rows": 4},
        config={"data": {"source": "elsewhere"}},
    )
    assert elsewhere.digest() == DRAFT.digest()


@pytest.mark.parametrize(
    "changed",
    [
        replace(DRAFT, stage="train"),
        replace(DRAFT, inputs={"ranking": "ab"}),
        replace(DRAFT, outputs={"negatives.jsonl": "aa"}),
    ],
    ids=["stage", "inputs", "outputs"],
)
def test_the_digest_covers_stage_inputs_and_outputs(changed: Manifest) -> None:
    assert changed.digest() != DRAFT.digest()


def test_sections_are_plain_values_with_the_overrides() -> None:
    config = Config(
        name="first", encoder=EncoderConfig(num_layers=4), overrides=("encoder.num_layers=4",)
    )
    plain = manifest.sections(config, ("encoder", "training"))
    assert list(plain) == ["encoder", "training", "overrides"]
    assert plain["encoder"]["num_layers"] == 4
    assert plain["training"]["target_modules"] == []
    assert plain["overrides"] == ["encoder.num_layers=4"]
    digest.of_value(plain)
