"""From a rehearsed run to a score by the commands a person types, in processes of their own.

`python tests/chain_to_score.py runs/demo-quick.toml --round 1` starts the stand-in for Kaggle, lets
`python -m parity` talk to it through the real client, and tells how long each step took. The
stand-in's kernel checks its mounts and puts out what the rehearsal of this bundle did.
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
    *(("follow",), ("forecast", "--judge")),
    *(("publish",), ("push",), ("submit",), ("follow",)),  # a second time: nothing changes
)
FIRST = 9
"""How many steps the first time takes; those after it change nothing."""


def kaggle_for(run: Run) -> Kaggle:
    """Return a Kaggle with the run's competition, whose kernels put out what was rehearsed."""
    working = dag.folder(run, "rehearse") / "kaggle" / "working"
    put_out = {path.name: path.read_bytes() for path in working.iterdir()}

    def runner(request: Json, mounted: dict[str, dict[str, bytes]]) -> KernelResult:
        sealed = [
            json.loads(one["manifest.json"]) for one in mounted.values() if ("manifest.json" in one)
        ]
        kinds = sorted(one["kind"] for one in sealed)
        if kinds != ["base", "bundle", "wheelhouse"]:
            return KernelResult({}, f"mounted are {kinds}\n", "ERROR", "exit code 1")
        return KernelResult(put_out, "ranked\n")

    kaggle = Kaggle(runner=runner)
    source = Path(run.config.data.source)
    named = (kaggle_files.MAPPING, kaggle_files.SAMPLE, kaggle_files.TEST, kaggle_files.TRAIN)
    files = {name: (source / name).read_bytes() for name in named}
    kaggle.competitions[run.config.data.competition] = Competition(files)
    return kaggle


def main() -> None:
    """Go all the way, twice; fail where a step does, or where the second time changes anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--round", type=int, default=0)
    asked = parser.parse_args()
    run = open_run(asked.run, (), asked.round)
    with tempfile.TemporaryDirectory() as home, StandIn(kaggle_for(run)) as standin:
        kept = {name: os.environ[name] for name in ("PATH", "PARITY_DATA") if name in os.environ}
        env = {**kept, **standin.environment(Path(home))}
        for number, (stage, *flags) in enumerate(STEPS):
            before, started = len(standin.calls), time.monotonic()
            words = ["-m", "parity", stage, str(asked.run), f"--round={asked.round}", *flags]
            ended = subprocess.run(
                [sys.executable, *words], env=env, capture_output=True, text=True, check=False
            )
            told = f"{stage} {' '.join(flags)}".strip()
            print(f"== {told} ({time.monotonic() - started:.1f} s)\n{ended.stdout.strip()}")
            assert ended.returncode == 0, (told, ended.returncode, ended.stderr)
            changed = {call.place for call in standin.calls[before:]} & set(CHANGES)
            assert not changed or (number < FIRST and "--dry-run" not in flags), (told, changed)
        standin.check()
    place = run.workspace.ledger
    records = ledger.read(place)
    last, judged = records[-1], calibration.joined(records, ledger.forecasts(place))
    assert [one.board for one in judged] == ["public"], judged
    assert (last.kind, last.score["map@25"]) == ("private", 0.498), last
    print(f"all {len(STEPS)} steps ended well; the score is in the ledger, as evidence")


if __name__ == "__main__":
    main()
