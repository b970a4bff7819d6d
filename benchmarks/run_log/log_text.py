"""The story of a table of runs on one page of a terminal: every line is computed from the table."""

from collections.abc import Iterator, Sequence
from itertools import combinations, groupby

from benchmarks.run_log import golden, log, log_pairs
from benchmarks.run_log.log import LoggedRun
from parity.run.progress import wrapped

_SHOWN = 3  # pairs make no plateau
_NAME = 21
_NONE = "none that mark, note or figure tells"


def text(rows: Sequence[LoggedRun], name: str) -> str:
    """Return what the table shows by itself, at most 80 columns wide.

    Args:
        rows: of the table, all of them.
        name: what the table is called.
    """
    found = log.pairs(rows)
    with_lb = sum(row.lb is not None for row in rows)
    both = sum(row.lb is not None and row.cv is not None for row in rows)
    head = f"{name}: {len(rows)} rows; {with_lb} with LB, {both} with CV too, {len(found)} usable"
    parts = [
        [head],
        ["1. Numbers that are no CV", *(list(_false(rows)) or [_NONE])],
        ["2. CV far above the leaderboard", *_gap(rows, found)],
        [
            f"3. Read back at p = {log_pairs.SHARE}: MAP of seen and unseen rows that give both",
            *_read_back(rows),
        ],
        ["4. Differences that are noise", *_noise(rows)],
        ["5. The same weights, or the same number, twice", *_twice(rows)],
        ["next: invoke forecast --golden   (how far the leaderboard can be told from it)"],
    ]
    return "\n".join("\n".join(_laid(part)) for part in parts)


def _laid(part: Sequence[str]) -> list[str]:
    first, *lines = part
    return [*_lines(first, ""), *(it for line in lines for it in _lines(line, "  "))]


def _lines(line: str, indent: str) -> list[str]:
    if line.startswith("|"):  # of a table: as it is
        return [f"{indent}{line[1:]}".rstrip()]
    return wrapped(line, indent, hang=indent)


def _false(rows: Sequence[LoggedRun]) -> Iterator[str]:
    for run, group in groupby(log.excess(rows), key=lambda item: item[0].run):
        found = list(group)
        share = log.trained_on(found[0][0])
        told = f"{share} % of its questions trained on" if share else "trained on its rows?"
        figures = [f"{_name(it[0])} {_figures(it[0])} {it[1]:+.3f}" for it in found]
        yield f"{run}: {', '.join(figures)} over {found[0][2]}; {told}"
    for one, best in log.broken(rows):
        bare = log.bare(rows, one)
        if bare is not None:
            yield f"{one.run}: {_four(one.score)}, the bare base's {_four(bare.score)}"
        else:
            cause = one.notes.partition(";")[0] or "no cause noted"
            yield f"{one.run}: {_four(one.score)} for {_four(best.score)}, {cause}"
    leaky = [f"{one.name} by {most:.3f}" for one, most in log.own_answers(rows)]
    if leaky:
        yield f"answers in prompts raised {', '.join(leaky)} at most"


def _equal(group: Sequence[LoggedRun]) -> str:
    first, *others = group
    return " = ".join(
        [first.name, *(f"e{it.epoch}" if it.run == first.run else it.name for it in others)]
    )


def _figures(one: LoggedRun) -> str:
    return _four(one.score) + ("" if one.recall is None else f"/{_four(one.recall)}")


def _name(one: LoggedRun) -> str:
    return f"epoch {one.epoch}" if one.epoch else "CV"


def _gap(rows: Sequence[LoggedRun], found: Sequence[LoggedRun]) -> Iterator[str]:
    if not found:
        yield "no pair of CV and public score"
        return
    widest = max(found, key=lambda item: item.score - item.public)
    apart = (widest.score - widest.public) / log.error(log.ROWS[widest.split])
    yield (
        f"{widest.name}: CV {_four(widest.score)}, LB {_three(widest.public)}, {apart:.0f} "
        "standard errors: not sampling"
    )
    means = [
        f"{sum(gaps) / len(gaps):+.3f} on average of {len(gaps)} {what} pairs"
        for what, gaps in (
            ("untuned", [one.score - one.public for one in found if not one.tuned]),
            ("tuned", [one.score - one.public for one in found if one.tuned]),
        )
        if gaps
    ]
    yield f"CV less LB: {', '.join(means)}"
    base = log_pairs.untuned(rows, widest.model)
    share = round(100 * golden.SEEN[widest.split])
    yield (
        f"the cause is the seen share: train shows the misconceptions of {share} % of "
        f"{widest.split}'s rows, and of about {100 * log_pairs.SHARE:.0f} % of LB's. Seen rows "
        f"tuned and unseen ones left at {_three(base)} give LB "
        f"{_three(log_pairs.expected(rows, widest))}, "
        f"measured {_three(widest.public)}"
    )


def _read_back(rows: Sequence[LoggedRun]) -> Iterator[str]:
    yield f"|{'training':<{_NAME}}{'CV':>12}{'LB':>11}{'alone':>8}{'seen':>7}{'unseen':>8}  agree"
    for name, group in log_pairs.trainings(rows).items():
        back = [log_pairs.read_back(one.score, one.public, one.split) for one in group]
        seen, unseen = (sum(it[n] for it in back) / len(back) for n in (0, 1))
        alone = sum(log_pairs.expected(rows, one) for one in group) / len(group)
        agree = sum(log_pairs.agrees(rows, one) for one in group)
        yield (
            f"|{name:<{_NAME}}{_span([one.score for one in group]):>12}"
            f"{_span([one.public for one in group]):>11}{_three(alone):>8}{_three(seen):>7}"
            f"{_three(unseen):>8}  {agree} of {len(group)}"
        )
    yield (
        "alone: LB had tuning moved seen rows alone; agree: within 95 % of that. A tuned line "
        "that does not agree moved unseen rows too, which lifted LB"
    )


def _noise(rows: Sequence[LoggedRun]) -> Iterator[str]:
    count, hidden = min(log.ROWS.values()), log.error(log.HIDDEN)
    yield (
        f"one standard error: {log.error(count):.4f} on {count} rows ({log.SPREAD} a row), "
        f"{hidden:.3f} on LB's; CVs nearer than {log.noise(count):.3f} and LBs nearer than "
        f"{hidden:.3f} rank nothing"
    )
    groups = [plateau for plateau in log_pairs.plateaus(rows) if len(plateau) > _SHOWN]
    if groups:
        told = ", ".join(
            f"LB {_span([one.public for one in group])} (CV {_span([it.score for it in group])}, "
            f"{len(group)} pairs)"
            for group in groups
        )
        yield f"each is one value: {told}"
    for group in log_pairs.tables(rows):
        twos = list(combinations([one.score for one in group], 2))
        alike = sum(abs(a - b) <= log.noise(log.ROWS[group[0].split]) for a, b in twos)
        yield (
            f"{len(group)} of {log.stem(group[0].run)} at epoch {group[0].epoch}: CV "
            f"{_span([one.score for one in group])}, {alike} of {len(twos)} twos within noise"
        )
    made = log_pairs.steps(rows)
    small = sum(abs(b.score - a.score) <= log.noise(log.ROWS[a.split]) for a, b in made)
    yield f"from one epoch to the next: {small} of {len(made)} steps within noise"
    yield from _risen(rows)


def _risen(rows: Sequence[LoggedRun]) -> Iterator[str]:
    with_it, without = log_pairs.rises(rows)
    if not without:
        return
    yield (
        f"CV up by more than noise, LB not: {len(without)} of {len(with_it) + len(without)} twos "
        "of pairs, such as"
    )
    within = [two for two in without if two[0].run == two[1].run and two != without[0]]
    for a, b in [without[0], *within[:1]]:
        yield f"{a.name} → {b.name}: CV {b.score - a.score:+.4f}, LB {b.public - a.public:+.3f}"


def _twice(rows: Sequence[LoggedRun]) -> Iterator[str]:
    found = log_pairs.again(rows)
    for what, some in (
        ("quantised", [it for it in found if it[0].quantised]),
        ("unquantised", [it for it in found if not it[0].quantised]),
    ):
        if some:
            moved = [one.score - before for one, before in some]
            span = f"{min(moved):+.4f} to {max(moved):+.4f}"
            yield f"scored in training and again {what}: {span} ({len(some)})"
    same = [f"{_equal(group)} ({repr(group[0].score)[1:]})" for group in log_pairs.twice(rows)]
    if same:
        yield f"equal to the last digit, one of them a copy? {'; '.join(same)}"


def _span(values: Sequence[float]) -> str:
    low, high = _three(min(values)), _three(max(values))
    return low if low == high else f"{low}-{high}"


def _three(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _four(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")
