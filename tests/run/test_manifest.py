"""No manifest, no stage: it is written last, and what was changed since is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from parity.run import digest, files, manifest
from parity.run.config.run_file import Config, EncoderConfig
from parity.run.errors import StaleInput
from parity.run.manifest import Manifest

COMMAND = "invoke mine --run first"
DRAFT = Manifest(
    stage="mine",
    config={"mining": {"count": 15}},
    inputs={"ranking": "aa"},
    outputs={},
    facts={"rows": 3},
    seconds=1.23456,
)


def stage(folder: Path) -> Path:
    """Write a stage's folder with two outputs, and a log that is none."""
    files.write_text(folder / "negatives.jsonl", "1\n")
    files.write_text(folder / "deep" / "weights.bin", "2\n")
    files.write_text(folder / "log.txt", "x\n")
    return folder


def finished(folder: Path) -> Manifest:
    return manifest.write(stage(folder), DRAFT, ["negatives.jsonl", "deep/weights.bin"])


def refusal(folder: Path) -> str:
    with pytest.raises(StaleInput) as caught:
        manifest.require(folder, COMMAND)
    assert str(caught.value).endswith(f"; run: {COMMAND}")
    return str(caught.value).removesuffix(f"; run: {COMMAND}")


def test_the_outputs_named_are_digested_when_all_else_is_there(tmp_path: Path) -> None:
    done = finished(tmp_path / "mine")
    assert done.outputs == {
        "negatives.jsonl": digest.of_text("1\n"),
        "deep/weights.bin": digest.of_text("2\n"),
    }
    assert done.seconds == 1.235
    assert done.environment["packages"]["numpy"]


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    done = finished(tmp_path / "mine")
    assert manifest.read(tmp_path / "mine") == done
    assert manifest.require(tmp_path / "mine", COMMAND) == done
    assert done == replace(
        DRAFT, outputs=done.outputs, environment=done.environment, seconds=done.seconds
    )


def test_an_output_that_is_missing_leaves_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        manifest.write(stage(tmp_path / "mine"), DRAFT, ["negatives.jsonl", "other.jsonl"])
    assert manifest.read(tmp_path / "mine") is None


def test_a_stage_without_a_manifest_has_not_been_made(tmp_path: Path) -> None:
    assert refusal(tmp_path / "mine") == "mine has not been made"
    assert refusal(stage(tmp_path / "mine")) == "mine has not been made"


def test_a_stage_that_begins_anew_is_not_trusted_until_it_ends(tmp_path: Path) -> None:
    finished(tmp_path / "mine")
    manifest.forget(tmp_path / "mine")
    assert refusal(tmp_path / "mine") == "mine has not been made"
    manifest.forget(tmp_path / "mine")  # nothing to forget is no error


@pytest.mark.parametrize("name", ["negatives.jsonl", "deep/weights.bin"])
def test_an_output_changed_or_lost_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mine"
    finished(folder)
    problem = f"{folder / name}: missing or changed since it was made"
    files.write_text(folder / name, "other\n")
    assert refusal(folder) == problem
    (folder / name).unlink()
    assert refusal(folder) == problem


def test_what_is_no_output_may_change(tmp_path: Path) -> None:
    done = finished(tmp_path / "mine")
    files.write_text(tmp_path / "mine" / "log.txt", "longer\n")
    assert manifest.require(tmp_path / "mine", COMMAND) == done


def test_the_digest_leaves_out_the_time_the_machine_and_the_config() -> None:
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
def test_the_digest_is_of_what_was_made_and_of_what(changed: Manifest) -> None:
    assert changed.digest() != DRAFT.digest()


def test_sections_are_plain_values_and_say_what_was_overridden() -> None:
    config = Config(
        name="first", encoder=EncoderConfig(num_layers=4), overrides=("encoder.num_layers=4",)
    )
    plain = manifest.sections(config, ("encoder", "training"))
    assert list(plain) == ["encoder", "training", "overrides"]
    assert plain["encoder"]["num_layers"] == 4
    assert plain["training"]["target_modules"] == []
    assert plain["overrides"] == ["encoder.num_layers=4"]
    digest.of_value(plain)
