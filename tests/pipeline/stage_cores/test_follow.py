"""From a rehearsed bundle to a score: the stages, the real client, and a stand-in for Kaggle.

The stand-in's kernel puts out what the rehearsal of this very bundle did.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.bundle import finished_run as chains
from deploy.kaggle_api.end_to_end import Stopwatch
from deploy.kaggle_api.faults import CHANGES
from kagglestandin import Kaggle
from kagglestandin_server import StandIn, in_process
from kagglestandin_state import Competition, Json, KernelResult

from parity.__main__ import main
from parity.deploy.kaggle_api import session
from parity.pipeline import dag, dataset
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage_cores import follow, package, publish, push, submit
from parity.run import files, ledger
from parity.run.errors import BadConfig, BadData, Mismatch, ParityError, RunFailed, StaleInput
from parity.run.experiment import Run, open_run

COMPETITION = "buggy-rules"


class Shore:
    """A rehearsed run, and a Kaggle that knows its competition.

    Attributes:
        run: round 0, on folders that may be spoilt.
        standin: the Kaggle.
        clock: what waiting goes by.
    """

    def __init__(self, run: Run, standin: StandIn) -> None:
        self.run, self.standin, self.clock = run, standin, Stopwatch()

    def sail(self) -> dict[str, str]:
        publish.publish(self.run, "base", clock=self.clock)
        publish.publish(self.run, clock=self.clock)
        push.push(self.run, clock=self.clock)
        follow.follow(self.run, clock=self.clock)
        submit.submit(self.run, clock=self.clock)
        return follow.follow(self.run, clock=self.clock)

    def changed(self) -> list[str]:
        return [call.place for call in self.standin.calls if call.place in CHANGES]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> chains.Chain:
    return chains.shared(tmp_path_factory.getbasetemp())


@pytest.fixture
def shore(made: chains.Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shore]:
    shutil.copytree(made.run.workspace.data, tmp_path / "data")
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(session, "TIMEOUT", (10.0, 10.0))
    run = open_run(made.run.file, ("shipping.base_license=Apache-2.0",))
    working = dag.folder(run, "rehearse") / "kaggle" / "working"
    put_out = {path.name: path.read_bytes() for path in working.iterdir()}

    def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
        kinds = [
            json.loads(one["manifest.json"])["kind"]
            for one in mounted.values()
            if ("manifest.json" in one)
        ]
        assert sorted(kinds) == ["base", "bundle", "wheelhouse"]
        return KernelResult(put_out, "ranked\n")

    kaggle = Kaggle(user="ann", runner=runner)
    kaggle.competitions[COMPETITION] = Competition({"test.csv": b"QuestionId\n1\n"})
    with StandIn(kaggle) as standin, in_process(standin, tmp_path / "home"):
        yield Shore(run, standin)


def kinds(run: Run) -> list[str]:
    return [one.kind for one in ledger.read(run.workspace.ledger)]


def test_an_adapter_goes_all_the_way_to_its_score(
    shore: Shore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shore.sail() == {"public": "0.51200", "private": "0.49800"}
    shore.standin.check()
    told = capsys.readouterr().out
    assert "layers equal in training and kernel: " in told
    assert "first that differs" not in told.split("in training and kernel")[1].split("\n")[0]
    assert kinds(shore.run)[-3:] == ["kernel", "public", "private"]
    public = ledger.read(shore.run.workspace.ledger)[-2]
    assert public.score["map@25"] == 0.512
    assert public.score["key"] == shore.standin.kaggle.submissions[0].description
    assert public.layers == ledger.read(shore.run.workspace.ledger)[-3].layers
    steps = [step.step for step in ledger.steps(shore.run.workspace.ledger)]
    assert steps == ["publish"] * 3 + ["push", "follow", "submit"]
    states = {StageGraph().standing(shore.run, stage).state for stage in dag.STAGES[:-1]}
    assert (states, dag.STAGES[-1]) == ({"done"}, "reconcile")


def test_all_of_it_a_second_time_changes_nothing(shore: Shore) -> None:
    shore.sail()
    before = files.read_jsonl(shore.run.workspace.ledger)
    count = len(shore.changed())
    assert shore.sail() == {"public": "0.51200", "private": "0.49800"}
    assert len(shore.changed()) == count
    assert files.read_jsonl(shore.run.workspace.ledger) == before


def test_what_is_sent_is_private_pinned_and_offline(shore: Shore) -> None:
    shore.sail()
    for body in shore.standin.sent("CreateDataset"):
        assert body["isPrivate"] is True
        assert body["licenseName"]
    (saved,) = shore.standin.sent("SaveKernel")
    assert saved.get("enableInternet", False) is False
    assert saved["isPrivate"] is True
    assert saved["machineShape"] == "NvidiaTeslaT4"
    assert "@sha256:" in saved["dockerImage"]
    assert saved["dockerImagePinningType"] == "original"
    assert [one.rpartition("/")[2] for one in saved["datasetDataSources"]] == ["1", "1", "1"]
    assert saved["competitionDataSources"] == [COMPETITION]
    script = shore.run.workspace.kernel.read_text()
    assert saved["text"].startswith(script.rstrip())


def test_a_notebook_holds_the_same_source(shore: Shore) -> None:
    publish.publish(shore.run, "base", clock=shore.clock)
    publish.publish(shore.run, clock=shore.clock)
    push.push(shore.run, "notebook", clock=shore.clock)
    (saved,) = shore.standin.sent("SaveKernel")
    assert saved["kernelType"] == "notebook"
    (cell,) = json.loads(saved["text"])["cells"]
    assert cell["source"].startswith(shore.run.workspace.kernel.read_text().rstrip())


def test_what_cannot_fit_is_pushed_only_at_a_risk_that_is_recorded(shore: Shore) -> None:
    publish.publish(shore.run, "base", clock=shore.clock)
    publish.publish(shore.run, clock=shore.clock)
    sets = ("shipping.base_license=Apache-2.0", "shipping.hours=0.001")
    late = open_run(shore.run.file, sets)
    with pytest.raises(Mismatch, match=r"invoke push .*--accept-risk"):
        push.push(late, clock=shore.clock)
    assert not shore.standin.sent("SaveKernel")
    assert push.push(late, risk=True, clock=shore.clock)["version"] == 1
    (step,) = (step for step in ledger.steps(late.workspace.ledger) if step.step == "push")
    assert "--accept-risk" in step.refs["risk"]


def test_nothing_is_pushed_before_its_datasets_are_there(shore: Shore) -> None:
    publish.publish(shore.run, clock=shore.clock)
    with pytest.raises(StaleInput, match=r"parity-base-.*; run: invoke publish .* --base$"):
        push.push(shore.run, clock=shore.clock)
    assert not shore.standin.sent("SaveKernel")


def test_each_step_refuses_before_the_one_that_it_needs(shore: Shore) -> None:
    for stage in (push.push, follow.follow, submit.submit):
        with pytest.raises(StaleInput, match=r"publish of round 0 .*; run: invoke publish"):
            stage(shore.run, clock=shore.clock)
    publish.publish(shore.run, clock=shore.clock)
    for last in (follow.follow, submit.submit):
        with pytest.raises(StaleInput, match=r"push of round 0 .*; run: invoke push"):
            last(shore.run, clock=shore.clock)
    assert not {"SaveKernel", "CreateCodeSubmission"} & set(shore.changed())


def test_a_dry_run_tells_every_call_and_makes_none(
    shore: Shore, capsys: pytest.CaptureFixture[str]
) -> None:
    told = publish.show(shore.run, clock=shore.clock)["would"]
    told += publish.show(shore.run, "base", clock=shore.clock)["would"]
    assert not shore.changed()
    assert sum("CreateDataset" in line for line in told) == 3
    assert sum("PUT" in line for line in told) == sum(
        len(list((dag.folder(shore.run, "package") / name).iterdir()))
        for name in ("bundle", "wheelhouse")
    ) + len(list((shore.run.workspace.root / "base").iterdir()))
    publish.publish(shore.run, "base", clock=shore.clock)
    publish.publish(shore.run, clock=shore.clock)
    assert any("SaveKernel" in line for line in push.show(shore.run, clock=shore.clock)["would"])
    assert not shore.standin.sent("SaveKernel")
    assert capsys.readouterr().out.count("would: ") == len(told) + 7


def test_no_license_no_publishing(made: chains.Chain, shore: Shore) -> None:
    run = open_run(made.run.file, ("shipping.license=",))
    with pytest.raises(BadConfig, match=r"no license; name it.*shipping\.license"):
        publish.publish(run, clock=shore.clock)
    bare = open_run(made.run.file, ())
    with pytest.raises(BadConfig, match="its license is not known"):
        publish.publish(bare, "base", clock=shore.clock)
    assert not any("bundle" in ref or "base" in ref for ref in shore.standin.kaggle.datasets)


def test_a_secret_that_came_after_packing_is_not_sent(shore: Shore) -> None:
    bundle = dag.folder(shore.run, "package") / "bundle"
    (bundle / "notes.json").write_text(json.dumps({"key": "a1" * 16}))
    with pytest.raises(ParityError):
        publish.publish(shore.run, clock=shore.clock)
    assert not shore.changed()


def test_text_without_a_license_does_not_get_into_a_bundle(
    shore: Shore, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = dataset.load(shore.run).queries[0].question
    monkeypatch.setattr(package, "_card", lambda *_: f"For example: {text * 3}\n")
    with pytest.raises(BadData, match=r"README\.md holds text of the competition"):
        package.package(shore.run)
    licensed = open_run(shore.run.file, ("data.license=CC0-1.0",))
    with pytest.raises(StaleInput):  # prepared under another word of it
        package.package(licensed)


def test_a_kernel_that_failed_is_told_and_may_be_pushed_again(shore: Shore) -> None:
    publish.publish(shore.run, "base", clock=shore.clock)
    publish.publish(shore.run, clock=shore.clock)
    push.push(shore.run, clock=shore.clock)
    shore.standin.inject("kernel-error")
    with pytest.raises(RunFailed, match=r"Notebook Timeout.*once mended: invoke push"):
        follow.follow(shore.run, clock=shore.clock)
    shore.standin.calm()
    assert push.push(shore.run, clock=shore.clock)["version"] == 2
    follow.follow(shore.run, clock=shore.clock)
    shore.standin.check()


def test_a_submission_that_failed_lets_another_version_be_tried(shore: Shore) -> None:
    shore.standin.inject("submission-error")
    with pytest.raises(
        RunFailed, match=r"Scoring Error; another version may be tried: invoke push"
    ):
        shore.sail()
    shore.standin.calm()
    assert shore.sail() == {"public": "0.51200", "private": "0.49800"}
    assert [submission.version for submission in shore.standin.kaggle.submissions] == [1, 2]
    shore.standin.check()


def test_an_output_that_was_changed_here_is_not_submitted(shore: Shore) -> None:
    publish.publish(shore.run, "base", clock=shore.clock)
    publish.publish(shore.run, clock=shore.clock)
    push.push(shore.run, clock=shore.clock)
    follow.follow(shore.run, clock=shore.clock)
    place = dag.folder(shore.run, "follow") / follow.OUTPUT / "submission.csv"
    place.write_text(place.read_text() + "\n")
    with pytest.raises((StaleInput, Mismatch), match="run: invoke follow"):
        submit.submit(shore.run, clock=shore.clock)
    assert not shore.standin.sent("CreateCodeSubmission")


def test_a_score_that_comes_late_is_collected_later(shore: Shore) -> None:
    kaggle = shore.standin.kaggle
    kaggle.competitions[COMPETITION].score = lambda _: ("0.51200", "")
    assert shore.sail() == {"public": "0.51200", "private": ""}
    assert kinds(shore.run)[-2:] == ["kernel", "public"]
    kaggle.submissions[0].scores = ("0.51200", "0.49800")
    assert follow.follow(shore.run, clock=shore.clock)["private"] == "0.49800"
    assert kinds(shore.run)[-3:] == ["kernel", "public", "private"]


def test_a_machine_is_told_in_json(
    shore: Shore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "WallClock", Stopwatch)
    words = ["publish", str(shore.run.file), "--set=shipping.base_license=Apache-2.0", "--json"]
    assert main(words) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {
        "bundle": "ann/small-bundle/1",
        "wheelhouse": "ann/kaggle-parity-wheelhouse/1",
    }
    assert "sent, " in told.err
    assert main(["push", *words[1:]]) == 4
    assert json.loads(capsys.readouterr().out)["exit_code"] == 4
