"""The checks find an adapter that would be refused later, and a full disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

import models
import pytest
from deploy.bundle import sparse_checkpoints

from parity.deploy.bundle import bundle_checks
from parity.retrieval.models import adapter as adapters
from parity.run import digest, files
from parity.run.errors import Mismatch, ParityError, StaleInput


@pytest.fixture(scope="module")
def _saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("saved")
    base = models.write(folder / "base", "llama")
    encoder = models.load(base)
    models.attach(encoder)
    adapters.save(encoder.model, folder / "adapter", base, layers=0, template="t")
    return folder / "adapter", base.digest()


@pytest.fixture
def saved(_saved: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """Return an adapter's folder and the digest of its base."""
    shutil.copytree(_saved[0], tmp_path / "adapter")
    return tmp_path / "adapter", _saved[1]


def rewrite(folder: Path, **changes: object) -> None:
    """Change the adapter's record."""
    record = files.read_json(folder / bundle_checks.RECORD)
    files.write_json(folder / bundle_checks.RECORD, {**record, **changes})


def test_file_names_are_those_of_the_adapter_module() -> None:
    assert bundle_checks.RECORD == adapters.RECORD
    assert (bundle_checks._LORA, bundle_checks._SETTINGS) == (
        adapters._LORA_WEIGHTS,
        adapters._LORA_SETTINGS,
    )
    assert bundle_checks._FULL == adapters._FULL_WEIGHTS
    assert set(adapters.AdapterRecord.__dataclass_fields__) >= bundle_checks._KEYS


def test_an_adapter_of_the_same_base_is_described(saved: tuple[Path, str]) -> None:
    assert bundle_checks.check_adapter(*saved, 0) == "LoRA of rank 4, F32, 28 tensors"


def test_all_weights_are_described(tmp_path: Path) -> None:
    base = models.write(tmp_path / "base", "bert")
    encoder = models.load(base, pooling="mean")
    models.attach(encoder, method="all")
    adapters.save(encoder.model, tmp_path / "adapter", base, layers=0, template="t")
    result = bundle_checks.check_adapter(tmp_path / "adapter", base.digest(), 0)
    assert result.startswith("all weights, F32, ")


def test_another_base_or_number_of_layers_is_refused(saved: tuple[Path, str]) -> None:
    folder, base = saved
    with pytest.raises(Mismatch, match="run's base has 000000000000"):
        bundle_checks.check_adapter(folder, "0" * 64, 0)
    with pytest.raises(Mismatch, match="trained on 0 layers, but the run keeps 1"):
        bundle_checks.check_adapter(folder, base, 1)


def truncate(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def truncate_and_record(folder: Path) -> None:
    truncate(folder)
    rewrite(folder, weights=digest.of_file(folder / "adapter_model.safetensors"))


def change_rank(folder: Path) -> None:
    path = folder / "adapter_config.json"
    files.write_json(path, {**files.read_json(path), "r": 8})
    rewrite(folder, settings=digest.of_file(path))


def remove_settings(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def replace_lora(folder: Path) -> None:
    models.write(folder / "else", "llama")
    path = folder / "adapter_model.safetensors"
    (folder / "else" / "model.safetensors").replace(path)
    rewrite(folder, weights=digest.of_file(path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "is not the file that adapter.json names"),
        (truncate_and_record, "is truncated"),
        (change_rank, "has rank 8"),
        (remove_settings, r"adapter_config\.json of the adapter is not the file"),
        (replace_lora, "does not contain LoRA weights"),
    ],
)
def test_files_that_differ_from_the_record_are_refused(
    spoil: Callable[[Path], None], message: str, saved: tuple[Path, str]
) -> None:
    spoil(saved[0])
    with pytest.raises(Mismatch, match=message):
        bundle_checks.check_adapter(*saved, 0)


def test_weights_of_an_unsupported_dtype_are_refused(saved: tuple[Path, str]) -> None:
    folder, base = saved
    path = folder / "adapter_model.safetensors"
    sparse_checkpoints.save(path, {"a.lora_A.weight": ("U8", (4, 8))})
    rewrite(folder, weights=digest.of_file(path))
    with pytest.raises(Mismatch, match=r"weights of type U8\. Use one of F32, F16, BF16"):
        bundle_checks.check_adapter(folder, base, 0)


@pytest.mark.parametrize("text", [None, "[]", '{"method": "lora"}'])
def test_a_missing_adapter_or_one_of_another_version_is_stale(
    text: str | None, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / bundle_checks.RECORD).write_text(text)
    with pytest.raises(StaleInput) as error:
        bundle_checks.check_adapter(tmp_path, "0" * 64, 0)
    assert error.value.fix == ("train",)


def test_the_checks_refuse_what_loading_refuses(saved: tuple[Path, str], tmp_path: Path) -> None:
    change_rank(saved[0])
    base = models.write(tmp_path / "base", "llama")
    with pytest.raises(ParityError):
        models.load(base, saved[0])


def test_a_full_disk_is_reported_with_the_space_it_needs() -> None:
    assert bundle_checks.check_disk("data folder", 6 * 10**9, 5 * 10**9) == "6.0 GB free"
    with pytest.raises(Mismatch, match=r"data folder has 4\.0 GB free and needs 5\.0 GB"):
        bundle_checks.check_disk("data folder", 4 * 10**9, 5 * 10**9)


def test_free_space_of_a_missing_folder_is_that_of_its_parent(tmp_path: Path) -> None:
    assert bundle_checks.free_bytes(tmp_path / "not" / "yet") == pytest.approx(
        bundle_checks.free_bytes(tmp_path), rel=0.05
    )
