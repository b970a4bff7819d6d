"""Embeddings kept on disk, so that to mine or to score again costs seconds.

A kept list is named by all that decides its bytes: weights, tokens, budget, precision, machine and
code. Nothing is ever looked up by less, so nothing ever has to be thrown away for being stale; the
oldest lists go when the folder outgrows its limit, and the whole folder may be removed at any time.
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
from parity.run.progress import tell

LIMIT = 2 << 30
"""Bytes that kept lists may take together; the oldest are removed past it."""

_SUFFIX = ".safetensors"
_VECTORS, _NAME, _DIGEST = "vectors", "name", "sha256"


def name(identity: Sequence[str], sequences: Sequence[Sequence[int]]) -> str:
    """Return the name of a list's embeddings, 64 hex digits.

    >>> name(["weights"], [[1, 2], [3]]) == name(["weights"], [[1], [2, 3]])
    False

    Args:
        identity: all that decides an embedding but the tokens.
        sequences: token ids, in order.
    """
    state = hashlib.sha256(digest.canonical(list(identity)).encode())
    for tokens in sequences:
        data = array("q", tokens).tobytes()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


@dataclass(frozen=True, slots=True)
class EmbeddingCache:
    """A folder of embeddings, one file a list.

    Attributes:
        folder: where they lie; made when the first is kept.
        limit: bytes of all files.
    """

    folder: Path
    limit: int = LIMIT

    def shared(
        self, name: str, shape: tuple[int, int], workers: ProcessGroup, device: torch.device
    ) -> Embeddings | None:
        """Return in every process what the main one can `read`, so that all go the same way."""
        found = self.read(name, shape) if workers.main else None
        there = torch.tensor(int(found is not None), device=device)
        if not workers.share([there])[0].item():
            return None
        values = torch.zeros(shape) if found is None else torch.from_numpy(found)
        return workers.share([values.to(device)])[0].cpu().numpy()

    def read(self, name: str, shape: tuple[int, int]) -> Embeddings | None:
        """Return the (n, d) float32 embeddings kept under a name, proven whole, or None.

        A file that is damaged is told of in one line; it is written anew by whoever asked.
        """
        path = self._path(name)
        try:
            return _proven(path, name, shape)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, BadData) as error:
            tell(f"{path.name[:12]}…: kept embeddings are damaged ({error}); computes them again")
            return None

    def write(self, name: str, vectors: Embeddings) -> None:
        """Keep embeddings under a name, and let go of the oldest past the limit.

        What the disk does not take is told of and not kept: they were costly, and are not lost.
        """
        if vectors.nbytes > self.limit:
            return
        about = {_NAME: name, _DIGEST: digest.of_bytes(vectors.tobytes())}
        # One entry, for the format does not keep several in one order.
        metadata = {"about": digest.canonical(about)}
        try:
            with files.replacing(self._path(name)) as temporary:
                save_file({_VECTORS: vectors}, temporary, metadata=metadata)
        except (SafetensorError, OSError) as error:
            tell(f"embeddings are not kept for the next time ({error})")
        self._prune()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"

    def _prune(self) -> None:
        """Remove the oldest files until the rest fit the limit."""
        found = [(path.stat(), path) for path in self.folder.glob(f"[!.]*{_SUFFIX}")]
        newest = sorted(found, key=lambda item: (item[0].st_mtime_ns, item[1].name), reverse=True)
        total = 0
        for stat, path in newest:
            total += stat.st_size
            if total > self.limit:
                path.unlink(missing_ok=True)


def _proven(path: Path, name: str, shape: tuple[int, int]) -> Embeddings:
    """Read one file.

    Raises:
        FileNotFoundError: there is none.
        BadData: it is not what was written under this name.
    """
    with safe_open(str(path), framework="numpy") as file:  # type: ignore[no-untyped-call]
        about = (file.metadata() or {}).get("about", "")
        vectors: Embeddings = file.get_tensor(_VECTORS)
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise BadData(f"{vectors.dtype} {vectors.shape}, wanted float32 {shape}")
    if not np.isfinite(vectors).all():
        raise BadData("values that are no numbers")
    if about != digest.canonical({_NAME: name, _DIGEST: digest.of_bytes(vectors.tobytes())}):
        raise BadData("its digest is another")
    return vectors
