"""An end-to-end check of the commands, from a rehearsed run to a score.

`python tests/chain_to_score.py runs/demo-quick.toml --round 1` starts the stand-in for Kaggle, runs
`python -m parity` in new processes with the official client, and prints the time of each step. The
stand-in's kernel checks its mounts and writes the output of this bundle's rehearsal.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy.kaggle_api.faults import CHANGES
from kagglestandin import Kaggle
from kagglestandin_server import StandIn
from kagglestandin_state import Competition, Json, KernelResult

from parity.analysis.forecast import calibration
from parity.competition.eedi import kaggle_files
from parity.pipeline import dag
from parity.run import ledger
from parity.run.experiment import Run, open_run

STEPS = (
    ("publish", "--base"),
    *(("publish",), ("push", "--dry-run"), ("push",), ("follow",), ("forecast",), ("submit",)),
    *(("follow",), ("forecast", "--check")),
    *(("publish",), ("push",), ("submit",), ("follow",)),  # the second pass changes nothing
)
FIRST = 9
"""Number of steps in the first pass; later steps change nothing."""


def kaggle_for(run: Run) -> Kaggle:
    """Return a stand-in's state with the run's competition; kernels write the rehearsed output."""
    working = dag.folder(run, "rehearse") / "kaggle" / "working"
    output = {path.name: path.read_bytes() for path in working.iterdir()}

    def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
        sealed = [
            json.loads(item["manifest.json"])
            for item in mounted.values()
            if "manifest.json" in item
        ]
        kinds = sorted(manifest["kind"] for manifest in sealed)
        if kinds != ["base", "bundle", "wheelhouse"]:
            return KernelResult({}, f"mounted: {kinds}\n", "ERROR", "exit code 1")
        return KernelResult(output, "ranked\n")

    kaggle = Kaggle(runner=runner)
    source = Path(run.config.data.source)
    names = (kaggle_files.MAPPING, kaggle_files.SAMPLE, kaggle_files.TEST, kaggle_files.TRAIN)
    files = {name: (source / name).read_bytes() for name in names}
    kaggle.competitions[run.config.data.competition] = Competition(files)
    return kaggle


def main() -> None:
    """Run all steps twice; fail if a step fails or the second pass changes anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--round", type=int, default=0)
    options = parser.parse_args()
    run = open_run(options.run, (), options.round)
    with tempfile.TemporaryDirectory() as home, StandIn(kaggle_for(run)) as standin:
        inherited = {
            name: os.environ[name] for name in ("PATH", "PARITY_DATA") if name in os.environ
        }
        env = {**inherited, **standin.environment(Path(home))}
        for number, (stage, *flags) in enumerate(STEPS):
            before, started = len(standin.calls), time.monotonic()
            words = ["-m", "parity", stage, str(options.run), f"--round={options.round}", *flags]
            result = subprocess.run(
                [sys.executable, *words], env=env, capture_output=True, text=True, check=False
            )
            command = f"{stage} {' '.join(flags)}".strip()
            print(f"== {command} ({time.monotonic() - started:.1f} s)\n{result.stdout.strip()}")
            assert result.returncode == 0, (command, result.returncode, result.stderr)
            changed = {call.endpoint for call in standin.calls[before:]} & set(CHANGES)
            assert not changed or (number < FIRST and "--dry-run" not in flags), (command, changed)
        standin.check()
    path = run.workspace.ledger
    records = ledger.read(path)
    last, results = records[-1], calibration.join_scores(records, ledger.read_forecasts(path))
    assert [item.board for item in results] == ["public"], results
    assert (last.kind, last.score["map@25"]) == ("private", 0.498), last
    print(f"all {len(STEPS)} steps passed; the score is in the ledger")


if __name__ == "__main__":
    main()
