"""A kernel's report is evidence: it has every measured layer and no text."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from parity.competition import ranking as rankings
from parity.competition.corpus import Corpus
from parity.competition.eedi import kaggle_files
from parity.competition.few_shot import Example
from parity.competition.query import PassageId, Position
from parity.competition.ranking import Ranking
from parity.deploy.bundle.bundle import Bundle
from parity.deploy.kernel import run_report
from parity.run import digest, files
from parity.run.config import run_file as configs
from parity.run.errors import BadData, Mismatch
from parity.run.layers import PINNED, RECORDED

LAYERS_HERE = {name: f"{name} here" for name in RECORDED if name not in ("split", "lineage")}
LAYERS_THERE = {"split": "s" * 64, "lineage": "l" * 64, "data": "d" * 64}


def corpus_layer(corpus: Corpus) -> str:
    return run_report.mounted(corpus, ())["corpus"]


def shipped(folder: Path, probe: tuple[str, ...] = ("12_A", "10_B")) -> Bundle:
    files.write_jsonl(folder / "probe.jsonl", ({"query_id": query_id} for query_id in probe))
    config = configs.build({"name": "small"}, "test")
    return Bundle(folder, "small", 1, config, LAYERS_THERE, "b" * 64)


def written(folder: Path) -> Ranking:
    ranking = Ranking(
        tuple(query.query_id for query in tiny.queries()[:2]),
        np.array([[1, 9], [4, 1]], dtype=np.int64),
        np.array([[0.5, 0.25], [0.125, 0.0]], dtype=np.float32),
    )
    vectors = np.eye(2, 4, dtype=np.float32)
    run_report.write(
        folder,
        shipped(folder / "bundle"),
        LAYERS_HERE,
        ranking=ranking,
        vectors=vectors,
        facts={"seconds": {"test": 1.5}, "wheelhouse": "w" * 64},
    )
    return ranking


def test_the_probe_is_looked_up_by_id_in_the_bundle_s_order(tmp_path: Path) -> None:
    queries = {query.query_id: query for query in tiny.queries()}
    result = run_report.probe(shipped(tmp_path), list(queries.values()))
    assert result == [queries[item.query_id] for item in result]
    assert [item.query_id for item in result] == ["12_A", "10_B"]


def test_a_probe_row_missing_from_the_mounted_files_is_named(tmp_path: Path) -> None:
    without = [query for query in tiny.queries() if query.query_id != "10_B"]
    with pytest.raises(
        BadData, match=r"^probe: 10_B is not a labeled row of the mounted competition"
    ):
        run_report.probe(shipped(tmp_path), without)


def test_the_data_layer_depends_on_bytes_not_on_order(tmp_path: Path) -> None:
    read = kaggle_files.read(tiny.write_competition(tmp_path / "tiny"))
    first = run_report.data(read)
    assert first == run_report.data(replace(read, files=dict(reversed(read.files.items()))))
    path = tmp_path / "tiny" / "test.csv"
    path.write_bytes(path.read_bytes() + b"\r\n")
    assert run_report.data(kaggle_files.read(tmp_path / "tiny")) != first


def test_the_corpus_layer_depends_on_ids_texts_and_order() -> None:
    passages = dict(zip(tiny.corpus().ids, tiny.corpus().values(), strict=True))
    first, second = PassageId("3"), PassageId("4")
    swapped = {**passages, first: passages[second], second: passages[first]}
    renamed = {**passages, first: passages[first] + "."}
    fewer = {key: text for key, text in passages.items() if key != first}
    turned = dict(reversed(passages.items()))
    corpora = map(Corpus, (passages, swapped, renamed, fewer, turned))
    assert len(set(map(corpus_layer, corpora))) == 5


def test_the_pool_layer_depends_on_every_text_of_every_example() -> None:
    example, other = (Example(query, Position(1), "x") for query in tiny.queries()[:2])
    changed = [
        replace(example, query=example.query.with_field(name, "?")) for name in example.query.fields
    ]
    changed += [replace(example, passage="y"), replace(example, position=Position(9))]
    pools = [
        (example, other),
        (other, example),
        (example,),
        (),
        *((variant, other) for variant in changed),
    ]
    digests = {run_report.mounted(tiny.corpus(), pool)["pool"] for pool in pools}
    assert len(digests) == len(pools)


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
    result = rankings.read(tmp_path / "probe_ranking.jsonl")
    assert result.digest() == ranking.digest()
    np.testing.assert_array_equal(result.scores, ranking.scores)
    assert np.load(tmp_path / "probe.npy").tolist() == np.eye(2, 4).tolist()


def test_a_report_holds_no_text_and_no_path(tmp_path: Path) -> None:
    written(tmp_path)
    text = (tmp_path / "run_report.json").read_text() + (
        tmp_path / "probe_ranking.jsonl"
    ).read_text()
    assert str(tmp_path) not in text
    texts = [query.fields[name] for query in tiny.queries() for name in ("question", "construct")]
    assert not any(item in text for item in (*texts, *tiny.corpus().values()))


def test_a_missing_report_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"run_report\.json: the kernel left no report"):
        run_report.read(tmp_path)


def test_a_report_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / run_report.NAME
    files.write_json(path, {**files.read_json(path), "schema": run_report.SCHEMA + 1})
    with pytest.raises(BadData, match="report has schema 2; this version reads 1"):
        run_report.read(tmp_path)


def test_the_report_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the report exists, the files it describes exist too."""
    order: list[str] = []
    replacing = files.replacing

    def noted(path: Path) -> Any:
        order.append(path.name)
        return replacing(path)

    monkeypatch.setattr(files, "replacing", noted)
    written(tmp_path / "working")
    names = [name for name in order if name != "probe.jsonl"]  # the bundle's
    assert names == ["probe_ranking.jsonl", "probe.npy", "run_report.json"]


def test_an_unknown_layer_is_refused(tmp_path: Path) -> None:
    ranking = Ranking((), np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float32))
    with pytest.raises(BadData, match="unknown layer 'corpus'"):
        run_report.write(
            tmp_path,
            shipped(tmp_path / "bundle"),
            {"corpus": "c"},
            ranking=ranking,
            vectors=np.zeros((0, 4), np.float32),
            facts={},
        )
    assert PINNED[0] == "corpus"  # it is checked but not recorded


def packed(folder: Path, texts: list[str]) -> Bundle:
    """Return a bundle whose probe rows carry the digests of these texts."""
    rows = [{"query_id": f"{n}_A", "sha256": digest.of_text(text)} for n, text in enumerate(texts)]
    files.write_jsonl(folder / "probe.jsonl", rows)
    config = configs.build({"name": "small"}, "test")
    layers = {name: f"{name} there" for name in PINNED}
    return Bundle(folder, "small", 1, config, layers, "b" * 64)


def test_a_prompt_that_differs_is_named_by_its_row(tmp_path: Path) -> None:
    bundle = packed(tmp_path, ["one", "two"])
    run_report.prove(bundle, bundle.layers, ["one", "two"])
    changed = {**bundle.layers, "texts": "others", "tokens": "others"}
    with pytest.raises(Mismatch, match=r"^probe 1_A: its prompt here is not the one"):
        run_report.prove(bundle, changed, ["one", "three"])


@pytest.mark.parametrize("name", ["corpus", "examples", "template"])
def test_a_layer_that_determines_the_prompts_is_named_before_them(
    tmp_path: Path, name: str
) -> None:
    bundle = packed(tmp_path, ["one", "two"])
    changed = {**bundle.layers, name: "another", "texts": "others"}
    with pytest.raises(Mismatch, match=rf"^layer {name}: another here, "):
        run_report.prove(bundle, changed, ["three", "four"])


@pytest.mark.parametrize("name", ["tokens", "pool", "base", "adapter"])
def test_a_later_layer_is_named_if_the_prompts_are_equal(tmp_path: Path, name: str) -> None:
    bundle = packed(tmp_path, ["one"])
    with pytest.raises(Mismatch, match=rf"^layer {name}: "):
        run_report.prove(bundle, {**bundle.layers, name: "another"}, ["one"])
