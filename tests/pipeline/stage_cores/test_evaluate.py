"""A score is the one made in training, on rows never trained on, or it is refused or marked."""

import re
import shutil
from pathlib import Path

import pytest
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.competition import ranking as rankings
from parity.competition.lineage import Lineage
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, dataset, encoder_loading, epochs
from parity.pipeline.command_cores import report
from parity.pipeline.stage_cores import evaluate
from parity.run import files, ledger
from parity.run.errors import BadConfig, Contaminated, Mismatch, StaleInput
from parity.run.experiment import Run
from parity.run.ledger import Evidence

Capture = pytest.CaptureFixture[str]


def place(run: Run, label: str = "best") -> Path:
    return run.workspace.evaluation(run.round, label)


def trained(run: Run) -> Path:
    return dag.folder(run, "train")


def recorded(run: Run, label: str = "best") -> Scores:
    return Scores.from_json(files.read_json(place(run, label) / "scores.json")["scores"][label])


def evidence(run: Run) -> list[Evidence]:
    return ledger.read(run.workspace.ledger)


def trained_on(bench: Bench, lineage: Lineage | None, folder: str = "adapter") -> Run:
    """Let an adapter be one that was trained on other questions; None takes its lineage away."""
    run = bench.run()
    path = trained(run) / folder / "lineage.json"
    lineage.write(path) if lineage else path.unlink()
    benches.seal(trained(run))
    return run


def contaminated(bench: Bench, folder: str = "adapter") -> Run:
    split = dataset.load(bench.run()).split
    return trained_on(bench, Lineage(frozenset({*split.train, split.valid[0]})), folder)


def names(run: Run) -> list[str]:
    return [name for name, _ in report.rows(run)]


def test_the_score_made_in_training_is_that_of_eval_to_the_last_digit(made: Bench) -> None:
    run = made.run()
    best = files.read_json(trained(run) / "manifest.json")["facts"]["best_epoch"]
    for label, number in (("best", best), ("epoch-1", 1), ("epoch-2", 2)):
        evaluate.evaluate(run, label)
        before = epochs.read(trained(run), number)
        assert before is not None
        assert recorded(run, label) == before.scores
        mine = (place(run, label) / "ranking.jsonl").read_bytes()
        assert mine == (trained(run) / f"ranking-{number}.jsonl").read_bytes()
        memory = (trained(run) / f"probe-{number}.npy").read_bytes()
        assert (place(run, label) / "probe.npy").read_bytes() == memory


def test_another_score_than_the_one_made_in_training_is_refused(made: Bench) -> None:
    run = made.run()
    best = files.read_json(trained(run) / "manifest.json")["facts"]["best_epoch"]
    path = trained(run) / f"epoch-{best}.json"
    path.write_text(re.sub(r'("value": 0\.\d+)\d', r"\1", path.read_text(), count=1))
    benches.seal(trained(run))
    before = evidence(run)
    for label in ("best", f"epoch-{best}"):
        with pytest.raises(Mismatch, match="score of eval is not the one made in training"):
            evaluate.evaluate(run, label)
        assert not (place(run, label) / "manifest.json").exists()
        assert evaluate.read(run, label) == {}
    assert names(run) == []
    assert evidence(run) == before


def test_the_base_is_scored_without_an_adapter(made: Bench) -> None:
    run = made.run()
    evaluate.evaluate(run, "base")
    last = evidence(run)[-1]
    assert (last.label, last.status, last.layers["adapter"]) == ("base", "clean", "")
    assert recorded(run, "base") != recorded(run)
    assert names(run) == ["BM25", "TF-IDF", "base model", "round 0"]


def test_the_lexical_baselines_are_always_in_the_table(made: Bench, capsys: Capture) -> None:
    run = made.run()
    capsys.readouterr()
    evaluate.evaluate(run, "epoch-1")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "valid: 21 queries, 0 with few-shot examples, 0 cut to fit"
    assert said[1] == "21 rows of 13 questions, 6 of them (29 %) with an unseen misconception."
    rows = [line.split()[0] for line in said if re.match(r"[a-z].* \.\d", line)]
    assert rows == ["bm25", "tfidf", "epoch-1"] * 2
    assert max(map(len, said)) <= 80
    kept = files.read_json(place(run, "epoch-1") / "scores.json")
    assert kept["status"] == "clean"
    assert sorted(kept["scores"]) == ["bm25", "epoch-1", "tfidf"]


@pytest.mark.parametrize("label", ["epoch-0", "epoch-1/..", "../train", "", "bm25", "epoch-1 "])
def test_a_label_that_is_none_is_refused_before_anything_is_touched(
    made: Bench, label: str
) -> None:
    before = benches.digests(made.data)
    told = re.escape(f"--adapter {label}: want best, base or epoch-N")
    with pytest.raises(BadConfig, match=told):
        evaluate.evaluate(made.run(), label)
    assert benches.digests(made.data) == before


def test_an_epoch_that_is_not_there_is_refused_naming_those_that_are(made: Bench) -> None:
    told = "--adapter epoch-3: want best, base or one of epoch-1, epoch-2"
    with pytest.raises(BadConfig, match=told):
        evaluate.evaluate(made.run(), "epoch-3")


def test_where_nothing_is_held_out_there_is_no_score(bench: Bench) -> None:
    bench.write(split={"kind": "full"})
    run = bench.make("prepare", "mine", "train")
    with pytest.raises(BadConfig, match=r"split full holds nothing out: .* choose another split"):
        evaluate.evaluate(run)
    assert evidence(run) == []
    assert names(run) == []


@pytest.mark.parametrize("label", ["best", "epoch-1"])
def test_b7_a_score_on_rows_it_was_trained_on_is_refused(made: Bench, label: str) -> None:
    folder = "adapter" if label == "best" else label
    run = contaminated(made, folder)
    before = evidence(run)
    first = dataset.load(run).split.valid[0]
    with pytest.raises(Contaminated, match=rf"\b1 of 13 questions\b.*\b{first}\b") as caught:
        evaluate.evaluate(run, label)
    assert caught.value.exit_code == 5
    assert evidence(run) == before
    assert not (place(run, label) / "manifest.json").exists()


def test_b8_unknown_lineage_counts_as_contaminated(made: Bench) -> None:
    run = trained_on(made, None)
    with pytest.raises(Contaminated):
        evaluate.evaluate(run)
    evaluate.evaluate(run, accept_contaminated=True)
    assert evidence(run)[-1].status == "contaminated"


def test_a5_a_question_with_the_text_of_a_trained_one_counts_as_trained(made: Bench) -> None:
    elsewhere = made.folder / "competition"
    shutil.copytree(made.source, elsewhere)
    made.write(data={"source": str(elsewhere)})
    split = dataset.load(made.run()).split
    rows = benches.read_rows(elsewhere / "train.csv")
    by_id = {int(row["QuestionId"]): row for row in rows}
    by_id[split.valid[0]]["QuestionText"] = by_id[split.train[0]]["QuestionText"].upper() + " "
    benches.write_rows(elsewhere / "train.csv", rows)
    run = made.make("prepare")
    again = dataset.load(run).split
    sides = [{split.valid[0], split.train[0]} <= set(side) for side in (again.train, again.valid)]
    assert any(sides)  # the split keeps them together


def test_b7_an_accepted_score_is_marked_and_kept_out_of_every_table(
    made: Bench, capsys: Capture
) -> None:
    assert names(made.run()) == ["BM25", "TF-IDF", "round 0"]
    run = contaminated(made)
    capsys.readouterr()
    evaluate.evaluate(run, accept_contaminated=True)
    assert "CONTAMINATED: trained on rows it was scored on; kept out of" in capsys.readouterr().out
    last = evidence(run)[-1]
    assert (last.kind, last.label, last.status) == ("cv", "best", "contaminated")
    assert last.score == recorded(run).as_json()
    assert evaluate.read(run, "best") == {}
    assert names(run) == []
    written = report.report(run).read_text()
    assert "| round 0 |" not in written
    assert "No clean and current ranking" in written
    assert "| cv | 0 | best |" in written.split("## Evidence")[1]  # the clean one of before
    assert written.split("## Evidence")[1].count("| cv |") == 1


def test_a_clean_score_that_contamination_was_accepted_for_is_clean(made: Bench) -> None:
    run = made.run()
    evaluate.evaluate(run, accept_contaminated=True)
    assert evidence(run)[-1].status == "clean"


def test_each_layer_of_the_evidence_is_filled_in_up_to_the_ranking(made: Bench) -> None:
    run = made.run()
    (found,) = evidence(run)
    assert (found.run, found.round, found.label, found.kind) == ("small", 0, "best", "cv")
    assert found.layers.keys() == set(ledger.LAYERS)
    empty = [name for name in ledger.LAYERS if not found.layers[name]]
    assert "submission" in empty
    assert not set(empty) & {"data", "split", "lineage", "texts", "tokens", "base", "embeddings"}
    encoder = encoder_loading.encoder(run, run.workspace.adapter(0))
    assert found.layers["base"] == encoder.base.digest()
    assert found.layers["adapter"] == encoder.adapter
    assert found.layers["split"] == dataset.load(run).split.digest()
    in_training = files.read_json(trained(run) / "epoch-2.json")["layers"]
    for name in ("template", "examples", "texts", "tokens", "embeddings", "ranking"):
        assert found.layers[name] == in_training[name]


def test_no_text_of_the_competition_is_in_the_ledger(made: Bench) -> None:
    text = made.run().workspace.ledger.read_text()
    assert not [query for query in dataset.load(made.run()).queries if query.question in text]
    assert not [one for one in dataset.load(made.run()).corpus.values() if one in text]


def test_texts_and_tokens_of_the_probe_lie_beside_the_evidence(made: Bench) -> None:
    run = made.run()
    rows = files.read_jsonl(run.workspace.texts(0, "best"))
    known = dataset.load(run)
    assert [row["query_id"] for row in rows] == [query.query_id for query in known.probe]
    assert rows[0]["text"] == f"{known.probe[0].question} {known.probe[0].wrong}"
    assert rows[0]["tokens"] == encoder_loading.encoder(run).tokenize([rows[0]["text"]], 96)[0]


def test_b26_the_same_weights_against_themselves_show_no_difference(
    made: Bench, capsys: Capture
) -> None:
    other = made.run().workspace.root.with_name("grab")  # a name that ends in b
    shutil.copy("small.toml", "grab.toml")
    shutil.copytree(made.run().workspace.root, other)
    capsys.readouterr()
    evaluate.evaluate(made.run(), against=Path("grab.toml"))
    said = capsys.readouterr().out
    assert (
        "small against grab: no difference shown (difference +0.0000, 95 % +0.0000 to +0.0000)\n"
        "the two rankings are identical: were the same weights scored twice?\n"
    ) in said


@pytest.mark.parametrize(("first", "winner", "sign"), [(True, "lab", "+"), (False, "grab", "-")])
def test_a4_of_two_runs_the_better_one_is_named(
    bench: Bench, capsys: Capture, first: bool, winner: str, sign: str
) -> None:
    bench.write("lab", scoring={"seen_share": 1.0})  # unseen questions are too few to show much
    lab = bench.make("prepare", "mine", "train", "eval", name="lab")
    shutil.copy("lab.toml", "grab.toml")
    shutil.copytree(lab.workspace.root, lab.workspace.root.with_name("grab"))
    known = dataset.load(lab)
    path = place(bench.run(name="grab")) / "ranking.jsonl"
    ranking = rankings.read(path)
    for row, query_id in enumerate(ranking.query_ids):  # the right id comes last, or first
        (right,) = known.qrels[query_id]
        rest = [key for key in ranking.ids[row].tolist() if key != right][:24]
        ranking.ids[row] = [*rest, right] if first else [right, *rest]
    rankings.write(path, ranking)
    benches.seal(path.parent)
    capsys.readouterr()
    evaluate.evaluate(bench.run(name="lab"), against=Path("grab.toml"))
    told = capsys.readouterr().out
    assert f"\nlab against grab: {winner} is better (difference {sign}0." in told


def test_b7_a_contaminated_score_is_not_compared(made: Bench) -> None:
    shutil.copy("small.toml", "other.toml")
    shutil.copytree(made.run().workspace.root, made.run().workspace.root.with_name("other"))
    run = contaminated(made)
    evaluate.evaluate(run, accept_contaminated=True)
    with pytest.raises(Contaminated, match="that is not compared"):
        evaluate.evaluate(run, accept_contaminated=True, against=Path("other.toml"))
    with pytest.raises(Contaminated, match="that is not compared"):
        evaluate.evaluate(made.run(name="other"), against=Path("small.toml"))


def test_a_stale_score_is_not_compared(made: Bench) -> None:
    shutil.copytree(made.run().workspace.root, made.run().workspace.root.with_name("other"))
    made.write("other", training={"seed": 1})
    told = re.escape("other has a stale score (train of round 0 is stale); run: invoke eval --run")
    with pytest.raises(StaleInput, match=told):
        evaluate.evaluate(made.run(), against=Path("other.toml"))


def test_a_corpus_of_fewer_than_25_is_compared_as_deep_as_it_is(
    bench: Bench, capsys: Capture
) -> None:
    elsewhere = bench.folder / "competition"
    shutil.copytree(bench.source, elsewhere)
    used = nouns_used(bench)
    rows = benches.read_rows(elsewhere / "misconception_mapping.csv")
    kept = [row for row in rows if int(row["MisconceptionId"]) in used]
    assert len(kept) < 25
    benches.write_rows(elsewhere / "misconception_mapping.csv", kept)
    sample = benches.read_rows(elsewhere / "sample_submission.csv")
    all_ids = " ".join(row["MisconceptionId"] for row in kept)
    benches.write_rows(
        elsewhere / "sample_submission.csv", [{**row, "MisconceptionId": all_ids} for row in sample]
    )
    bench.write(data={"source": str(elsewhere)})
    run = bench.make("prepare", "mine", "train", "eval")
    assert recorded(run).k == len(kept)
    capsys.readouterr()
    evaluate.evaluate(run, "epoch-1", against=Path("small.toml"))
    assert "small against small: " in capsys.readouterr().out


def nouns_used(bench: Bench) -> set[int]:
    """Return the misconceptions that train shows: fewer than 25 of the corpus."""
    known = dataset.load(bench.make("prepare"))
    return {int(key) for right in known.qrels.values() for key in right}


def test_runs_scored_on_other_rows_are_not_compared(made: Bench) -> None:
    made.write("other", split={"seed": 1})
    made.make("prepare", "mine", "train", "eval", name="other")
    with pytest.raises(Mismatch, match=r"scored on different rows \(splits .*s0.* and .*s1"):
        evaluate.evaluate(made.run(), against=Path("other.toml"))


def test_a_run_without_a_score_is_refused_naming_the_command(made: Bench) -> None:
    made.write("other")
    made.make("mine", "train", round_=1)
    for round_, flags in ((0, ""), (1, " --round 1")):
        told = re.escape(f"other has no score; run: invoke eval --run other.toml{flags}") + "$"
        with pytest.raises(StaleInput, match=told):
            evaluate.evaluate(made.run(round_=round_), against=Path("other.toml"))


def test_scoring_again_adds_a_line_of_evidence_and_changes_no_score(made: Bench) -> None:
    run = made.run()
    before = (place(run) / "scores.json").read_bytes()
    files.remove(run.workspace.embeddings)  # else there would be nothing to compute
    evaluate.evaluate(run)
    assert (place(run) / "scores.json").read_bytes() == before
    first, second = evidence(run)
    assert first.layers == second.layers
    assert first.score == second.score
