"""`reconcile` on what real stages wrote, by a tiny model: honest pairs, faults, and the ways in."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deploy.bundle import finished_run as chains
from deploy.bundle.finished_run import Chain
from pipeline import comparing
from pipeline import run_fixture as benches
from pipeline.comparing import first, scored
from pipeline.run_fixture import Bench
from safetensors.numpy import load_file

from parity.deploy.kernel import run_report
from parity.pipeline import dag, evidence_lookup
from parity.pipeline.command_cores import status
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage_cores import evaluate, reconcile
from parity.run import digest, files, ledger
from parity.run.errors import BadConfig, ResultsDiffer, StaleInput
from parity.run.experiment import open_run

Told = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def told() -> Told:
    """Return what starts `reconcile --json` and gives its exit code and what it told a machine."""
    return comparing.told


# Faults in what really ran


def test_a15_another_template_is_named_and_shown(made: Bench, told: Told) -> None:
    made.write("other", prompt={"query": "{wrong} {question}"})
    for stage in ("prepare", "mine", "train", "eval"):
        made.make(stage, name="other")
    code, found = told("small/round-0/eval", "other/round-0/eval")
    assert (code, found["exit_code"], found["layer"]) == (10, 10, "adapter")
    roles = {one["layer"]: one["role"] for one in found["layers"] if one["role"]}
    assert (roles["adapter"], roles["template"]) == ("first", "independent")
    (template,) = (one for one in found["layers"] if one["layer"] == "template")
    assert "prompt.query differs" in template["told"]


def test_d24_an_epochs_adapter_in_place_of_anothers_is_named(made: Bench, told: Told) -> None:
    epochs = [scored(made, label=f"epoch-{n}") for n in (1, 2)]
    code, found = told(*epochs)
    assert (code, found["layer"]) == (10, "adapter")
    layer = next(one for one in found["layers"] if one["layer"] == "adapter")
    assert re.search(r"is also that of small/round-0/best", " ".join(layer["told"]))
    roles = {one["role"] for one in found["layers"]}
    assert roles == {"", "first", "consequence"}


def test_d22_the_bare_base_is_named_as_having_no_adapter(made: Bench, told: Told) -> None:
    code, found = told(first(made), scored(made, label="base"))
    assert (code, found["layer"]) == (10, "adapter")
    assert "B none: the bare base" in found["error"]
    assert {one["role"] for one in found["layers"]} == {"", "first", "consequence"}


@pytest.mark.parametrize(("scale", "said"), [(2.0, "applied twice"), (0.0, "was not applied")])
def test_d22_an_adapter_that_ran_otherwise_under_its_own_name_is_named(
    made: Bench, told: Told, monkeypatch: pytest.MonkeyPatch, scale: float, said: str
) -> None:
    """Its weights are changed after they were proven, as a faulty library would."""
    scored(made, label="base")
    _scaled(made.run().workspace.adapter(0) / "adapter_model.safetensors", scale, monkeypatch)
    monkeypatch.setattr(evaluate, "_as_in_training", lambda *_: None)
    shutil.rmtree(made.data / "cache", ignore_errors=True)
    code, found = told(first(made), scored(made))
    assert (code, found["layer"]) == (10, "embeddings"), found
    layer = next(one for one in found["layers"] if one["layer"] == "embeddings")
    assert said in " ".join(layer["told"])


def _scaled(weights: Path, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from parity.retrieval.models import adapter  # noqa: PLC0415

    real = adapter.load

    def loaded(model: Any, folder: Path, base: Any, *, layers: int) -> Any:
        made, record = real(model, folder, base, layers=layers)
        for name, tensor in made.named_parameters():
            if "lora_B" in name:
                tensor.data *= scale
        return made, record

    assert any("lora_B" in name for name in load_file(weights))
    monkeypatch.setattr(adapter, "load", loaded)


# The way of a run


@pytest.fixture
def chain(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Chain:
    """Work beside a copy of a whole run, rehearsed."""
    whole = chains.shared(tmp_path_factory.getbasetemp())
    root = Path(whole.run.file).parent
    shutil.copytree(root / "data", tmp_path / "data")
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    return replace(whole, run=open_run(whole.run.file))


@pytest.mark.xdist_group("chain")
def test_a_cv_and_its_rehearsal_are_the_same(chain: Chain, told: Told) -> None:
    for words in (("--run", str(chain.run.file)), ("small/round-0/eval", "small/round-0/rehearse")):
        code, found = told(*words)
        assert (code, found["verdict"], found["layer"]) == (0, "same", "")
        states = {one["layer"]: one["state"] for one in found["layers"]}
        assert {name for name, state in states.items() if state != "equal"} == {"metric", "score"}


@pytest.mark.xdist_group("chain")
def test_the_story_holds_the_verdict_until_further_evidence_comes(
    chain: Chain, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = str(chain.run.file), chain.run
    kernel = replace(chain.evidence("rehearsal"), kind="kernel")
    assert told("--run", file)[1]["verdict"] == "same"
    assert StageGraph().standing(run, "reconcile").state == "done"
    benches.pretend(run, "publish", "push", "follow")
    ledger.append(run.workspace.ledger, kernel)
    assert StageGraph().standing(run, "reconcile").why == "evidence of kernel has come since"
    assert told("--run", file)[1]["verdict"] == "same"
    swapped = replace(kernel, layers={**kernel.layers, "adapter": "f" * 64})
    ledger.append(run.workspace.ledger, swapped)
    code, found = told("--run", file)
    assert (code, found["verdict"], found["layer"]) == (10, "different", "adapter")
    assert files.read_json(dag.folder(run, "reconcile") / reconcile.VERDICT)["layer"] == "adapter"
    status.story(chain.run.file)
    said = capsys.readouterr().out
    assert "\n  reconcile done\n" in said
    assert "\n  reconcile of round 0: different because adapter: A " in said


@pytest.mark.xdist_group("chain")
def test_a_score_that_nothing_explains_is_the_runs_verdict(chain: Chain, told: Told) -> None:
    run = chain.run
    benches.pretend(run, "publish", "push", "follow")
    kernel = replace(chain.evidence("rehearsal"), kind="kernel")
    for one in (kernel, replace(kernel, kind="public", score={"map@25": 0.95})):
        ledger.append(run.workspace.ledger, one)
    code, found = told("--run", str(run.file))
    assert (code, found["verdict"], found["public"]["verdict"]) == (10, "same", "neither")
    assert found["error"].startswith("different: explained neither by sampling")
    verdict = StageGraph().standing(run, "reconcile").manifest
    assert verdict is not None
    assert verdict.facts["verdict"] == found["error"]


@pytest.mark.xdist_group("chain")
def test_evidence_that_the_ledger_lost_is_told_with_its_stage(chain: Chain) -> None:
    chain.run.workspace.ledger.unlink()
    with pytest.raises(StaleInput, match=r"no evidence of eval yet; run: invoke eval --run"):
        reconcile.latest(chain.run)


@pytest.mark.xdist_group("chain")
def test_evidence_of_a_machine_that_is_gone_is_imported_once(
    chain: Chain, told: Told, tmp_path: Path
) -> None:
    there = tmp_path / "gone"
    shutil.copytree(chain.kaggle / "working", there)
    path = there / run_report.NAME
    record = files.read_json(path)
    record["evidence"]["layers"]["tokens"] = "f" * 64
    files.write_json(path, record)
    before = ledger.read(chain.run.workspace.ledger)
    for _ in range(2):
        code, found = told("--import", str(path))
        assert code == 0
        assert len(ledger.read(chain.run.workspace.ledger)) == len(before) + 1
    shutil.rmtree(there)
    code, found = told("small/round-0/eval", found["imported"][:8])
    assert (code, found["layer"]) == (10, "tokens")
    assert (chain.run.workspace.evidence(found["b"]) / "probe.npy").is_file()


@pytest.mark.xdist_group("chain")
def test_a_report_is_a_side_by_its_path_and_an_old_one_is_still_read(
    chain: Chain, told: Told
) -> None:
    path = chain.kaggle / "working" / run_report.NAME
    assert told("small/round-0/eval", str(path))[0] == 0
    record = files.read_json(path)
    del record["evidence"]["facts"]
    record["evidence"]["schema"] = 1
    old = path.with_name("old.json")
    files.write_json(old, record)
    try:
        code, found = told("small/round-0/eval", str(old))
    finally:
        old.unlink()
    states = {one["layer"]: one["state"] for one in found["layers"]}
    assert (code, states["corpus"], states["tokens"]) == (0, "unknown", "equal")


@pytest.mark.xdist_group("chain")
def test_a_truncated_submission_is_named(chain: Chain, told: Told, tmp_path: Path) -> None:
    there = tmp_path / "there"
    shutil.copytree(chain.kaggle / "working", there)
    lines = (there / "submission.csv").read_text().splitlines(keepends=True)
    (there / "submission.csv").write_text("".join(lines[:-3]))
    record = files.read_json(there / run_report.NAME)
    record["evidence"]["layers"]["submission"] = digest.of_file(there / "submission.csv")
    files.write_json(there / run_report.NAME, record)
    code, found = told("small/round-0/eval", str(there / run_report.NAME))
    assert (code, found["layer"]) == (10, "submission")
    assert "A has 15 rows, B 12" in found["error"]


@pytest.mark.xdist_group("chain")
def test_a_number_is_weighed_against_the_cv_of_the_same_adapter(chain: Chain, told: Told) -> None:
    value = chain.evidence("cv").score["all"]["map@25"]["value"]
    for side in ("small/round-0/eval", "small/round-0/rehearse"):
        code, found = told(side, f"{value:.4f}")
        assert (code, found["verdict"]) == (0, "sampling")
    code, found = told("small/round-0/eval", "0.95")
    assert (code, found["exit_code"], found["verdict"]) == (10, 10, "neither")
    assert "nothing is known of what Kaggle's machine computed; run: invoke follow" in found["told"]


def test_the_terminal_has_80_columns(made: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    other = scored(made, label="epoch-1")
    capsys.readouterr()
    with pytest.raises(ResultsDiffer, match=r"^different because adapter: .*; next: "):
        reconcile.reconcile([first(made), other])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert said.startswith(f"A  {first(made)[:12]}  small/round-0/cv/best\n")
    assert "next: " in said


# What cannot be compared


def test_a_record_that_stands_twice_in_the_ledger_is_one(made: Bench, told: Told) -> None:
    path = made.run().workspace.ledger
    ledger.append(path, ledger.read(path)[0])
    code, found = told(first(made), first(made)[:12])
    assert (code, found["verdict"]) == (0, "same")


def test_a_side_that_is_no_record_is_told_with_what_there_is(made: Bench) -> None:
    for word in ("small/round-3/eval", "nowhere", "abc"):
        with pytest.raises(BadConfig, match=rf"^{word}: no record of that name; .*cv/best\)$"):
            reconcile.reconcile([word, first(made)])
    with pytest.raises(BadConfig, match="want two sides, found 1"):
        reconcile.reconcile([first(made)])


def test_a_run_that_was_not_rehearsed_says_so(made: Bench, bench: Bench) -> None:
    assert bench.folder == made.folder
    with pytest.raises(
        StaleInput, match=r"package of round 0 has not been made; run: invoke package --run"
    ):
        reconcile.latest(made.run())


def test_pieces_of_a_vocabulary_are_read_from_either_form() -> None:
    added = [{"id": 9, "content": "</s>"}]
    pairs = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": added}
    rows = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": added}
    assert (
        evidence_lookup.pieces(pairs) == evidence_lookup.pieces(rows) == {0: "a", 1: "b", 9: "</s>"}
    )
    assert evidence_lookup.pieces({}) == {}


def test_a_report_that_is_not_there_is_one_line(bench: Bench) -> None:
    with pytest.raises(BadConfig, match=r"nowhere\.json: no such file; invoke reconcile --import"):
        reconcile.reconcile((), imported=Path("nowhere.json"))
