"""The model card says what an adapter is, and nothing of a machine or of the competition's text."""

from typing import Any

import pytest

from parity.competition.lineage import Lineage
from parity.deploy.bundle import model_card
from parity.run.config import run_file as configs
from parity.run.config.run_file import Config

KNOWN = Lineage(frozenset({10, 11, 12}))


def config(**sections: Any) -> Config:
    return configs.build({"name": "small", **sections}, "test")


def written(run: Config, lineage: Lineage = KNOWN, license: str = "Apache-2.0") -> str:
    table = "| method | MAP@25 |\n| --- | --- |"
    return model_card.write(
        run, lineage, round_=1, weights="w" * 64, base_license=license, table=table
    )


def test_a_card_tells_base_adapter_data_prompt_and_scores() -> None:
    text = written(
        config(
            data={"competition": "tiny", "license": "CC0-1.0"},
            split={"kind": "construct", "seed": 3},
            prompt={
                "format": "icl",
                "instruction": "Name the mistake.",
                "query": "{question}\n{wrong}",
                "examples": "question",
                "example_count": 2,
                "query_max_length": 300,
            },
            encoder={"base": "owner/model", "revision": "abc123", "num_layers": 12},
            training={"r": 7},
        )
    )
    for told in (
        "# small, round 1\n",
        "ranks tiny's misconceptions",
        "`owner/model` at `abc123`, license Apache-2.0, its first 12 layers",
        f"LoRA, rank 7, weights sha256 `{'w' * 64}`",
        "3 questions (ids in `lineage.json`); split `construct-s3`",
        "Data license: CC0-1.0",
        "| method | MAP@25 |",
        "```text\n{question}\n{wrong}\n```",
        "Instruction: `Name the mistake.`",
        "Format `icl`, few-shot examples `question` × 2, at most 300 tokens.",
    ):
        assert told in text


def test_what_is_not_known_is_said_so() -> None:
    text = written(config(training={"method": "all"}), Lineage(None), license="")
    for told in (
        "license unknown\n",
        "- Adapter: all weights,",
        "Trained on unknown questions",
        "none stated: no text of it is in this bundle",
        "Instruction: none",
        "examples `none` × 0",
    ):
        assert told in text
    assert " at `" not in text
    assert "layers" not in text


@pytest.mark.parametrize("query", ["{question} {{}}", "{construct}: {wrong} { {x}"])
def test_braces_of_a_template_stay_as_they_are(query: str) -> None:
    assert f"```text\n{query}\n```" in written(config(prompt={"query": query}))


def test_equal_inputs_give_equal_bytes() -> None:
    assert written(config()) == written(config(), Lineage(frozenset({12, 11, 10})))
