"""Scores equal those of training, and contaminated scores are refused or marked."""

import re
import shutil
from pathlib import Path

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.query import UnitId
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, dataset, encoder_loading, epochs
from parity.pipeline.command_cores import report
from parity.pipeline.stage_cores import evaluate
from parity.run import files, ledger
from parity.run.errors import BadConfig, Contaminated, Mismatch, StaleInput
from parity.run.experiment import Run
from parity.run.layers import RECORDED
from parity.run.ledger import Evidence

Capture = pytest.CaptureFixture[str]


def eval_folder(run: Run, label: str = "best") -> Path:
    return run.workspace.evaluation(run.round, label)


def trained(run: Run) -> Path:
    return dag.folder(run, "train")


def recorded(run: Run, label: str = "best") -> Scores:
    return Scores.from_json(
        files.read_json(eval_folder(run, label) / "scores.json")["scores"][label]
    )


def evidence(run: Run) -> list[Evidence]:
    return ledger.read(run.workspace.ledger)


def trained_on(small_run: RunFixture, lineage: Lineage | None, folder: str = "adapter") -> Run:
    """Replace the lineage of an adapter; None removes it."""
    run = small_run.open()
    path = trained(run) / folder / "lineage.json"
    lineage.write(path) if lineage else path.unlink()
    run_fixture.seal(trained(run))
    return run


def contaminated(small_run: RunFixture, folder: str = "adapter") -> Run:
    run = small_run.open()
    split = dataset.load(run.config, run.workspace).split
    return trained_on(small_run, Lineage(frozenset({*split.train, split.valid[0]})), folder)


def names(run: Run) -> list[str]:
    return [name for name, _ in report.rows(run)]


def test_eval_repeats_the_score_of_training_to_the_last_digit(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    best = files.read_json(trained(run) / "manifest.json")["facts"]["best_epoch"]
    for label, number in (("best", best), ("epoch-1", 1), ("epoch-2", 2)):
        evaluate.evaluate(run, label)
        before = epochs.read(trained(run), number)
        assert before is not None
        assert recorded(run, label) == before.scores
        ranking = (eval_folder(run, label) / "ranking.jsonl").read_bytes()
        assert ranking == (trained(run) / f"ranking-{number}.jsonl").read_bytes()
        embeddings = (trained(run) / f"probe-{number}.npy").read_bytes()
        assert (eval_folder(run, label) / "probe.npy").read_bytes() == embeddings


def test_a_score_that_differs_from_training_is_refused(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    best = files.read_json(trained(run) / "manifest.json")["facts"]["best_epoch"]
    path = trained(run) / f"epoch-{best}.json"
    path.write_text(re.sub(r'("value": 0\.\d+)\d', r"\1", path.read_text(), count=1))
    run_fixture.seal(trained(run))
    before = evidence(run)
    for label in ("best", f"epoch-{best}"):
        with pytest.raises(Mismatch, match="differs between eval and train"):
            evaluate.evaluate(run, label)
        assert not (eval_folder(run, label) / "manifest.json").exists()
        assert evaluate.read(run.workspace.evaluation(run.round, label)) == {}
    assert names(run) == []
    assert evidence(run) == before


def test_the_base_is_scored_without_an_adapter(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    evaluate.evaluate(run, "base")
    last = evidence(run)[-1]
    assert (last.label, last.status, last.layers["adapter"]) == ("base", "clean", "")
    assert recorded(run, "base") != recorded(run)
    assert names(run) == ["BM25", "TF-IDF", "base model", "round 0"]


def test_the_lexical_baselines_are_always_in_the_table(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    run = predicted_run.open()
    capsys.readouterr()
    evaluate.evaluate(run, "epoch-1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "valid: 21 queries, 0 with few-shot examples, 0 cut to fit"
    assert lines[1] == "21 rows of 13 questions, 6 of them (29 %) with an unseen label."
    rows = [line.split()[0] for line in lines if re.match(r"[a-z].* \.\d", line)]
    assert rows == ["bm25", "tfidf", "epoch-1"] * 2
    assert max(map(len, lines)) <= 80
    record = files.read_json(eval_folder(run, "epoch-1") / "scores.json")
    assert record["status"] == "clean"
    assert sorted(record["scores"]) == ["bm25", "epoch-1", "tfidf"]


@pytest.mark.parametrize("label", ["epoch-0", "epoch-1/..", "../train", "", "bm25", "epoch-1 "])
def test_an_invalid_label_is_refused_before_anything_is_written(
    predicted_run: RunFixture, label: str
) -> None:
    before = run_fixture.digests(predicted_run.data)
    expected = re.escape(f"--adapter {label} must be best, base or epoch-N")
    with pytest.raises(BadConfig, match=expected):
        evaluate.evaluate(predicted_run.open(), label)
    assert run_fixture.digests(predicted_run.data) == before


def test_a_missing_epoch_is_refused_with_a_list_of_epochs(
    predicted_run: RunFixture,
) -> None:
    expected = "--adapter epoch-3 must be best, base or one of epoch-1, epoch-2"
    with pytest.raises(BadConfig, match=expected):
        evaluate.evaluate(predicted_run.open(), "epoch-3")


def test_without_a_validation_set_there_is_no_score(small_run: RunFixture) -> None:
    small_run.write_config(split={"kind": "full"})
    run = small_run.run_stages("prepare", "mine", "train")
    with pytest.raises(BadConfig, match=r"^split full holds nothing out: .* Choose another split"):
        evaluate.evaluate(run)
    assert evidence(run) == []
    assert names(run) == []


@pytest.mark.parametrize("label", ["best", "epoch-1"])
def test_b7_a_score_on_rows_it_was_trained_on_is_refused(
    predicted_run: RunFixture, label: str
) -> None:
    folder = "adapter" if label == "best" else label
    run = contaminated(predicted_run, folder)
    before = evidence(run)
    first = dataset.load(run.config, run.workspace).split.valid[0]
    with pytest.raises(Contaminated, match=rf"\b1 of 13 units\b.*\b{first}\b") as error:
        evaluate.evaluate(run, label)
    assert error.value.exit_code == 5
    assert evidence(run) == before
    assert not (eval_folder(run, label) / "manifest.json").exists()


def test_b8_unknown_lineage_counts_as_contaminated(predicted_run: RunFixture) -> None:
    run = trained_on(predicted_run, None)
    with pytest.raises(Contaminated):
        evaluate.evaluate(run)
    evaluate.evaluate(run, accept_contaminated=True)
    assert evidence(run)[-1].status == "contaminated"


def test_a5_a_question_with_the_text_of_a_trained_one_counts_as_trained(
    predicted_run: RunFixture,
) -> None:
    elsewhere = predicted_run.folder / "competition"
    shutil.copytree(predicted_run.source, elsewhere)
    predicted_run.write_config(data={"source": str(elsewhere)})
    run = predicted_run.open()
    split = dataset.load(run.config, run.workspace).split
    rows = run_fixture.read_rows(elsewhere / "train.csv")
    by_id = {UnitId(row["QuestionId"]): row for row in rows}
    by_id[split.valid[0]]["QuestionText"] = by_id[split.train[0]]["QuestionText"].upper() + " "
    run_fixture.write_rows(elsewhere / "train.csv", rows)
    run = predicted_run.run_stages("prepare")
    changed = dataset.load(run.config, run.workspace).split
    sides = [
        {split.valid[0], split.train[0]} <= set(side) for side in (changed.train, changed.valid)
    ]
    assert any(sides)  # the split keeps them together


def test_b7_an_accepted_score_is_marked_and_left_out_of_every_table(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    assert names(predicted_run.open()) == ["BM25", "TF-IDF", "round 0"]
    run = contaminated(predicted_run)
    capsys.readouterr()
    evaluate.evaluate(run, accept_contaminated=True)
    assert "CONTAMINATED: trained on rows it was scored on; left out of" in capsys.readouterr().out
    last = evidence(run)[-1]
    assert (last.kind, last.label, last.status) == ("cv", "best", "contaminated")
    assert last.score == recorded(run).as_json()
    assert evaluate.read(run.workspace.evaluation(run.round, "best")) == {}
    assert names(run) == []
    written = report.report(run).read_text()
    assert "| round 0 |" not in written
    assert "No clean and current ranking" in written
    assert "| cv | 0 | best |" in written.split("## Evidence")[1]  # the earlier clean score
    assert written.split("## Evidence")[1].count("| cv |") == 1


def test_a_clean_score_stays_clean_when_contamination_is_accepted(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    evaluate.evaluate(run, accept_contaminated=True)
    assert evidence(run)[-1].status == "clean"


def test_each_layer_of_the_evidence_is_filled_in_up_to_the_ranking(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    (record,) = evidence(run)
    assert (record.run, record.round, record.label, record.kind) == ("small", 0, "best", "cv")
    assert record.layers.keys() == set(RECORDED)
    empty = [name for name in RECORDED if not record.layers[name]]
    assert "submission" in empty
    assert not set(empty) & {"data", "split", "lineage", "texts", "tokens", "base", "embeddings"}
    encoder = encoder_loading.load_encoder(
        run.config.encoder, run.workspace, run.workspace.adapter(0)
    )
    assert record.layers["base"] == encoder.base.digest()
    assert record.layers["adapter"] == encoder.adapter
    assert record.layers["split"] == dataset.load(run.config, run.workspace).split.digest()
    in_training = files.read_json(trained(run) / "epoch-2.json")["layers"]
    for name in ("template", "examples", "texts", "tokens", "embeddings", "ranking"):
        assert record.layers[name] == in_training[name]


def test_no_text_of_the_competition_is_in_the_ledger(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    text, data = run.workspace.ledger.read_text(), dataset.load(run.config, run.workspace)
    assert not [query for query in data.queries if query.identity in text]
    assert not [passage for passage in data.corpus.values() if passage in text]


def test_texts_and_tokens_of_the_probe_are_stored_with_the_evidence(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    rows = files.read_jsonl(run.workspace.texts(0, "best"))
    data = dataset.load(run.config, run.workspace)
    assert [row["query_id"] for row in rows] == [query.query_id for query in data.probe]
    assert rows[0]["text"] == "{question} {wrong}".format(**data.probe[0].fields)
    encoder = encoder_loading.load_encoder(run.config.encoder, run.workspace)
    assert rows[0]["tokens"] == encoder.tokenize([rows[0]["text"]], 96)[0]


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
    evaluate.evaluate(run, accept_contaminated=True)
    with pytest.raises(Contaminated, match="such scores are not compared"):
        evaluate.evaluate(run, accept_contaminated=True, against=Path("other.toml"))
    with pytest.raises(Contaminated, match="such scores are not compared"):
        evaluate.evaluate(predicted_run.open(name="other"), against=Path("small.toml"))


def test_a_stale_score_is_not_compared(predicted_run: RunFixture) -> None:
    shutil.copytree(
        predicted_run.open().workspace.root, predicted_run.open().workspace.root.with_name("other")
    )
    predicted_run.write_config("other", training={"seed": 1})
    message = re.escape("other has a stale score (train of round 0 is stale)")
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


def test_scoring_again_adds_evidence_and_changes_no_score(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    before = (eval_folder(run) / "scores.json").read_bytes()
    files.remove(run.workspace.embeddings)  # so that they are computed again
    evaluate.evaluate(run)
    assert (eval_folder(run) / "scores.json").read_bytes() == before
    first, second = evidence(run)
    assert first.layers == second.layers
    assert first.score == second.score
