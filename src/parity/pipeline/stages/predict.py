"""Declare `predict`, which writes the submission."""

from parity.pipeline.declaration import EVALUATION, MODEL, Stage

STAGE = Stage(
    "predict",
    "Rank the corpus for the test queries and write submission.csv.",
    "parity.pipeline.stage_cores.predict:predict",
    options=(MODEL, EVALUATION),
    needs=("prepare",),
    reads=(("prepare", ("queries.jsonl", "qrels.jsonl", "corpus.jsonl", "test_queries.jsonl")),),
    follows=("train",),
    config=("competition", "split", "prompt", "encoder"),
    model="best",
    has_any_split=True,
    runs_in_image=True,
    measures_kernel=True,
)
