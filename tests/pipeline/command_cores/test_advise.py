"""`advise` from a ledger of real scores and from tables of runs; too few pairs; errors."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.pipeline.stage_cores import evaluate
from parity.run import files, ledger
from parity.run.ledger import Evidence

DIARY = Path(__file__).parents[4] / "shared" / "seed" / "runs.csv"
DIARY_ROWS = ("v1=1460", "v2=1866", "v3=864", "cv=864", "cv-subset=216")
COLUMNS = "run,split,round,epoch,cv_map25,lb_public,rows"
Advise = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def advise(capsys: pytest.CaptureFixture[str]) -> Advise:
    """Return a function that starts `advise`: exit code, JSON and text for the terminal."""

    def start(*words: str) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = main(["advise", *words, "--json"])
        output = capsys.readouterr()
        return code, json.loads(output.out), output.err

    return start


def records(fixture: RunFixture) -> list[Evidence]:
    return ledger.read(fixture.open().workspace.ledger)


def add(fixture: RunFixture, record: Evidence) -> None:
    ledger.append(fixture.open().workspace.ledger, record)


def add_score(fixture: RunFixture, record: Evidence, value: float) -> None:
    """Add a leaderboard score of a record's adapter to the ledger."""
    score = {"map@25": value}
    changes: dict[str, Any] = {"status": "unscored", "score": score, "facts": {}}
    add(fixture, replace(record, kind="public", label="test", **changes))


def add_runs(fixture: RunFixture, count: int) -> list[Evidence]:
    """Add runs that were scored on another machine, with rising CVs."""
    record, added = records(fixture)[0], []
    for n in range(count):
        score = json.loads(json.dumps(record.score))
        score["all"]["map@25"]["value"] = 0.2 + n / 50
        layers = {**record.layers, "adapter": f"{n:064x}"}
        added.append(replace(record, run=f"other-{n}", layers=layers, score=score))
        add(fixture, added[-1])
    return added


def write_table(name: str, *rows: str) -> str:
    Path(name).write_text("\n".join([COLUMNS, *rows]) + "\n")
    return name


def test_below_five_pairs_it_says_so_and_names_what_to_submit(
    predicted_run: RunFixture, advise: Advise
) -> None:
    add_score(predicted_run, add_runs(predicted_run, 1)[0], 0.3)
    code, result, text = advise()
    assert (code, result["pairs"]) == (0, 1)
    assert result["line"] == "too few pairs of CV and leaderboard score for advice (1 of 5)"
    assert (result["splits"], result["choices"]) == ([], [])
    assert result["next"].endswith("submit --run runs/small.toml")
    assert max(map(len, text.splitlines())) <= 80


def test_five_pairs_of_a_known_order_are_ranked(predicted_run: RunFixture, advise: Advise) -> None:
    scores = (0.20, 0.25, 0.30, 0.40, 0.35)
    for record, score in zip(add_runs(predicted_run, 5), scores, strict=True):
        add_score(predicted_run, record, score)
    _, result, text = advise()
    ranked = {item["name"]: item for item in result["splits"]}
    split = records(predicted_run)[0].facts["split"]
    assert ranked[f"{split} by all"]["pairs"] == 5
    assert ranked[f"{split} by all"]["kendall"]["value"] == pytest.approx(0.8)
    assert ranked[f"{split} by unseen"]["kendall"] is None  # every run has the same score
    assert result["line"].endswith(f"{split} by all; last epoch = best epoch by all")
    assert "the ranking of other-0/round-0/cv/best is missing" in " ".join(text.split())


def test_epochs_that_were_never_submitted_count_for_a_choice(
    predicted_run: RunFixture, advise: Advise
) -> None:
    """Only the training's folder has its second epoch; `last` chooses it."""
    add_score(predicted_run, records(predicted_run)[0], 0.30)
    for n, record in enumerate(add_runs(predicted_run, 5)):
        add_score(predicted_run, record, 0.31 + n / 100)
    _, result, _ = advise()
    assert [item["pairs"] for item in result["choices"]] == [6] * 4
    folder = predicted_run.open().workspace.stage("train", 0)
    for number in (1, 2):
        assert files.read_json(folder / f"epoch-{number}.json")["scores"]


def test_two_runs_are_compared_by_the_rows_that_both_ranked(
    predicted_run: RunFixture, advise: Advise
) -> None:
    evaluate.evaluate(predicted_run.open(), "base")
    _, result, text = advise()
    (pair,) = result["compared"]
    assert {pair["a"], pair["b"]} == {"small/round-0", "small/base"}
    best, base = (item.score["all"]["map@25"]["value"] for item in records(predicted_run))
    assert pair["difference"]["value"] == pytest.approx(abs(best - base))
    assert (pair["rows"], pair["difference"]["value"] > 0) == (21, True)
    assert "not decided by these rows" in text


def test_contaminated_scores_give_no_advice(predicted_run: RunFixture, advise: Advise) -> None:
    for record in add_runs(predicted_run, 5):
        add_score(predicted_run, record, 0.3)
    path = predicted_run.open().workspace.ledger
    path.write_text(path.read_text().replace('"clean"', '"contaminated"'))
    code, result, _ = advise()
    assert code != 0
    assert "for advice. Run: " in result["error"]
    assert result["fix"].endswith(" eval")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no CV in "),
        (("nowhere.csv",), "no such table of runs: nowhere.csv"),
        (("nowhere.csv", "--rows=fold0"), "--rows=fold0 is not SPLIT=N"),
    ],
)
def test_a_wrong_word_or_an_empty_ledger_is_one_line(
    small_run: RunFixture, advise: Advise, words: tuple[str, ...], message: str
) -> None:
    code, result, _ = advise(*words)
    assert code != 0
    assert message in result["error"]


def test_splits_of_a_table_have_any_name(small_run: RunFixture, advise: Advise) -> None:
    rows = [f"r{n},fold0,{n},1,{0.40 + n / 50},{0.30 + n / 100},864" for n in range(5)]
    code, result, text = advise(write_table("runs.csv", *rows))
    assert (code, result["pairs"]) == (0, 5)
    assert [item["name"] for item in result["splits"]] == ["fold0 by all"]
    assert result["splits"][0]["kendall"]["value"] == 1
    assert len(result["compared"]) == 4
    assert "the sd is taken as 0.4 a row" in " ".join(text.split())


def test_rows_of_a_split_come_from_the_table_or_a_flag(
    small_run: RunFixture, advise: Advise
) -> None:
    path = write_table("runs.csv", "a,fold0,0,1,0.4,0.3,", "b,fold1,0,1,0.4,0.3,")
    code, result, _ = advise(path)
    assert (code, result["class"]) == (3, "BadData")
    assert "split fold0, fold1 is unknown" in result["error"]
    assert advise(path, "--rows", "fold0=800", "--rows", "fold1=900")[0] == 0
    assert "--rows names fold7" in advise(path, "--rows=fold7=800")[1]["error"]


def test_rescored_and_contaminated_rows_of_a_table_are_left_out(
    small_run: RunFixture, advise: Advise
) -> None:
    rows = [f"icl-r{n},v3,{n},1,{0.40 + n / 50},{0.30 + n / 100},864" for n in range(5)]
    rows += ["icl-r0-recheck,v3,0,1,0.402,0.3,864", "icl-dirty,v3,0,1,0.9,0.2,864"]
    _, result, text = advise(write_table("runs.csv", *rows))
    assert result["pairs"] == 5
    assert "contaminated? icl-dirty e1." in " ".join(text.split())


@pytest.mark.skipif(not DIARY.is_file(), reason="the seed data is missing")
def test_the_diary_s_log_is_ranked_like_any_table(advise: Advise) -> None:
    code, result, text = advise(str(DIARY), *(f"--rows={item}" for item in DIARY_ROWS))
    assert (code, result["pairs"]) == (0, 30)
    ranked = {item["name"]: item["kendall"] for item in [*result["splits"], *result["choices"]]}
    assert ranked["cv by all, tuned"]["value"] < ranked["cv by all"]["value"]
    assert ranked["v1 by all"] is None
    last = next(item for item in result["choices"] if item["name"] == "last epoch")
    assert last["spearman"]["value"] > 0
    assert max(map(len, text.splitlines())) <= 80
