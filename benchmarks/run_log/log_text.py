"""Describe the diary's run log on one terminal page, every line computed from the table.

`python -m benchmarks.run_log.log_text FILE.csv` prints the page.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import combinations, groupby
from pathlib import Path

from benchmarks.run_log import golden, log, log_pairs
from benchmarks.run_log.log import LoggedRun
from parity.run.errors import ParityError
from parity.run.progress import wrap_lines

_MIN_PLATEAU = 4  # pairs
_NAME = 21
_NO_FAULTS = "no faults by mark, note or score"


def text(rows: Sequence[LoggedRun], name: str) -> str:
    """Return the description of a log, at most 80 columns wide.

    Args:
        rows: all rows of the log.
        name: name of the log, for the first line.
    """
    pairs = log.pairs(rows)
    with_lb = sum(row.lb is not None for row in rows)
    with_both = sum(row.lb is not None and row.cv is not None for row in rows)
    counts = f"{len(rows)} rows; {with_lb} with LB, {with_both} with CV too, {len(pairs)} usable"
    sections = [
        [f"{name}: {counts}"],
        ["1. Scores that are not a CV", *(list(_faults(rows)) or [_NO_FAULTS])],
        ["2. CV far above the leaderboard", *_gap(rows, pairs)],
        [
            f"3. Seen and unseen MAP that give CV and LB at p = {log_pairs.SHARE}",
            *_seen_unseen(rows),
        ],
        ["4. Differences that are noise", *_noise(rows)],
        ["5. The same weights, or the same score, twice", *_duplicates(rows)],
        ["next: python -m benchmarks.run_log.golden   (how well LB follows from CV)"],
    ]
    return "\n".join("\n".join(_indented(section)) for section in sections)


def _indented(section: Sequence[str]) -> list[str]:
    first, *lines = section
    return [*_lines(first, ""), *(item for line in lines for item in _lines(line, "  "))]


def _lines(line: str, indent: str) -> list[str]:
    if line.startswith("|"):  # a row of a table is not wrapped
        return [f"{indent}{line[1:]}".rstrip()]
    return wrap_lines(line, indent, hang=indent)


def _faults(rows: Sequence[LoggedRun]) -> Iterator[str]:
    for run, items in groupby(log.excess(rows), key=lambda item: item[0].run):
        group = list(items)
        share = log.trained_on(group[0][0])
        cause = f"{share} % of its questions trained on" if share else "trained on its rows?"
        scores = [f"{_epoch(row)} {_scores(row)} {excess:+.3f}" for row, excess, _ in group]
        yield f"{run}: {', '.join(scores)} over {group[0][2]}; {cause}"
    for row, best in log.broken(rows):
        base = log.base_of(rows, row)
        if base is not None:
            yield f"{row.run}: {_four(row.score)}, the base model's {_four(base.score)}"
        else:
            cause = row.notes.partition(";")[0] or "no cause noted"
            yield f"{row.run}: {_four(row.score)}, its variant's {_four(best.score)}, {cause}"
    leaked = [f"{row.name} by {bound:.3f}" for row, bound in log.leaked_answers(rows)]
    if leaked:
        yield f"answers in prompts raised {', '.join(leaked)} at most"


def _equal(group: Sequence[LoggedRun]) -> str:
    first, *copies = group
    names = [f"e{row.epoch}" if row.run == first.run else row.name for row in copies]
    return " = ".join([first.name, *names])


def _scores(row: LoggedRun) -> str:
    return _four(row.score) + ("" if row.recall is None else f"/{_four(row.recall)}")


def _epoch(row: LoggedRun) -> str:
    return f"epoch {row.epoch}" if row.epoch else "CV"


def _gap(rows: Sequence[LoggedRun], pairs: Sequence[LoggedRun]) -> Iterator[str]:
    if not pairs:
        yield "no pair of CV and public score"
        return
    widest = max(pairs, key=lambda item: item.score - item.public)
    errors = (widest.score - widest.public) / log.error(log.ROWS[widest.split])
    yield (
        f"{widest.name}: CV {_four(widest.score)}, LB {_three(widest.public)}, {errors:.0f} "
        "standard errors: not sampling"
    )
    means = [
        f"{sum(gaps) / len(gaps):+.3f} on average of {len(gaps)} {kind} pairs"
        for kind, gaps in (
            ("untuned", [pair.score - pair.public for pair in pairs if not pair.tuned]),
            ("tuned", [pair.score - pair.public for pair in pairs if pair.tuned]),
        )
        if gaps
    ]
    yield f"CV minus LB: {', '.join(means)}"
    base = log_pairs.untuned(rows, widest.model)
    share = round(100 * golden.SEEN[widest.split])
    yield (
        f"the cause is the seen share: train has the misconceptions of {share} % of "
        f"{widest.split}'s rows, and of about {100 * log_pairs.SHARE:.0f} % of LB's. If tuning "
        f"improved seen rows only and unseen rows stayed at {_three(base)}, LB would be "
        f"{_three(log_pairs.expected(rows, widest))}; it is {_three(widest.public)}"
    )


def _seen_unseen(rows: Sequence[LoggedRun]) -> Iterator[str]:
    yield f"|{'training':<{_NAME}}{'CV':>12}{'LB':>11}{'model':>8}{'seen':>7}{'unseen':>8}  agree"
    for name, group in log_pairs.trainings(rows).items():
        solved = [log_pairs.solve_seen_unseen(row.score, row.public, row.split) for row in group]
        seen, unseen = (sum(item[n] for item in solved) / len(solved) for n in (0, 1))
        model = sum(log_pairs.expected(rows, row) for row in group) / len(group)
        agree = sum(log_pairs.agrees(rows, row) for row in group)
        yield (
            f"|{name:<{_NAME}}{_span([row.score for row in group]):>12}"
            f"{_span([row.public for row in group]):>11}{_three(model):>8}{_three(seen):>7}"
            f"{_three(unseen):>8}  {agree} of {len(group)}"
        )
    yield (
        "model: LB if tuning improved seen rows only; agree: LB within 95 % of it. Where a tuned "
        "line disagrees, tuning improved unseen rows too"
    )


def _noise(rows: Sequence[LoggedRun]) -> Iterator[str]:
    count, hidden = min(log.ROWS.values()), log.error(log.HIDDEN)
    yield (
        f"one standard error: {log.error(count):.4f} on {count} rows ({log.SPREAD} a row), "
        f"{hidden:.3f} on LB's; CVs closer than {log.noise(count):.3f} and LBs closer than "
        f"{hidden:.3f} have no order"
    )
    groups = [group for group in log_pairs.plateaus(rows) if len(group) >= _MIN_PLATEAU]
    if groups:
        spans = ", ".join(
            f"LB {_span([row.public for row in group])} (CV {_span([row.score for row in group])}, "
            f"{len(group)} pairs)"
            for group in groups
        )
        yield f"each is one value: {spans}"
    for group in log_pairs.tables(rows):
        pairs = list(combinations([row.score for row in group], 2))
        similar = sum(abs(a - b) <= log.noise(log.ROWS[group[0].split]) for a, b in pairs)
        yield (
            f"{len(group)} of {log.stem(group[0].run)} at epoch {group[0].epoch}: CV "
            f"{_span([row.score for row in group])}, {similar} of {len(pairs)} pairs within noise"
        )
    steps = log_pairs.steps(rows)
    small = sum(abs(b.score - a.score) <= log.noise(log.ROWS[a.split]) for a, b in steps)
    yield f"from one epoch to the next: {small} of {len(steps)} steps within noise"
    yield from _rises(rows)


def _rises(rows: Sequence[LoggedRun]) -> Iterator[str]:
    confirmed, unconfirmed = log_pairs.rises(rows)
    if not unconfirmed:
        return
    yield (
        f"CV up by more than noise, LB not: {len(unconfirmed)} of "
        f"{len(confirmed) + len(unconfirmed)} comparisons, such as"
    )
    first = unconfirmed[0]
    within = [item for item in unconfirmed if item[0].run == item[1].run and item != first]
    for a, b in [first, *within[:1]]:
        yield f"{a.name} → {b.name}: CV {b.score - a.score:+.4f}, LB {b.public - a.public:+.3f}"


def _duplicates(rows: Sequence[LoggedRun]) -> Iterator[str]:
    rescored = log_pairs.rescored(rows)
    for kind, group in (
        ("quantized", [item for item in rescored if item[0].quantized]),
        ("unquantized", [item for item in rescored if not item[0].quantized]),
    ):
        if group:
            changes = [row.score - before for row, before in group]
            span = f"{min(changes):+.4f} to {max(changes):+.4f}"
            yield f"scored in training and later {kind}: {span} ({len(group)})"
    copies = [
        f"{_equal(group)} ({repr(group[0].score)[1:]})" for group in log_pairs.duplicates(rows)
    ]
    if copies:
        yield f"equal to the last digit, is one a copy? {'; '.join(copies)}"


def _span(values: Sequence[float]) -> str:
    low, high = _three(min(values)), _three(max(values))
    return low if low == high else f"{low}-{high}"


def _three(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _four(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def main(arguments: Sequence[str]) -> int:
    """Print the description of a log and return the exit code."""
    if len(arguments) != 1:
        print("usage: python -m benchmarks.run_log.log_text FILE.csv", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        print(text(log.read_log(path), path.as_posix()))
    except (OSError, ParityError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
