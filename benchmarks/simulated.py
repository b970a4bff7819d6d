"""`python -m benchmarks.simulated`: forecasts of hidden tests that labeled questions play.

Each competition hides whole questions, with an unseen share drawn anew; each model's score on them
is forecast from the rest, and from the models handed in before. The tables say how far off
forecasts are, and how often their intervals hold, beside "the leaderboard will show the CV".
"""

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.competitions import SHARES, Simulated, simulate
from benchmarks.contenders import World, contenders
from parity.analysis.forecast import calibration, score_slices
from parity.analysis.forecast.forecast import Forecast, forecast
from parity.analysis.forecast.leaderboard import HiddenTest, LeaderboardPrior, ScorePair, SeenShare
from parity.analysis.forecast.unseen_estimate import seen_coverage, unseen_mass
from parity.competition.eedi import kaggle_files
from parity.competition.scoring.bootstrap import question_of
from parity.pipeline import encoder_loading
from parity.retrieval.retrieve import index, render_queries
from parity.run import files
from parity.run.errors import ParityError
from parity.run.experiment import Run, open_run

_RUN = Path("runs/eedi.toml")
_OUT = Path("data/benchmarks")


@dataclass(frozen=True, slots=True)
class Judged:
    """One forecast and what came.

    Attributes:
        seed: the competition's.
        name: the model's.
        share: the true unseen share of the hidden rows.
        cv: MAP on all valid rows; `seen` and `unseen` on a part of them.
        board: what the leaderboard showed.
        told: the forecast made before.
        blind: the same without a score of the models before it.
    """

    seed: int
    name: str
    share: float
    cv: float
    seen: float
    unseen: float
    board: float
    told: Forecast
    blind: Forecast

    @property
    def judged(self) -> calibration.CheckedForecast:
        """The forecast beside the score."""
        return calibration.CheckedForecast(self.name, "simulated", "", self.told, self.board)


def world(run: Run) -> World:
    """Return the run's labeled rows, embedded by its bare base; embeddings are kept on disk."""
    read = kaggle_files.read(Path(run.config.data.source))
    encoder, prompt = encoder_loading.keeping(run), run.config.prompt
    asked = render_queries(encoder, prompt, read.queries, {})
    return World(
        queries=tuple(read.queries),
        qrels=read.qrels,
        corpus=read.corpus,
        asked=encoder.embed(asked.tokens, "encode the queries"),
        passages=index(encoder, prompt, read.corpus).vectors,
    )


def judge(one: Simulated) -> list[Judged]:
    """Forecast each model's score, in the order in which they are handed in.

    Of the hidden test a forecast knows the number of rows and between which bounds its unseen share
    was drawn; of the models before, what they scored.
    """
    low, high = SHARES
    counts = Counter[int](key for right in one.known.values() for key in right)
    share = SeenShare.uniform(1 - high, 1 - low).beside(unseen_mass(counts.values()))
    learnt = frozenset(one.split.train)
    rows = (right for row, right in one.known.items() if int(question_of(row)) in learnt)
    shown = seen_coverage(counts, {key for right in rows for key in right})
    pairs: list[ScorePair] = []
    found = []
    for entry in one.entries:
        cv = score_slices.of(entry.cv, one.known, one.split.unseen, one.subjects)
        blind = LeaderboardPrior(share, HiddenTest(one.rows))
        told = [
            forecast(cv, board, covered=shown)
            for board in (replace(blind, pairs=tuple(pairs)), blind)
        ]
        seen, unseen = map(float, cv.mean)
        mean = fmean(entry.cv.values())
        found.append(
            Judged(one.seed, entry.name, one.share, mean, seen, unseen, entry.board, *told)
        )
        pairs.append(ScorePair(seen, unseen, entry.board, shown))
    return found


def summary(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return a line for all forecasts, one for all made without earlier pairs, one for each model.

    Errors are in MAP; `width` is that of the 90 % interval, `cv` the error of "the leaderboard will
    show the CV", `line` the error of a straight line on the CV, fitted to all other competitions.
    """
    lined = dict(zip(map(_key, judged), _lines(judged), strict=True))
    groups = {
        "all": list(judged),
        "all, without pairs": [replace(one, told=one.blind) for one in judged],
    }
    for one in judged:
        groups.setdefault(f"{one.name}, {one.told.pairs} pairs", []).append(one)
    return [_summed(name, some, lined) for name, some in groups.items()]


def _summed(
    name: str, some: Sequence[Judged], lined: Mapping[tuple[int, str], float]
) -> dict[str, Any]:
    found = calibration.check_forecasts([one.judged for one in some])
    assert found is not None  # no group is empty
    return {
        "of": name,
        **asdict(found),
        "width": fmean(one.told.wide[1] - one.told.wide[0] for one in some),
        "cv": _rmse(one.cv - one.board for one in some),
        "line": _rmse(lined[_key(one)] - one.board for one in some),
    }


def markdown(judged: Sequence[Judged]) -> str:
    """Return the summary as a table, and each competition in a line."""
    head = "| forecasts | n | rmse | mean error | in 50 % | in 90 % | its width | LB = CV | line |"
    each = "| competition | unseen | model: CV, forecast (90 %), leaderboard |"
    by_seed: dict[int, list[Judged]] = {}
    for one in judged:
        by_seed.setdefault(one.seed, []).append(one)
    lines = [head, "| --- " * 9 + "|", *map(_row, summary(judged)), ""]
    lines += [each, "| --- " * 3 + "|", *map(_competition, by_seed.values())]
    return "\n".join(lines) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    return (
        f"| {row['of']} | {row['count']} | {row['rmse']:.4f} | {row['mean_error']:+.4f} "
        f"| {row['half']:.0%} | {row['wide']:.0%} | {row['width']:.3f} "
        f"| {row['cv']:.4f} | {row['line']:.4f} |"
    )


def _competition(judged: Sequence[Judged]) -> str:
    told = "; ".join(
        f"{one.name}: {one.cv:.3f}, {one.told.median:.3f} "
        f"({one.told.wide[0]:.3f}-{one.told.wide[1]:.3f}), {one.board:.3f}"
        for one in judged
    )
    return f"| {judged[0].seed} | {judged[0].share:.0%} | {told} |"


def _lines(judged: Sequence[Judged]) -> list[float]:
    """Return for each forecast what a line on the CV says, fitted to the other competitions."""
    seeds = np.array([one.seed for one in judged])
    cv, board = (np.array([getattr(one, name) for one in judged]) for name in ("cv", "board"))
    found = np.empty(len(judged))
    for seed in np.unique(seeds):
        others = seeds != seed
        if len(np.unique(cv[others])) < 2:
            found[~others] = cv[~others]
            continue
        slope, start = np.polyfit(cv[others], board[others], 1)
        found[~others] = start + slope * cv[~others]
    return [float(value) for value in found]


def _key(one: Judged) -> tuple[int, str]:
    return one.seed, one.name


def _rmse(errors: Iterable[float]) -> float:
    return math.sqrt(fmean(error**2 for error in errors))


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="benchmarks.simulated", description=__doc__)
    made.add_argument("--run", type=Path, default=_RUN, help="names data, prompt and encoder")
    made.add_argument("--set", dest="sets", action="append", default=[])
    made.add_argument("--count", type=int, default=36, help="competitions")
    made.add_argument("--first", type=int, default=100, help="seed of the first one")
    made.add_argument("--out", type=Path, default=_OUT, help="folder of simulated.json and .md")
    return made


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    asked = _parser().parse_args(words)
    try:
        cut_from = world(open_run(asked.run, tuple(asked.sets)))
        models, begun, judged = contenders(cut_from), time.monotonic(), []
        for seed in range(asked.first, asked.first + asked.count):
            judged += judge(simulate(cut_from, models, seed))
            print(f"{time.monotonic() - begun:5.0f} s  competition {seed}", file=sys.stderr)
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    files.write_json(asked.out / "simulated.json", [asdict(one) for one in judged])
    files.write_text(asked.out / "simulated.md", markdown(judged))
    print(markdown(judged))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
