"""Fine-tune a retriever for a Kaggle competition and know why LB differs from CV.

Rooms, from the ground up; an upper room may import a lower one, never the reverse:

- `run`: config, digests, manifests, paths, the evidence ledger. Knows no model and no data.
- `competition`: what the organiser knows: queries, corpus, splits, rankings, the metric.
- `retrieval`: prompts, the prefix trie, the encoder, exact search and the one `retrieve()`.
- `training`: negatives, batches, the loss, the resumable LoRA trainer.
- `shipping`: the bundle and the offline rehearsal of the Kaggle kernel.
- `reconcile`: what the evidence says.
- `stages`: the only room that knows where things lie; one file for each verb.
"""
