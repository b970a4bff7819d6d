"""`eval --against`: two runs are compared on the same rows, by clean and current scores."""

import shutil
from pathlib import Path

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, dataset
from parity.pipeline.stage_cores import evaluate
from parity.run import files
from parity.run.errors import Contaminated, Mismatch, StaleInput
from parity.run.experiment import Run

Capture = pytest.CaptureFixture[str]


def eval_folder(run: Run, label: str = "best") -> Path:
    return run.workspace.evaluation(run.round, label)


def recorded(run: Run, label: str = "best") -> Scores:
    return Scores.from_json(
        files.read_json(eval_folder(run, label) / "scores.json")["scores"][label]
    )


def contaminated(small_run: RunFixture) -> Run:
    """Add a unit of the validation set to the lineage of the best adapter."""
    run = small_run.open()
    split = dataset.load(run.config, run.workspace).split
    trained = dag.folder(run, "train")
    Lineage(frozenset({*split.train, split.valid[0]})).write(trained / "adapter" / "lineage.json")
    run_fixture.seal(trained)
    return run


def test_b26_equal_weights_show_no_difference(predicted_run: RunFixture, capsys: Capture) -> None:
    other = predicted_run.open().workspace.root.with_name("grab")  # a name that ends in b
    shutil.copy("small.toml", "grab.toml")
    shutil.copytree(predicted_run.open().workspace.root, other)
    capsys.readouterr()
    evaluate.evaluate(predicted_run.open(), against=Path("grab.toml"))
    output = capsys.readouterr().out
    assert (
        "small against grab: no difference shown (difference +0.0000, 95 % +0.0000 to +0.0000)\n"
        "the two rankings are identical: were the same weights scored twice?\n"
    ) in output


@pytest.mark.parametrize(("first", "winner", "sign"), [(True, "lab", "+"), (False, "grab", "-")])
def test_a4_the_better_of_two_runs_is_named(
    small_run: RunFixture, capsys: Capture, first: bool, winner: str, sign: str
) -> None:
    small_run.write_config(
        "lab", scoring={"seen_share": 1.0}
    )  # with few unseen questions no difference would be shown
    lab = small_run.run_stages("prepare", "mine", "train", "eval", name="lab")
    shutil.copy("lab.toml", "grab.toml")
    shutil.copytree(lab.workspace.root, lab.workspace.root.with_name("grab"))
    data = dataset.load(lab.config, lab.workspace)
    path = eval_folder(small_run.open(name="grab")) / "ranking.jsonl"
    ranking = rankings.read(path)
    for row, query_id in enumerate(ranking.query_ids):  # the right id is last, or first
        (right,) = data.qrels[query_id]
        remaining = [key for key in ranking.positions[row].tolist() if key != right][:24]
        ranking.positions[row] = [*remaining, right] if first else [right, *remaining]
    rankings.write(path, ranking)
    run_fixture.seal(path.parent)
    capsys.readouterr()
    evaluate.evaluate(small_run.open(name="lab"), against=Path("grab.toml"))
    output = capsys.readouterr().out
    assert f"\nlab against grab: {winner} is better (difference {sign}0." in output


def test_b7_a_contaminated_score_is_not_compared(predicted_run: RunFixture) -> None:
    shutil.copy("small.toml", "other.toml")
    shutil.copytree(
        predicted_run.open().workspace.root, predicted_run.open().workspace.root.with_name("other")
    )
    run = contaminated(predicted_run)
    files.remove(eval_folder(run))  # its clean score
    evaluate.evaluate(run, accept_contaminated=True)
    with pytest.raises(Contaminated, match="such scores are not compared"):
        evaluate.evaluate(run, accept_contaminated=True, against=Path("other.toml"))
    with pytest.raises(Contaminated, match="such scores are not compared"):
        evaluate.evaluate(predicted_run.open(name="other"), against=Path("small.toml"))


def test_a_stale_score_is_not_compared(predicted_run: RunFixture) -> None:
    shutil.copytree(
        predicted_run.open().workspace.root, predicted_run.open().workspace.root.with_name("other")
    )
    predicted_run.write_config("other", scoring={"seen_share": 0.5})
    message = (
        r"other has a stale score \(scoring\.seen_share was 0\.25, the run file now has 0\.5\)"
    )
    with pytest.raises(StaleInput, match=message) as error:
        evaluate.evaluate(predicted_run.open(), against=Path("other.toml"))
    assert error.value.fix == ("eval", "--run", "other.toml")


def test_a_corpus_of_fewer_than_25_is_compared_at_its_size(
    small_run: RunFixture, capsys: Capture
) -> None:
    elsewhere = small_run.folder / "competition"
    shutil.copytree(small_run.source, elsewhere)
    used = labels_in_train(small_run)
    rows = run_fixture.read_rows(elsewhere / "misconception_mapping.csv")
    corpus = [row for row in rows if int(row["MisconceptionId"]) in used]
    assert len(corpus) < 25
    run_fixture.write_rows(elsewhere / "misconception_mapping.csv", corpus)
    sample = run_fixture.read_rows(elsewhere / "sample_submission.csv")
    all_ids = " ".join(row["MisconceptionId"] for row in corpus)
    run_fixture.write_rows(
        elsewhere / "sample_submission.csv", [{**row, "MisconceptionId": all_ids} for row in sample]
    )
    small_run.write_config(data={"source": str(elsewhere)})
    run = small_run.run_stages("prepare", "mine", "train", "eval")
    assert recorded(run).k == len(corpus)
    capsys.readouterr()
    evaluate.evaluate(run, "epoch-1", against=Path("small.toml"))
    assert "small against small: " in capsys.readouterr().out


def labels_in_train(small_run: RunFixture) -> set[int]:
    """Return the ids of misconceptions with a label in train."""
    run = small_run.run_stages("prepare")
    data = dataset.load(run.config, run.workspace)
    return {int(data.corpus.ids[key]) for right in data.qrels.values() for key in right}


def test_runs_scored_on_different_rows_are_not_compared(predicted_run: RunFixture) -> None:
    predicted_run.write_config("other", split={"seed": 1})
    predicted_run.run_stages("prepare", "mine", "train", "eval", name="other")
    with pytest.raises(Mismatch, match=r"scored on different rows \(splits .*s0.* and .*s1"):
        evaluate.evaluate(predicted_run.open(), against=Path("other.toml"))


def test_a_run_without_a_score_is_refused_with_the_command(predicted_run: RunFixture) -> None:
    predicted_run.write_config("other")
    predicted_run.run_stages("mine", "train", round_=1)
    for round_, flags in ((0, ()), (1, ("--round", "1"))):
        with pytest.raises(StaleInput, match=r"^other has no score$") as error:
            evaluate.evaluate(predicted_run.open(round_=round_), against=Path("other.toml"))
        assert error.value.fix == ("eval", "--run", "other.toml", *flags)


def test_runs_are_compared_under_the_same_evaluation(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    run = predicted_run.open()
    shutil.copytree(run.workspace.root, run.workspace.root.with_name("other"))
    for name in ("small", "other"):
        predicted_run.write_config(name, **{"evaluations.cut.prompt": {"query_max_length": 48}})
    run = predicted_run.open()
    with pytest.raises(StaleInput, match=r"^other has no score$") as error:
        evaluate.evaluate(run, evaluation="cut", against=Path("other.toml"))
    assert error.value.fix == ("eval", "--run", "other.toml", "--as", "cut")
    evaluate.evaluate(predicted_run.open(name="other"), evaluation="cut")
    capsys.readouterr()
    evaluate.evaluate(run, evaluation="cut", against=Path("other.toml"))
    assert "small against other: no difference shown (difference +0.0000" in capsys.readouterr().out
