"""7. Bundle → the kernel's script run offline, twice → evidence `rehearsal`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.competition.kinds import competition_of
from parity.deploy.bundle import bundle
from parity.deploy.kernel import mounts, rehearsal, run_report, sandbox
from parity.deploy.kernel.rehearsal import RehearsalRun
from parity.pipeline import dag, encoder_loading, evidence
from parity.pipeline.dag import StageGraph
from parity.pipeline.stage import stage_context
from parity.retrieval.engine import device
from parity.run import files
from parity.run import manifest as manifests
from parity.run.config.run_file import Config
from parity.run.config.shipping import ShippingConfig
from parity.run.errors import Mismatch, StaleInput
from parity.run.experiment import Run
from parity.run.layers import RECORDED, differences
from parity.run.paths import RunPaths
from parity.run.resources import find_checkout

_GIB = 1 << 30


def rehearse(run: Run) -> None:
    """Run `kaggle/kernel.py` as on Kaggle: on the local test, then on a longer hidden one.

    `rehearse_image` runs it in the image.

    Raises:
        Mismatch: the kernel failed, or its submission differs from the local one.
        BadData: Kaggle would reject its submission for the hidden test.
    """
    config, paths, source = run.config, run.workspace, run.source
    _need_one_model(run)
    with stage_context(run, "rehearse") as work:
        root = work.folder / "kaggle"
        rehearsal.lay_out(root, attached(config, paths, run.round, source), mounts.owner)
        ran = run_kernel(paths, root, source, config.shipping.hours)
        print(f"{ran.output.strip()} ({ran.isolation})")
        record, _ = run_report.read(root / "working")
        rehearsed = replace(record, kind="rehearsal")
        evidence.append(paths, config, rehearsed, root / "working")
        shipped = bundle.read(dag.folder(run, "package") / "bundle")
        print(describe_layers(shipped.layers, record.layers, "rehearsal"))
        submission = competition_of(config.competition).submission.file
        _same(dag.folder(run, "predict") / submission, root / "working" / submission)
        work.outputs = [f"kaggle/working/{name}" for name in output_names(submission)]
        longer = _hidden(config, paths, run.round, work.folder / "hidden", source)
        speed = longer.pop("speed")
        work.facts = {"isolation": ran.isolation, "hidden": longer, "speed": speed}


def _need_one_model(run: Run) -> None:
    """Check that package and prediction are of one model under the same settings.

    Raises:
        StaleInput: they are not; the fix predicts with the packaged model.
    """
    StageGraph().require(run, "rehearse")
    packed, predicted = (manifests.read(dag.folder(run, name)) for name in ("package", "predict"))
    assert packed is not None  # required above
    assert predicted is not None
    keys = ("model", "evaluation")
    shipped, local = ([item.facts.get(key, "") for key in keys] for item in (packed, predicted))
    is_same_model = packed.inputs["model"] == predicted.inputs["model"]  # best or its epoch's name
    if not is_same_model or shipped[1] != local[1]:
        model, name = shipped
        flags = ["--model", model, *(["--as", name] if name else [])]
        labels = (f"{one[0]}@{one[1]}" if one[1] else one[0] for one in (shipped, local))
        raise StaleInput(
            "the bundle has {}, but predict ran {}".format(*labels),
            fix=run.command_words("predict", *flags),
        )


def run_kernel(paths: RunPaths, root: Path, competition: Path, hours: float) -> RehearsalRun:
    """Run the kernel's script in a sandbox, on the sources laid out in `root`.

    Args:
        paths: folders of the run; the sandbox hides its data.
        root: folder that replaces /kaggle.
        competition: folder of the competition's files; hidden too.
        hours: time limit.

    Raises:
        Mismatch: the kernel failed; the message has its last line.
    """
    checkout = find_checkout()
    sources = (checkout / "src", checkout / "data") if checkout else ()
    hidden = (*sources, paths.data, competition)
    apart = sandbox.isolated(paths.kernel, root, hidden=hidden, threads=device.thread_count())
    return rehearsal.run(root, apart, hours)


def attached(
    config: Config, paths: RunPaths, round_: int, competition: Path
) -> dict[str, dict[str, Path]]:
    """Return the kernel's attached sources: local path by file name by name on Kaggle."""
    base = encoder_loading.load_base(config.encoder, paths)
    name = f"{config.shipping.owner or 'owner'}/{config.name}"
    packed = paths.stage("package", round_)
    names = competition_of(config.competition).files
    return {
        config.data.competition: {file: competition / file for file in names},
        f"{name}-bundle": {path.name: path for path in (packed / "bundle").iterdir()},
        f"{name}-wheelhouse": {path.name: path for path in (packed / "wheelhouse").iterdir()},
        config.shipping.model or f"{name}-base": {file: base.folder / file for file in base.files},
    }


def output_names(submission: str) -> tuple[str, ...]:
    """Return the names of the files that a kernel writes, its submission first."""
    return (submission, run_report.NAME, "probe_ranking.jsonl", "probe.npy")


def describe_layers(trained: Mapping[str, str], measured: Mapping[str, str], label: str) -> str:
    """Return how many layers of training and a kernel are equal, and the first that differs."""
    shared = [name for name in RECORDED if trained.get(name) and measured.get(name)]
    unequal = differences(trained, measured)
    summary = f"layers equal in training and {label}: {len(shared) - len(unequal)} of {len(shared)}"
    return f"{summary}; first that differs: {unequal[0]}" if unequal else summary


def _hidden(
    config: Config, paths: RunPaths, round_: int, folder: Path, source: Path
) -> dict[str, Any]:
    """Rank a hidden test, check the submission, and print the expected time of Kaggle's test.

    The files hold the competition's text, so they are removed.
    """
    files.remove(folder)
    try:
        hidden_source, root = folder / "competition", folder / "kaggle"
        competition = competition_of(config.competition)
        rows = competition.write_hidden_test(source, hidden_source, config.shipping.rehearsed)
        rehearsal.lay_out(root, attached(config, paths, round_, hidden_source), mounts.slug)
        ran = run_kernel(paths, root, hidden_source, config.shipping.hours)
        working_ = root / "working"
        test, corpus = competition.read_test(hidden_source), competition.read_corpus(hidden_source)
        path = working_ / competition.submission.file
        competition.check_submission(competition.read_submission(path, test, corpus), test, corpus)
        _, record = run_report.read(working_)
    finally:
        files.remove(folder)
    ranking = record["seconds"]["test"]
    full_seconds = ran.seconds - ranking + ranking / rows * config.shipping.queries
    facts = {
        "rows": rows,
        "seconds": round(ran.seconds, 1),
        "ranking": ranking,
        "whole": full_seconds,
    }
    facts |= {"memory": record["memory"], "speed": record["speed"]}
    print(_hidden_line(config.shipping, facts))
    return facts


def _hidden_line(shipping: ShippingConfig, facts: Mapping[str, Any]) -> str:
    peak = facts["memory"]
    gpus = "".join(f", {used / _GIB:.1f} on a GPU" for used in peak["gpus"])
    over = ", which is over" if facts["whole"] > shipping.hours * 3600 else ""
    return (
        f"hidden test: {facts['rows']} rows in {_time(facts['seconds'])}; {shipping.queries} rows "
        f"would take {_time(facts['whole'])} here, limit {shipping.hours:g} h{over}; "
        f"peak memory {peak['host'] / _GIB:.1f} GiB{gpus}"
    )


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _same(local: Path, kernels: Path) -> None:
    """Check that two submissions have the same bytes.

    Raises:
        Mismatch: they differ; the message has the first row.
    """
    if local.read_bytes() == kernels.read_bytes():
        print(f"the kernel's submission equals the local one, byte for byte: {local}")
        return
    local_rows, kernel_rows = (
        path.read_text(encoding="utf-8").splitlines() for path in (local, kernels)
    )
    shorter = min(len(local_rows), len(kernel_rows))
    row = next((n for n in range(shorter) if local_rows[n] != kernel_rows[n]), shorter)
    raise Mismatch(
        f"row {row}: the kernel's submission differs from the local one "
        f"({kernels.parent.name} against {local.parent.name}); the layers above show "
        "the first difference"
    )
