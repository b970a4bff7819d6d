"""Our encoder around the run's model, from texts on, as the peers' encoders are."""

from unittest import mock

import torch

from benchmarks.models import LoadedModel, twin
from benchmarks.peers import Vectors
from benchmarks.works import Work
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import loading
from parity.run.config.encoder import EncoderConfig

_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def encoder(loaded: LoadedModel, budget: int, quantize: str = "none") -> Encoder:
    """Return our encoder of the run's model.

    Args:
        loaded: model of the run.
        budget: tokens in a pack.
        quantize: `none` or `fp8`.
    """
    settings = {
        "base": loaded.name,
        "precision": _PRECISIONS[loaded.dtype],
        "device": loaded.device.type,
        "token_budget": budget,
        "quantize": quantize,
    }
    # A twin in memory replaces reading 14 GB from disk; the encoder is unchanged otherwise.
    with mock.patch.object(loading, "load", return_value=twin(loaded.model)):
        return Encoder(loaded.base, EncoderConfig.model_validate(settings))


class Ours:
    """Our encoder, with packed prefix tries.

    Attributes:
        name: name for the report.
        encoder: encoder around a twin of the model.
    """

    name = "kaggle-parity"

    def __init__(self, loaded: LoadedModel, budget: int, quantize: str = "none") -> None:
        """Take a model.

        Args:
            loaded: model of the run.
            budget: tokens in a pack.
            quantize: `none` or `fp8`.
        """
        self.encoder = encoder(loaded, budget, quantize)

    def encode(self, work: Work) -> Vectors:
        """Return the embeddings of a work's texts, tokenization and packing included."""
        return self.encoder.embed(self.encoder.tokenize(work.texts, work.limit), work.name)
