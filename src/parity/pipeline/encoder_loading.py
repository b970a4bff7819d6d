"""Load the run's encoder: the bare base, or with an adapter, in this process or among several."""

import os
from dataclasses import replace
from pathlib import Path

from parity.retrieval.embedding_cache import EmbeddingCache
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine.distributed import ProcessGroup
from parity.retrieval.models import base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run.experiment import Run


def base(run: Run) -> BaseModel:
    """Return the base that the run names, converted or downloaded when first asked for."""
    config = run.config.encoder
    found = base_model.resolve(config.base, config.revision, run.workspace.bases)
    return replace(found, name=portable(found.name))


def portable(name: str) -> str:
    """Return the name of a base less where this machine keeps it: of a whole path the last part."""
    return Path(name).name if Path(name).is_absolute() else name


def encoder(run: Run, adapter: Path | None = None, workers: ProcessGroup | None = None) -> Encoder:
    """Return the run's encoder, with the adapter in a folder or bare; it keeps no embeddings."""
    return _loaded(run, adapter, workers, None)


def keeping(run: Run, adapter: Path | None = None, workers: ProcessGroup | None = None) -> Encoder:
    """Return the run's encoder for weights that stay as they are: embeddings are kept on disk."""
    return _loaded(run, adapter, workers, EmbeddingCache(run.workspace.embeddings))


def _loaded(
    run: Run, adapter: Path | None, workers: ProcessGroup | None, cache: EmbeddingCache | None
) -> Encoder:
    # Read when a layer is first compiled: what one command compiled, the next need not.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(run.workspace.compiled.resolve()))
    config = run.config.encoder
    return Encoder(base(run), config, adapter=adapter, workers=workers, cache=cache)


def mining(run: Run) -> Run:
    """Return the run as its mining computes: perhaps in fewer bits than all else."""
    config = run.config
    chosen = {"quantize": config.mining.quantize or config.encoder.quantize}
    encoder = config.encoder.model_copy(update=chosen)
    return replace(run, config=config.model_copy(update={"encoder": encoder}))


def parent(run: Run) -> Path | None:
    """Return the folder of the adapter that mines for this round and that it starts from."""
    return run.workspace.adapter(run.round - 1) if run.round else None
