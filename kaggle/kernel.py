"""Rank the test rows with the bundle's adapter, offline, and report every layer on the way.

It has no knobs: base, adapter, prompt and lengths come from the bundle, which is found by its
manifest wherever Kaggle mounts it. `inv rehearse` runs this very file.
"""

import os
import sys
from pathlib import Path

KAGGLE = Path(os.environ.get("PARITY_KAGGLE", "/kaggle"))
sys.path[:0] = sorted(map(str, (KAGGLE / "input").rglob("kaggle_parity-*.whl")))

from parity.competition import exemplars, submission, tables  # noqa: E402
from parity.retrieval import bases  # noqa: E402
from parity.retrieval.encoder import Encoder  # noqa: E402
from parity.retrieval.probing import measure  # noqa: E402
from parity.retrieval.retrieve import index, retrieve  # noqa: E402
from parity.shipping import bundle, report  # noqa: E402

shipped = bundle.find(KAGGLE / "input")
prompt = shipped.config.prompt
read = tables.read(bundle.competition(KAGGLE / "input"))
pool = exemplars.read(shipped.folder / "exemplars.jsonl", read.queries, read.corpus)
probe = report.probe(shipped, read.queries)

base = bases.find(KAGGLE / "input", shipped.layers["base"])
encoder = Encoder(base, shipped.config.encoder, adapter=shipped.folder)
passages = index(encoder, prompt, read.corpus)
probed = measure(encoder, prompt, probe, passages, exemplars.shown(probe, pool, prompt))
layers = {**probed.layers, "data": report.data(read)}
shipped.check({**layers, **report.mounted(read.corpus, pool)})  # before the hours that follow

shown = exemplars.shown(read.test, pool, prompt)
ranking = retrieve(encoder, prompt, read.test, passages, shown, k=submission.K).ranking
target = KAGGLE / "working" / "submission.csv"
sha256 = submission.write(target, ranking, read.sample, read.corpus)
layers["submission"] = sha256
report.write(KAGGLE / "working", shipped, layers, probed.found.ranking, probed.found.vectors)
print(f"{len(read.sample)} rows, submission {sha256[:12]}, bundle {shipped.digest[:12]}")
