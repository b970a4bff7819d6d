"""`reconcile` on the results of real stages: equal pairs, faults, tables of runs, and errors."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deploy.bundle import finished_run as chains
from deploy.bundle.finished_run import FinishedRun
from pipeline import comparing, run_fixture
from pipeline.comparing import first_record, rescore
from pipeline.run_fixture import RunFixture
from safetensors.numpy import load_file

from parity.deploy.kernel import run_report
from parity.pipeline import dag, evaluation_job, evidence_lookup
from parity.pipeline.command_cores import status
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage_cores import reconcile
from parity.run import digest, files, ledger
from parity.run.errors import BadConfig, ResultsDiffer, StaleInput
from parity.run.experiment import open_run

ReconcileJson = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def reconcile_json() -> ReconcileJson:
    """Return a function that starts `reconcile --json`: exit code and JSON."""
    return comparing.reconcile_json


# Faults in real results


def test_a15_another_template_is_named_and_shown(
    predicted_run: RunFixture, reconcile_json: ReconcileJson
) -> None:
    predicted_run.write_config("other", prompt={"query": "{wrong} {question}"})
    for stage in ("prepare", "mine", "train", "eval"):
        predicted_run.run_stages(stage, name="other")
    code, result = reconcile_json("small/round-0/eval", "other/round-0/eval")
    assert (code, result["exit_code"], result["layer"]) == (10, 10, "adapter")
    roles = {item["layer"]: item["role"] for item in result["layers"] if item["role"]}
    assert (roles["adapter"], roles["template"]) == ("first", "independent")
    (template,) = (item for item in result["layers"] if item["layer"] == "template")
    assert "prompt.query differs" in template["lines"]


def test_d24_an_epochs_adapter_in_place_of_anothers_is_named(
    predicted_run: RunFixture, reconcile_json: ReconcileJson
) -> None:
    epochs = [rescore(predicted_run, label=f"epoch-{n}") for n in (1, 2)]
    code, result = reconcile_json(*epochs)
    assert (code, result["layer"]) == (10, "adapter")
    layer = next(item for item in result["layers"] if item["layer"] == "adapter")
    assert re.search(r"is also that of small/round-0/best", " ".join(layer["lines"]))
    roles = {item["role"] for item in result["layers"]}
    assert roles == {"", "first", "consequence"}


def test_d22_the_base_model_is_named_as_a_missing_adapter(
    predicted_run: RunFixture, reconcile_json: ReconcileJson
) -> None:
    code, result = reconcile_json(first_record(predicted_run), rescore(predicted_run, label="base"))
    assert (code, result["layer"]) == (10, "adapter")
    assert "B none (base model)" in result["error"]
    assert {item["role"] for item in result["layers"]} == {"", "first", "consequence"}


@pytest.mark.parametrize(("scale", "expected"), [(2.0, "applied twice"), (0.0, "was not applied")])
def test_d22_an_adapter_that_ran_otherwise_under_its_own_name_is_named(
    predicted_run: RunFixture,
    reconcile_json: ReconcileJson,
    monkeypatch: pytest.MonkeyPatch,
    scale: float,
    expected: str,
) -> None:
    """Its weights are changed after they were checked, as a faulty library would."""
    rescore(predicted_run, label="base")
    _scaled(
        predicted_run.open().workspace.adapter(0) / "adapter_model.safetensors", scale, monkeypatch
    )
    monkeypatch.setattr(evaluation_job, "_as_in_training", lambda *_: None)
    shutil.rmtree(predicted_run.data / "cache", ignore_errors=True)
    code, result = reconcile_json(first_record(predicted_run), rescore(predicted_run))
    assert (code, result["layer"]) == (10, "embeddings"), result
    layer = next(item for item in result["layers"] if item["layer"] == "embeddings")
    assert expected in " ".join(layer["lines"])


def _scaled(weights: Path, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from parity.retrieval.models import adapter  # noqa: PLC0415

    real = adapter.load

    def loaded(model: Any, folder: Path, base: Any, *, layers: int) -> Any:
        adapted, record = real(model, folder, base, layers=layers)
        for name, tensor in adapted.named_parameters():
            if "lora_B" in name:
                tensor.data *= scale
        return adapted, record

    assert any("lora_B" in name for name in load_file(weights))
    monkeypatch.setattr(adapter, "load", loaded)


# A run from CV to score


@pytest.fixture
def chain(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> FinishedRun:
    """Return a finished run that uses a copy of its data folder."""
    finished = chains.shared(tmp_path_factory.getbasetemp())
    root = Path(finished.run.file).parent
    shutil.copytree(root / "data", tmp_path / "data")
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    return replace(finished, run=open_run(finished.run.file))


@pytest.mark.xdist_group("chain")
def test_a_cv_and_its_rehearsal_are_the_same(
    chain: FinishedRun, reconcile_json: ReconcileJson
) -> None:
    for words in (("--run", str(chain.run.file)), ("small/round-0/eval", "small/round-0/rehearse")):
        code, result = reconcile_json(*words)
        assert (code, result["result"], result["layer"]) == (0, "same", "")
        states = {item["layer"]: item["state"] for item in result["layers"]}
        assert {name for name, state in states.items() if state != "equal"} == {"metric", "score"}


@pytest.mark.xdist_group("chain")
def test_the_status_shows_the_result_until_there_is_newer_evidence(
    chain: FinishedRun, reconcile_json: ReconcileJson, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = str(chain.run.file), chain.run
    kernel = replace(chain.evidence("rehearsal"), kind="kernel")
    assert reconcile_json("--run", file)[1]["result"] == "same"
    assert StageGraph().standing(run, "reconcile").state == "done"
    run_fixture.pretend(run, "publish", "push", "follow")
    ledger.append(run.workspace.ledger, kernel)
    assert StageGraph().standing(run, "reconcile").reason == "there is newer evidence of kernel"
    assert reconcile_json("--run", file)[1]["result"] == "same"
    swapped = replace(kernel, layers={**kernel.layers, "adapter": "f" * 64})
    ledger.append(run.workspace.ledger, swapped)
    code, result = reconcile_json("--run", file)
    assert (code, result["result"], result["layer"]) == (10, "different", "adapter")
    assert (
        files.read_json(dag.folder(run, "reconcile") / reconcile.CONCLUSION)["layer"] == "adapter"
    )
    status.status(chain.run.file)
    output = capsys.readouterr().out
    assert "\n  reconcile done\n" in output
    assert "\n  reconcile of round 0: first difference: adapter (A " in output


@pytest.mark.xdist_group("chain")
def test_a_score_that_nothing_explains_is_the_result_of_the_run(
    chain: FinishedRun, reconcile_json: ReconcileJson
) -> None:
    run = chain.run
    run_fixture.pretend(run, "publish", "push", "follow")
    kernel = replace(chain.evidence("rehearsal"), kind="kernel")
    for item in (kernel, replace(kernel, kind="public", score={"map@25": 0.95})):
        ledger.append(run.workspace.ledger, item)
    code, result = reconcile_json("--run", str(run.file))
    assert (code, result["result"], result["public"]["result"]) == (10, "same", "neither")
    assert result["error"].startswith("different: explained neither by sampling")
    manifest = StageGraph().standing(run, "reconcile").manifest
    assert manifest is not None
    assert result["error"].startswith(manifest.facts["result"])


@pytest.mark.xdist_group("chain")
def test_evidence_missing_from_the_ledger_is_named_with_its_stage(chain: FinishedRun) -> None:
    chain.run.workspace.ledger.unlink()
    with pytest.raises(StaleInput, match=r"no evidence of eval in ") as error:
        reconcile.reconcile_run(chain.run)
    assert error.value.fix[0] == "eval"


@pytest.mark.xdist_group("chain")
def test_evidence_of_a_machine_that_is_gone_is_imported_once(
    chain: FinishedRun, reconcile_json: ReconcileJson, tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    shutil.copytree(chain.kaggle / "working", folder)
    path = folder / run_report.NAME
    record = files.read_json(path)
    record["evidence"]["layers"]["tokens"] = "f" * 64
    files.write_json(path, record)
    before = ledger.read(chain.run.workspace.ledger)
    for _ in range(2):
        code, result = reconcile_json("--import", str(path))
        assert code == 0
        assert len(ledger.read(chain.run.workspace.ledger)) == len(before) + 1
    shutil.rmtree(folder)
    code, result = reconcile_json("small/round-0/eval", result["imported"][:8])
    assert (code, result["layer"]) == (10, "tokens")
    assert (chain.run.workspace.evidence(result["b"]) / "probe.npy").is_file()


@pytest.mark.xdist_group("chain")
def test_a_report_is_a_record_by_its_path_and_an_old_one_is_still_read(
    chain: FinishedRun, reconcile_json: ReconcileJson
) -> None:
    path = chain.kaggle / "working" / run_report.NAME
    assert reconcile_json("small/round-0/eval", str(path))[0] == 0
    record = files.read_json(path)
    del record["evidence"]["facts"]
    record["evidence"]["schema"] = 1
    old = path.with_name("old.json")
    files.write_json(old, record)
    try:
        code, result = reconcile_json("small/round-0/eval", str(old))
    finally:
        old.unlink()
    states = {item["layer"]: item["state"] for item in result["layers"]}
    assert (code, states["corpus"], states["tokens"]) == (0, "unknown", "equal")


@pytest.mark.xdist_group("chain")
def test_a_truncated_submission_is_named(
    chain: FinishedRun, reconcile_json: ReconcileJson, tmp_path: Path
) -> None:
    folder = tmp_path / "there"
    shutil.copytree(chain.kaggle / "working", folder)
    lines = (folder / "submission.csv").read_text().splitlines(keepends=True)
    (folder / "submission.csv").write_text("".join(lines[:-3]))
    record = files.read_json(folder / run_report.NAME)
    record["evidence"]["layers"]["submission"] = digest.of_file(folder / "submission.csv")
    files.write_json(folder / run_report.NAME, record)
    code, result = reconcile_json("small/round-0/eval", str(folder / run_report.NAME))
    assert (code, result["layer"]) == (10, "submission")
    assert "A has 15 rows, B 12" in result["error"]


@pytest.mark.xdist_group("chain")
def test_a_score_is_compared_with_the_cv_of_the_same_adapter(
    chain: FinishedRun, reconcile_json: ReconcileJson
) -> None:
    value = chain.evidence("cv").score["all"]["map@25"]["value"]
    for side in ("small/round-0/eval", "small/round-0/rehearse"):
        code, result = reconcile_json(side, f"{value:.4f}")
        assert (code, result["result"]) == (0, "sampling")
    code, result = reconcile_json("small/round-0/eval", "0.95")
    assert (code, result["exit_code"], result["result"]) == (10, 10, "neither")
    assert "what could still be wrong:" in result["lines"]
    assert result["fix"].endswith(" follow")


def test_the_terminal_has_80_columns(
    predicted_run: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    rescored = rescore(predicted_run, label="epoch-1")
    capsys.readouterr()
    with pytest.raises(ResultsDiffer, match=r"^first difference: adapter "):
        reconcile.reconcile([first_record(predicted_run), rescored])
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    assert output.startswith(f"A  {first_record(predicted_run)[:12]}  small/round-0/cv/best\n")
    assert "next: " in output


# What cannot be compared


def test_a_record_that_is_twice_in_the_ledger_is_one(
    predicted_run: RunFixture, reconcile_json: ReconcileJson
) -> None:
    path = predicted_run.open().workspace.ledger
    ledger.append(path, ledger.read(path)[0])
    code, result = reconcile_json(first_record(predicted_run), first_record(predicted_run)[:12])
    assert (code, result["result"]) == (0, "same")


def test_an_unknown_record_is_named_with_the_newest_ones(predicted_run: RunFixture) -> None:
    for word in ("small/round-3/eval", "nowhere", "abc"):
        with pytest.raises(BadConfig, match=rf"^no record of the name {word} .*cv/best\)$"):
            reconcile.reconcile([word, first_record(predicted_run)])
    with pytest.raises(BadConfig, match="found 1 records to compare"):
        reconcile.reconcile([first_record(predicted_run)])


def test_a_run_that_was_not_rehearsed_says_so(
    predicted_run: RunFixture, small_run: RunFixture
) -> None:
    assert small_run.folder == predicted_run.folder
    with pytest.raises(StaleInput, match=r"package of round 0 is missing"):
        reconcile.reconcile_run(predicted_run.open())


def test_pieces_of_a_vocabulary_are_read_from_either_form() -> None:
    added = [{"id": 9, "content": "</s>"}]
    pairs = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added}
    rows = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": added}
    assert (
        evidence_lookup.pieces(pairs) == evidence_lookup.pieces(rows) == {0: "a", 1: "b", 9: "</s>"}
    )
    assert evidence_lookup.pieces({}) == {}


def test_a_missing_report_is_one_line(small_run: RunFixture) -> None:
    with pytest.raises(BadConfig, match=r"no such run report: nowhere\.json"):
        reconcile.reconcile((), imported=Path("nowhere.json"))


# Tables of runs


def test_a_table_of_runs_is_summarized(
    small_run: RunFixture, reconcile_json: ReconcileJson
) -> None:
    rows = [f"r{n},fold0,{0.4 + n / 100},{0.3 + n / 100},800" for n in range(4)]
    Path("runs.csv").write_text("\n".join(["run,split,cv,lb,rows", *rows, "x,fold1,0.9,0.3,800"]))
    code, result = reconcile_json("runs.csv")
    assert (code, result["rows"], result["pairs"]) == (0, 5, 5)
    assert [item["split"] for item in result["splits"]] == ["fold0", "fold1"]
    assert [item["run"] for item in result["contaminated"]] == ["x"]


def test_a_table_needs_the_rows_of_its_splits(
    small_run: RunFixture, reconcile_json: ReconcileJson
) -> None:
    Path("runs.csv").write_text("run,split,cv,lb\na,fold0,0.4,0.3\n")
    code, result = reconcile_json("runs.csv")
    assert (code, result["class"]) == (3, "BadData")
    assert "split fold0 is unknown in runs.csv" in result["error"]
    assert reconcile_json("runs.csv", "--rows=fold0=800")[0] == 0
    assert "belongs to a table" in reconcile_json("a", "b", "--rows=fold0=800")[1]["error"]
