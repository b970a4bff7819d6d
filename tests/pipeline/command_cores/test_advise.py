"""`advise` from a ledger of real scores and from the golden log; too few pairs; wrong words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline.run_fixture import Bench

from parity.__main__ import main
from parity.pipeline.stage_cores import evaluate
from parity.run import files, ledger
from parity.run.ledger import Evidence

GOLDEN = Path(__file__).parents[4] / "shared" / "seed" / "runs.csv"
COLUMNS = "run,split,round,epoch,adapter,quantized,cv_map25,cv_recall25,lb_public,notes"
Told = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Return what starts `advise`: exit code, what a machine and a person read."""

    def start(*words: str) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = main(["advise", *words, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err

    return start


def records(bench: Bench) -> list[Evidence]:
    return ledger.read(bench.run().workspace.ledger)


def add(bench: Bench, record: Evidence) -> None:
    ledger.append(bench.run().workspace.ledger, record)


def shown(bench: Bench, one: Evidence, value: float) -> None:
    """Let the leaderboard show a score of a record's adapter."""
    score = {"map@25": value}
    add(bench, replace(one, kind="public", label="test", status="unscored", score=score, facts={}))


def others(bench: Bench, count: int) -> list[Evidence]:
    """Add runs that were scored on another machine, the later the better."""
    one, made = records(bench)[0], []
    for n in range(count):
        score = json.loads(json.dumps(one.score))
        score["all"]["map@25"]["value"] = 0.2 + n / 50
        layers = {**one.layers, "adapter": f"{n:064x}"}
        made.append(replace(one, run=f"other-{n}", layers=layers, score=score))
        add(bench, made[-1])
    return made


def test_below_five_pairs_it_says_so_and_names_what_to_submit(made: Bench, told: Told) -> None:
    shown(made, others(made, 1)[0], 0.3)
    code, found, said = told()
    assert (code, found["pairs"]) == (0, 1)
    assert found["line"].startswith("too few pairs (1 of 5)")
    assert (found["splits"], found["choices"]) == ([], [])
    assert found["next"] == "invoke submit --run runs/small.toml"
    assert max(map(len, said.splitlines())) <= 80


def test_five_pairs_of_a_known_order_are_ranked(made: Bench, told: Told) -> None:
    for place, one in enumerate(others(made, 5)):
        shown(made, one, (0.20, 0.25, 0.30, 0.40, 0.35)[place])
    _, found, said = told()
    ranked = {one["what"]: one for one in found["splits"]}
    split = records(made)[0].facts["split"]
    assert ranked[f"{split} by all"]["pairs"] == 5
    assert ranked[f"{split} by all"]["kendall"]["value"] == pytest.approx(0.8)
    assert ranked[f"{split} by unseen"]["kendall"] is None  # every run's is the same
    assert found["line"].endswith(f"{split} by all; last epoch = best epoch by all")
    assert "the rows that it ranked are gone: other-0/round-0/cv/best" in said


def test_epochs_of_a_training_that_never_went_there_count_for_a_choice(
    made: Bench, told: Told
) -> None:
    """The training's second epoch lies in its folder only; its first is chosen by `last` never."""
    shown(made, records(made)[0], 0.30)
    for place, one in enumerate(others(made, 5)):
        shown(made, one, 0.31 + place / 100)
    _, found, _ = told()
    assert [one["pairs"] for one in found["choices"]] == [6] * 4
    folder = made.run().workspace.stage("train", 0)
    for number in (1, 2):
        assert files.read_json(folder / f"epoch-{number}.json")["scores"]


def test_two_runs_are_compared_by_the_rows_both_ranked(made: Bench, told: Told) -> None:
    evaluate.evaluate(made.run(), "base")
    _, found, said = told()
    (one,) = found["compared"]
    assert {one["a"], one["b"]} == {"small/round-0", "small/base"}
    best, bare = (record.score["all"]["map@25"]["value"] for record in records(made))
    assert one["difference"]["value"] == pytest.approx(abs(best - bare))
    assert (one["rows"], one["difference"]["value"] > 0) == (21, True)
    assert "not decided by these rows" in said


def test_contaminated_scores_advise_nothing(made: Bench, told: Told) -> None:
    for one in others(made, 5):
        shown(made, one, 0.3)
    path = made.run().workspace.ledger
    path.write_text(path.read_text().replace('"clean"', '"contaminated"'))
    code, found, _ = told()
    assert code != 0
    assert "no CV yet to advise from; run: invoke eval" in found["error"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "no CV yet to advise from; run: invoke eval"),
        (("nowhere.csv",), "nowhere.csv: no such table of runs; invoke advise FILE.csv"),
    ],
)
def test_a_wrong_word_or_an_empty_ledger_is_one_line(
    bench: Bench, told: Told, words: tuple[str, ...], line: str
) -> None:
    code, found, _ = told(*words)
    assert code != 0
    assert line in found["error"]


def test_a_log_counts_an_adapter_that_was_measured_again_once(bench: Bench, told: Told) -> None:
    rows = [f"icl-r{n},v3,{n},1,true,,{0.40 + n / 50},,{0.30 + n / 100}," for n in range(5)]
    rows += [
        "icl-r0-recheck,v3,0,1,true,,0.402,,0.3,",
        "icl-dirty-POLLUTED,v3,0,1,true,,0.9,,0.2,",
    ]
    Path("log.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
    code, found, said = told("log.csv")
    assert (code, found["pairs"]) == (0, 5)
    assert found["splits"][0]["kendall"]["value"] == 1
    assert len(found["compared"]) == 4
    assert "sd is taken as 0.4 a row" in " ".join(said.split())


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden log is not at hand")
def test_the_golden_log_ranks_by_v3_and_leaves_most_neighbours_open(told: Told) -> None:
    code, found, said = told(str(GOLDEN))
    assert (code, found["pairs"]) == (0, 28)
    ranked = {one["what"]: one["kendall"] for one in [*found["splits"], *found["choices"]]}
    assert ranked["v3 by all"]["value"] == pytest.approx(0.63, abs=0.01)
    assert ranked["v3 by all, tuned"]["value"] < ranked["v3 by all"]["value"]
    assert ranked["v1 by all"] is None
    last = next(one for one in found["choices"] if one["what"] == "last epoch")
    assert (last["pairs"], round(last["spearman"]["value"], 2)) == (13, 0.67)  # no bare base
    assert found["epochs"] == [11, 12]
    assert sum(one["needed"] > one["rows"] for one in found["compared"]) == 14
    assert max(map(len, said.splitlines())) <= 80
