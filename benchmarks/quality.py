"""`python -m benchmarks.quality`: what each way of sampling, and dropout, does to MAP.

Every arm with every seed is one trial in a process of its own, several side by side on each GPU. A
trial that fails is told and the others go on. Whatever is finished lies in `quality.json` at once,
and is not done again: the same command goes on from there, on another machine too where that file
was brought along.
"""

import argparse
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.arms import ARMS
from benchmarks.effects import markdown, record
from parity.pipeline import encoder_loading
from parity.run import files
from parity.run.config import run_file as configs
from parity.run.config.run_file import Config
from parity.run.errors import BadConfig, ParityError
from parity.run.experiment import open_run

_RUN = Path("runs/eedi-icl.toml")
_DATA = Path("data/quality")


@dataclass(frozen=True, slots=True)
class Trial:
    """One arm with one seed.

    Attributes:
        file: its own run file, whose stem names it.
        arm: the arm's name.
        sets: all overrides.
        key: digest of the resolved settings; an outcome of another key is not this trial's.
    """

    file: Path
    arm: str
    sets: tuple[str, ...]
    key: str

    @property
    def name(self) -> str:
        """Its arm and seed."""
        return self.file.stem


@dataclass(slots=True)
class Bench:
    """What is under way.

    Attributes:
        data: folder of runs, logs and outcomes.
        out: folder of the tables.
        config: the run without an arm's overrides.
        done: name of a trial → its outcome.
        failed: names of those that failed.
        waiting: trials that have not started.
    """

    data: Path
    out: Path
    config: Config
    done: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    waiting: "queue.SimpleQueue[Trial]" = field(default_factory=queue.SimpleQueue)
    started: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, line: str) -> None:
        """Print one line with the seconds since the start."""
        print(f"{time.monotonic() - self.started:6.0f} s  {line}", flush=True)

    def work(self, gpu: str, threads: int) -> None:
        """Take trials until none waits; one of these runs for each place on a GPU."""
        while True:
            try:
                trial = self.waiting.get_nowait()
            except queue.Empty:
                return
            self._try(trial, gpu, threads)

    def write(self) -> None:
        """Write JSON and Markdown of all that is done."""
        outcomes = list(self.done.values())
        files.write_json(self.out / "quality.json", record(outcomes, self.config.scoring))
        files.write_text(self.out / "quality.md", markdown(outcomes, self.config.scoring))

    def _try(self, trial: Trial, gpu: str, threads: int) -> None:
        outcome, log = self._of("outcomes", trial, "json"), self._of("logs", trial, "log")
        begun = time.monotonic()
        with self._lock:
            self.say(f"{trial.name}: starts{f' on GPU {gpu}' if gpu else ''}")
        words = [sys.executable, "-m", "benchmarks.trial", str(trial.file), f"--arm={trial.arm}"]
        words += [f"--out={outcome}", *(f"--set={set_}" for set_ in trial.sets)]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as told:
            env = _environment(self.data, gpu, threads)
            code = subprocess.run(words, env=env, stdout=told, stderr=told, check=False).returncode
        with self._lock:
            took = time.monotonic() - begun
            if code:
                self.failed.append(trial.name)
                self.say(f"{trial.name}: FAILED ({code}) after {took:.0f} s: {_last(log)} ({log})")
                return
            self.done[trial.name] = found = files.read_json(outcome)
            values = found["precisions"]["own"].values()
            self.say(f"{trial.name}: MAP@25 {sum(values) / len(values):.4f} in {took:.0f} s")
            self.write()

    def _of(self, kind: str, trial: Trial, ending: str) -> Path:
        return self.data / kind / f"{trial.name}.{ending}"

    def take_up(self, trials: Sequence[Trial]) -> None:
        """Sort trials into those done before, here or in `out`, and those that wait."""
        table = self.out / "quality.json"
        before = files.read_json(table)["outcomes"] if table.is_file() else []
        kept = {f"{one['arm']}-s{one['seed']}": one for one in before}
        for trial in trials:
            path = self._of("outcomes", trial, "json")
            here = files.read_json(path) if path.is_file() else kept.get(trial.name)
            if here is not None and here["key"] == trial.key:
                self.done[trial.name] = here
            else:
                self.waiting.put(trial)


def trials(
    file: Path, data: Path, arms: Sequence[str], seeds: Sequence[int], sets: tuple[str, ...]
) -> list[Trial]:
    """Return all trials, seed by seed, so that one cut short has whole rounds of arms.

    Each gets a copy of the run file under its own name, for a run is called by its file.
    """
    config = configs.load(file, sets)
    found = []
    for seed in seeds:
        for arm in (ARMS[name] for name in arms):
            own = data / "files" / f"{arm.name}-s{seed}.toml"
            files.write_text(own, file.read_text(encoding="utf-8"))
            all_sets = (*sets, *arm.sets(seed, config))
            found.append(Trial(own, arm.name, all_sets, configs.load(own, all_sets).digest()))
    return found


def _environment(data: Path, gpu: str, threads: int) -> Mapping[str, str]:
    mine = {"PARITY_DATA": str(data), "OMP_NUM_THREADS": str(threads)}
    mine["JAX_PLATFORMS"] = "cpu"  # bm25s starts jax where there is one: most of a GPU's memory
    mine["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"  # several share a GPU's memory
    return {**os.environ, **mine, **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}


def _last(log: Path) -> str:
    """Return a log's last line that says something: the error, where there is one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1] if lines else "no word of why"


def _run(asked: argparse.Namespace) -> int:
    file, sets, gpus = asked.run, tuple(asked.sets), asked.gpu.split(",")
    bench = Bench(asked.data, asked.out or asked.data, configs.load(file, sets))
    bench.take_up(trials(file, asked.data, asked.arms, asked.seeds, sets))
    left = bench.waiting.qsize()
    bench.say(f"{len(bench.done)} trials are done, {left} to do")
    if left:
        os.environ["PARITY_DATA"] = str(asked.data)
        encoder_loading.base(open_run(file, sets))  # converted once, not by all of them at once
    places = [gpu for _ in range(asked.jobs) for gpu in gpus]
    threads = max(1, (os.cpu_count() or 1) // len(places))
    workers = [threading.Thread(target=bench.work, args=(gpu, threads)) for gpu in places]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if not bench.done:
        bench.say("no trial is done: there is nothing to compare")
        return 1
    bench.write()
    print((bench.out / "quality.md").read_text(encoding="utf-8"))
    if bench.failed:
        bench.say(f"failed, and not in the tables: {', '.join(sorted(bench.failed))}")
    return 1 if bench.failed else 0


def _names(text: str) -> list[str]:
    names = [part.strip().upper() for part in text.replace(",", " ").split()]
    if odd := [name for name in names if name not in ARMS]:
        raise argparse.ArgumentTypeError(f"{odd[0]}: no such arm; known: {', '.join(ARMS)}")
    return names


def _seeds(text: str) -> list[int]:
    return [int(part) for part in text.replace(",", " ").split()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.quality", description=__doc__)
    parser.add_argument("--run", type=Path, default=_RUN)
    parser.add_argument("--arms", type=_names, default=list(ARMS), help="such as A,B,D")
    parser.add_argument("--seeds", type=_seeds, default=[1, 2, 3], help="such as 1,2,3")
    parser.add_argument("--jobs", type=int, default=1, help="trials side by side on each GPU")
    parser.add_argument("--gpu", default="", help="index, or several such as 0,1; none: as it is")
    parser.add_argument("--data", type=Path, default=_DATA, help="folder of runs and logs")
    parser.add_argument("--out", type=Path, help="folder of quality.json and .md; default: --data")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    return parser


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code: 1 where a trial failed."""
    asked = _parser().parse_args(words)
    try:
        if asked.jobs < 1:
            raise BadConfig(f"--jobs {asked.jobs}: want 1 or more")
        return _run(asked)
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
