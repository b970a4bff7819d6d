"""Mixtures of experts: what LoRA leaves out is said, and can be trained."""

from pathlib import Path
from typing import Any

import models
import pytest
import torch
from transformers import AutoConfig, AutoModel

from parity.retrieval.encoder import Encoder
from parity.retrieval.models import adapter, base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.training import TrainingConfig
from parity.run.errors import BadConfig

EXPERTS = ("mlp.experts.down_proj", "mlp.experts.gate_up_proj")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = tmp_path_factory.mktemp("bases") / "mixtral"
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 259}
    config = AutoConfig.for_model(
        "mixtral", **sizes, num_local_experts=2, num_experts_per_tok=2, eos_token_id=2
    )
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    models.tokenizer_of("llama").save(str(folder / "tokenizer.json"))
    return base_model.describe("mixtral", folder)


def load(base: BaseModel, folder: Path | None = None) -> Encoder:
    return models.load(base, folder)


def test_experts_that_are_left_out_are_named(base: BaseModel) -> None:
    model = load(base).model
    (line,) = adapter.describe_untrained(model, TrainingConfig())
    assert all(name in line for name in EXPERTS)
    assert adapter.describe_untrained(model, TrainingConfig(target_parameters=EXPERTS)) == []
    assert adapter.describe_untrained(model, TrainingConfig(method="all")) == []


def test_a_dense_model_leaves_nothing_out(tmp_path: Path) -> None:
    model = models.load(models.write(tmp_path, "llama")).model
    assert adapter.describe_untrained(model, TrainingConfig()) == []
    model.config.attention_dropout = 0.1
    (line,) = adapter.describe_untrained(model, TrainingConfig())
    assert line.startswith("attention_dropout = 0.1 of the base model is not applied")


def test_trained_experts_survive_the_round_trip(base: BaseModel, tmp_path: Path) -> None:
    config = TrainingConfig(r=2, lora_alpha=4.0, target_parameters=EXPERTS)
    encoder = load(base)
    encoder.model = adapter.attach(encoder.model, config)
    trained = [name for name, w in encoder.model.named_parameters() if w.requires_grad]
    assert sum("experts" in name for name in trained) == 2 * 2 * len(EXPERTS)
    with torch.no_grad():
        for weight in encoder.model.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.2)
    adapter.save(encoder.model, tmp_path, base, layers=0, template="")
    sequences = models.sequences()
    expected, reloaded = encoder.embed(sequences), load(base, tmp_path).embed(sequences)
    assert abs(reloaded - expected).max() < 1e-6
    assert abs(reloaded - load(base).embed(sequences)).max() > 1e-3


def test_an_unknown_parameter_is_refused_with_those_there_are(base: BaseModel) -> None:
    with pytest.raises(BadConfig, match=r"no weight 'experts' outside linear layers\. Use some of"):
        adapter.attach(load(base).model, TrainingConfig(target_parameters=("experts",)))
