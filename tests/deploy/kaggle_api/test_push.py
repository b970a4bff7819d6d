"""A kernel is saved once, with every setting explicit, and every field is read back."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from deploy.kaggle_api.end_to_end import COMPETITION, IMAGE, FakeClock
from kagglestandin import Kaggle
from kagglestandin_plan import Drop, Fault, Hook, Reply
from kagglestandin_server import StandIn
from kagglestandin_state import Dataset, DatasetVersion, Json, KernelResult, Model, SavedVersion

from parity.deploy.kaggle_api import push
from parity.deploy.kaggle_api.client import KaggleClient
from parity.deploy.kaggle_api.types import FAILED, KaggleKernel
from parity.run.errors import KaggleRejected, Mismatch, OutcomeUnknown

KERNEL = KaggleKernel(
    ref="me/small-kernel",
    title="small kernel",
    text="print(1)\n",
    kind="script",
    image=IMAGE,
    machine="NvidiaTeslaT4",
    gpu=True,
    datasets=("me/small-bundle/3", "me/small-wheelhouse/12"),
    competitions=(COMPETITION,),
    models=("you/gem/transformers/2b/3",),
)


@pytest.fixture
def kernel(standin: StandIn) -> KaggleKernel:
    """Return a kernel whose sources exist."""
    refs = ("me/small-bundle", "me/small-wheelhouse")
    for number, ref in enumerate(refs, start=1):
        ready = DatasetVersion(1, "", "", {}, ["READY"], 0, "")
        standin.kaggle.datasets[ref] = Dataset(number, ref, "", "other", True, versions=[ready])
    return replace(KERNEL, datasets=tuple(f"{ref}/1" for ref in refs), models=())


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "uploads"


def versions(standin: StandIn) -> list[SavedVersion]:
    kernel = standin.kaggle.kernels.get("me/small-kernel")
    return kernel.versions if kernel else []


def read_back(**changes: Any) -> Fault:
    """Return a fault that changes the metadata of every kernel that is read."""

    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        return {**reply, "metadata": {**reply["metadata"], **changes}}

    return Fault(("GetKernel",), Hook(after=after), times=99)


# Key and source


def test_a_key_identifies_bundle_wheelhouse_and_last_failure() -> None:
    keys = [push.kernel_key("a" * 64, "b" * 64, failed) for failed in ((), {1}, {1, 12}, {12})]
    assert keys[0] == f"bundle {'a' * 16}, wheelhouse {'b' * 16}"
    assert keys[1:] == [f"{keys[0]}, after version {number}" for number in (1, 12, 12)]


def test_a_source_with_its_key_is_the_same_program() -> None:
    for source in ("print(1)", "print(1)\n", "print(1)\n\n  \n"):
        assert push.add_key(source, "bundle x") == "print(1)\n# bundle x\n"
    compile(push.add_key("print(1)", push.kernel_key("a", "b", {3})), "kernel", "exec")


def test_a_notebook_is_valid_and_has_the_same_source() -> None:
    nbformat = pytest.importorskip("nbformat")
    source = 'print("ä", r"\\n")\n# key\n'
    text = push.build_notebook(source)
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    (cell,) = notebook.cells
    assert (cell.cell_type, cell.source) == ("code", source)
    assert notebook.metadata.kernelspec.language == "python"
    assert text == push.build_notebook(source)  # no random id


# Differences


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "print(2)\n"),
        ("private", False),
        ("internet", True),
        ("gpu", False),
        ("image", IMAGE.replace("ab", "cd")),
        ("image", ""),
        ("kind", "notebook"),
        ("datasets", ()),
        ("datasets", ("me/small-bundle/3",)),
        ("datasets", ("me/small-bundle/3", "me/small-wheelhouse/13")),
        ("datasets", ("me/small-bundle", "me/other")),
        ("datasets", ("me/small-bundle", "me/small-wheelhouse/12")),
        ("datasets", (*KERNEL.datasets, "me/more/1")),
        ("competitions", ()),
        ("competitions", ("another",)),
        ("models", ()),
        ("models", ("you/gem/transformers/2b/4",)),
    ],
)
def test_every_field_is_compared(name: str, value: Any) -> None:
    changed: dict[str, Any] = {name: value}
    assert push.first_difference(KERNEL, replace(KERNEL, **changed, version=4)) == name


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"version": 7},
        {"title": "Small Kernel"},
        {"datasets": KERNEL.datasets[::-1]},
        {"datasets": ("me/small-bundle", "me/small-wheelhouse")},
        {"datasets": ("me/small-wheelhouse", "me/small-bundle")},
    ],
)
def test_irrelevant_changes_are_ignored(changed: dict[str, Any]) -> None:
    assert push.first_difference(KERNEL, replace(KERNEL, **changed)) == ""


def test_metadata_that_kaggle_adds_to_a_notebook_is_ignored() -> None:
    kernel = replace(KERNEL, kind="notebook", text=push.build_notebook("print(1)\nprint(2)"))
    notebook = json.loads(kernel.text)
    notebook["metadata"]["kaggle"] = {"accelerator": "nvidiaTeslaT4", "isInternetEnabled": False}
    notebook["cells"][0] |= {"source": ["print(1)\n", "print(2)"], "execution_count": 1, "id": "a"}
    assert push.first_difference(kernel, replace(kernel, text=json.dumps(notebook, indent=4))) == ""
    notebook["cells"][0]["source"][1] = "print(3)"
    assert push.first_difference(kernel, replace(kernel, text=json.dumps(notebook))) == "text"
    notebook["cells"].append({"cell_type": "code", "source": ""})
    assert push.first_difference(kernel, replace(kernel, text=json.dumps(notebook))) == "text"
    for text in ("", "print(1)", "[]", "{}", '{"cells": 1}', '{"cells": ["print(1)"]}'):
        assert push.first_difference(kernel, replace(kernel, text=text)) == "text"


# Request


def test_every_setting_is_sent_explicitly(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.kaggle.models["you/gem/transformers/2b/3"] = Model({})
    kernel = replace(kernel, models=("you/gem/transformers/2b/3",))
    result = push.push(client, kernel, scratch)
    assert (result.version, result.sent) == (1, True)
    (request,) = standin.sent("SaveKernel")
    assert request == {
        "slug": "me/small-kernel",
        "newTitle": "small kernel",
        "text": kernel.text,
        "language": "python",
        "kernelType": "script",
        "isPrivate": True,
        "enableGpu": True,
        "enableTpu": False,
        "enableInternet": False,
        "machineShape": "NvidiaTeslaT4",
        "dockerImage": IMAGE,
        "dockerImagePinningType": "original",
        "datasetDataSources": ["me/small-bundle/1", "me/small-wheelhouse/1"],
        "competitionDataSources": [COMPETITION],
        "modelDataSources": ["you/gem/transformers/2b/3"],
    }


@pytest.mark.parametrize("machine", ["", "NvidiaL4"])
def test_a_machine_is_sent_if_there_is_one(
    machine: str, client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    push.push(client, replace(kernel, machine=machine, gpu=bool(machine)), scratch)
    (request,) = standin.sent("SaveKernel")
    assert (request.get("machineShape"), request["enableGpu"]) == (machine or None, bool(machine))
    assert (request["enableInternet"], request["isPrivate"]) == (False, True)


@pytest.mark.parametrize("kind", ["script", "notebook"])
def test_a_kernel_is_saved_once(
    kind: str, client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    text = push.build_notebook(kernel.text) if kind == "notebook" else kernel.text
    kernel = replace(kernel, kind=kind, text=text)
    assert push.push(client, kernel, scratch) == push.Pushed("me/small-kernel", 1, sent=True)
    assert push.push(client, kernel, scratch) == push.Pushed("me/small-kernel", 1, sent=False)
    assert len(standin.sent("SaveKernel")) == 1
    assert list(scratch.glob("*.mark")) == []


def test_another_kind_or_bundle_is_another_version(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path
) -> None:
    notebook = replace(kernel, kind="notebook", text=push.build_notebook(kernel.text))
    newer = replace(kernel, text=push.add_key("print()", "bundle 2"))
    kernels = (kernel, notebook, newer, kernel)
    numbers = [push.push(client, item, scratch).version for item in kernels]
    assert numbers == [1, 2, 3, 4]


# Failed versions


def end_last_version(standin: StandIn, status: str) -> None:
    last = versions(standin)[-1]
    last.waits.clear()
    last.result = KernelResult({}, status=status)


@pytest.mark.parametrize("status", FAILED)
def test_a_failed_version_is_saved_again(
    status: str, client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    push.push(client, kernel, scratch)
    end_last_version(standin, status)
    assert plans_a_save(push.planned_calls(client, kernel))
    assert push.push(client, kernel, scratch).version == 2
    assert push.push(client, kernel, scratch) == push.Pushed("me/small-kernel", 2, sent=False)


def test_a_version_with_a_failed_submission_is_saved_again(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    push.push(client, kernel, scratch)  # the run is complete, but its submission failed
    assert plans_a_save(push.planned_calls(client, kernel, {1}))
    assert push.push(client, kernel, scratch, {1}).version == 2
    assert not push.push(client, kernel, scratch, {1}).sent
    assert not plans_a_save(push.planned_calls(client, kernel, {1}))


# Read back


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"enableInternet": True},
            "Kaggle saved internet=True but the kernel asks for False; change it in",
        ),
        (
            {"isPrivate": False},
            "Kaggle saved private=False but the kernel asks for True; change it in",
        ),
        (
            {"dockerImage": "python:latest"},
            "Kaggle saved image='python:latest' but the kernel asks for 'gcr.io",
        ),
        (
            {"kernelType": "notebook"},
            "Kaggle saved kind='notebook' but the kernel asks for 'script'",
        ),
        ({"datasetDataSources": []}, "Kaggle saved different datasets; stop it on its Kaggle page"),
        ({"competitionDataSources": []}, "Kaggle saved different competitions; stop it"),
    ],
)
def test_a_changed_field_is_reported_and_not_saved_twice(
    changes: Json,
    message: str,
    client: KaggleClient,
    kernel: KaggleKernel,
    scratch: Path,
    standin: StandIn,
) -> None:
    standin.inject_faults(read_back(**changes))
    with pytest.raises(Mismatch, match=f"^me/small-kernel version 1: .*{re.escape(message)}"):
        push.push(client, kernel, scratch)
    assert len(standin.sent("SaveKernel")) == 1
    standin.clear_faults()
    assert not push.push(client, kernel, scratch).sent


def test_a_setting_that_stays_wrong_is_pushed_once(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.inject_faults(read_back(enableInternet=True))
    for _ in range(3):
        with pytest.raises(Mismatch, match="Kaggle saved internet=True"):
            push.push(client, kernel, scratch)
    with pytest.raises(Mismatch, match="Kaggle saved internet=True"):
        push.planned_calls(client, kernel)
    assert len(standin.sent("SaveKernel")) == 1


def test_dataset_sources_without_version_numbers_are_accepted(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.inject_faults(read_back(datasetDataSources=["me/small-wheelhouse", "me/small-bundle"]))
    assert push.push(client, kernel, scratch).sent
    assert not push.push(client, kernel, scratch).sent


def test_a_missing_source_is_refused_and_pushed_again_once_it_exists(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    hidden = standin.kaggle.datasets.pop("me/small-bundle")
    with pytest.raises(KaggleRejected, match=r"invalid dataset sources: me/small-bundle/1$"):
        push.push(client, kernel, scratch)
    standin.kaggle.datasets["me/small-bundle"] = hidden
    assert push.push(client, kernel, scratch).version == 2


def test_the_session_limit_is_a_rejection(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.inject("push-error")
    with pytest.raises(
        KaggleRejected, match=r"wait until another session ends, then run the same command again$"
    ):
        push.push(client, kernel, scratch)
    assert push.push(client, kernel, scratch).version == 1


def test_a_version_of_someone_else_is_an_error(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        last = kaggle.kernels[body["slug"]].versions[-1]
        newer = replace(last, number=last.number + 1, request={**body, "text": "print(0)"})
        kaggle.kernels[body["slug"]].versions.append(newer)
        return reply

    standin.inject_faults(Fault(("SaveKernel",), Hook(after=after)))
    message = r"^me/small-kernel is at version 2, expected 1: someone else pushed; run the same"
    with pytest.raises(Mismatch, match=message):
        push.push(client, kernel, scratch)
    assert push.push(client, kernel, scratch).version == 3


# Interruptions


def test_a_version_with_a_lost_reply_is_found(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    standin.inject_faults(Fault(("SaveKernel",), Drop(committed=True)))
    assert push.push(client, kernel, scratch) == push.Pushed("me/small-kernel", 1, sent=True)
    assert len(versions(standin)) == 1


def test_a_reply_without_a_version_is_looked_up(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    def after(kaggle: Kaggle, body: Json, reply: Json) -> Json:
        return {name: value for name, value in reply.items() if name != "versionNumber"}

    standin.inject_faults(Fault(("SaveKernel",), Hook(after=after)))
    assert push.push(client, kernel, scratch).version == 1
    standin.inject_faults(Fault(("SaveKernel",), Reply(200, {"ref": "/me/small-kernel"})))
    with pytest.raises(
        OutcomeUnknown, match="Kaggle returned no version number; run the same command"
    ):
        push.push(client, replace(kernel, text="print(7)"), scratch)


def test_an_interrupted_push_is_not_repeated(
    client: KaggleClient,
    kernel: KaggleKernel,
    scratch: Path,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(push, "_read_back", interrupt)
        with pytest.raises(KeyboardInterrupt):
            push.push(client, kernel, scratch)
    assert len(list(scratch.glob("*.mark"))) == 1
    assert push.push(client, kernel, scratch) == push.Pushed("me/small-kernel", 1, sent=False)
    assert list(scratch.glob("*.mark")) == []


def test_a_version_that_is_not_visible_is_unknown(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn, clock: FakeClock
) -> None:
    denied = {"code": 403, "message": "Permission 'kernels.get' was denied"}
    standin.inject_faults(Fault(("GetKernel",), Reply(403, denied), times=99))
    with pytest.raises(
        OutcomeUnknown, match=r"version 1 is not visible on Kaggle yet; run the same command again"
    ):
        push.push(client, kernel, scratch)
    assert clock.time >= push.GRACE
    standin.clear_faults()
    assert not push.push(client, kernel, scratch).sent


# Dry run


def plans_a_save(lines: list[str]) -> bool:
    return any(line.startswith("SaveKernel ") for line in lines)


def test_planned_calls_are_those_that_push_makes(
    client: KaggleClient, kernel: KaggleKernel, scratch: Path, standin: StandIn
) -> None:
    before = asdict(kernel)
    lines = push.planned_calls(client, kernel)
    assert standin.sent("SaveKernel") == []
    assert lines == [
        "SaveKernel me/small-kernel, script, private, internet off, NvidiaTeslaT4",
        f"  image {IMAGE}",
        *("  source me/small-bundle/1", "  source me/small-wheelhouse/1"),
        f"  source {COMPETITION}",
        "GetKernel: compare with what Kaggle saved",
    ]
    assert push.push(client, kernel, scratch).sent
    assert push.planned_calls(client, kernel) == [
        "me/small-kernel: version 1 is this kernel: nothing to save"
    ]
    assert len(standin.sent("SaveKernel")) == 1
    assert asdict(kernel) == before
