"""The probe: the same few rows in every environment, to compare environments by; never a CV."""

from collections.abc import Iterable

from parity.competition.query import Query
from parity.run import digest

SIZE = 64


def choose(queries: Iterable[Query], size: int = SIZE) -> list[Query]:
    """Return one query each of `size` questions, picked by the hash of the question id alone.

    They may lie on either side of any split: a probe is compared, never scored as a CV.

    Args:
        queries: all labeled queries.
        size: number of questions; all of them where there are fewer.

    Returns:
        By question id; of each question the wrong answer with the smallest letter.
    """
    first: dict[int, Query] = {}
    for query in queries:
        known = first.setdefault(query.question_id, query)
        if query.answer < known.answer:
            first[query.question_id] = query
    picked = sorted(first, key=lambda question_id: digest.of_text(str(question_id)))[:size]
    return [first[question_id] for question_id in sorted(picked)]
