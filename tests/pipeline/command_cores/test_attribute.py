"""A gap between two scores of a tiny model, layer by layer: what was planted is what is told."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.__main__ import main
from parity.competition import ranking as rankings
from parity.competition.scoring import metrics
from parity.pipeline import dataset
from parity.pipeline.command_cores import attribute
from parity.pipeline.evidence import SETTINGS
from parity.pipeline.stage_cores import evaluate
from parity.run import files, ledger

Told = Callable[..., tuple[int, dict[str, Any], str]]
OTHER = "prompt.query='{wrong}'"


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Return what starts `reconcile --attribute`: exit code, what a machine and a person read."""

    def start(*words: str) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = main(["reconcile", *words, "--attribute", "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err

    return start


@pytest.fixture
def ready(made: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Let `eval` score under other settings than the training's, which it would refuse."""
    monkeypatch.setattr(evaluate, "_as_in_training", lambda *_: None)
    return made


def scored(bench: Bench, *sets: str, label: str = "best") -> str:
    """Score under other settings, as if trained under them; return the record's id."""
    for stage in ("mine", "train"):
        benches.rewrite_config(bench.run(*sets), stage)
    evaluate.evaluate(bench.run(*sets), label)
    return ledger.id_of(ledger.read(bench.run().workspace.ledger)[-1])


def first(bench: Bench) -> str:
    return ledger.id_of(ledger.read(bench.run().workspace.ledger)[0])


def parts(found: dict[str, Any]) -> dict[str, float]:
    return {one["layer"]: one["part"]["value"] for one in found["ladder"]["rungs"]}


def test_a_planted_template_is_the_gap_and_the_precision_beside_it_is_not(
    ready: Bench, told: Told
) -> None:
    """The sum is exact in whatever order it is taken."""
    code, found, said = told(first(ready), scored(ready, OTHER, "encoder.precision=bf16"))
    assert code == 0
    ladder, told_parts = found["ladder"], parts(found)
    assert list(told_parts) == ["template", "precision", "remainder"]
    assert abs(ladder["gap"]) > 0.05
    assert abs(told_parts["template"] - ladder["gap"]) < abs(ladder["gap"]) / 4
    assert told_parts["remainder"] == 0
    assert sum(told_parts.values()) == ladder["gap"] == ladder["end"] - ladder["start"]
    assert sum(reversed(told_parts.values())) == ladder["gap"]
    assert "precision fp32 to bf16" in said
    assert "{wrong}" in said or "query" in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_steps_are_what_eval_itself_scores_under_the_same_settings(
    ready: Bench, told: Told
) -> None:
    """The slow twin: each rung's score is an evaluation of its own."""
    b = scored(ready, OTHER, "prompt.examples=question", "prompt.example_count=1")
    _, found, _ = told(first(ready), b)
    between = scored(ready, OTHER)
    records = {ledger.id_of(one): one for one in ledger.read(ready.run().workspace.ledger)}
    rungs = {one["layer"]: one["after"] for one in found["ladder"]["rungs"]}
    assert list(rungs) == ["template", "examples", "remainder"]
    for layer, name in (("template", between), ("examples", b), ("remainder", b)):
        value = records[name].score["all"]["map@25"]["value"]
        assert rungs[layer] == pytest.approx(value, abs=1e-9)


def test_another_adapter_is_a_layer_of_its_own(ready: Bench, told: Told) -> None:
    bare = scored(ready, label="base")
    _, found, said = told(bare, first(ready))
    assert list(parts(found)) == ["adapter", "remainder"]
    assert parts(found)["adapter"] == found["ladder"]["gap"] != 0
    assert "none: the bare base to " in said


def test_two_scores_of_the_same_make_a_ladder_of_nothing(ready: Bench, told: Told) -> None:
    _, found, said = told(first(ready), scored(ready))
    assert parts(found) == {"remainder": 0.0}
    assert found["ladder"]["gap"] == 0.0
    assert "no layer that can be swapped differs" in said


def test_another_split_is_told_as_rows(ready: Bench, told: Told) -> None:
    """Rows of one side alone leave first or come last; the rest is compared on rows of both."""
    a = first(ready)
    ready.write("other", split={"kind": "random", "valid": 0.4, "seed": 1})
    for stage in ("prepare", "mine", "train", "eval"):
        ready.make(stage, name="other")
    code, found, said = told(a, "other/round-0/eval")
    assert code == 0
    rungs = found["ladder"]["rungs"]
    assert [rung["layer"] for rung in rungs] == ["rows", "adapter", "rows", "remainder"]
    assert sum(rung["part"]["value"] for rung in rungs) == found["ladder"]["gap"]
    assert rungs[-1]["part"]["value"] == 0
    assert "rows that A alone scored are left out" in said


def test_what_is_gone_is_named_and_the_artifacts_still_tell_the_gap(
    ready: Bench, told: Told
) -> None:
    a, b = first(ready), scored(ready, OTHER)
    place = ready.run().workspace
    shutil.rmtree(place.adapter(0))
    for path in place.stage("train", 0).glob("epoch-?"):
        shutil.rmtree(path)
    code, found, said = told(a, b)
    assert (code, list(parts(found))) == (0, ["remainder"])
    assert "is gone from" in said
    assert found["ladder"]["gap"] == parts(found)["remainder"] != 0
    (place.evidence(a) / SETTINGS).unlink()
    assert "no settings are kept beside its record" in told(a, b)[2]


@pytest.mark.parametrize("deeper", ["A", "B"])
def test_another_k_is_a_layer_of_its_own_at_either_end(
    ready: Bench, told: Told, deeper: str
) -> None:
    """MAP@3 of the same ranking, whose parts its own scores tell."""
    a, b = first(ready), scored(ready, OTHER)
    place = ready.run().workspace
    shallow = a if deeper == "B" else b
    record = next(one for one in ledger.read(place.ledger) if ledger.id_of(one) == shallow)
    config, known = ready.run().config, dataset.load(ready.run())
    ranking = rankings.read(place.evidence(shallow) / "ranking.jsonl")
    scores = metrics.evaluate(ranking, known.valid_qrels, known.split.unseen, config.scoring, k=3)
    cut = replace(record, score=scores.as_json())
    ledger.append(place.ledger, cut)
    shutil.copytree(place.evidence(shallow), place.evidence(ledger.id_of(cut)))
    sides = (ledger.id_of(cut), b) if deeper == "B" else (a, ledger.id_of(cut))
    _, found, said = told(*sides)
    order = ["template", "metric"] if deeper == "B" else ["metric", "template"]
    assert list(parts(found)) == [*order, "remainder"]
    assert parts(found)["remainder"] == 0
    assert sum(parts(found).values()) == found["ladder"]["gap"]
    at = dict(zip("AB", sides, strict=True))[deeper]
    deep = {ledger.id_of(one): one for one in ledger.read(place.ledger)}[at].score
    values = metrics.average_precisions(
        rankings.read(place.evidence(at) / "ranking.jsonl"), known.valid_qrels, k=3
    )
    moved = deep["all"]["map@25"]["value"] - fmean(values.values())
    sign = 1 if deeper == "B" else -1
    assert parts(found)["metric"] == pytest.approx(sign * moved, abs=1e-9)
    assert "MAP@" in said


def test_a_number_alone_is_weighed_by_the_unseen_share(ready: Bench, told: Told) -> None:
    _, found, said = told(first(ready), "0.304")
    assert list(parts(found)) == ["unseen share", "remainder"]
    assert sum(parts(found).values()) == found["ladder"]["gap"]
    record = ledger.read(ready.run().workspace.ledger)[0].score
    moved = record["projection@25"]["value"] - record["all"]["map@25"]["value"]
    assert parts(found)["unseen share"] == pytest.approx(moved, abs=1e-9)
    assert "to p = 0.25" in said


def test_the_order_of_the_swaps_is_that_of_the_walk() -> None:
    order = ("base", "adapter", "template", "examples", "precision", "device", "budget")
    assert order == attribute.SWAPPED


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("small/round-0/eval",), "want two sides, found 1"),
        (("nothing", "small/round-0/eval"), "nothing: no record of that name"),
        (("small/round-0/eval", "small/round-0/rehearse"), "no record of that name"),
    ],
)
def test_a_wrong_word_is_one_line(
    made: Bench, told: Told, words: tuple[str, ...], line: str
) -> None:
    code, found, _ = told(*words)
    assert code != 0
    assert line in found["error"]


def test_settings_beside_a_record_are_the_resolved_run_file(made: Bench) -> None:
    kept = files.read_json(made.run().workspace.evidence(first(made)) / SETTINGS)
    assert kept == made.run().config.model_dump(mode="json")
