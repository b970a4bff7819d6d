"""How long planning takes: `python benchmarks/planning.py [N ...]`, one process for each N.

Sequences have 200 tokens each: a stem that about 16 have in common, themselves grown from fewer
roots, then a tail of their own, as rows of one question do behind their instruction.
"""

import resource
import subprocess
import sys
import time

import numpy as np

from parity.retrieval.engine import trie
from parity.retrieval.engine.packing import TokenSequences

_SIZES = (100_000, 300_000, 1_000_000)
_LENGTH, _ROOT, _STEM = 200, 20, 80  # tokens; up to where a root, then a stem is shared
_SHARED = 16  # sequences of one stem, and stems of one root
_VOCABULARY = 32_000
_BUDGET = 16_384


def drawn(count: int) -> TokenSequences:
    """Return `count` random sequences in no order.

    Args:
        count: of sequences.
    """
    draw = np.random.default_rng(0)
    ids = draw.integers(0, _VOCABULARY, (count, _LENGTH), dtype=np.int32)
    stems = -(-count // _SHARED)
    roots = -(-stems // _SHARED)
    stem = draw.integers(0, stems, count)
    ids[:, :_STEM] = draw.integers(0, _VOCABULARY, (stems, _STEM), dtype=np.int32)[stem]
    root = draw.integers(0, _VOCABULARY, (roots, _ROOT), dtype=np.int32)
    ids[:, :_ROOT] = root[stem // _SHARED]
    return TokenSequences(ids.reshape(-1), np.arange(count + 1, dtype=np.int64) * _LENGTH)


def measure(count: int) -> str:
    """Plan `count` sequences; return what it took in one line."""
    sequences = drawn(count)
    started, busy = time.monotonic(), time.process_time()
    packs = trie.pack_concatenated(sequences, _BUDGET)
    seconds, busy = time.monotonic() - started, time.process_time() - busy
    nodes = sum(map(len, packs))
    flat = count * _LENGTH
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB of KiB
    return (
        f"{count:>9,} {seconds:>9.2f} {busy:>9.2f} {seconds / count * 1e6:>11.2f} {peak:>9.2f} "
        f"{flat:>12,} {nodes:>12,} {flat / nodes:>8.3f} {len(packs):>7,}"
    )


def main(arguments: list[str]) -> None:
    """Print a line for each N; each in a process of its own, whose peak is then its alone."""
    if arguments[:1] == ["--one"]:
        sys.stdout.write(measure(int(arguments[1])) + "\n")
        return
    sys.stdout.write(
        "sequences   seconds     CPU s µs/sequence  peak GiB         flat       packed  sharing"
        "   packs\n"
    )
    sys.stdout.flush()
    for count in [int(argument) for argument in arguments] or _SIZES:
        subprocess.run([sys.executable, __file__, "--one", str(count)], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
