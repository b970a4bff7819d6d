"""Which rows a model is scored on, and which of them are unseen, against slow twins."""

import shutil
from collections.abc import Collection
from dataclasses import replace

import pytest
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture

from parity.competition.lineage import Lineage
from parity.competition.query import UnitId
from parity.competition.scoring import baselines, metrics
from parity.pipeline import dataset, encoder_loading, evaluation
from parity.pipeline.dataset import Dataset
from parity.pipeline.evaluation import CleanRows
from parity.run import files
from parity.run.errors import BadConfig, Contaminated
from parity.run.experiment import Run


@pytest.fixture
def prepared(small_run: RunFixture) -> Run:
    return small_run.run_stages("prepare")


@pytest.fixture
def data(prepared: Run) -> Dataset:
    return dataset.load(prepared.config, prepared.workspace)


def clean(data: Dataset, trained_on: Collection[UnitId] | None) -> CleanRows:
    lineage = Lineage(None if trained_on is None else frozenset(trained_on))
    return evaluation.clean_rows(data, lineage, accept_contaminated=False)


def ids(data: Dataset) -> list[str]:
    return [query.query_id for query in data.valid]


def unseen_rows(run: Run, rows: Collection[str], trained_on: Collection[str]) -> set[str]:
    """Return the rows whose labels no trained unit has, from the files of `prepare`."""
    folder = run.workspace.prepare
    unit_of = {row["query_id"]: row["unit"] for row in files.read_jsonl(folder / "queries.jsonl")}
    labels = {
        row["query_id"]: set(row["passage_ids"]) for row in files.read_jsonl(folder / "qrels.jsonl")
    }
    unseen = set()
    for row in rows:
        is_seen = False
        for other, unit in unit_of.items():
            if unit in trained_on and labels[row] & labels[other]:
                is_seen = True
        if not is_seen:
            unseen.add(row)
    return unseen


def test_the_base_model_and_an_adapter_of_the_split_have_all_rows_of_the_split(
    data: Dataset,
) -> None:
    for trained_on in ((), data.split.train):
        rows = clean(data, trained_on)
        assert rows.data.split == data.split
        assert (rows.status, rows.rows, rows.total, rows.line) == ("clean", 21, 21, "")


def test_the_split_has_the_unseen_rows_of_its_training_set(prepared: Run, data: Dataset) -> None:
    assert data.split.unseen == unseen_rows(prepared, ids(data), data.split.train)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rows_and_unseen_labels_of_another_split_are_those_that_were_not_trained_on(
    prepared: Run, data: Dataset, small_run: RunFixture, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 1)
    run = small_run.open(f"split.seed={seed}")
    other = dataset.load(run.config, run.workspace)
    trained_on = data.split.train
    rows = clean(other, trained_on)
    expected = [query.query_id for query in other.valid if query.unit not in trained_on]
    assert ids(rows.data) == expected
    assert 0 < len(expected) == rows.rows < rows.total == len(other.valid)
    assert rows.data.split.unseen == unseen_rows(prepared, expected, trained_on)
    assert rows.data.split.unseen != other.split.unseen & set(expected)
    assert rows.data.split.train == other.split.train  # few-shot examples come from there
    assert rows.line == (
        f"{len(expected)} of {len(other.valid)} rows; "
        f"{len(other.valid) - len(expected)} were trained on"
    )


def test_an_adapter_that_was_trained_on_less_has_seen_less(prepared: Run, data: Dataset) -> None:
    fewer = data.split.train[:4]
    rows = clean(data, fewer)
    assert (rows.rows, rows.line) == (21, "")
    assert rows.data.split.unseen == unseen_rows(prepared, ids(data), fewer) > data.split.unseen


def test_a_score_needs_enough_clean_rows(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data.split.valid[0]
    trained_on = {*data.split.train, first}
    lost = sum(query.unit == first for query in data.valid)
    monkeypatch.setattr(evaluation, "ENOUGH", 21 - lost)
    assert clean(data, trained_on).rows == 21 - lost
    monkeypatch.setattr(evaluation, "ENOUGH", 22 - lost)
    verb = "was" if lost == 1 else "were"
    expected = rf"^{21 - lost} of 21 rows; {lost} {verb} trained on\. At least {22 - lost} rows are"
    with pytest.raises(Contaminated, match=expected):
        clean(data, trained_on)


def test_a_small_validation_set_is_scored_when_all_of_it_is_clean(data: Dataset) -> None:
    assert len(data.valid) < evaluation.ENOUGH == 50
    assert clean(data, data.split.train).rows == len(data.valid)


def test_one_row_is_counted_in_the_singular(data: Dataset) -> None:
    rows = CleanRows(data, "clean", rows=20, total=21)
    assert rows.line == "20 of 21 rows; 1 was trained on"


def test_an_unknown_lineage_has_no_clean_rows(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 0)
    with pytest.raises(Contaminated, match=r"^lineage unknown: any row may have been trained on;"):
        clean(data, None)


@pytest.mark.parametrize("is_known", [True, False])
def test_accepting_contamination_keeps_all_rows_and_marks_them(
    data: Dataset, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 1)
    lineage = Lineage(frozenset(data.split.valid[:1]) if is_known else None)
    rows = evaluation.clean_rows(data, lineage, accept_contaminated=True)
    assert rows == CleanRows(data, "contaminated", 21, 21)
    clean_lineage = Lineage(frozenset(data.split.train))
    rows = evaluation.clean_rows(data, clean_lineage, accept_contaminated=True)
    assert rows == CleanRows(data, "clean", 21, 21)


def test_a5_a_question_with_the_text_of_a_trained_one_counts_as_trained(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ENOUGH", 1)
    twin, trained_unit = data.split.valid[0], data.split.train[0]
    (text,) = {query.fields["question"] for query in data.queries if query.unit == trained_unit}
    queries = [
        query.with_field("question", f"{text.upper()} ") if query.unit == twin else query
        for query in data.queries
    ]
    rows = clean(replace(data, queries=queries), data.split.train)
    assert ids(rows.data) == [query.query_id for query in data.valid if query.unit != twin]


def test_a5_questions_with_one_text_are_on_one_side_of_a_split(
    data: Dataset, small_run: RunFixture
) -> None:
    elsewhere = small_run.folder / "competition"
    shutil.copytree(small_run.source, elsewhere)
    small_run.write_config(data={"source": str(elsewhere)})
    rows = run_fixture.read_rows(elsewhere / "train.csv")
    by_id = {UnitId(row["QuestionId"]): row for row in rows}
    twins = {data.split.valid[0], data.split.train[0]}
    by_id[data.split.valid[0]]["QuestionText"] = (
        by_id[data.split.train[0]]["QuestionText"].upper() + " "
    )
    run_fixture.write_rows(elsewhere / "train.csv", rows)
    run = small_run.run_stages("prepare")
    changed = dataset.load(run.config, run.workspace).split
    assert twins <= set(changed.train) or twins <= set(changed.valid)


def test_a_split_that_holds_nothing_out_cannot_be_scored(
    prepared: Run, data: Dataset, small_run: RunFixture
) -> None:
    evaluation.need_valid(data)
    run = small_run.open("split.kind=full")
    full = dataset.load(run.config, prepared.workspace)
    with pytest.raises(BadConfig, match=r"^split full holds nothing out: .* Choose another split"):
        evaluation.need_valid(full)
    encoder = encoder_loading.load_encoder(run.config.encoder, run.workspace)
    scored = evaluation.score(encoder, run.config, full)
    assert (scored.ranking, scored.scores, scored.rendering) == (None, None, "")
    assert len(scored.probed.retrieval.vectors) == len(full.probe) > 0


def test_lexical_baselines_are_scored_on_the_same_rows(prepared: Run, data: Dataset) -> None:
    scores = evaluation.lexical(prepared.config, data)
    assert list(scores) == ["bm25", "tfidf"]
    for method in baselines.METHODS:
        scored = scores[method]
        ranking = baselines.rank(method, data.valid, data.corpus, k=25)
        values = metrics.row_scores(ranking, data.valid_qrels, data.metric)
        assert scored.all.score is not None
        assert scored.all.score.value == pytest.approx(sum(values.values()) / len(values))
        assert scored.unseen.rows == len(data.split.unseen)
