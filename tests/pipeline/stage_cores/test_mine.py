"""Negatives: mined by the round's encoder, reproducible to the byte, exported and imported."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import tiny
from pipeline import run_fixture
from pipeline.run_fixture import RunFixture
from pipeline.twin_run import outputs, twin

from parity.cli import main
from parity.competition import ranking as rankings
from parity.pipeline import dag, dataset, encoder_loading
from parity.pipeline.stage_cores.mine import mine
from parity.retrieval.retrieve import index, retrieve
from parity.run import files
from parity.run.config import stage_settings
from parity.run.errors import BadData, Mismatch
from parity.run.experiment import Run
from parity.training import negatives
from parity.training.mining_strategies import sentence_keys
from parity.training.negatives import Negatives

BOTH = "from parity.cli import main; main(['prepare', {0!r}]); main(['mine', {0!r}])"


def mine_folder(run: Run) -> Path:
    return dag.folder(run, "mine")


def mined(run: Run) -> Negatives:
    return negatives.read(
        mine_folder(run) / "negatives.jsonl", dataset.load(run.config, run.workspace).corpus
    )


def facts(run: Run) -> dict[str, object]:
    manifest = dag.StageGraph().standing(run, "mine").manifest
    assert manifest is not None
    return manifest.facts


def test_f33_prepare_and_mine_write_the_same_bytes_under_another_hash_seed(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open()
    folders = (run.workspace.prepare, mine_folder(run))
    before = [run_fixture.contents(folder, ".jsonl", "v0.4.json") for folder in folders]
    digests = [dag.StageGraph().standing(run, name).manifest for name in ("prepare", "mine")]
    for folder in folders:
        for path in folder.rglob("*.json*"):
            path.unlink()
    files.remove(run.workspace.embeddings)  # so that they are computed again
    answer = predicted_run.run_python("-c", BOTH.format("small.toml"), PYTHONHASHSEED="77")
    assert answer.returncode == 0, answer.stderr
    assert sys.flags.hash_randomization  # nor did this process have that seed
    assert [run_fixture.contents(folder, ".jsonl", "v0.4.json") for folder in folders] == before
    repeated = [dag.StageGraph().standing(run, name).manifest for name in ("prepare", "mine")]
    assert [manifest.digest() for manifest in repeated if manifest] == [
        digest.digest() for digest in digests if digest
    ]


def test_mine_writes_the_same_bytes_twice(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    before = run_fixture.contents(mine_folder(run), ".jsonl")
    files.remove(run.workspace.embeddings)
    predicted_run.run_stages("mine")
    assert run_fixture.contents(mine_folder(run), ".jsonl") == before
    assert sorted(before) == ["flagembedding.jsonl", "negatives.jsonl", "ranking.jsonl"]


def test_every_train_row_has_its_negatives_and_no_other_row(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    data = dataset.load(run.config, run.workspace)
    result = mined(run)
    train = sorted(query.query_id for query in data.train)
    assert sorted(row.query_id for row in result.rows) == train
    assert sorted(rankings.read(mine_folder(run) / "ranking.jsonl").query_ids) == train
    for row in result.rows:
        assert len(row.positions) == 6
        assert data.qrels[row.query_id].isdisjoint(row.positions)
        assert set(row.positions) <= data.positives  # the scope


def test_the_stored_ranking_is_the_retrieval_of_the_negatives(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    data = dataset.load(run.config, run.workspace)
    encoder = encoder_loading.load_encoder(run.config.encoder, run.workspace)
    shown = dataset.shown(data, run.config.prompt, data.train)
    corpus = index(encoder, run.config.prompt, data.corpus)
    expected = retrieve(
        encoder, run.config.prompt, data.train, corpus, shown, k=len(data.corpus)
    ).ranking
    assert rankings.read(mine_folder(run) / "ranking.jsonl").digest() == expected.digest()
    assert mined(run).miner == facts(run)["miner"] == encoder.digest()


def test_only_mining_is_quantized_by_mining_quantize(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    small_run.run_stages("prepare", "mine")
    unquantized, before = mined(small_run.open()), facts(small_run.open())
    small_run.write_config(mining={"quantize": "fp8"})
    run = small_run.run_stages("mine")
    assert "mined by base in fp8, strategy" in capsys.readouterr().out
    assert str(facts(run)["speed"]).count("float32/fp8") == 1
    assert mined(run).miner != unquantized.miner == before["miner"]
    encoder_config = stage_settings.mining_config(run.config).encoder
    encoder = encoder_loading.load_encoder(encoder_config, run.workspace)
    assert encoder.digest() == mined(run).miner
    assert run.config.encoder.quantize == "none"
    assert dag.StageGraph().standing(run, "train").state == "missing"  # not refused


def test_a_range_of_ranks_is_retrieved_to_its_upper_end(small_run: RunFixture) -> None:
    small_run.write_config(mining={"strategy": "range", "low": 3, "high": 12, "scope": "corpus"})
    run = small_run.run_stages("prepare", "mine")
    assert rankings.read(mine_folder(run) / "ranking.jsonl").positions.shape[1] == 12
    for row in mined(run).rows:
        assert all(3 <= rank <= 12 for rank in row.ranks if rank)


def test_a_round_is_mined_by_the_adapter_of_the_previous_round(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = predicted_run.open()
    assert (
        mined(run).miner == encoder_loading.load_encoder(run.config.encoder, run.workspace).digest()
    )
    run = predicted_run.run_stages("mine", round_=1)
    assert "mined by round-0/best, strategy mix\n" in capsys.readouterr().out
    trained = encoder_loading.load_encoder(
        run.config.encoder, run.workspace, run.workspace.adapter(0)
    )
    untrained = encoder_loading.load_encoder(run.config.encoder, run.workspace)
    assert mined(run).miner == trained.digest() != untrained.digest()
    first, second = (
        rankings.read(mine_folder(item) / "ranking.jsonl") for item in (run.at(0), run)
    )
    assert first.query_ids == second.query_ids
    assert first.digest() != second.digest()


def test_the_diversity_of_the_negatives_is_printed(
    small_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_run.run_stages("prepare", "mine")
    diversity = negatives.diversity(mined(run)).text
    output = " ".join(capsys.readouterr().out.split())  # a long line is folded
    assert output.endswith(f"mined by base, strategy mix {diversity}")
    assert facts(run)["diversity"] == diversity
    assert "distinct ids" in diversity
    assert "the ten commonest make up" in diversity


def test_exported_negatives_are_imported_unchanged(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = predicted_run.open()
    before = mined(run)
    file = predicted_run.folder / "flagembedding.jsonl"
    file.write_bytes((mine_folder(run) / "flagembedding.jsonl").read_bytes())
    capsys.readouterr()
    mine(run, imported=file)
    after = mined(run)
    assert [(row.query_id, row.positions) for row in after.rows] == [
        (row.query_id, row.positions) for row in before.rows
    ]
    assert after.strategy == "imported"
    assert str(after.miner).startswith("imported:")
    assert "imported from flagembedding.jsonl: 0 negatives dropped" in capsys.readouterr().out
    assert not (mine_folder(run) / "ranking.jsonl").exists()
    standing = dag.StageGraph().standing(run, "mine")
    assert standing.state == "done"
    reason = "negatives.jsonl of mine of round 0 has changed since"
    assert dag.StageGraph().standing(run, "train").reason == reason
    predicted_run.run_stages("train")


def test_f34_of_two_ids_with_the_same_text_the_smaller_is_imported(small_run: RunFixture) -> None:
    source = tiny.write_competition(small_run.folder / "competition")
    small_run.write_config(
        data={"source": str(source)},
        split={"kind": "full"},
        prompt={"query": "{question} {correct} {wrong}"},
        mining={"scope": "corpus", "count": 3},
    )
    run = small_run.run_stages("prepare", "mine")
    keys = sentence_keys(tiny.corpus())
    before = {row.query_id: {keys[key] for key in row.positions} for row in mined(run).rows}
    assert any(tiny.at(9) in row.positions for row in mined(run).rows)
    file = small_run.folder / "there.jsonl"
    file.write_bytes((mine_folder(run) / "flagembedding.jsonl").read_bytes())
    mine(run, imported=file)
    assert {row.query_id: set(row.positions) for row in mined(run).rows} == before


@pytest.mark.parametrize(
    ("change", "error", "expected"),
    [
        ({"query": "Who?"}, BadData, "row 1: the query is not in this run"),
        ({"neg": ["Never heard of"]}, BadData, "row 1: passage 1 is not in the corpus"),
        ({"prompt": "Find it."}, Mismatch, r"row 1: the prompt is not .* prompt\.instruction"),
    ],
    ids=["query", "passage", "c14 prompt"],
)
def test_a_file_of_another_run_is_refused(
    predicted_run: RunFixture, change: dict[str, object], error: type[Exception], expected: str
) -> None:
    run = predicted_run.open()
    before = run_fixture.contents(mine_folder(run))
    rows = (mine_folder(run) / "flagembedding.jsonl").read_text().splitlines()
    rows[0] = json.dumps({**json.loads(rows[0]), **change})
    file = predicted_run.folder / "there.jsonl"
    file.write_text("\n".join(rows))
    with pytest.raises(error, match=expected):
        mine(run, imported=file)
    assert run_fixture.contents(mine_folder(run)) == before
    assert dag.StageGraph().standing(run, "mine").state == "done"


def test_a_missing_file_is_refused(predicted_run: RunFixture) -> None:
    with pytest.raises(BadData, match=r"--import absent\.jsonl: no such file"):
        mine(predicted_run.open(), imported=Path("absent.jsonl"))


# A chosen model


@pytest.mark.parametrize("reference", ["round-0/epoch-1", "small/round-0/epoch-1", "FOLDER"])
def test_a_chosen_adapter_mines_as_the_best_adapter_of_its_run_would(
    predicted_run: RunFixture, reference: str
) -> None:
    run = predicted_run.open(round_=1)
    if reference == "FOLDER":
        shutil.copytree(run.workspace.epoch(0, 1), "downloaded")
        reference = "downloaded"
    mine(run, reference)
    chosen = outputs(run, "mine")
    expected = twin(predicted_run).at(1)
    mine(expected)
    assert chosen == outputs(expected, "mine")
    mine(run)
    assert outputs(run, "mine") != chosen


def test_an_adapter_of_another_run_mines_as_in_its_own(predicted_run: RunFixture) -> None:
    predicted_run.write_config("other", training={"seed": 1, "epochs": 1})
    other = predicted_run.run_stages("prepare", "mine", "train", name="other")
    mine(other.at(1))
    run = predicted_run.open()
    by_base = outputs(run, "mine")
    mine(run, "other/round-0/best")
    assert outputs(run, "mine") == outputs(other.at(1), "mine") != by_base
    assert facts(run)["model"] == "other/round-0/best"


def test_a_chosen_model_is_recorded_and_stays_current_until_it_changes(
    predicted_run: RunFixture,
) -> None:
    run = predicted_run.open(round_=1)
    mine(run, "round-0/epoch-1")
    assert facts(run)["model"] == "round-0/epoch-1"
    adapter, other = run.workspace.epoch(0, 1), run.workspace.epoch(0, 2)
    for changed, reason in ((other, ""), (adapter, "model round-0/epoch-1 has changed since")):
        lineage = files.read_json(changed / "lineage.json")
        lineage["trained_on"] = lineage["trained_on"][1:]
        files.write_json(changed / "lineage.json", lineage)
        run_fixture.seal(dag.folder(run.at(0), "train"))
        assert dag.StageGraph().standing(run, "mine").reason == reason


def test_a_folder_that_is_gone_makes_its_mining_stale(predicted_run: RunFixture) -> None:
    run = predicted_run.open()
    shutil.copytree(run.workspace.epoch(0, 1), "downloaded")
    mine(run, "downloaded")
    assert dag.StageGraph().standing(run, "mine").state == "done"
    shutil.rmtree("downloaded")
    assert dag.StageGraph().standing(run, "mine").reason.startswith("downloaded is not")


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "encoder.device=cuda"],
        ["--import", "README.md"],
        ["--import", "absent.jsonl"],
        ["--model", "epoch-7"],
        ["--model", "other/round-0/best"],
    ],
    ids=" ".join,
)
def test_a_refused_mining_destroys_nothing(
    predicted_run: RunFixture, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    Path("README.md").write_text("# kaggle-parity\n")
    run = predicted_run.open()
    before = run_fixture.contents(run.workspace.root)
    assert main(["mine", "small.toml", *words]) in (2, 3)
    assert run_fixture.contents(run.workspace.root) == before
    assert dag.StageGraph().standing(run, "mine").state == "done"


def test_mining_and_training_without_the_examples_of_the_run(small_run: RunFixture) -> None:
    """They equal those of a run without examples; only scores, which choose an epoch, differ."""
    room, off = {"query_max_length": 256}, {"examples": "none"}
    shown = {**room, "examples": "fixed", "example_count": 1}
    small_run.write_config("shown", prompt=shown, mining=off, training=off)
    small_run.write_config("plain", prompt=room)
    texts, weights = [], []
    for name in ("shown", "plain"):
        run = small_run.run_stages("prepare", "mine", "train", "eval", name=name)
        texts.append([row["text"] for row in files.read_jsonl(run.workspace.texts(0, "best"))])
        trained = outputs(run, "train")
        weights.append([trained[f"epoch-{n}/adapter_model.safetensors"] for n in (1, 2)])
    first, second = (outputs(small_run.open(name=name), "mine") for name in ("shown", "plain"))
    for file in ("ranking.jsonl", "flagembedding.jsonl"):
        assert first[file] == second[file]
    assert weights[0] == weights[1]
    for with_example, without in zip(*texts, strict=True):
        assert without in with_example
        assert len(with_example) > len(without) + 20
