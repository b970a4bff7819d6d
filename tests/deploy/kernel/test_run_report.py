"""What a kernel leaves behind is evidence: every layer it measured, and no text."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from parity.competition import ranking as rankings
from parity.competition.eedi import kaggle_files
from parity.competition.few_shot import Example
from parity.competition.query import Corpus, MisconceptionId
from parity.competition.ranking import Ranking
from parity.deploy.bundle import bundle
from parity.deploy.bundle.bundle import Bundle
from parity.deploy.kernel import run_report
from parity.run import digest, files
from parity.run.config import run_file as configs
from parity.run.errors import BadData, Mismatch
from parity.run.ledger import LAYERS

LAYERS_HERE = {name: f"{name} here" for name in LAYERS if name not in ("split", "lineage")}
LAYERS_THERE = {"split": "s" * 64, "lineage": "l" * 64, "data": "d" * 64}


def corpus_layer(known: Corpus) -> str:
    return run_report.mounted(known, ())["corpus"]


def shipped(folder: Path, probe: tuple[str, ...] = ("12_A", "10_B")) -> Bundle:
    files.write_jsonl(folder / "probe.jsonl", ({"query_id": one} for one in probe))
    config = configs.build({"name": "small"}, "test")
    return Bundle(folder, "small", 1, config, LAYERS_THERE, "b" * 64)


def written(folder: Path) -> Ranking:
    found = Ranking(
        tuple(query.query_id for query in tiny.queries()[:2]),
        np.array([[1, 9], [4, 1]], dtype=np.int64),
        np.array([[0.5, 0.25], [0.125, 0.0]], dtype=np.float32),
    )
    vectors = np.eye(2, 4, dtype=np.float32)
    run_report.write(
        folder,
        shipped(folder / "bundle"),
        LAYERS_HERE,
        ranking=found,
        vectors=vectors,
        facts={"seconds": {"test": 1.5}, "wheelhouse": "w" * 64},
    )
    return found


def test_the_probe_is_found_by_id_in_the_bundles_order(tmp_path: Path) -> None:
    queries = {query.query_id: query for query in tiny.queries()}
    found = run_report.probe(shipped(tmp_path), list(queries.values()))
    assert found == [queries[one.query_id] for one in found]
    assert [one.query_id for one in found] == ["12_A", "10_B"]


def test_a_probe_row_that_the_mounted_files_lack_is_named(tmp_path: Path) -> None:
    without = [query for query in tiny.queries() if query.query_id != "10_B"]
    with pytest.raises(BadData, match=r"^probe: 10_B is no labeled row of the mounted train\.csv"):
        run_report.probe(shipped(tmp_path), without)


def test_the_data_layer_is_the_one_that_prepare_writes(tmp_path: Path) -> None:
    read = kaggle_files.read(tiny.write_competition(tmp_path / "tiny"))
    first = run_report.data(read)
    assert first == run_report.data(replace(read, files=dict(reversed(read.files.items()))))
    path = tmp_path / "tiny" / "test.csv"
    path.write_bytes(path.read_bytes() + b"\r\n")
    assert run_report.data(kaggle_files.read(tmp_path / "tiny")) != first


def test_the_corpus_layer_sees_ids_and_sentences_and_not_their_order() -> None:
    known = tiny.corpus()
    first = corpus_layer(known)
    assert corpus_layer(dict(reversed(known.items()))) == first
    one, other, *_ = (key for key in known if known[key] != known[MisconceptionId(1)])
    swapped = {**known, one: known[other], other: known[one]}
    renamed = {**known, one: known[one] + "."}
    fewer = {key: text for key, text in known.items() if key != one}
    assert len({first, *map(corpus_layer, (swapped, renamed, fewer))}) == 4


def test_the_pool_layer_sees_every_text_of_every_example() -> None:
    one, other = (Example(query, MisconceptionId(1), "x") for query in tiny.queries()[:2])
    texts: list[dict[str, Any]] = [
        {name: "?"} for name in ("question", "construct", "subject", "correct", "wrong")
    ]
    changed = [replace(one, query=replace(one.query, **text)) for text in texts]
    changed += [replace(one, passage="y"), replace(one, misconception_id=MisconceptionId(9))]
    pools = [(one, other), (other, one), (one,), (), *((first, other) for first in changed)]
    assert len({run_report.mounted({}, pool)["pool"] for pool in pools}) == len(pools)


def test_a_report_is_read_back_as_evidence(tmp_path: Path) -> None:
    ranking = written(tmp_path)
    evidence, record = run_report.read(tmp_path)
    assert (evidence.run, evidence.round, evidence.kind) == ("small", 1, "kernel")
    assert (evidence.status, evidence.score, evidence.label) == ("unscored", {}, "test")
    carried = {name: LAYERS_THERE[name] for name in ("split", "lineage")}
    assert evidence.layers == {**LAYERS_HERE, **carried}
    assert (record["bundle"], record["base"], record["schema"]) == ("b" * 64, "base here", 1)
    assert (record["seconds"], record["wheelhouse"]) == ({"test": 1.5}, "w" * 64)
    assert record["environment"]["packages"]["numpy"] == np.__version__
    assert evidence.made.endswith("+00:00")
    again = rankings.read(tmp_path / "probe_ranking.jsonl")
    assert again.digest() == ranking.digest()
    np.testing.assert_array_equal(again.scores, ranking.scores)
    assert np.load(tmp_path / "probe.npy").tolist() == np.eye(2, 4).tolist()


def test_a_report_holds_no_text_and_no_path(tmp_path: Path) -> None:
    written(tmp_path)
    text = (tmp_path / "run_report.json").read_text() + (
        tmp_path / "probe_ranking.jsonl"
    ).read_text()
    assert str(tmp_path) not in text
    texts = [one for query in tiny.queries() for one in (query.question, query.construct)]
    assert not any(one in text for one in (*texts, *tiny.corpus().values()))


def test_a_kernel_that_left_no_report_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"run_report\.json: the kernel left no report"):
        run_report.read(tmp_path)


def test_a_report_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / run_report.NAME
    files.write_json(path, {**files.read_json(path), "schema": run_report.SCHEMA + 1})
    with pytest.raises(BadData, match="a report of schema 2; this version reads 1"):
        run_report.read(tmp_path)


def test_the_report_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds it finds everything it speaks of."""
    order: list[str] = []
    kept = files.replacing

    def noted(path: Path) -> Any:
        order.append(path.name)
        return kept(path)

    monkeypatch.setattr(files, "replacing", noted)
    written(tmp_path / "working")
    made = [name for name in order if name != "probe.jsonl"]  # the bundle's
    assert made == ["probe_ranking.jsonl", "probe.npy", "run_report.json"]


def test_a_layer_that_evidence_does_not_know_is_refused(tmp_path: Path) -> None:
    found = Ranking((), np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float32))
    with pytest.raises(BadData, match="unknown layer 'corpus'"):
        run_report.write(
            tmp_path,
            shipped(tmp_path / "bundle"),
            {"corpus": "c"},
            ranking=found,
            vectors=np.zeros((0, 4), np.float32),
            facts={},
        )
    assert bundle.PINNED[0] == "corpus"  # which is checked, and never written


def packed(folder: Path, texts: list[str]) -> Bundle:
    """Return a bundle whose probe rows carry the digests of these texts."""
    rows = [{"query_id": f"{n}_A", "sha256": digest.of_text(text)} for n, text in enumerate(texts)]
    files.write_jsonl(folder / "probe.jsonl", rows)
    config = configs.build({"name": "small"}, "test")
    layers = {name: f"{name} there" for name in bundle.PINNED}
    return Bundle(folder, "small", 1, config, layers, "b" * 64)


def test_a_prompt_that_differs_is_named_by_its_row(tmp_path: Path) -> None:
    there = packed(tmp_path, ["one", "two"])
    run_report.prove(there, there.layers, ["one", "two"])
    changed = {**there.layers, "texts": "others", "tokens": "others"}
    with pytest.raises(Mismatch, match=r"^probe 1_A: its prompt here is not the one"):
        run_report.prove(there, changed, ["one", "three"])


@pytest.mark.parametrize("name", ["corpus", "examples", "template"])
def test_what_decides_the_prompts_is_named_before_them(tmp_path: Path, name: str) -> None:
    there = packed(tmp_path, ["one", "two"])
    changed = {**there.layers, name: "another", "texts": "others"}
    with pytest.raises(Mismatch, match=rf"^layer {name}: another here, "):
        run_report.prove(there, changed, ["three", "four"])


@pytest.mark.parametrize("name", ["tokens", "pool", "base", "adapter"])
def test_a_later_layer_is_named_where_the_prompts_are_equal(tmp_path: Path, name: str) -> None:
    there = packed(tmp_path, ["one"])
    with pytest.raises(Mismatch, match=rf"^layer {name}: "):
        run_report.prove(there, {**there.layers, name: "another"}, ["one"])
