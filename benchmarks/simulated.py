"""`python -m benchmarks.simulated`: check forecasts on simulated competitions.

Each competition hides part of the labeled questions, with a random unseen share; each model's score
on them is forecast from the other questions and from earlier models. The tables show the errors of
the forecasts and the coverage of their intervals, compared with "LB = CV".
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
from parity.competition.query import unit_of
from parity.pipeline import encoder_loading
from parity.retrieval.retrieve import index, render_queries
from parity.run import files
from parity.run.errors import ParityError
from parity.run.experiment import Run, open_run

_RUN = Path("runs/eedi.toml")
_OUT = Path("data/benchmarks")


@dataclass(frozen=True, slots=True)
class SimulatedForecast:
    """A forecast and its score.

    Attributes:
        seed: seed of the competition.
        name: name of the model.
        share: unseen share of the hidden rows.
        cv: MAP on all validation rows; `seen` and `unseen` on part of them.
        board: leaderboard score.
        forecast: forecast before the score.
        blind: forecast without the scores of earlier models.
    """

    seed: int
    name: str
    share: float
    cv: float
    seen: float
    unseen: float
    board: float
    forecast: Forecast
    blind: Forecast

    @property
    def checked(self) -> calibration.CheckedForecast:
        """The forecast with its score."""
        return calibration.CheckedForecast(self.name, "simulated", "", self.forecast, self.board)


def world(run: Run) -> World:
    """Return the run's labeled rows with embeddings by its base model, cached on disk."""
    competition = kaggle_files.read(Path(run.config.data.source))
    encoder = encoder_loading.load_caching_encoder(run.config.encoder, run.workspace)
    prompt = run.config.prompt
    rendered = render_queries(encoder, prompt, competition.queries, {})
    return World(
        queries=tuple(competition.queries),
        qrels=competition.qrels,
        corpus=competition.corpus,
        query_vectors=encoder.embed(rendered.tokens, "encode the queries"),
        passages=index(encoder, prompt, competition.corpus).vectors,
    )


def check_competition(game: Simulated) -> list[SimulatedForecast]:
    """Forecast the score of each model, in the order of submission.

    A forecast knows the number of hidden rows, the range of their unseen share, and the scores of
    earlier models.
    """
    low, high = SHARES
    counts = Counter[int](key for right in game.labels.values() for key in right)
    share = SeenShare.uniform(1 - high, 1 - low).updated(unseen_mass(counts.values()))
    train_questions = frozenset(game.split.train)
    rows = (right for row, right in game.labels.items() if unit_of(row) in train_questions)
    shown = seen_coverage(counts, {key for right in rows for key in right})
    pairs: list[ScorePair] = []
    results = []
    for entry in game.entries:
        cv = score_slices.of(entry.cv, game.labels, game.split.unseen, game.subjects)
        blind = LeaderboardPrior(share, HiddenTest(game.rows))
        forecasts = [
            forecast(cv, board, covered=shown)
            for board in (replace(blind, pairs=tuple(pairs)), blind)
        ]
        seen, unseen = map(float, cv.mean)
        mean = fmean(entry.cv.values())
        results.append(
            SimulatedForecast(
                game.seed, entry.name, game.share, mean, seen, unseen, entry.board, *forecasts
            )
        )
        pairs.append(ScorePair(seen, unseen, entry.board, shown))
    return results


def summary(checked: Sequence[SimulatedForecast]) -> list[dict[str, Any]]:
    """Return a row for all forecasts, one without earlier pairs, and one for each model.

    Errors are in MAP; `width` is the width of the 90 % interval, `cv` the error of "LB = CV",
    `line` the error of a straight line on CV, fitted to all other competitions.
    """
    lined = dict(zip(map(_key, checked), _lines(checked), strict=True))
    groups = {
        "all": list(checked),
        "all, without pairs": [replace(item, forecast=item.blind) for item in checked],
    }
    for item in checked:
        groups.setdefault(f"{item.name}, {item.forecast.pairs} pairs", []).append(item)
    return [_summed(name, group, lined) for name, group in groups.items()]


def _summed(
    name: str, group: Sequence[SimulatedForecast], lined: Mapping[tuple[int, str], float]
) -> dict[str, Any]:
    result = calibration.check_forecasts([item.checked for item in group])
    assert result is not None  # groups are not empty
    return {
        "of": name,
        **asdict(result),
        "width": fmean(item.forecast.wide[1] - item.forecast.wide[0] for item in group),
        "cv": _rmse(item.cv - item.board for item in group),
        "line": _rmse(lined[_key(item)] - item.board for item in group),
    }


def markdown(checked: Sequence[SimulatedForecast]) -> str:
    """Return the summary as a table, and a row for each competition."""
    head = "| forecasts | n | rmse | mean error | in 50 % | in 90 % | its width | LB = CV | line |"
    each = "| competition | unseen | model: CV, forecast (90 %), leaderboard |"
    by_seed: dict[int, list[SimulatedForecast]] = {}
    for item in checked:
        by_seed.setdefault(item.seed, []).append(item)
    lines = [head, "| --- " * 9 + "|", *map(_row, summary(checked)), ""]
    lines += [each, "| --- " * 3 + "|", *map(_competition, by_seed.values())]
    return "\n".join(lines) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    return (
        f"| {row['of']} | {row['count']} | {row['rmse']:.4f} | {row['mean_error']:+.4f} "
        f"| {row['half']:.0%} | {row['wide']:.0%} | {row['width']:.3f} "
        f"| {row['cv']:.4f} | {row['line']:.4f} |"
    )


def _competition(checked: Sequence[SimulatedForecast]) -> str:
    cells = "; ".join(
        f"{item.name}: {item.cv:.3f}, {item.forecast.median:.3f} "
        f"({item.forecast.wide[0]:.3f}-{item.forecast.wide[1]:.3f}), {item.board:.3f}"
        for item in checked
    )
    return f"| {checked[0].seed} | {checked[0].share:.0%} | {cells} |"


def _lines(checked: Sequence[SimulatedForecast]) -> list[float]:
    """Return the prediction of a line on CV for each forecast, fitted to other competitions."""
    seeds = np.array([item.seed for item in checked])
    cv, board = (np.array([getattr(item, name) for item in checked]) for name in ("cv", "board"))
    predictions = np.empty(len(checked))
    for seed in np.unique(seeds):
        is_other = seeds != seed
        if len(np.unique(cv[is_other])) < 2:
            predictions[~is_other] = cv[~is_other]
            continue
        slope, start = np.polyfit(cv[is_other], board[is_other], 1)
        predictions[~is_other] = start + slope * cv[~is_other]
    return [float(value) for value in predictions]


def _key(item: SimulatedForecast) -> tuple[int, str]:
    return item.seed, item.name


def _rmse(errors: Iterable[float]) -> float:
    return math.sqrt(fmean(error**2 for error in errors))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.simulated", description=__doc__)
    parser.add_argument(
        "--run", type=Path, default=_RUN, help="run file with data, prompt and encoder"
    )
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--count", type=int, default=36, help="number of competitions")
    parser.add_argument("--first", type=int, default=100, help="seed of the first one")
    parser.add_argument("--out", type=Path, default=_OUT, help="folder of simulated.json and .md")
    return parser


def main(words: Sequence[str]) -> int:
    """Run the command line; return its exit code."""
    arguments = _parser().parse_args(words)
    try:
        labeled = world(open_run(arguments.run, tuple(arguments.sets)))
        models, started, checked = contenders(labeled), time.monotonic(), []
        for seed in range(arguments.first, arguments.first + arguments.count):
            checked += check_competition(simulate(labeled, models, seed))
            print(f"{time.monotonic() - started:5.0f} s  competition {seed}", file=sys.stderr)
    except ParityError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    files.write_json(arguments.out / "simulated.json", [asdict(item) for item in checked])
    files.write_text(arguments.out / "simulated.md", markdown(checked))
    print(markdown(checked))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
