"""Loading of the run's encoder: base model or adapter, in one or several processes."""

import os
from dataclasses import replace
from pathlib import Path

from parity.retrieval.embedding_cache import EmbeddingCache
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine.distributed import ProcessGroup
from parity.retrieval.models import base_model, conventions
from parity.retrieval.models.base_model import BaseModel
from parity.run.config.encoder import EncoderConfig
from parity.run.config.run_file import Config
from parity.run.paths import RunPaths


def load_base(config: EncoderConfig, paths: RunPaths) -> BaseModel:
    """Return the run's base model; the first call converts or downloads it."""
    base = base_model.resolve(config.base, config.revision, paths.bases)
    return replace(base, name=portable_name(base.name))


def convention_notes(config: Config, paths: RunPaths) -> list[str]:
    """Return where the run file embeds otherwise than the base model's folder says, in lines."""
    folder = load_base(config.encoder, paths).folder
    stated = conventions.read_conventions(folder)
    lines = conventions.notes(stated, config.encoder.pooling, config.prompt)
    return [f"note: {line}" for line in lines]


def portable_name(name: str) -> str:
    """Return the name of a base model without this machine's folders: the last part of a path."""
    return Path(name).name if Path(name).is_absolute() else name


def load_encoder(
    config: EncoderConfig,
    paths: RunPaths,
    adapter: Path | None = None,
    workers: ProcessGroup | None = None,
) -> Encoder:
    """Return the run's encoder without a cache, with or without the adapter in a folder."""
    return _load(config, paths, adapter, workers, None)


def load_caching_encoder(
    config: EncoderConfig,
    paths: RunPaths,
    adapter: Path | None = None,
    workers: ProcessGroup | None = None,
) -> Encoder:
    """Return the run's encoder with an embedding cache on disk, for weights that do not change."""
    return _load(config, paths, adapter, workers, EmbeddingCache(paths.embeddings))


def _load(
    config: EncoderConfig,
    paths: RunPaths,
    adapter: Path | None,
    workers: ProcessGroup | None,
    cache: EmbeddingCache | None,
) -> Encoder:
    # torch reads this at the first compilation; later commands reuse the compiled layers.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(paths.compiled.resolve()))
    return Encoder(load_base(config, paths), config, adapter=adapter, workers=workers, cache=cache)
