"""The questions of the synthetic competition: its rules, the rules that train shows, its author."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NewType

from parity.competition.synthetic.rules import (
    SKILLS,
    Case,
    Family,
    Skill,
    draw,
    families,
    sentence,
    wrong_answers,
)

MisconceptionId = NewType("MisconceptionId", int)

_SHOWN = 0.4  # share of the misconceptions that train may show
_REPEAT = 40  # of so many questions, one asks what the one before it asks
_DRESS = 20  # of so many, one is dressed in a quotation or in LaTeX
_DRESSES = (
    'Mia asks: "{text}"',
    'Sam says, "I can\'t do this."\n\n{text}',
    "\\[\n\\begin{{array}}{{|l|l|}}\n\\hline \\text {{ First number }} & {a} \\\\\n"
    "\\hline \\text {{ Second number }} & {b} \\\\\n\\hline\n\\end{{array}}\n\\]\n{text}",
)


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is fixed before the first question.

    Attributes:
        families: skill → families that its answers can distinguish.
        ids: sentence → its misconceptions; one sentence has two.
        shown: the sentences that train may show.
    """

    families: dict[Skill, tuple[Family, ...]]
    ids: dict[str, tuple[MisconceptionId, ...]]
    shown: frozenset[str]


@dataclass(frozen=True, slots=True)
class Demand:
    """Requirements for a set of questions.

    Attributes:
        count: number of questions.
        labels: numbers of labels of one question, drawn evenly.
        shown: chance that a label is one that train may show.
    """

    count: int
    labels: tuple[int, ...]
    shown: float


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its four answers.

    Attributes:
        correct: index of the right answer, 0 for A.
        answers: texts of A to D.
        labels: misconceptions of A to D; None for the right and for unlabeled answers.
    """

    skill: Skill
    case: Case
    text: str
    correct: int
    answers: tuple[str, ...]
    labels: tuple[MisconceptionId | None, ...]


def world(random: Random) -> World:
    """Number the misconceptions in random order and choose those that train may show."""
    by_skill = {skill: families(skill) for skill in SKILLS}
    shown: list[str] = []
    for skill, members in by_skill.items():
        chosen = random.sample(members, round(_SHOWN * len(members)))
        shown.extend(sentence(skill, family) for family in chosen)
    sentences = [
        sentence(skill, family) for skill, members in by_skill.items() for family in members
    ]
    sentences.append(random.choice(shown))  # two ids may share a sentence, as on Kaggle
    random.shuffle(sentences)
    ids: dict[str, tuple[MisconceptionId, ...]] = {}
    for number, text in enumerate(sentences):
        ids[text] = (*ids.get(text, ()), MisconceptionId(number))
    return World(by_skill, ids, frozenset(shown))


class Author:
    """Writes questions about a world, each once except for planned repetitions."""

    def __init__(self, world: World, random: Random) -> None:
        """Take the world and the source of all choices."""
        self._world = world
        self._random = random
        self._used: set[tuple[Skill, Case]] = set()

    def write(self, demand: Demand) -> list[Question]:
        """Return new questions that meet a demand, with the skills in shuffled order."""
        skills = [SKILLS[number % len(SKILLS)] for number in range(demand.count)]
        self._random.shuffle(skills)
        uses: Counter[str] = Counter()
        questions: list[Question] = []
        for number, skill in enumerate(skills):
            count = self._random.choice(demand.labels)
            flags = [self._random.random() < demand.shown for _ in range(count)]
            repeated = questions[-1:] if number % _REPEAT == _REPEAT - 1 else []
            for asked_skill, case, text in self._ideas(skill, number, repeated):
                bugs = self._bugs(asked_skill, case, flags, uses)
                if bugs:
                    questions.append(self._question(asked_skill, case, text, bugs))
                    break
        return questions

    def _ideas(
        self, skill: Skill, number: int, repeated: list[Question]
    ) -> Iterator[tuple[Skill, Case, str]]:
        """Yield a question to repeat in other white space, then an endless series of new ones."""
        for before in repeated:
            yield before.skill, before.case, before.text.replace(" ", "  ") + "\n"
        dress = _DRESSES[number // _DRESS % len(_DRESSES)] if number % _DRESS == 0 else "{text}"
        while True:
            case = draw(skill, self._random)
            if (skill, case) not in self._used:
                self._used.add((skill, case))
                text = self._random.choice(skill.wordings).format(a=case.a, b=case.b)
                yield skill, case, dress.format(text=text, a=case.a, b=case.b)

    def _bugs(
        self, skill: Skill, case: Case, flags: Sequence[bool], uses: Counter[str]
    ) -> list[tuple[str, MisconceptionId | None]]:
        """Return three wrong answers, labeled by `flags`, least used first; or an empty list."""
        answers = wrong_answers(skill, case, self._world.families[skill])
        names = {text: sentence(skill, family) for family, text in answers.items()}
        bugs: dict[str, MisconceptionId | None] = {}
        for shown in flags:
            fit = [t for t in names if t not in bugs and (names[t] in self._world.shown) == shown]
            if not fit:
                return []
            text = min(fit, key=lambda t: (uses[names[t]], self._random.random()))
            uses[names[text]] += 1
            bugs[text] = self._random.choice(self._world.ids[names[text]])
        unlabeled = [text for text in names if text not in bugs]
        bugs |= dict.fromkeys(self._random.sample(unlabeled, 3 - len(bugs)))
        return list(bugs.items())

    def _question(
        self,
        skill: Skill,
        case: Case,
        text: str,
        wrong: list[tuple[str, MisconceptionId | None]],
    ) -> Question:
        right = skill.answer.format(a=case.a, b=case.b, n=case.c)
        answers = [(right, None), *wrong]
        self._random.shuffle(answers)
        texts, labels = zip(*answers, strict=True)
        return Question(skill, case, text, texts.index(right), texts, labels)
