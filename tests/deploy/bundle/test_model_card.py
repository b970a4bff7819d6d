"""The model card describes an adapter without local paths or text of the competition."""

from typing import Any

import pytest

from parity.competition.lineage import Lineage
from parity.competition.query import UnitId
from parity.deploy.bundle import model_card
from parity.run.config import run_file as configs
from parity.run.config.run_file import Config

LINEAGE = Lineage(frozenset(map(UnitId, ("10", "11", "12"))))


def config(**sections: Any) -> Config:
    return configs.build({"name": "small", **sections}, "test")


def card(run: Config, lineage: Lineage = LINEAGE, license: str = "Apache-2.0") -> str:
    table = "| method | MAP@25 |\n| --- | --- |"
    return model_card.build_card(
        run, lineage, round_=1, weights="w" * 64, base_license=license, table=table
    )


def test_a_card_lists_base_adapter_data_prompt_and_scores() -> None:
    text = card(
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
    for line in (
        "# small, round 1\n",
        "ranks the passages of tiny for a query",
        "`owner/model` at `abc123`, license Apache-2.0, its first 12 layers",
        f"LoRA, rank 7, weights sha256 `{'w' * 64}`",
        "3 questions (ids in `lineage.json`); split `construct-s3`",
        "Data license: CC0-1.0",
        "| method | MAP@25 |",
        "```text\n{question}\n{wrong}\n```",
        "Instruction: `Name the mistake.`",
        "Format `icl`, few-shot examples `question` × 2, at most\n300 tokens.",
    ):
        assert line in text


def test_unknown_values_are_marked() -> None:
    text = card(config(training={"method": "all"}), Lineage(None), license="")
    for line in (
        "license unknown\n",
        "- Adapter: all weights,",
        "Trained on unknown questions",
        "not stated; this bundle contains no text of the data",
        "Instruction: none",
        "examples `none` × 0",
    ):
        assert line in text
    assert " at `" not in text
    assert "layers" not in text


def test_the_card_of_the_base_model_names_no_adapter() -> None:
    text = model_card.build_card(
        config(), Lineage(frozenset()), round_=0, weights="", base_license="MIT", table=""
    )
    assert "- Adapter: none, this is the base model\n- Trained on 0 questions" in text
    assert "sha256" not in text


@pytest.mark.parametrize("query", ["{question} {{}}", "{construct}: {wrong} { {x}"])
def test_braces_of_a_template_are_not_changed(query: str) -> None:
    assert f"```text\n{query}\n```" in card(config(prompt={"query": query}))


def test_equal_inputs_give_equal_bytes() -> None:
    assert card(config()) == card(config(), Lineage(frozenset(map(UnitId, ("12", "11", "10")))))
