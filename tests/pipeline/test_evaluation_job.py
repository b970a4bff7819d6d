"""One score: equal to training's, clean or marked, with its settings and layers recorded."""

import re
from pathlib import Path
from typing import Any

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.competition.lineage import Lineage
from parity.competition.scoring.metrics import Scores
from parity.pipeline import dag, dataset, encoder_loading, epochs, evaluation, evaluations
from parity.pipeline.command_cores import report
from parity.pipeline.dag import StageGraph
from parity.pipeline.evaluation_job import EncoderCache, Job, score_model
from parity.pipeline.stage_cores import evaluate
from parity.retrieval.encoder import Encoder
from parity.retrieval.engine.distributed import ProcessGroup
from parity.run import files, ledger
from parity.run import manifest as manifests
from parity.run.errors import BadConfig, Contaminated, Mismatch
from parity.run.experiment import Run
from parity.run.layers import RECORDED
from parity.run.ledger import Evidence

Capture = pytest.CaptureFixture[str]
WORKERS = ProcessGroup()
OTHER = {"evaluations.other.split": {"seed": 1}}


def eval_folder(run: Run, label: str = "best") -> Path:
    return run.workspace.evaluation(run.round, label)


def trained(run: Run) -> Path:
    return dag.folder(run, "train")


def record_of(run: Run, label: str = "best") -> dict[str, Any]:
    record: dict[str, Any] = files.read_json(eval_folder(run, label) / "scores.json")
    assert record["label"] == label
    return record


def scores_of(run: Run, label: str = "best") -> Scores:
    return Scores.from_json(record_of(run, label)["scores"][label])


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
    """Add a unit of the validation set to the lineage of an adapter."""
    run = small_run.open()
    split = dataset.load(run.config, run.workspace).split
    return trained_on(small_run, Lineage(frozenset({*split.train, split.valid[0]})), folder)


def names(run: Run) -> list[str]:
    return [name for name, _ in report.rows(run)]


def job(run: Run, reference: str = "best") -> Job:
    model = StageGraph().model(run, "eval", reference)
    assert model is not None
    return Job(run, model)


# Equal to training


def test_eval_repeats_the_score_of_training_to_the_last_digit(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    best = files.read_json(trained(run) / "manifest.json")["facts"]["best_epoch"]
    for label, number in (("best", best), ("epoch-1", 1), ("epoch-2", 2)):
        evaluate.evaluate(run, label)
        before = epochs.read(trained(run), number)
        assert before is not None
        assert scores_of(run, label) == before.scores
        ranking = (eval_folder(run, label) / "ranking.jsonl").read_bytes()
        assert ranking == (trained(run) / f"ranking-{number}.jsonl").read_bytes()
        embeddings = (trained(run) / f"probe-{number}.npy").read_bytes()
        assert (eval_folder(run, label) / "probe.npy").read_bytes() == embeddings


def change_score_of_training(run: Run, number: int) -> None:
    path = trained(run) / f"epoch-{number}.json"
    text, count = re.subn(r'("value": 0\.\d+)\d', r"\1", path.read_text(), count=1)
    assert count == 1
    path.write_text(text)
    run_fixture.seal(trained(run))


def test_a_score_that_differs_from_training_is_refused(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    best = files.read_json(trained(run) / "manifest.json")["facts"]["best_epoch"]
    change_score_of_training(run, best)
    before, ledger_before = run_fixture.digests(eval_folder(run).parent), evidence(run)
    for label in ("best", f"epoch-{best}"):
        with pytest.raises(Mismatch, match=f"epoch-{best} differs between eval and train") as error:
            evaluate.evaluate(run, label)
        assert error.value.fix == ("eval", "--run", "small.toml", "--model", label)
    assert run_fixture.digests(eval_folder(run).parent) == before
    assert evidence(run) == ledger_before


@pytest.mark.parametrize(
    "override", ["scoring.seen_share=0.5", "prompt.query_max_length=64", "split.seed=1"]
)
def test_under_other_settings_a_score_may_differ_from_training(
    predicted_run: RunFixture, override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 1)
    change_score_of_training(predicted_run.open(), 1)
    run = predicted_run.open(override)
    evaluate.evaluate(run, "epoch-1")
    assert (
        epochs.read(trained(run), 1) is None
    )  # its record was changed, so an equal score would be refused
    label = f"epoch-1@{run.evaluation}"
    assert record_of(run, label)["status"] == "clean"


def test_where_it_computes_does_not_change_the_settings(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    run = predicted_run.open("encoder.device=auto")
    change_score_of_training(run, 1)
    assert run.evaluation == ""
    evaluate.evaluate(run, "epoch-1")
    assert record_of(run, "epoch-1")["status"] == "clean"
    assert "epoch-1: differs from the score in training, which used another" in (
        capsys.readouterr().out
    )


def test_an_epoch_is_scored_after_the_run_file_trains_differently(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    predicted_run.write_config(training={"learning_rate": 0.5, "epochs": 7})
    run = predicted_run.open()
    assert StageGraph().standing(run, "train").state == "stale"
    evaluate.evaluate(run, "epoch-1")
    before = epochs.read(trained(run), 1)
    assert before is not None
    assert scores_of(run, "epoch-1") == before.scores
    assert re.search(r"^epoch-1 +\.\d", capsys.readouterr().out, re.MULTILINE)


def test_an_adapter_that_starts_from_another_split_is_scored_on_clean_rows(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training scores the same rows as `eval`: those that no parent was trained on."""
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    predicted_run.write_config(
        "next", split={"seed": 1}, training={"init_from": "small/round-0/best"}
    )
    run = predicted_run.run_stages("prepare", "mine", "train", "eval", name="next")
    record = record_of(run)
    assert record["status"] == "clean"
    assert 5 <= record["rows"] < record["total"] == 21
    done = epochs.read(trained(run), 1)
    assert done is not None
    assert done.scores is not None
    assert done.scores.all.rows == record["rows"]


# Clean or marked


@pytest.mark.parametrize("label", ["best", "epoch-1"])
def test_b7_a_score_on_rows_it_was_trained_on_is_refused(
    predicted_run: RunFixture, label: str
) -> None:
    folder = "adapter" if label == "best" else label
    run = contaminated(predicted_run, folder)
    before, ledger_before = run_fixture.digests(eval_folder(run).parent), evidence(run)
    with pytest.raises(
        Contaminated, match=r"^\d+ of 21 rows; \d+ (was|were) trained on\."
    ) as error:
        evaluate.evaluate(run, label)
    assert error.value.exit_code == 5
    assert evidence(run) == ledger_before
    assert run_fixture.digests(eval_folder(run).parent) == before


def test_b8_unknown_lineage_counts_as_contaminated(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 1)
    run = trained_on(predicted_run, None)
    with pytest.raises(Contaminated, match=r"^lineage unknown: any row may have been trained on"):
        evaluate.evaluate(run)
    evaluate.evaluate(run, accept_contaminated=True)
    assert evidence(run)[-1].status == "contaminated"


def test_b7_an_accepted_score_is_marked_and_left_out_of_every_table(
    predicted_run: RunFixture, capsys: Capture
) -> None:
    assert names(predicted_run.open()) == ["BM25", "TF-IDF", "round 0"]
    run = contaminated(predicted_run)
    capsys.readouterr()
    result = evaluate.evaluate(run, accept_contaminated=True)
    output = capsys.readouterr().out
    assert "CONTAMINATED: trained on rows it was scored on; left out of every table" in output
    assert output.endswith("\nno clean and current score\n")
    assert result == {"evaluations": []}
    last, label = evidence(run)[-1], "best+contaminated"
    assert (last.kind, last.label, last.status) == ("cv", label, "contaminated")
    assert last.score == scores_of(run, label).as_json()
    assert evaluations.read(eval_folder(run, label)) == {}
    assert names(run) == []
    written = report.report(run).read_text()
    assert "| round 0 |" not in written
    assert "| cv | 0 | best |" in written.split("## Evidence")[1]  # the earlier clean score
    assert written.split("## Evidence")[1].count("| cv |") == 1


def test_an_accepted_score_does_not_replace_a_clean_one(predicted_run: RunFixture) -> None:
    run = contaminated(predicted_run)
    before = run_fixture.digests(eval_folder(run))
    for _ in range(2):
        evaluate.evaluate(run, accept_contaminated=True)
        assert run_fixture.digests(eval_folder(run)) == before
        assert record_of(run, "best+contaminated")["status"] == "contaminated"


def test_a_clean_score_replaces_an_accepted_one(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    lineage = Lineage.read(trained(run) / "epoch-1" / "lineage.json")
    evaluate.evaluate(contaminated(predicted_run, "epoch-1"), "epoch-1", accept_contaminated=True)
    assert evaluations.read(eval_folder(run, "epoch-1")) == {}
    assert record_of(run, "epoch-1")["status"] == "contaminated"
    evaluate.evaluate(trained_on(predicted_run, lineage, "epoch-1"), "epoch-1")
    assert list(evaluations.read(eval_folder(run, "epoch-1"))) == ["bm25", "tfidf", "epoch-1"]


def test_a_clean_score_stays_clean_when_contamination_is_accepted(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    evaluate.evaluate(run, accept_contaminated=True)
    assert (evidence(run)[-1].status, evidence(run)[-1].label) == ("clean", "best")


def test_an_adapter_is_scored_on_the_clean_rows_of_another_split(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 5)
    predicted_run.write_config(**OTHER)
    run = predicted_run.open()
    capsys.readouterr()
    evaluate.evaluate(run, evaluation="other")
    record = record_of(run, "best@other")
    clean, total = record["rows"], record["total"]
    line = f"scored on {clean} of {total} rows; {total - clean} were trained on\n"
    assert line in capsys.readouterr().out
    assert record["status"] == "clean"
    assert 5 <= clean < total
    assert scores_of(run, "best@other").all.rows == clean
    assert evidence(run)[-1].facts["split"] == "random-s1-v0.4"


def test_with_too_few_clean_rows_the_sentence_is_the_error(predicted_run: RunFixture) -> None:
    predicted_run.write_config(**OTHER)
    run = predicted_run.open()
    before = run_fixture.digests(eval_folder(run).parent)
    with pytest.raises(Contaminated) as error:
        evaluate.evaluate(run, evaluation="other")
    match = re.match(
        r"(\d+) of 21 rows; (\d+) were trained on\. At least 50 rows", str(error.value)
    )
    assert match is not None
    assert int(match[1]) + int(match[2]) == 21
    assert run_fixture.digests(eval_folder(run).parent) == before


# What is recorded


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


def test_scoring_again_adds_evidence_and_changes_no_score(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    before = (eval_folder(run) / "scores.json").read_bytes()
    files.remove(run.workspace.embeddings)  # so that they are computed again
    evaluate.evaluate(run)
    assert (eval_folder(run) / "scores.json").read_bytes() == before
    first, second = evidence(run)
    assert first.layers == second.layers
    assert first.score == second.score


def test_settings_of_a_named_evaluation_are_in_manifest_and_evidence(
    predicted_run: RunFixture,
) -> None:
    predicted_run.write_config(**{"evaluations.cut.prompt": {"query_max_length": 64}})
    run = predicted_run.open()
    score_model(job(run.evaluated_as("cut")), EncoderCache(WORKERS), WORKERS)
    manifest = manifests.read(eval_folder(run, "best@cut"))
    assert manifest is not None
    assert manifest.facts["evaluation"] == "cut"
    assert manifest.facts["model"] == "round-0/best"
    assert manifest.config["prompt"] == {
        **run.config.prompt.model_dump(mode="json"),
        "query_max_length": 64,
    }
    last = evidence(run)[-1]
    assert last.label == "best@cut"
    stored = files.read_json(run.workspace.evidence(ledger.id_of(last)) / "config.json")
    assert stored["prompt"]["query_max_length"] == 64
    assert stored["encoder"] == run.config.encoder.model_dump(mode="json")
    rows = files.read_jsonl(run.workspace.texts(0, "best@cut"))
    assert max(len(row["tokens"]) for row in rows) == 64


# Encoders


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """Return the folders of the encoders that are loaded from now on."""
    folders: list[Path | None] = []
    load = encoder_loading.load_caching_encoder

    def counted(*arguments: Any) -> Encoder:
        folders.append(arguments[2])
        return load(*arguments)

    monkeypatch.setattr(encoder_loading, "load_caching_encoder", counted)
    return folders


def test_jobs_with_one_model_and_precision_share_an_encoder(
    predicted_run: RunFixture, loads: list[Path | None]
) -> None:
    run, encoders = predicted_run.open(), EncoderCache(WORKERS)
    first = encoders.load(job(run))
    assert encoders.load(job(predicted_run.open("scoring.seen_share=0.5"))) is first
    assert encoders.load(job(predicted_run.open("split.seed=1"))) is first
    adapter = run.workspace.adapter(0)
    assert loads == [adapter]
    assert encoders.load(job(run, "base")).adapter == ""
    assert encoders.load(job(predicted_run.open("encoder.num_layers=1"), "base")) is not first
    assert encoders.load(job(run)).adapter == first.adapter
    assert loads == [adapter, None, None, adapter]


def test_an_encoder_is_loaded_again_after_another_could_not_be(
    predicted_run: RunFixture, loads: list[Path | None]
) -> None:
    run, encoders = predicted_run.open(), EncoderCache(WORKERS)
    before = encoders.load(job(run, "base"))
    with pytest.raises(BadConfig, match="num_layers = 9"):
        encoders.load(job(predicted_run.open("encoder.num_layers=9"), "base"))
    assert encoders.load(job(run, "base")).digest() == before.digest()
    assert len(loads) == 3
