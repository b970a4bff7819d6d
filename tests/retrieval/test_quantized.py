"""A base model with 4-bit files equals one quantized at load time."""

import shutil
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from transformers import AutoModel, BitsAndBytesConfig

from parity.retrieval.models import base_model

FOUR_BITS: dict[str, Any] = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": torch.float32,
}


@pytest.mark.parametrize("quantize", ["none", "4bit"])
def test_4_bit_files_give_the_vectors_of_quantization_at_load(
    tmp_path: Path, quantize: str
) -> None:
    plain = models.write(tmp_path / "plain", "llama", hidden_size=128, intermediate_size=256)
    model = AutoModel.from_pretrained(
        str(plain.folder), quantization_config=BitsAndBytesConfig(**FOUR_BITS), dtype=torch.float32
    )
    model.save_pretrained(tmp_path / "four")
    shutil.copy(plain.folder / "tokenizer.json", tmp_path / "four")
    four = base_model.describe("four", tmp_path / "four")
    assert sum(path.stat().st_size for path in four.folder.glob("*.safetensors")) < sum(
        path.stat().st_size for path in plain.folder.glob("*.safetensors")
    )
    sequences = models.sequences()
    expected = models.load(plain, quantize="4bit").embed(sequences)
    actual = models.load(four, quantize=quantize).embed(sequences)
    assert np.allclose(actual, expected, atol=1e-3)  # quantization may differ between devices
