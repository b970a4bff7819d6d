"""Random competitions, larger than `tiny`: the shape of the real one without its texts."""

import random

from parity.competition.corpus import Corpus
from parity.competition.eedi.kaggle_files import build_query
from parity.competition.query import PassageId, Position, Qrels, Query, QueryId


def labeled(seed: int, questions: int) -> tuple[list[Query], Qrels]:
    """Return labeled rows by question id, then answer, and what is right in them.

    About a third of the rows have a misconception of their own and the others share a few often
    used ones, mostly within a subject; one row in twenty has two; one question in five repeats
    an earlier text of its subject with other spaces and letters.
    """
    draw = random.Random(seed)
    queries: list[Query] = []
    qrels: Qrels = {}
    texts: dict[int, list[str]] = {}
    used: dict[int, list[int]] = {}
    number = 0
    for question_id in sorted(draw.sample(range(10, 20 * questions), questions)):
        construct = draw.randrange(max(questions // 3, 1))
        subject = construct // 2
        misconceptions = used.setdefault(subject, [])
        text = f"Work out {question_id} + {draw.randrange(1000)} in unit {construct}"
        earlier = texts.setdefault(subject, [])
        if earlier and draw.random() < 0.2:
            text = draw.choice(earlier).upper().replace(" ", "  ")
        earlier.append(text)
        for answer in sorted(draw.sample("BCD", draw.choice((1, 2, 3, 3)))):
            if not misconceptions or draw.random() < 0.35:
                number += 1
                misconceptions.append(number)
            right = {misconceptions[-1] if draw.random() < 0.5 else draw.choice(misconceptions)}
            if draw.random() < 0.05:
                right.add(draw.choice(draw.choice(list(used.values())) or misconceptions))
            query_id = QueryId(f"{question_id}_{answer}")
            qrels[query_id] = frozenset(map(Position, right))
            queries.append(
                build_query(
                    question_id,
                    answer,
                    construct=(construct, f"Unit {construct}"),
                    subject=(subject, f"Chapter {subject} of sums"),
                    question=text,
                    answers=("1", str(draw.randrange(9))),
                )
            )
    return queries, qrels


def corpus(qrels: Qrels) -> Corpus:
    """Return a sentence for every position up to the last one of the labels."""
    last = max(frozenset[Position]().union(*qrels.values()))
    return Corpus({PassageId(str(number)): f"Adds {number} twice" for number in range(last + 1)})
