"""Fine-tune a retriever for a Kaggle competition and know why LB differs from CV.

The rooms, lowest first; a room imports only rooms below it:

- `run`: run files, paths, digests, manifests, the evidence ledger, the causal order of layers.
- `competition`: queries, corpus, labels, splits, metrics; Eedi, any table, the synthetic one.
- `retrieval`: prompts, tokenizer, encoder, exact search, and the one `retrieve()`.
- `training`: negatives, batches, the loss, GradCache, the resumable trainer.
- `deploy`: image, wheelhouse, bundle, kernel, planning, and Kaggle's API.
- `analysis`: why two scores differ, the forecast of the next one, the report.
- `pipeline`: the stages and commands of the command line.
"""

__version__ = "0.1.0"
