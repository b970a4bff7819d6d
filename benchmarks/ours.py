"""Our side: the encoder around the run's model, from texts on as the peers are."""

from unittest import mock

import torch

from benchmarks.models import Held, twin
from benchmarks.peers import Vectors
from benchmarks.works import Work
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import loading
from parity.run.config.run_file import EncoderConfig

_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def encoder(held: Held, budget: int, quantize: str = "none") -> Encoder:
    """Return our encoder of the run's model.

    Args:
        held: the run's model.
        budget: tokens in a pack.
        quantize: `none` or `fp8`.
    """
    settings = {
        "base": held.name,
        "precision": _PRECISIONS[held.dtype],
        "device": held.device.type,
        "token_budget": budget,
        "quantize": quantize,
    }
    # What would read 14 GB from disk hands over a twin; all else is the encoder as it always is.
    with mock.patch.object(loading, "load", return_value=twin(held.model)):
        return Encoder(held.base, EncoderConfig.model_validate(settings))


class Ours:
    """Packed prefix tries.

    Attributes:
        name: for the report.
        encoder: the encoder.
    """

    name = "kaggle-parity"

    def __init__(self, held: Held, budget: int, quantize: str = "none") -> None:
        """Take a model.

        Args:
            held: the run's model.
            budget: tokens in a pack.
            quantize: `none` or `fp8`.
        """
        self.encoder = encoder(held, budget, quantize)

    def encode(self, work: Work) -> Vectors:
        """Return the embeddings of a work's texts, tokenized and planned anew."""
        return self.encoder.embed(self.encoder.tokenize(work.texts, work.limit), work.name)
