"""An adapter that would be refused later is named now; so is a disk that is full."""

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


def test_names_are_those_of_the_adapters_own_module() -> None:
    assert bundle_checks.RECORD == adapters.RECORD
    assert (bundle_checks._LORA, bundle_checks._SETTINGS) == (
        adapters._LORA_WEIGHTS,
        adapters._LORA_SETTINGS,
    )
    assert bundle_checks._FULL == adapters._FULL_WEIGHTS
    assert set(adapters.AdapterRecord.__dataclass_fields__) >= bundle_checks._KEYS


def test_an_adapter_of_its_base_is_described(saved: tuple[Path, str]) -> None:
    assert bundle_checks.adapter(*saved, 0) == "LoRA of rank 4, F32, 28 tensors"


def test_all_weights_are_described(tmp_path: Path) -> None:
    base = models.write(tmp_path / "base", "bert")
    encoder = models.load(base, pooling="mean")
    models.attach(encoder, method="all")
    adapters.save(encoder.model, tmp_path / "adapter", base, layers=0, template="t")
    said = bundle_checks.adapter(tmp_path / "adapter", base.digest(), 0)
    assert said.startswith("all weights, F32, ")


def test_another_base_or_depth_is_refused(saved: tuple[Path, str]) -> None:
    folder, base = saved
    with pytest.raises(Mismatch, match="this one is 000000000000; run: invoke train"):
        bundle_checks.adapter(folder, "0" * 64, 0)
    with pytest.raises(Mismatch, match="trained on 0 layers, the run keeps 1"):
        bundle_checks.adapter(folder, base, 1)


def cut_short(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def cut_short_and_recorded(folder: Path) -> None:
    cut_short(folder)
    rewrite(folder, weights=digest.of_file(folder / "adapter_model.safetensors"))


def another_rank(folder: Path) -> None:
    path = folder / "adapter_config.json"
    files.write_json(path, {**files.read_json(path), "r": 8})
    rewrite(folder, settings=digest.of_file(path))


def no_settings(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def no_lora(folder: Path) -> None:
    models.write(folder / "else", "llama")
    path = folder / "adapter_model.safetensors"
    (folder / "else" / "model.safetensors").replace(path)
    rewrite(folder, weights=digest.of_file(path))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut_short, "not the file that adapter.json names"),
        (cut_short_and_recorded, "cut short"),
        (another_rank, "says rank 8"),
        (no_settings, r"adapter_config\.json is not the file"),
        (no_lora, "holds no LoRA weights"),
    ],
)
def test_files_that_are_not_what_the_record_says_are_refused(
    spoil: Callable[[Path], None], said: str, saved: tuple[Path, str]
) -> None:
    spoil(saved[0])
    with pytest.raises(Mismatch, match=said):
        bundle_checks.adapter(*saved, 0)


def test_weights_of_a_type_that_nothing_computes_in_are_refused(saved: tuple[Path, str]) -> None:
    folder, base = saved
    path = folder / "adapter_model.safetensors"
    sparse_checkpoints.save(path, {"a.lora_A.weight": ("U8", (4, 8))})
    rewrite(folder, weights=digest.of_file(path))
    with pytest.raises(Mismatch, match="weights of type U8; want one of F32, F16, BF16"):
        bundle_checks.adapter(folder, base, 0)


@pytest.mark.parametrize("text", [None, "[]", '{"method": "lora"}'])
def test_no_adapter_or_one_of_another_version_is_stale(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / bundle_checks.RECORD).write_text(text)
    with pytest.raises(StaleInput, match="run: invoke train"):
        bundle_checks.adapter(tmp_path, "0" * 64, 0)


def test_the_checks_refuse_what_loading_refuses(saved: tuple[Path, str], tmp_path: Path) -> None:
    another_rank(saved[0])
    base = models.write(tmp_path / "base", "llama")
    with pytest.raises(ParityError):
        models.load(base, saved[0])


def test_a_full_disk_is_named_with_what_would_do() -> None:
    assert bundle_checks.disk("data folder", 6 * 10**9, 5 * 10**9) == "6.0 GB free"
    with pytest.raises(Mismatch, match=r"data folder: 4\.0 GB free, 5\.0 GB wanted"):
        bundle_checks.disk("data folder", 4 * 10**9, 5 * 10**9)


def test_room_is_asked_for_where_a_folder_will_lie(tmp_path: Path) -> None:
    assert bundle_checks.free(tmp_path / "not" / "yet") == pytest.approx(
        bundle_checks.free(tmp_path), rel=0.05
    )
