"""The project's own competition in Kaggle's schema, made from a seed.

`python -m parity.competition.synthetic.generator data/synthetic` writes it again.
"""

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

from parity.competition.eedi.kaggle_files import (
    ANSWERS,
    MAPPING,
    SAMPLE,
    SUBMISSION_COLUMNS,
    TEST,
    TRAIN,
)
from parity.competition.synthetic import questions
from parity.competition.synthetic.questions import Author, Demand, Question, World
from parity.competition.synthetic.rules import SKILLS
from parity.run import digest, files

SEED = 0
SOLUTION = "solution.csv"
TRAIN_DEMAND = Demand(count=500, labels=(1,) * 13 + (2,) * 5 + (3,) * 2, shown=1.0)
TEST_DEMAND = Demand(count=100, labels=(1, 2, 2, 3), shown=0.32)

_SAMPLED = 25
_COLUMNS = (
    *("QuestionId", "ConstructId", "ConstructName", "SubjectId", "SubjectName"),
    *("CorrectAnswer", "QuestionText", *(f"Answer{answer}Text" for answer in ANSWERS)),
)
_LABELS = tuple(f"Misconception{answer}Id" for answer in ANSWERS)
_README = """\
# Synthetic competition: buggy rules

Made from seed {seed} by `python -m parity.competition.synthetic.generator data/synthetic`;
do not edit. License: CC0 1.0, public domain. No text or number here comes from another competition.

The files are those of Kaggle's Eedi competition, and `{solution}`: the labels of the test, for a
made-up leaderboard. Mining, training and prompts must never read it.

Each of the {misconceptions} misconceptions joins a skill and a family of bugs, as in
"{example}".
A labeled wrong answer is computed by its rule and differs from what every other rule gives, so a
reader can infer the rule. Train shows {shown} misconceptions; most labels of the test are others.
"""


def generate(seed: int) -> dict[str, str]:
    """Return file name → text: Kaggle's four files, the labels of the test, a README.

    The bytes depend on the seed alone.
    """
    random = Random(int(digest.of_text(f"buggy rules, seed {seed}"), 16))
    world = questions.world(random)
    author = Author(world, random)
    train = author.write(TRAIN_DEMAND)
    test = author.write(TEST_DEMAND)
    first = len(train)  # question id of the test's first question
    corpus = sorted((key, text) for text, keys in world.ids.items() for key in keys)
    sampled = " ".join(str(key) for key, _ in corpus[:_SAMPLED])
    return {
        MAPPING: _csv(("MisconceptionId", "MisconceptionName"), corpus),
        TRAIN: _csv(
            (*_COLUMNS, *_LABELS),
            ([*_cells(key, question), *_float_ids(question)] for key, question in enumerate(train)),
        ),
        TEST: _csv(_COLUMNS, (_cells(key, question) for key, question in enumerate(test, first))),
        SAMPLE: _csv(
            SUBMISSION_COLUMNS,
            (
                (f"{key}_{answer}", sampled)
                for key, question in enumerate(test, first)
                for index, answer in enumerate(ANSWERS)
                if index != question.correct
            ),
        ),
        SOLUTION: _csv(
            SUBMISSION_COLUMNS,
            (
                (f"{key}_{answer}", label)
                for key, question in enumerate(test, first)
                for answer, label in zip(ANSWERS, question.labels, strict=True)
                if label is not None
            ),
        ),
        "README.md": _readme(seed, world, train),
    }


def main(arguments: Sequence[str]) -> None:
    """Write the competition into the one folder named."""
    (folder,) = map(Path, arguments)
    for name, text in generate(SEED).items():
        files.write_text(folder / name, text)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")  # bytes that git leaves alone
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _cells(question_id: int, question: Question) -> list[object]:
    skill = question.skill
    subjects = list(dict.fromkeys(other.subject for other in SKILLS))
    constructs = list(dict.fromkeys(other.construct for other in SKILLS))
    return [
        question_id,
        constructs.index(skill.construct),
        skill.construct,
        subjects.index(skill.subject),
        skill.subject,
        ANSWERS[question.correct],
        question.text,
        *question.answers,
    ]


def _float_ids(question: Question) -> list[str]:
    """Return labels as pandas writes whole numbers in a column that has blanks."""
    return ["" if label is None else f"{label}.0" for label in question.labels]


def _readme(seed: int, world: World, train: list[Question]) -> str:
    labels = [label for question in train for label in question.labels if label is not None]
    return _README.format(
        seed=seed,
        solution=SOLUTION,
        misconceptions=sum(map(len, world.ids.values())),
        example=next(iter(world.ids)),
        shown=len(set(labels)),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
