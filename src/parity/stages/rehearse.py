"""7. Bundle → the kernel's script run offline → evidence `rehearsal`."""

from dataclasses import replace
from pathlib import Path

from parity.competition import tables
from parity.run import files, ledger
from parity.run.errors import Mismatch
from parity.run.ledger import LAYERS
from parity.container import wheels
from parity.shipping import bundle, rehearsal, report
from parity.stages import graph, load
from parity.stages.run import Run
from parity.stages.work import working


def rehearse(run: Run) -> None:
    """Run `kaggle/kernel.py` as Kaggle would and compare all it made with what was made here.

    Raises:
        Mismatch: the kernel failed, or its submission is not the local one, byte for byte.
    """
    checkout = run.workspace.checkout
    with working(run, "rehearse") as work:
        root = work.folder / "kaggle"
        shipped = graph.folder(run, "package") / "bundle"
        base = load.base(run)
        wheel = wheels.build_own(checkout, work.folder / "wheels")
        source = Path(run.config.data.source)
        named = (tables.MAPPING, tables.SAMPLE, tables.TEST, tables.TRAIN)
        weights = {name: base.folder / name for name in base.files}
        rehearsal.lay_out(
            root,
            {
                run.config.data.competition: {name: source / name for name in named},
                f"{run.config.name}-bundle": {path.name: path for path in shipped.iterdir()},
                f"{run.config.name}-base": weights,
                f"{run.config.name}-wheelhouse": {wheel.name: wheel},
            },
        )
        files.write_json(
            root / "input" / f"{run.config.name}-base" / "base.json",
            files.read_json(shipped / "base.json"),
        )
        print(rehearsal.run(checkout / "kaggle" / "kernel.py", root).strip())
        found, _ = report.read(root / "working")
        ledger.append(run.workspace.ledger, replace(found, kind="rehearsal"))
        print(_layers(bundle.read(shipped).layers, found.layers))
        mine = graph.folder(run, "predict") / "submission.csv"
        _same(mine, root / "working" / "submission.csv")
        made = ("submission.csv", report.NAME, "probe_ranking.jsonl", "probe.npy")
        work.outputs = [f"kaggle/working/{name}" for name in made]


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


def _layers(here: dict[str, str], there: dict[str, str]) -> str:
    """Say in how many layers training and rehearsal agree, and the first in which they do not."""
    known = [name for name in LAYERS if here.get(name) and there.get(name)]
    odd = [name for name in known if here[name] != there[name]]
    told = f"layers equal in training and rehearsal: {len(known) - len(odd)} of {len(known)}"
    return f"{told}; first that differs: {odd[0]}" if odd else told
