"""The rehearsal of what a whole local run made: the kernel's script, twice, kept apart."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import attached
import numpy as np
import pytest
from deploy.bundle import finished_run as chains
from deploy.bundle.finished_run import SYNTHETIC, TESTED, Chain, rows

from parity.competition import ranking as rankings
from parity.competition.eedi import kaggle_files
from parity.deploy.bundle import bundle, sealed_folder
from parity.deploy.kernel import mounts, rehearsal, run_report, sandbox
from parity.pipeline.stage_cores import rehearse
from parity.run import digest, environment, ledger
from parity.run import manifest as manifests
from parity.run.errors import Mismatch
from parity.run.paths import RunPaths

SPEED = ("tokens", "packs", "seconds", "budget")
pytestmark = pytest.mark.xdist_group("chain")  # which takes a while to make


@pytest.fixture
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chains.shared(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(chain: Chain, tmp_path: Path) -> Path:
    """Return a copy of the laid-out folder, nothing of it worked on yet."""
    place = tmp_path / "kaggle"
    shutil.copytree(chain.kaggle / "input", place / "input")
    (place / "working").mkdir()
    return place


# What a whole run made


def test_the_submission_is_the_local_one_byte_for_byte(chain: Chain) -> None:
    local = chain.run.workspace.stage("predict", 0) / "submission.csv"
    theirs = chain.kaggle / "working" / "submission.csv"
    assert theirs.read_bytes() == local.read_bytes()
    assert "the kernel's submission is the local one, byte for byte" in chain.printed
    sample = rows(SYNTHETIC / kaggle_files.SAMPLE)[1 : 3 * TESTED + 1]
    assert [row[0] for row in rows(theirs)[1:]] == [row[0] for row in sample]
    assert all(len(set(row[1].split())) == 25 for row in rows(theirs)[1:])


def test_the_rehearsal_is_evidence_with_the_pinned_layers_of_the_cv(chain: Chain) -> None:
    scored, rehearsed = chain.evidence("cv"), chain.evidence("rehearsal")
    assert (rehearsed.run, rehearsed.round, rehearsed.status) == ("small", 0, "unscored")
    odd = {name for name in ledger.LAYERS if scored.layers[name] != rehearsed.layers[name]}
    assert odd == {"submission"}  # a CV has none
    assert set(bundle.PINNED) - {"corpus", "pool"} <= set(ledger.LAYERS) - odd
    local = chain.run.workspace.stage("predict", 0) / "submission.csv"
    assert rehearsed.layers["submission"] == digest.of_file(local)
    assert all(rehearsed.layers.values())
    assert "layers equal in training and rehearsal: 14 of 14" in chain.printed


def test_c19_the_probe_is_ranked_there_as_here(chain: Chain) -> None:
    here = chain.run.workspace.evaluation(0, "best")
    there = chain.kaggle / "working"
    one, other = (rankings.read(place / "probe_ranking.jsonl") for place in (here, there))
    assert one.query_ids == other.query_ids
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(np.load(here / "probe.npy"), np.load(there / "probe.npy"))


def test_a_long_test_that_nobody_has_seen_was_ranked_and_left_nothing(chain: Chain) -> None:
    told = re.findall(r"^hidden test: (.*)$", chain.printed, re.MULTILINE)
    wanted = r"42 rows in \d+ s; 16000 rows would take .* here, limit 9 h; peak memory \d\.\d GiB"
    assert [bool(re.fullmatch(wanted, one)) for one in told] == [True]
    place = chain.run.workspace.stage("rehearse", 0)
    assert {path.name for path in place.iterdir()} == {"kaggle", "manifest.json"}
    facts = manifests.require(place, "").facts
    assert facts["hidden"]["rows"] == 42
    assert facts["hidden"]["memory"]["host"] > 1e8
    assert facts["isolation"] in chain.printed
    assert set(facts["speed"]) == {*("gpu", "precision", "processes"), *SPEED}
    assert (facts["speed"]["gpu"], facts["speed"]["processes"]) == ("", 1)
    assert all(facts["speed"][name] > 0 for name in SPEED)


def test_the_report_tells_what_ran_and_how(chain: Chain) -> None:
    _, told = run_report.read(chain.kaggle / "working")
    submitted = chain.kaggle / "working" / "submission.csv"
    assert told["submission"] == {"sha256": digest.of_file(submitted), "rows": 3 * TESTED}
    house = sealed_folder.read(chain.bundle.parent / "wheelhouse")
    assert (told["bundle"], told["wheelhouse"]) == (bundle.read(chain.bundle).digest, house.digest)
    assert told["base"] == chain.evidence("cv").layers["base"]
    assert told["vendored"] == {"kaggle-parity": environment.version("kaggle-parity")}
    assert told["environment"]["code"] == house.facts["code"]
    assert list(told["seconds"]) == sorted(("start", "load", "corpus", "probe", "test"))
    assert 1 < told["seconds"]["start"] < 120
    assert (told["gpus"], told["memory"]["gpus"], told["dtype"]) == ([], [], "float32")
    assert told["image"]["identity"] == "not Kaggle's image"
    assert told["kaggle"] == {"run_type": "", "rerun": ""}
    assert str(chain.kaggle) not in (chain.kaggle / "working" / run_report.NAME).read_text()


# Started by its script


def two_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a driver on the path that shows two GPUs, and nothing else, bubblewrap neither."""
    folder.mkdir()
    tool = folder / "nvidia-smi"
    lines = "".join(f"echo 'GPU {n}: Tesla T4 (UUID: GPU-{n})'\n" for n in range(2))
    tool.write_text(f"#!/bin/sh\n{lines}")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def through_the_script(place: Path) -> rehearsal.RehearsalRun:
    apart = sandbox.isolated(attached.KERNEL, place, threads=1)
    assert apart.name == "guard"
    env = {**apart.env, "GLOO_SOCKET_IFNAME": "lo"}  # a CPU's way of talking
    return rehearsal.run(place, replace(apart, env=env), 1.0)


def test_two_processes_share_the_queries_and_make_the_bytes_of_one(
    copy: Path, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_gpus(tmp_path / "bin", monkeypatch)
    ran = through_the_script(copy)
    assert ran.output.count("15 rows, submission") == 1  # of the two one talks
    assert {path.name for path in (copy / "working").iterdir()} == set(rehearse.MADE)
    for name in ("submission.csv", "probe.npy"):
        there = chain.kaggle / "working" / name
        assert digest.of_file(copy / "working" / name) == digest.of_file(there)
    _, told = run_report.read(copy / "working")
    alone = run_report.read(chain.kaggle / "working")[1]
    assert told["speed"]["processes"] == 2
    assert told["speed"]["tokens"] == alone["speed"]["tokens"]
    assert told["memory"]["host"] > 1.5 * alone["memory"]["host"]


@pytest.mark.slow
def test_the_fault_of_several_processes_is_the_last_line(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_gpus(tmp_path / "bin", monkeypatch)
    shutil.rmtree(copy / "input" / mounts.owner("buggy-rules"))
    told = "exit code 1: want the competition's files once under input/, found them 0 times"
    with pytest.raises(Mismatch, match=told):
        through_the_script(copy)
    assert list((copy / "working").iterdir()) == []


# The stage


def test_a_long_test_leaves_nothing_where_the_kernel_fails(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "kernel.py"
    script.write_text("raise SystemExit('error: no such layer')\n")
    monkeypatch.setattr(RunPaths, "kernel", script)
    source = Path(chain.run.config.data.source)
    with pytest.raises(Mismatch, match=r"^the kernel failed with exit code 1: no such layer$"):
        rehearse._hidden(chain.run, tmp_path / "hidden", source)
    assert not (tmp_path / "hidden").exists()


def test_a_submission_that_differs_is_told_by_its_row(tmp_path: Path) -> None:
    here, there = tmp_path / "predict" / "s.csv", tmp_path / "working" / "s.csv"
    for path, text in ((here, "head\n1_A,1 2\n1_B,3 4\n"), (there, "head\n1_A,1 2\n1_B,4 3\n")):
        path.parent.mkdir()
        path.write_text(text)
    told = r"^row 2: the kernel's submission is not the local one \(working against predict\)"
    with pytest.raises(Mismatch, match=told):
        rehearse._same(here, there)
    there.write_text("head\n1_A,1 2\n")
    with pytest.raises(Mismatch, match=r"^row 2: "):
        rehearse._same(here, there)


def test_layers_are_counted_and_the_first_that_differs_is_named() -> None:
    here = {"data": "d", "tokens": "t", "ranking": "r"}
    told = "layers equal in training and kernel"
    assert rehearse.layers_told(here, dict(here), "kernel") == f"{told}: 3 of 3"
    there = {**here, "ranking": "x", "tokens": "y", "base": "b"}
    assert rehearse.layers_told(here, there, "kernel") == (
        f"{told}: 1 of 3; first that differs: tokens"
    )


def test_a_long_test_that_would_take_too_long_is_told(chain: Chain) -> None:
    memory = {"host": 3 << 30, "gpus": [1 << 30, 3 << 29]}
    facts: dict[str, Any] = {"rows": 2001, "seconds": 130.0, "whole": 36000.0, "memory": memory}
    assert rehearse._told(chain.run, facts) == (
        "hidden test: 2001 rows in 2 min; 16000 rows would take 10.0 h here, limit 9 h, "
        "which is over; peak memory 3.0 GiB, 1.0 on a GPU, 1.5 on a GPU"
    )
