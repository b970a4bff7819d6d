"""Declare `package`, which gathers what goes to Kaggle."""

from parity.pipeline.declaration import EVALUATION, MODEL, Stage

STAGE = Stage(
    "package",
    "Gather the adapter and its wheels into a sealed bundle and wheelhouse.",
    "parity.pipeline.stage_cores.package:package",
    options=(MODEL, EVALUATION),
    needs=("prepare",),
    reads=(("prepare", ("queries.jsonl", "qrels.jsonl", "corpus.jsonl", "probe.jsonl")),),
    follows=("train", "eval"),
    config=("data", "competition", "split", "prompt", "encoder", "shipping"),
    model="best",
    has_any_split=True,
    changed_inputs="parity.pipeline.evaluations:changed_bundle_sources",
)
