"""Random competitions, larger than `tiny`: the shape of the real one, and nothing of its text."""

import random

from parity.competition.query import Corpus, MisconceptionId, Qrels, Query, QueryId


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
        known = used.setdefault(subject, [])
        text = f"Work out {question_id} + {draw.randrange(1000)} in unit {construct}"
        earlier = texts.setdefault(subject, [])
        if earlier and draw.random() < 0.2:
            text = draw.choice(earlier).upper().replace(" ", "  ")
        earlier.append(text)
        for answer in sorted(draw.sample("BCD", draw.choice((1, 2, 3, 3)))):
            if not known or draw.random() < 0.35:
                number += 1
                known.append(number)
            right = {known[-1] if draw.random() < 0.5 else draw.choice(known)}
            if draw.random() < 0.05:
                right.add(draw.choice(draw.choice(list(used.values())) or known))
            query_id = QueryId(f"{question_id}_{answer}")
            qrels[query_id] = frozenset(map(MisconceptionId, right))
            queries.append(
                Query(
                    query_id=query_id,
                    question_id=question_id,
                    answer=answer,
                    construct_id=construct,
                    construct=f"Unit {construct}",
                    subject_id=subject,
                    subject=f"Chapter {subject} of sums",
                    question=text,
                    correct="1",
                    wrong=str(draw.randrange(9)),
                )
            )
    return queries, qrels


def corpus(qrels: Qrels) -> Corpus:
    """Return a sentence for every misconception of the labels."""
    known = sorted(frozenset[MisconceptionId]().union(*qrels.values()))
    return {one: f"Adds {one} twice" for one in known}
