"""`python -m benchmarks.quality`: measure the effect of sampling and dropout on MAP.

Every arm with every seed is one trial in a separate process; several run in parallel on each GPU. A
failed trial is logged and the others continue. Finished trials are in `quality.json` at once and
are not repeated: the same command continues from there, also on another machine with that file.
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
        file: run file of the trial, whose stem is its name.
        arm: name of the arm.
        sets: all overrides.
        key: digest of the resolved settings; outcomes with another key are ignored.
    """

    file: Path
    arm: str
    sets: tuple[str, ...]
    key: str

    @property
    def name(self) -> str:
        """Arm and seed."""
        return self.file.stem


@dataclass(slots=True)
class Bench:
    """State of the benchmark.

    Attributes:
        data: folder of runs, logs and outcomes.
        out: folder of the tables.
        config: config of the run without the overrides of an arm.
        done: name of a trial → its outcome.
        failed: names of failed trials.
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
        """Run trials until none is waiting; one thread runs this for each slot on a GPU."""
        while True:
            try:
                trial = self.waiting.get_nowait()
            except queue.Empty:
                return
            self._try(trial, gpu, threads)

    def write(self) -> None:
        """Write JSON and Markdown of all finished trials."""
        outcomes = list(self.done.values())
        files.write_json(self.out / "quality.json", record(outcomes, self.config.scoring))
        files.write_text(self.out / "quality.md", markdown(outcomes, self.config.scoring))

    def _try(self, trial: Trial, gpu: str, threads: int) -> None:
        outcome, log = self._of("outcomes", trial, "json"), self._of("logs", trial, "log")
        started = time.monotonic()
        with self._lock:
            self.say(f"{trial.name}: starts{f' on GPU {gpu}' if gpu else ''}")
        words = [sys.executable, "-m", "benchmarks.trial", str(trial.file), f"--arm={trial.arm}"]
        words += [f"--out={outcome}", *(f"--set={set_}" for set_ in trial.sets)]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as stream:
            env = _environment(self.data, gpu, threads)
            code = subprocess.run(
                words, env=env, stdout=stream, stderr=stream, check=False
            ).returncode
        with self._lock:
            seconds = time.monotonic() - started
            if code:
                self.failed.append(trial.name)
                self.say(
                    f"{trial.name}: FAILED ({code}) after {seconds:.0f} s: {_last(log)} ({log})"
                )
                return
            self.done[trial.name] = outcome_record = files.read_json(outcome)
            values = outcome_record["precisions"]["own"].values()
            self.say(f"{trial.name}: MAP@25 {sum(values) / len(values):.4f} in {seconds:.0f} s")
            self.write()

    def _of(self, kind: str, trial: Trial, ending: str) -> Path:
        return self.data / kind / f"{trial.name}.{ending}"

    def take_up(self, trials: Sequence[Trial]) -> None:
        """Take finished outcomes from `data` or `out`; queue the other trials."""
        table = self.out / "quality.json"
        before = files.read_json(table)["outcomes"] if table.is_file() else []
        earlier = {f"{item['arm']}-s{item['seed']}": item for item in before}
        for trial in trials:
            path = self._of("outcomes", trial, "json")
            outcome = files.read_json(path) if path.is_file() else earlier.get(trial.name)
            if outcome is not None and outcome["key"] == trial.key:
                self.done[trial.name] = outcome
            else:
                self.waiting.put(trial)


def trials(
    file: Path, data: Path, arms: Sequence[str], seeds: Sequence[int], sets: tuple[str, ...]
) -> list[Trial]:
    """Return all trials, seed by seed, so that an interrupted run has complete sets of arms.

    Each gets a copy of the run file, because a run has the name of its file.
    """
    config = configs.load(file, sets)
    results = []
    for seed in seeds:
        for arm in (ARMS[name] for name in arms):
            copy = data / "files" / f"{arm.name}-s{seed}.toml"
            files.write_text(copy, file.read_text(encoding="utf-8"))
            all_sets = (*sets, *arm.sets(seed, config))
            results.append(Trial(copy, arm.name, all_sets, configs.load(copy, all_sets).digest()))
    return results


def _environment(data: Path, gpu: str, threads: int) -> Mapping[str, str]:
    variables = {"PARITY_DATA": str(data), "OMP_NUM_THREADS": str(threads)}
    variables["JAX_PLATFORMS"] = "cpu"  # bm25s starts jax, which takes most of a GPU's memory
    variables["PYTORCH_CUDA_ALLOC_CONF"] = (
        "expandable_segments:True"  # several share a GPU's memory
    )
    return {**os.environ, **variables, **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}


def _last(log: Path) -> str:
    """Return the last line of a log with text: the error, if there is one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return lines[-1] if lines else "no error message"


def _run(arguments: argparse.Namespace) -> int:
    file, sets, gpus = arguments.run, tuple(arguments.sets), arguments.gpu.split(",")
    bench = Bench(arguments.data, arguments.out or arguments.data, configs.load(file, sets))
    bench.take_up(trials(file, arguments.data, arguments.arms, arguments.seeds, sets))
    remaining = bench.waiting.qsize()
    bench.say(f"{len(bench.done)} trials are done, {remaining} to do")
    if remaining:
        os.environ["PARITY_DATA"] = str(arguments.data)
        run = open_run(file, sets)  # converts the base model once, before the trials
        encoder_loading.load_base(run.config.encoder, run.workspace)
    slots = [gpu for _ in range(arguments.jobs) for gpu in gpus]
    threads = max(1, (os.cpu_count() or 1) // len(slots))
    workers = [threading.Thread(target=bench.work, args=(gpu, threads)) for gpu in slots]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if not bench.done:
        bench.say("no trial is finished: nothing to compare")
        return 1
    bench.write()
    print((bench.out / "quality.md").read_text(encoding="utf-8"))
    if bench.failed:
        bench.say(f"failed, and not in the tables: {', '.join(sorted(bench.failed))}")
    return 1 if bench.failed else 0


def _names(text: str) -> list[str]:
    names = [part.strip().upper() for part in text.replace(",", " ").split()]
    if unknown := [name for name in names if name not in ARMS]:
        raise argparse.ArgumentTypeError(f"unknown arm {unknown[0]}; choose from {', '.join(ARMS)}")
    return names


def _seeds(text: str) -> list[int]:
    return [int(part) for part in text.replace(",", " ").split()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.quality", description=__doc__)
    parser.add_argument("--run", type=Path, default=_RUN)
    parser.add_argument("--arms", type=_names, default=list(ARMS), help="such as A,B,D")
    parser.add_argument("--seeds", type=_seeds, default=[1, 2, 3], help="such as 1,2,3")
    parser.add_argument("--jobs", type=int, default=1, help="trials in parallel on each GPU")
    parser.add_argument("--gpu", default="", help="index, or several such as 0,1; default: all")
    parser.add_argument("--data", type=Path, default=_DATA, help="folder of runs and logs")
    parser.add_argument("--out", type=Path, help="folder of quality.json and .md; default: --data")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    return parser


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code: 1 where a trial failed."""
    arguments = _parser().parse_args(words)
    try:
        if arguments.jobs < 1:
            raise BadConfig(f"--jobs {arguments.jobs} must be 1 or more")
        return _run(arguments)
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
