"""Negatives: mined by the right encoder, the same bytes anywhere, given away and taken back."""

import json
import sys
from pathlib import Path

import pytest
import tiny
from pipeline import run_fixture as benches
from pipeline.run_fixture import Bench

from parity.competition import ranking as rankings
from parity.pipeline import dag, dataset, encoder_loading
from parity.pipeline.stage_cores.mine import mine
from parity.retrieval.retrieve import index, retrieve
from parity.run import files
from parity.run.errors import BadData, Mismatch
from parity.run.experiment import Run
from parity.training import negatives
from parity.training.mining_strategies import sentence_keys
from parity.training.negatives import Negatives

BOTH = "from parity.__main__ import main; main(['prepare', {0!r}]); main(['mine', {0!r}])"


def place(run: Run) -> Path:
    return dag.folder(run, "mine")


def mined(run: Run) -> Negatives:
    return negatives.read(place(run) / "negatives.jsonl")


def facts(run: Run) -> dict[str, object]:
    found = dag.StageGraph().standing(run, "mine").manifest
    assert found is not None
    return found.facts


def test_f33_prepare_and_mine_write_the_same_bytes_under_another_hash_seed(made: Bench) -> None:
    run = made.run()
    folders = (run.workspace.prepare, place(run))
    before = [benches.contents(folder, ".jsonl", "v0.4.json") for folder in folders]
    digests = [dag.StageGraph().standing(run, name).manifest for name in ("prepare", "mine")]
    for folder in folders:
        for path in folder.rglob("*.json*"):
            path.unlink()
    files.remove(run.workspace.embeddings)  # else there would be nothing to compute
    answer = made.python("-c", BOTH.format("small.toml"), PYTHONHASHSEED="77")
    assert answer.returncode == 0, answer.stderr
    assert sys.flags.hash_randomization  # nor did this process have that seed
    assert [benches.contents(folder, ".jsonl", "v0.4.json") for folder in folders] == before
    again = [dag.StageGraph().standing(run, name).manifest for name in ("prepare", "mine")]
    assert [one.digest() for one in again if one] == [
        digest.digest() for digest in digests if digest
    ]


def test_mining_again_writes_the_same_bytes(made: Bench) -> None:
    run = made.run()
    before = benches.contents(place(run), ".jsonl")
    files.remove(run.workspace.embeddings)
    made.make("mine")
    assert benches.contents(place(run), ".jsonl") == before
    assert sorted(before) == ["flagembedding.jsonl", "negatives.jsonl", "ranking.jsonl"]


def test_every_train_row_has_its_negatives_and_no_other_row(made: Bench) -> None:
    run = made.run()
    known = dataset.load(run)
    found = mined(run)
    train = sorted(query.query_id for query in known.train)
    assert sorted(row.query_id for row in found.rows) == train
    assert sorted(rankings.read(place(run) / "ranking.jsonl").query_ids) == train
    for row in found.rows:
        assert len(row.ids) == 6
        assert known.qrels[row.query_id].isdisjoint(row.ids)
        assert set(row.ids) <= known.positives  # the scope


def test_the_ranking_kept_is_that_of_the_one_retrieval(made: Bench) -> None:
    run = made.run()
    known = dataset.load(run)
    encoder = encoder_loading.encoder(run)
    shown = dataset.shown(known, run.config.prompt, known.train)
    corpus = index(encoder, run.config.prompt, known.corpus)
    expected = retrieve(
        encoder, run.config.prompt, known.train, corpus, shown, k=len(known.corpus)
    ).ranking
    assert rankings.read(place(run) / "ranking.jsonl").digest() == expected.digest()
    assert mined(run).miner == facts(run)["miner"] == encoder.digest()


def test_mining_alone_may_run_in_fewer_bits(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.make("prepare", "mine")
    whole, before = mined(bench.run()), facts(bench.run())
    bench.write(mining={"quantize": "fp8"})
    run = bench.make("mine")
    assert "mined by the bare base in fp8, strategy" in capsys.readouterr().out
    assert str(facts(run)["speed"]).count("float32/fp8") == 1
    assert mined(run).miner != whole.miner == before["miner"]
    assert encoder_loading.encoder(encoder_loading.mining(run)).digest() == mined(run).miner
    assert run.config.encoder.quantize == "none"
    assert dag.StageGraph().standing(run, "train").state == "missing"  # not refused


def test_a_window_of_ranks_is_as_deep_as_its_upper_end(bench: Bench) -> None:
    bench.write(mining={"strategy": "range", "low": 3, "high": 12, "scope": "corpus"})
    run = bench.make("prepare", "mine")
    assert rankings.read(place(run) / "ranking.jsonl").ids.shape[1] == 12
    for row in mined(run).rows:
        assert all(3 <= rank <= 12 for rank in row.ranks if rank)


def test_a_round_is_mined_by_the_adapter_of_the_one_before(
    made: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mined(made.run()).miner == encoder_loading.encoder(made.run()).digest()
    run = made.make("mine", round_=1)
    assert "mined by the adapter of round 0, strategy mix\n" in capsys.readouterr().out
    trained = encoder_loading.encoder(run, run.workspace.adapter(0))
    assert mined(run).miner == trained.digest() != encoder_loading.encoder(run).digest()
    first, second = (rankings.read(place(one) / "ranking.jsonl") for one in (run.at(0), run))
    assert first.query_ids == second.query_ids
    assert first.digest() != second.digest()


def test_what_was_mined_is_told_with_its_diversity(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.make("prepare", "mine")
    diversity = negatives.diversity(mined(run)).text
    said = " ".join(capsys.readouterr().out.split())  # a long line is folded
    assert said.endswith(f"mined by the bare base, strategy mix {diversity}")
    assert facts(run)["diversity"] == diversity
    assert "distinct ids" in diversity
    assert "the ten commonest make up" in diversity


def test_what_was_exported_is_taken_back_with_the_same_negatives(
    made: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made.run()
    before = mined(run)
    file = made.folder / "flagembedding.jsonl"
    file.write_bytes((place(run) / "flagembedding.jsonl").read_bytes())
    capsys.readouterr()
    mine(run, file)
    after = mined(run)
    assert [(row.query_id, row.ids) for row in after.rows] == [
        (row.query_id, row.ids) for row in before.rows
    ]
    assert after.strategy == "imported"
    assert str(after.miner).startswith("imported:")
    assert "imported from flagembedding.jsonl: 0 negatives dropped" in capsys.readouterr().out
    assert not (place(run) / "ranking.jsonl").exists()
    found = dag.StageGraph().standing(run, "mine")
    assert found.state == "done"
    assert dag.StageGraph().standing(run, "train").why == "mine of round 0 was made anew since"
    made.make("train")


def test_f34_of_two_ids_with_one_sentence_the_smaller_is_taken_back(bench: Bench) -> None:
    source = tiny.write_competition(bench.folder / "competition")
    bench.write(
        data={"source": str(source)},
        split={"kind": "full"},
        prompt={"query": "{question} {correct} {wrong}"},
        mining={"scope": "corpus", "count": 3},
    )
    run = bench.make("prepare", "mine")
    keys = sentence_keys(tiny.corpus())
    before = {row.query_id: {keys[key] for key in row.ids} for row in mined(run).rows}
    assert any(9 in row.ids for row in mined(run).rows)
    file = bench.folder / "there.jsonl"
    file.write_bytes((place(run) / "flagembedding.jsonl").read_bytes())
    mine(run, file)
    assert {row.query_id: set(row.ids) for row in mined(run).rows} == before


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"query": "Who?"}, BadData, "row 1: its query is none of this run's"),
        ({"neg": ["Never heard of"]}, BadData, "row 1: passage 1 is no passage of this corpus"),
        ({"prompt": "Find it."}, Mismatch, r"row 1: its prompt is not .* prompt\.instruction"),
    ],
    ids=["query", "passage", "c14 prompt"],
)
def test_a_file_that_is_not_of_this_run_is_refused(
    made: Bench, change: dict[str, object], error: type[Exception], told: str
) -> None:
    run = made.run()
    rows = (place(run) / "flagembedding.jsonl").read_text().splitlines()
    rows[0] = json.dumps({**json.loads(rows[0]), **change})
    file = made.folder / "there.jsonl"
    file.write_text("\n".join(rows))
    with pytest.raises(error, match=told):
        mine(run, file)
    assert dag.StageGraph().standing(run, "mine").state == "missing"


def test_a_file_that_is_not_there_is_refused(made: Bench) -> None:
    with pytest.raises(BadData, match=r"--import absent\.jsonl: no such file"):
        mine(made.run(), Path("absent.jsonl"))
