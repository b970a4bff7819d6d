"""The rehearsal of a finished local run: the kernel's script runs twice in a sandbox."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import attached
import numpy as np
import pytest
from deploy.bundle.finished_run import SYNTHETIC, TESTED, FinishedRun, rows
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.competition import ranking as rankings
from parity.competition.eedi import kaggle_files
from parity.deploy.bundle import bundle, sealed_folder
from parity.deploy.kernel import mounts, rehearsal, run_report, sandbox
from parity.pipeline.stage_cores import reconcile, rehearse
from parity.run import digest, environment, ledger
from parity.run import manifest as manifests
from parity.run.errors import Mismatch, StaleInput
from parity.run.layers import EXACT, RECORDED
from parity.run.paths import RunPaths

SPEED = ("tokens", "packs", "seconds", "budget")
pytestmark = pytest.mark.xdist_group("chain")  # the finished run is shared


# Outputs of the finished run


def test_the_submission_is_the_local_one_byte_for_byte(chain: FinishedRun) -> None:
    local = chain.run.workspace.stage("predict", 0) / "submission.csv"
    submission = chain.kaggle / "working" / "submission.csv"
    assert submission.read_bytes() == local.read_bytes()
    assert "the kernel's submission equals the local one, byte for byte" in chain.printed
    sample = rows(SYNTHETIC / kaggle_files.SAMPLE)[1 : 3 * TESTED + 1]
    assert [row[0] for row in rows(submission)[1:]] == [row[0] for row in sample]
    assert all(len(set(row[1].split())) == 25 for row in rows(submission)[1:])


def test_the_rehearsal_is_evidence_with_the_pinned_layers_of_the_cv(chain: FinishedRun) -> None:
    scored, rehearsed = chain.evidence("cv"), chain.evidence("rehearsal")
    assert (rehearsed.run, rehearsed.round, rehearsed.status) == ("small", 0, "unscored")
    unequal = {name for name in RECORDED if scored.layers[name] != rehearsed.layers[name]}
    assert unequal == {"submission"}  # a CV has none
    assert set(EXACT).isdisjoint(unequal)
    local = chain.run.workspace.stage("predict", 0) / "submission.csv"
    assert rehearsed.layers["submission"] == digest.of_file(local)
    assert all(rehearsed.layers.values())
    assert "layers equal in training and rehearsal: 14 of 14" in chain.printed


def test_c19_the_kernel_ranks_the_probe_as_eval_does(chain: FinishedRun) -> None:
    local = chain.run.workspace.evaluation(0, "best")
    remote = chain.kaggle / "working"
    first, second = (rankings.read(folder / "probe_ranking.jsonl") for folder in (local, remote))
    assert first.query_ids == second.query_ids
    np.testing.assert_array_equal(first.positions, second.positions)
    np.testing.assert_array_equal(np.load(local / "probe.npy"), np.load(remote / "probe.npy"))


def test_a_long_hidden_test_is_ranked_and_its_files_are_removed(chain: FinishedRun) -> None:
    lines = re.findall(r"^hidden test: (.*)$", chain.printed, re.MULTILINE)
    expected = r"42 rows in \d+ s; 16000 rows would take .* here, limit 9 h; peak memory \d\.\d GiB"
    assert [bool(re.fullmatch(expected, line)) for line in lines] == [True]
    folder = chain.run.workspace.stage("rehearse", 0)
    assert {path.name for path in folder.iterdir()} == {"kaggle", "manifest.json"}
    facts = manifests.require(folder, ()).facts
    assert facts["hidden"]["rows"] == 42
    assert facts["hidden"]["memory"]["host"] > 1e8
    assert facts["isolation"] in chain.printed
    assert set(facts["speed"]) == {*("gpu", "precision", "processes"), *SPEED}
    assert (facts["speed"]["gpu"], facts["speed"]["processes"]) == ("", 1)
    assert all(facts["speed"][name] > 0 for name in SPEED)


def test_the_report_describes_the_run(chain: FinishedRun) -> None:
    _, record = run_report.read(chain.kaggle / "working")
    submitted = chain.kaggle / "working" / "submission.csv"
    assert record["submission"] == {"sha256": digest.of_file(submitted), "rows": 3 * TESTED}
    house = sealed_folder.read(chain.bundle.parent / "wheelhouse")
    assert (record["bundle"], record["wheelhouse"]) == (
        bundle.read(chain.bundle).digest,
        house.digest,
    )
    assert record["base"] == chain.evidence("cv").layers["base"]
    assert record["vendored"] == {"kaggle-parity": environment.version("kaggle-parity")}
    assert record["environment"]["code"] == house.facts["code"]
    assert list(record["seconds"]) == sorted(("start", "load", "corpus", "probe", "test"))
    assert 1 < record["seconds"]["start"] < 120
    assert (record["gpus"], record["memory"]["gpus"], record["dtype"]) == ([], [], "float32")
    assert record["image"]["identity"] == "not Kaggle's image"
    assert record["kaggle"] == {"run_type": "", "rerun": ""}
    assert str(chain.kaggle) not in (chain.kaggle / "working" / run_report.NAME).read_text()


# Started by the script


def two_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the path to a folder that has only a driver tool, which lists two GPUs."""
    folder.mkdir()
    tool = folder / "nvidia-smi"
    lines = "".join(f"echo 'GPU {n}: Tesla T4 (UUID: GPU-{n})'\n" for n in range(2))
    tool.write_text(f"#!/bin/sh\n{lines}")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def through_the_script(kaggle: Path) -> rehearsal.RehearsalRun:
    apart = sandbox.isolated(attached.KERNEL, kaggle, threads=1)
    assert apart.name == "guard"
    env = {**apart.env, "GLOO_SOCKET_IFNAME": "lo"}  # the backend of CPUs
    return rehearsal.run(kaggle, replace(apart, env=env), 1.0)


def test_two_processes_share_the_queries_and_give_the_bytes_of_one(
    copy: Path, chain: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_gpus(tmp_path / "bin", monkeypatch)
    ran = through_the_script(copy)
    assert ran.output.count("15 rows, submission") == 1  # only the first process prints
    assert {path.name for path in (copy / "working").iterdir()} == set(
        rehearse.output_names("submission.csv")
    )
    for name in ("submission.csv", "probe.npy"):
        expected = chain.kaggle / "working" / name
        assert digest.of_file(copy / "working" / name) == digest.of_file(expected)
    _, record = run_report.read(copy / "working")
    single = run_report.read(chain.kaggle / "working")[1]
    assert record["speed"]["processes"] == 2
    assert record["speed"]["tokens"] == single["speed"]["tokens"]
    assert record["memory"]["host"] > 1.5 * single["memory"]["host"]


@pytest.mark.slow
def test_the_error_of_several_processes_is_the_last_line(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_gpus(tmp_path / "bin", monkeypatch)
    shutil.rmtree(copy / "input" / mounts.owner("buggy-rules"))
    expected = "exit code 1: want the competition's files once under input/, found them 0 times"
    with pytest.raises(Mismatch, match=expected):
        through_the_script(copy)
    assert list((copy / "working").iterdir()) == []


# The stage


def test_a_failed_hidden_test_leaves_no_files(
    chain: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "kernel.py"
    script.write_text("raise SystemExit('error: no such layer')\n")
    monkeypatch.setattr(RunPaths, "kernel", script)
    run = chain.run
    source = Path(run.config.data.source)
    with pytest.raises(Mismatch, match=r"^the kernel failed with exit code 1: no such layer$"):
        rehearse._hidden(run.config, run.workspace, run.round, tmp_path / "hidden", source)
    assert not (tmp_path / "hidden").exists()


def test_a_different_submission_is_reported_with_its_row(tmp_path: Path) -> None:
    local, remote = tmp_path / "predict" / "s.csv", tmp_path / "working" / "s.csv"
    for path, text in ((local, "head\n1_A,1 2\n1_B,3 4\n"), (remote, "head\n1_A,1 2\n1_B,4 3\n")):
        path.parent.mkdir()
        path.write_text(text)
    expected = (
        r"^row 2: the kernel's submission differs from the local one \(working against predict\)"
    )
    with pytest.raises(Mismatch, match=expected):
        rehearse._same(local, remote)
    remote.write_text("head\n1_A,1 2\n")
    with pytest.raises(Mismatch, match=r"^row 2: "):
        rehearse._same(local, remote)


def test_layers_are_counted_and_the_first_that_differs_is_named() -> None:
    layers = {"data": "d", "tokens": "t", "ranking": "r"}
    expected = "layers equal in training and kernel"
    assert rehearse.describe_layers(layers, dict(layers), "kernel") == f"{expected}: 3 of 3"
    changed = {**layers, "ranking": "x", "tokens": "y", "base": "b"}
    assert rehearse.describe_layers(layers, changed, "kernel") == (
        f"{expected}: 1 of 3; first that differs: tokens"
    )


def test_a_hidden_test_beyond_the_time_limit_is_reported(chain: FinishedRun) -> None:
    memory = {"host": 3 << 30, "gpus": [1 << 30, 3 << 29]}
    facts: dict[str, Any] = {"rows": 2001, "seconds": 130.0, "whole": 36000.0, "memory": memory}
    assert rehearse._hidden_line(chain.run.config.shipping, facts) == (
        "hidden test: 2001 rows in 2 min; 16000 rows would take 10.0 h here, limit 9 h, "
        "which is over; peak memory 3.0 GiB, 1.0 on a GPU, 1.5 on a GPU"
    )


# The model that is rehearsed


@pytest.fixture
def scored(predicted_run: RunFixture) -> RunFixture:
    """Return a predicted run that needs no wheels, with an evaluation in its run file."""
    predicted_run.write_config(
        shipping={"wheels": [], "rehearsed": 10},
        **{"evaluations.wrong.prompt": {"query": "{wrong}"}},
    )
    return predicted_run


@pytest.mark.parametrize(
    ("flags", "label"),
    [(["--model", "base"], "base"), (["--model", "epoch-1", "--as", "wrong"], "epoch-1@wrong")],
)
def test_a_chosen_model_is_rehearsed_and_reconciled_with_its_own_score(
    scored: RunFixture, flags: list[str], label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("eval", "predict", "package"):
        assert main([stage, "small.toml", *flags]) == 0
    assert main(["rehearse", "small.toml"]) == 0
    run = scored.open()
    assert "the kernel's submission equals the local one, byte" in capsys.readouterr().out
    local = run.workspace.stage("predict", 0) / "submission.csv"
    working = run.workspace.stage("rehearse", 0) / "kaggle" / "working"
    assert (working / "submission.csv").read_bytes() == local.read_bytes()
    scores, rehearsed = ledger.read(run.workspace.ledger)[-2:]
    assert (scores.label, rehearsed.kind) == (label, "rehearsal")
    result = reconcile.reconcile_run(run)
    assert (result["result"], result["layer"]) == ("same", "")
    assert (result["a"], result["b"]) == (ledger.id_of(scores), ledger.id_of(rehearsed))
    unknown = {item["layer"] for item in result["layers"] if item["state"] != "equal"}
    assert unknown == {"metric", "score"} | ({"lineage"} if label == "base" else set())


@pytest.mark.parametrize(
    ("packaged", "command", "message"),
    [
        (
            ["--model", "epoch-1"],
            "predict --run small.toml --model round-0/epoch-1",
            "the bundle has round-0/epoch-1, but predict ran round-0/best",
        ),
        (
            ["--as", "wrong"],
            "predict --run small.toml --model round-0/best --as wrong",
            "the bundle has round-0/best@wrong, but predict ran round-0/best",
        ),
    ],
)
def test_a_bundle_of_another_model_than_the_prediction_is_refused(
    scored: RunFixture,
    packaged: list[str],
    command: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for stage in ("eval", "package"):
        assert main([stage, "small.toml", *packaged]) == 0
    capsys.readouterr()
    assert main(["rehearse", "small.toml"]) == StaleInput.exit_code
    assert capsys.readouterr().err == f"error: {message}. Run: `python -m parity {command}`\n"
    assert not scored.open().workspace.stage("rehearse", 0).exists()
    assert main(shlex.split(command)) == 0
    rehearse._need_one_model(scored.open())


def test_the_best_epoch_by_its_number_is_the_same_model(scored: RunFixture) -> None:
    best = manifests.require(scored.open().workspace.stage("train", 0), ()).facts["best_epoch"]
    for stage in ("eval", "package"):
        assert main([stage, "small.toml", "--model", f"epoch-{best}"]) == 0
    rehearse._need_one_model(scored.open())
