"""The stages from a rehearsed bundle to a score, with the official client and a stand-in Kaggle.

The stand-in's kernel writes the output of this bundle's rehearsal.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.bundle import finished_run as finished_run
from deploy.kaggle_api.end_to_end import FakeClock
from deploy.kaggle_api.faults import CHANGES
from kagglestandin import Kaggle
from kagglestandin_server import StandIn, in_process
from kagglestandin_state import Competition, Json, KernelResult

from parity.cli import main
from parity.deploy.kaggle_api import session
from parity.pipeline import dag, dataset, registry
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage_cores import follow, package, publish, push, submit
from parity.run import files, ledger
from parity.run.errors import BadConfig, BadData, Mismatch, ParityError, RunFailed, StaleInput
from parity.run.experiment import Run, open_run

COMPETITION = "buggy-rules"


class Shipment:
    """A rehearsed run, and a stand-in for Kaggle with its competition.

    Attributes:
        run: round 0, in folders that tests may change.
        standin: the stand-in for Kaggle.
        clock: clock for waiting.
    """

    def __init__(self, run: Run, standin: StandIn) -> None:
        self.run, self.standin, self.clock = run, standin, FakeClock()

    def ship(self) -> dict[str, str]:
        publish.publish(self.run, "base", clock=self.clock)
        publish.publish(self.run, clock=self.clock)
        push.push(self.run, clock=self.clock)
        follow.follow(self.run, clock=self.clock)
        submit.submit(self.run, clock=self.clock)
        return follow.follow(self.run, clock=self.clock)

    def changed(self) -> list[str]:
        return [call.endpoint for call in self.standin.calls if call.endpoint in CHANGES]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> finished_run.FinishedRun:
    return finished_run.shared(tmp_path_factory.getbasetemp())


@pytest.fixture
def shipment(
    finished: finished_run.FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shipment]:
    shutil.copytree(finished.run.workspace.data, tmp_path / "data")
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(session, "TIMEOUT", (10.0, 10.0))
    run = open_run(finished.run.file, ("shipping.base_license=Apache-2.0",))
    working = dag.folder(run, "rehearse") / "kaggle" / "working"
    output = {path.name: path.read_bytes() for path in working.iterdir()}

    def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
        kinds = [
            json.loads(contents["manifest.json"])["kind"]
            for contents in mounted.values()
            if "manifest.json" in contents
        ]
        assert sorted(kinds) == ["base", "bundle", "wheelhouse"]
        return KernelResult(output, "ranked\n")

    kaggle = Kaggle(user="ann", runner=runner)
    kaggle.competitions[COMPETITION] = Competition({"test.csv": b"QuestionId\n1\n"})
    with StandIn(kaggle) as standin, in_process(standin, tmp_path / "home"):
        yield Shipment(run, standin)


def kinds(run: Run) -> list[str]:
    return [record.kind for record in ledger.read(run.workspace.ledger)]


def test_an_adapter_is_shipped_to_its_score(
    shipment: Shipment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shipment.ship() == {"public": "0.51200", "private": "0.49800"}
    shipment.standin.check()
    output = capsys.readouterr().out
    assert "layers equal in training and kernel: " in output
    assert "first that differs" not in output.split("in training and kernel")[1].split("\n")[0]
    assert kinds(shipment.run)[-3:] == ["kernel", "public", "private"]
    public = ledger.read(shipment.run.workspace.ledger)[-2]
    assert public.score["map@25"] == 0.512
    assert public.score["key"] == shipment.standin.kaggle.submissions[0].description
    assert public.layers == ledger.read(shipment.run.workspace.ledger)[-3].layers
    steps = [step.step for step in ledger.read_steps(shipment.run.workspace.ledger)]
    assert steps == ["publish"] * 3 + ["push", "follow", "submit"]
    *stages, last = registry.stage_names()
    states = {StageGraph().standing(shipment.run, stage).state for stage in stages}
    assert (states, last) == ({"done"}, "reconcile")


def test_shipping_twice_changes_nothing(shipment: Shipment) -> None:
    shipment.ship()
    before = files.read_jsonl(shipment.run.workspace.ledger)
    count = len(shipment.changed())
    assert shipment.ship() == {"public": "0.51200", "private": "0.49800"}
    assert len(shipment.changed()) == count
    assert files.read_jsonl(shipment.run.workspace.ledger) == before


def test_kernel_and_datasets_are_private_pinned_and_offline(shipment: Shipment) -> None:
    shipment.ship()
    for body in shipment.standin.sent("CreateDataset"):
        assert body["isPrivate"] is True
        assert body["licenseName"]
    (saved,) = shipment.standin.sent("SaveKernel")
    assert saved.get("enableInternet", False) is False
    assert saved["isPrivate"] is True
    assert saved["machineShape"] == "NvidiaTeslaT4"
    assert "@sha256:" in saved["dockerImage"]
    assert saved["dockerImagePinningType"] == "original"
    assert [source.rpartition("/")[2] for source in saved["datasetDataSources"]] == ["1", "1", "1"]
    assert saved["competitionDataSources"] == [COMPETITION]
    script = shipment.run.workspace.kernel.read_text()
    assert saved["text"].startswith(script.rstrip())


def test_a_notebook_holds_the_same_source(shipment: Shipment) -> None:
    publish.publish(shipment.run, "base", clock=shipment.clock)
    publish.publish(shipment.run, clock=shipment.clock)
    push.push(shipment.run, "notebook", clock=shipment.clock)
    (saved,) = shipment.standin.sent("SaveKernel")
    assert saved["kernelType"] == "notebook"
    (cell,) = json.loads(saved["text"])["cells"]
    assert cell["source"].startswith(shipment.run.workspace.kernel.read_text().rstrip())


def test_a_kernel_that_cannot_fit_needs_accept_risk(shipment: Shipment) -> None:
    publish.publish(shipment.run, "base", clock=shipment.clock)
    publish.publish(shipment.run, clock=shipment.clock)
    sets = ("shipping.base_license=Apache-2.0", "shipping.hours=0.001")
    late = open_run(shipment.run.file, sets)
    with pytest.raises(Mismatch, match=r"; or push anyway$") as error:
        push.push(late, clock=shipment.clock)
    assert (error.value.fix[0], error.value.fix[-1]) == ("push", "--accept-risk")
    assert not shipment.standin.sent("SaveKernel")
    assert push.push(late, risk=True, clock=shipment.clock)["version"] == 1
    (step,) = (step for step in ledger.read_steps(late.workspace.ledger) if step.step == "push")
    assert step.refs["risk"].endswith("; or push anyway")


def test_a_kernel_is_not_pushed_before_its_datasets(shipment: Shipment) -> None:
    publish.publish(shipment.run, clock=shipment.clock)
    with pytest.raises(StaleInput, match=r"current version of .*parity-base-") as error:
        push.push(shipment.run, clock=shipment.clock)
    assert error.value.fix == ("publish", "--base")
    assert not shipment.standin.sent("SaveKernel")


def test_each_step_needs_the_previous_one(shipment: Shipment) -> None:
    for stage in (push.push, follow.follow, submit.submit):
        with pytest.raises(StaleInput, match=r"^publish of round 0 is missing$"):
            stage(shipment.run, clock=shipment.clock)
    publish.publish(shipment.run, clock=shipment.clock)
    for last in (follow.follow, submit.submit):
        with pytest.raises(StaleInput, match=r"^push of round 0 is missing$"):
            last(shipment.run, clock=shipment.clock)
    assert not {"SaveKernel", "CreateCodeSubmission"} & set(shipment.changed())


def test_a_dry_run_prints_every_call_and_makes_none(
    shipment: Shipment, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = publish.show(shipment.run, clock=shipment.clock)["would"]
    lines += publish.show(shipment.run, "base", clock=shipment.clock)["would"]
    assert not shipment.changed()
    assert sum("CreateDataset" in line for line in lines) == 3
    assert sum("PUT" in line for line in lines) == sum(
        len(list((dag.folder(shipment.run, "package") / name).iterdir()))
        for name in ("bundle", "wheelhouse")
    ) + len(list((shipment.run.workspace.root / "base").iterdir()))
    publish.publish(shipment.run, "base", clock=shipment.clock)
    publish.publish(shipment.run, clock=shipment.clock)
    assert any(
        "SaveKernel" in line for line in push.show(shipment.run, clock=shipment.clock)["would"]
    )
    assert not shipment.standin.sent("SaveKernel")
    assert capsys.readouterr().out.count("would: ") == len(lines) + 7


def test_publishing_needs_a_license(finished: finished_run.FinishedRun, shipment: Shipment) -> None:
    run = open_run(finished.run.file, ("shipping.license=",))
    with pytest.raises(BadConfig, match=r"no license; set shipping\.license"):
        publish.publish(run, clock=shipment.clock)
    unlicensed = open_run(finished.run.file, ())
    with pytest.raises(BadConfig, match="has no known license"):
        publish.publish(unlicensed, "base", clock=shipment.clock)
    assert not any("bundle" in ref or "base" in ref for ref in shipment.standin.kaggle.datasets)


def test_a_secret_added_after_packaging_is_not_sent(shipment: Shipment) -> None:
    bundle = dag.folder(shipment.run, "package") / "bundle"
    (bundle / "notes.json").write_text(json.dumps({"key": "a1" * 16}))
    with pytest.raises(ParityError):
        publish.publish(shipment.run, clock=shipment.clock)
    assert not shipment.changed()


def test_competition_text_without_a_license_is_not_bundled(
    shipment: Shipment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shipment.run
    text = dataset.load(run.config, run.workspace).queries[0].text
    monkeypatch.setattr(package, "_card", lambda *_: f"For example: {text * 3}\n")
    with pytest.raises(BadData, match=r"competition text without a license .* in .*README\.md"):
        package.package(run)
    card = dag.folder(run, "package") / "bundle" / "README.md"
    assert text not in card.read_text()
    package.package(open_run(run.file, ("data.license=CC0-1.0",)))
    assert text in card.read_text()


def test_a_failed_kernel_can_be_pushed_again(shipment: Shipment) -> None:
    publish.publish(shipment.run, "base", clock=shipment.clock)
    publish.publish(shipment.run, clock=shipment.clock)
    push.push(shipment.run, clock=shipment.clock)
    shipment.standin.inject("kernel-error")
    with pytest.raises(RunFailed, match=r"Notebook Timeout.*; fix the cause") as error:
        follow.follow(shipment.run, clock=shipment.clock)
    assert error.value.fix == ("push",)
    shipment.standin.clear_faults()
    assert push.push(shipment.run, clock=shipment.clock)["version"] == 2
    follow.follow(shipment.run, clock=shipment.clock)
    shipment.standin.check()


def test_after_a_failed_submission_another_version_can_be_submitted(shipment: Shipment) -> None:
    shipment.standin.inject("submission-error")
    with pytest.raises(RunFailed, match=r"Scoring Error; fix the cause, then push again$") as error:
        shipment.ship()
    assert error.value.fix == ("push",)
    shipment.standin.clear_faults()
    assert shipment.ship() == {"public": "0.51200", "private": "0.49800"}
    assert [submission.version for submission in shipment.standin.kaggle.submissions] == [1, 2]
    shipment.standin.check()


def test_a_changed_output_is_not_submitted(shipment: Shipment) -> None:
    publish.publish(shipment.run, "base", clock=shipment.clock)
    publish.publish(shipment.run, clock=shipment.clock)
    push.push(shipment.run, clock=shipment.clock)
    follow.follow(shipment.run, clock=shipment.clock)
    path = dag.folder(shipment.run, "follow") / follow.OUTPUT / "submission.csv"
    path.write_text(path.read_text() + "\n")
    with pytest.raises((StaleInput, Mismatch), match="submission") as error:
        submit.submit(shipment.run, clock=shipment.clock)
    assert error.value.fix[0] == "follow"
    assert not shipment.standin.sent("CreateCodeSubmission")


def test_a_late_score_is_collected_later(shipment: Shipment) -> None:
    kaggle = shipment.standin.kaggle
    kaggle.competitions[COMPETITION].score = lambda _: ("0.51200", "")
    assert shipment.ship() == {"public": "0.51200", "private": ""}
    assert kinds(shipment.run)[-2:] == ["kernel", "public"]
    kaggle.submissions[0].scores = ("0.51200", "0.49800")
    assert follow.follow(shipment.run, clock=shipment.clock)["private"] == "0.49800"
    assert kinds(shipment.run)[-3:] == ["kernel", "public", "private"]


def test_json_output_is_a_report(
    shipment: Shipment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "WallClock", FakeClock)
    words = ["publish", str(shipment.run.file), "--set=shipping.base_license=Apache-2.0", "--json"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "bundle": "ann/small-bundle/1",
        "wheelhouse": "ann/kaggle-parity-wheelhouse/1",
    }
    assert "sent, " in printed.err
    assert main(["push", *words[1:]]) == 4
    assert json.loads(capsys.readouterr().out)["exit_code"] == 4
