"""Cache of embeddings on disk, so that repeated mining and scoring take seconds.

The key of a list covers everything that affects its bytes: weights, tokens, budget, precision,
machine and code. So entries never become stale. The oldest ones are deleted when the folder exceeds
its limit, and the folder may be deleted at any time.
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from parity.retrieval.engine.distributed import ProcessGroup
from parity.retrieval.search import Embeddings
from parity.run import digest, files
from parity.run.errors import BadData
from parity.run.progress import log

MAX_BYTES = 2 << 30
"""Largest size of the cache in bytes; the oldest entries are deleted beyond it."""

_SUFFIX = ".safetensors"
_VECTORS, _NAME, _DIGEST = "vectors", "name", "sha256"


def cache_key(identity: Sequence[str], sequences: Sequence[Sequence[int]]) -> str:
    """Return the cache key of a list of sequences, 64 hex digits.

    >>> cache_key(["weights"], [[1, 2], [3]]) == cache_key(["weights"], [[1], [2, 3]])
    False

    Args:
        identity: everything that affects an embedding, except the tokens.
        sequences: token ids of each sequence, in order.
    """
    state = hashlib.sha256(digest.canonical(list(identity)).encode())
    for tokens in sequences:
        data = array("q", tokens).tobytes()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


@dataclass(frozen=True, slots=True)
class EmbeddingCache:
    """A folder of embeddings, one file for each list.

    Attributes:
        folder: folder of the files, created at the first write.
        limit: largest total size of the files in bytes.
    """

    folder: Path
    limit: int = MAX_BYTES

    def read_in_all(
        self, name: str, shape: tuple[int, int], workers: ProcessGroup, device: torch.device
    ) -> Embeddings | None:
        """Return in every process what the main process reads, so that all take the same branch."""
        stored = self.read(name, shape) if workers.is_main else None
        is_stored = torch.tensor(int(stored is not None), device=device)
        if not workers.share([is_stored])[0].item():
            return None
        values = torch.zeros(shape) if stored is None else torch.from_numpy(stored)
        return workers.share([values.to(device)])[0].cpu().numpy()

    def read(self, name: str, shape: tuple[int, int]) -> Embeddings | None:
        """Return the verified embeddings, (n, d) float32, of a key; None if they are not cached.

        A damaged file is reported in one line and counts as missing.

        Args:
            name: key of the list.
            shape: (n, d).
        """
        path = self._path(name)
        try:
            return _verified(path, name, shape)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, BadData) as error:
            log(f"{path.name[:12]}…: cached embeddings are damaged ({error}); computing them again")
            return None

    def write(self, name: str, vectors: Embeddings) -> None:
        """Write embeddings to the cache and delete the oldest entries beyond the limit.

        A failed write is reported in one line and is not an error: the caller has the embeddings.

        Args:
            name: key of the list.
            vectors: (n, d) float32.
        """
        if vectors.nbytes > self.limit:
            return
        about = {_NAME: name, _DIGEST: digest.of_bytes(vectors.tobytes())}
        # One entry: safetensors does not preserve the order of several.
        metadata = {"about": digest.canonical(about)}
        try:
            with files.replacing(self._path(name)) as temporary:
                save_file({_VECTORS: vectors}, temporary, metadata=metadata)
        except (SafetensorError, OSError) as error:
            log(f"embeddings are not cached ({error})")
        self._prune()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"

    def _prune(self) -> None:
        """Delete the oldest files until the size is within the limit."""
        sizes = [(path.stat(), path) for path in self.folder.glob(f"[!.]*{_SUFFIX}")]
        newest_first = sorted(
            sizes, key=lambda item: (item[0].st_mtime_ns, item[1].name), reverse=True
        )
        total = 0
        for stat, path in newest_first:
            total += stat.st_size
            if total > self.limit:
                path.unlink(missing_ok=True)


def _verified(path: Path, name: str, shape: tuple[int, int]) -> Embeddings:
    """Return the embeddings of one file, (n, d) float32, after checking their digest.

    Raises:
        FileNotFoundError: the file does not exist.
        BadData: the file differs from what was written with this key.
    """
    with safe_open(str(path), framework="numpy") as file:  # type: ignore[no-untyped-call]
        about = (file.metadata() or {}).get("about", "")
        vectors: Embeddings = file.get_tensor(_VECTORS)
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise BadData(f"{vectors.dtype} {vectors.shape} instead of float32 {shape}")
    if not np.isfinite(vectors).all():
        raise BadData("non-finite values")
    if about != digest.canonical({_NAME: name, _DIGEST: digest.of_bytes(vectors.tobytes())}):
        raise BadData("wrong digest")
    return vectors
