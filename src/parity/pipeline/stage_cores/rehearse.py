"""7. Bundle → the kernel's script run offline, twice → evidence `rehearsal`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.competition.eedi import kaggle_files, submission
from parity.deploy.bundle import bundle
from parity.deploy.kernel import hidden_test, mounts, rehearsal, run_report, sandbox
from parity.deploy.kernel.mounts import Layout
from parity.deploy.kernel.rehearsal import RehearsalRun
from parity.pipeline import dag, encoder_loading, evidence
from parity.pipeline.stage import stage_context
from parity.retrieval.engine import device
from parity.run import files
from parity.run.errors import Mismatch
from parity.run.experiment import Run
from parity.run.ledger import LAYERS

MADE = (submission.NAME, run_report.NAME, "probe_ranking.jsonl", "probe.npy")
"""What a kernel leaves behind."""

_GIB = 1 << 30


def rehearse(run: Run) -> None:
    """Run `kaggle/kernel.py` as Kaggle would: on the local test, then on a long one never seen.

    `rehearse_image` does it in the image.

    Raises:
        Mismatch: the kernel failed, or its submission is not the local one, byte for byte.
        BadData: its submission for the long test is none that Kaggle would score.
    """
    source = Path(run.config.data.source)
    with stage_context(run, "rehearse") as work:
        root = work.folder / "kaggle"
        ran = run_here(run, root, source, mounts.owner)
        print(f"{ran.output.strip()} ({ran.isolation})")
        found, _ = run_report.read(root / "working")
        evidence.append(run, replace(found, kind="rehearsal"), root / "working")
        shipped = bundle.read(dag.folder(run, "package") / "bundle")
        print(layers_told(shipped.layers, found.layers, "rehearsal"))
        _same(dag.folder(run, "predict") / submission.NAME, root / "working" / submission.NAME)
        work.outputs = [f"kaggle/working/{name}" for name in MADE]
        longer = _hidden(run, work.folder / "hidden", source)
        speed = longer.pop("speed")
        work.facts = {"isolation": ran.isolation, "hidden": longer, "speed": speed}


def run_here(run: Run, root: Path, competition: Path, layout: Layout) -> RehearsalRun:
    """Lay the run's datasets out in `root` and run the kernel's script there, kept apart.

    Args:
        run: with its bundle and wheelhouse packed.
        root: stands for /kaggle; replaced.
        competition: folder of the four files.
        layout: where Kaggle mounts what is attached.

    Raises:
        Mismatch: the kernel failed; gives its last line.
    """
    rehearsal.lay_out(root, attached(run, competition), layout)
    checkout = run.workspace.checkout
    places = (checkout / "src", checkout / "data", run.workspace.data, competition)
    apart = sandbox.isolated(run.workspace.kernel, root, hidden=places, threads=device.threads())
    return rehearsal.run(root, apart, run.config.shipping.hours)


def attached(run: Run, competition: Path) -> dict[str, dict[str, Path]]:
    """Return what Kaggle attaches to the kernel: name there → file name → file here."""
    config, base = run.config, encoder_loading.base(run)
    name = f"{config.shipping.owner or 'owner'}/{config.name}"
    packed = dag.folder(run, "package")
    named = (kaggle_files.MAPPING, kaggle_files.SAMPLE, kaggle_files.TEST, kaggle_files.TRAIN)
    return {
        config.data.competition: {file: competition / file for file in named},
        f"{name}-bundle": {path.name: path for path in (packed / "bundle").iterdir()},
        f"{name}-wheelhouse": {path.name: path for path in (packed / "wheelhouse").iterdir()},
        config.shipping.model or f"{name}-base": {file: base.folder / file for file in base.files},
    }


def layers_told(here: Mapping[str, str], there: Mapping[str, str], where: str) -> str:
    """Say in how many layers training and a kernel agree, and the first in which they do not."""
    known = [name for name in LAYERS if here.get(name) and there.get(name)]
    odd = [name for name in known if here[name] != there[name]]
    told = f"layers equal in training and {where}: {len(known) - len(odd)} of {len(known)}"
    return f"{told}; first that differs: {odd[0]}" if odd else told


def _hidden(run: Run, place: Path, source: Path) -> dict[str, Any]:
    """Rank a test that nobody has seen, check the answer, and tell what Kaggle's would take here.

    It is made of the competition's text, so nothing of it stays.
    """
    files.remove(place)
    try:
        wanted = place / "competition"
        rows = hidden_test.write(source, wanted, run.config.shipping.rehearsed)
        ran = run_here(run, place / "kaggle", wanted, mounts.slug)
        working_ = place / "kaggle" / "working"
        sample = [query.query_id for query in kaggle_files.read_test(wanted)]
        found = submission.read(working_ / submission.NAME)
        submission.check(found, sample, kaggle_files.read_corpus(wanted))
        _, record = run_report.read(working_)
    finally:
        files.remove(place)
    ranking = record["seconds"]["test"]
    whole = ran.seconds - ranking + ranking / rows * run.config.shipping.queries
    facts = {"rows": rows, "seconds": round(ran.seconds, 1), "ranking": ranking, "whole": whole}
    facts |= {"memory": record["memory"], "speed": record["speed"]}
    print(_told(run, facts))
    return facts


def _told(run: Run, facts: Mapping[str, Any]) -> str:
    shipping, peak = run.config.shipping, facts["memory"]
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


def _same(mine: Path, theirs: Path) -> None:
    """Check that two submissions have the same bytes; name the first row that differs."""
    if mine.read_bytes() == theirs.read_bytes():
        print(f"the kernel's submission is the local one, byte for byte: {mine}")
        return
    here, there = (path.read_text(encoding="utf-8").splitlines() for path in (mine, theirs))
    shorter = min(len(here), len(there))
    row = next((n for n in range(shorter) if here[n] != there[n]), shorter)
    raise Mismatch(
        f"row {row}: the kernel's submission is not the local one ({theirs.parent.name} against "
        f"{mine.parent.name}); the layers above say where they part"
    )
