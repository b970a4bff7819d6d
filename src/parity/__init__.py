"""Fine-tune a retriever for a Kaggle competition and know why LB differs from CV.

Rooms, from the ground up; an upper room may import a lower one, never the reverse:

- `run`: config, digests, manifests, paths, the evidence ledger. Knows no model and no data.
- `competition`: what the organizer knows: queries, corpus, splits, rankings, the metric.
- `retrieval`: prompts, the prefix trie, the encoder, exact search and the one `retrieve()`.
- `training`: negatives, batches, the loss, the resumable LoRA trainer.
- `container`: Kaggle's image pinned by digest, built and run here, and the wheels it lacks.
- `shipping`: what goes to Kaggle, sealed; the kernel's report, its rehearsal, the plan.
- `remote`: the one door to Kaggle's API: publish, push, follow, submit.
- `reconcile`: what the evidence says.
- `stages`: the only room that knows where things lie; one file for each verb.
"""
