"""The model card of an adapter: base, training data, scores, prompt."""

from parity.competition.lineage import Lineage
from parity.run.config.run_file import Config

_CARD = """\
# {name}, round {round}

An adapter that ranks the passages of {competition} for a query. Use it only with its
base and its prompt; both are pinned in `manifest.json` and checked on loading.

- Base: `{base}`{revision}, license {license}{layers}
- Adapter: {adapter}
- Trained on {questions} (ids in `lineage.json`); split `{split}`
- Data license: {data_license}

## Scores

{table}

## Prompt

```text
{query}
```

Instruction: {instruction}
Format `{format}`, few-shot examples `{examples}` × {example_count}, at most
{query_max_length} tokens.
"""


def build_card(
    config: Config,
    lineage: Lineage,
    *,
    round_: int,
    weights: str,
    base_license: str,
    table: str,
) -> str:
    """Return the card as Markdown. Equal inputs give equal bytes.

    Args:
        config: the resolved run.
        lineage: ids of the adapter's training questions.
        round_: the run's round.
        weights: sha256 of the adapter's weights; empty for the base model.
        base_license: SPDX name, empty if unknown.
        table: scores as Markdown, or the reason why there are no scores.
    """
    question_ids = lineage.trained_on
    encoder, prompt = config.encoder, config.prompt
    return _CARD.format(
        name=config.name,
        round=round_,
        competition=config.data.competition,
        base=encoder.base,
        revision=f" at `{encoder.revision}`" if encoder.revision else "",
        license=base_license or "unknown",
        layers=f", its first {encoder.num_layers} layers" if encoder.num_layers else "",
        adapter=_adapter_line(config, weights),
        questions=f"{len(question_ids)} questions"
        if question_ids is not None
        else "unknown questions",
        split=config.split.name,
        data_license=config.data.license or "not stated; this bundle contains no text of the data",
        table=table,
        query=prompt.query,
        instruction=f"`{prompt.instruction}`" if prompt.instruction else "none",
        format=prompt.format,
        examples=prompt.examples,
        example_count=prompt.example_count,
        query_max_length=prompt.query_max_length,
    )


def _adapter_line(config: Config, weights: str) -> str:
    if not weights:
        return "none, this is the base model"
    training = config.training
    method = f"LoRA, rank {training.r}" if training.method == "lora" else "all weights"
    return f"{method}, weights sha256 `{weights}`"
