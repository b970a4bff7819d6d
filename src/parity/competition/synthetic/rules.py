"""Buggy rules of arithmetic and algebra: each is one skill with one family of bugs.

A question has two numbers, a and b, and a right answer c. A family says what a pupil gives instead
in any skill, so a new rule can be understood from its two parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random


@dataclass(frozen=True, slots=True)
class Skill:
    """What a question asks for.

    Attributes:
        phrase: name of the skill in the sentence of a misconception.
        subject: name of the subject, shared by related skills.
        construct: name of the construct; its words differ from the sentence's on purpose.
        wordings: question texts with `{a}` and `{b}`.
        right: the number of the right answer.
        working: the calculation as a text with `{a}` and `{b}`.
        first: range of a.
        second: range of b.
        answer: a number as the text of an answer, with `{a}`, `{b}` and `{n}`.
    """

    phrase: str
    subject: str
    construct: str
    wordings: tuple[str, ...]
    right: Callable[[int, int], Fraction | int]
    working: str
    first: range
    second: range
    answer: str = "{n}"


@dataclass(frozen=True, slots=True)
class Case:
    """One question of a skill: its two numbers, its right number, its calculation as a text."""

    a: int
    b: int
    c: int
    working: str


@dataclass(frozen=True, slots=True)
class Family:
    """What goes wrong: in words, and as the number given instead (empty: cannot be done)."""

    phrase: str
    wrong: Callable[[Case], str]


SKILLS = (
    Skill(
        "adding two numbers",
        "Mental Addition and Subtraction",
        "Work out a total",
        ("{a} + {b} = ?", "What is {a} plus {b}?"),
        lambda a, b: a + b,
        "{a} + {b}",
        range(12, 80),
        range(12, 80),
    ),
    Skill(
        "taking one number from another",
        "Mental Addition and Subtraction",
        "Work out what is left",
        ("{a} - {b} = ?", "What is {a} minus {b}?"),
        lambda a, b: a - b,
        "{a} - {b}",
        range(40, 100),
        range(11, 60),
    ),
    Skill(
        "multiplying two numbers",
        "Mental Multiplication and Division",
        "Work out a product",
        ("{a} × {b} = ?", "What is {a} times {b}?"),
        lambda a, b: a * b,
        "{a} × {b}",
        range(11, 40),
        range(3, 10),
    ),
    Skill(
        "sharing one number by another",
        "Mental Multiplication and Division",
        "Work out a quotient",
        ("{a} ÷ {b} = ?", "What is {a} divided by {b}?"),
        lambda a, b: Fraction(a, b),
        "{a} ÷ {b}",
        range(40, 200),
        range(3, 10),
    ),
    Skill(
        "finding the mean of two numbers",
        "Averages and Range",
        "Calculate an average",
        ("Find the mean of {a} and {b}.", "What is the average of {a} and {b}?"),
        lambda a, b: Fraction(a + b, 2),
        "({a} + {b}) ÷ 2",
        range(11, 60),
        range(11, 60),
    ),
    Skill(
        "finding the range of two numbers",
        "Averages and Range",
        "Describe the spread of data",
        ("The largest value is {a}, the smallest {b}. What is the range?",),
        lambda a, b: a - b,
        "{a} - {b}",
        range(40, 100),
        range(11, 60),
    ),
    Skill(
        "finding the area of a rectangle",
        "Area and Perimeter",
        "Measure the surface of a shape",
        ("A rectangle is {a} cm by {b} cm. What is its area?",),
        lambda a, b: a * b,
        "{a} × {b}",
        range(11, 40),
        range(3, 10),
    ),
    Skill(
        "finding the perimeter of a rectangle",
        "Area and Perimeter",
        "Measure the distance around a shape",
        ("A rectangle is {a} cm by {b} cm. What is its perimeter?",),
        lambda a, b: 2 * (a + b),
        "2 × ({a} + {b})",
        range(11, 40),
        range(3, 10),
    ),
    Skill(
        "finding the area of a triangle",
        "Area and Perimeter",
        "Measure the surface of a shape",
        ("A triangle has base {a} cm and height {b} cm. What is its area?",),
        lambda a, b: Fraction(a * b, 2),
        "{a} × {b} ÷ 2",
        range(11, 40),
        range(3, 10),
    ),
    Skill(
        "finding a percentage of an amount",
        "Percentages and Fractions",
        "Work out a part of a whole",
        ("What is {a}% of {b}?", "Find {a}% of {b}."),
        lambda a, b: Fraction(a * b, 100),
        "{a} × {b} ÷ 100",
        range(5, 60, 5),
        range(60, 400, 20),
    ),
    Skill(
        "finding a unit fraction of an amount",
        "Percentages and Fractions",
        "Work out a part of a whole",
        ("What is 1/{a} of {b}?", "Find 1/{a} of {b}."),
        lambda a, b: Fraction(b, a),
        "{b} ÷ {a}",
        range(3, 10),
        range(40, 200),
    ),
    Skill(
        "solving an equation with an added number",
        "Linear Equations",
        "Find the unknown",
        ("Solve x + {a} = {b}", "x + {a} = {b}. What is x?"),
        lambda a, b: b - a,
        "{b} - {a}",
        range(11, 60),
        range(40, 100),
        "x = {n}",
    ),
    Skill(
        "solving an equation with a subtracted number",
        "Linear Equations",
        "Find the unknown",
        ("Solve x - {a} = {b}", "x - {a} = {b}. What is x?"),
        lambda a, b: b + a,
        "{b} + {a}",
        range(12, 80),
        range(12, 80),
        "x = {n}",
    ),
    Skill(
        "solving an equation with a multiplied unknown",
        "Linear Equations",
        "Find the unknown",
        ("Solve {a}x = {b}", "{a}x = {b}. What is x?"),
        lambda a, b: Fraction(b, a),
        "{b} ÷ {a}",
        range(3, 10),
        range(40, 200),
        "x = {n}",
    ),
    Skill(
        "solving an equation with a divided unknown",
        "Linear Equations",
        "Find the unknown",
        ("Solve x/{a} = {b}", "x/{a} = {b}. What is x?"),
        lambda a, b: a * b,
        "{a} × {b}",
        range(3, 10),
        range(11, 40),
        "x = {n}",
    ),
    Skill(
        "expanding a bracket",
        "Algebraic Expressions",
        "Rewrite an expression",
        ("Expand {a}(x + {b})", "Multiply out {a}(x + {b})"),
        lambda a, b: a * b,
        "{a} × {b}",
        range(3, 10),
        range(11, 40),
        "{a}x + {n}",
    ),
    Skill(
        "collecting like terms",
        "Algebraic Expressions",
        "Rewrite an expression",
        ("Simplify {a}p + {b}p", "Write {a}p + {b}p as one term."),
        lambda a, b: a + b,
        "{a} + {b}",
        range(3, 40),
        range(3, 40),
        "{n}p",
    ),
    Skill(
        "putting a number into a formula",
        "Algebraic Expressions",
        "Evaluate when the letter is known",
        ("What is {a}y when y = {b}?", "y = {b}. What is the value of {a}y?"),
        lambda a, b: a * b,
        "{a} × {b}",
        range(3, 10),
        range(11, 40),
    ),
    Skill(
        "multiplying powers",
        "Laws of Indices",
        "Combine terms with exponents",
        ("Simplify k^{a} × k^{b}", "Write k^{a} × k^{b} as one power."),
        lambda a, b: a + b,
        "{a} + {b}",
        range(3, 40),
        range(3, 40),
        "k^{n}",
    ),
    Skill(
        "raising a power to a power",
        "Laws of Indices",
        "Combine terms with exponents",
        ("Simplify (k^{a})^{b}", "Write (k^{a})^{b} as one power."),
        lambda a, b: a * b,
        "{a} × {b}",
        range(11, 40),
        range(3, 10),
        "k^{n}",
    ),
    Skill(
        "continuing a sequence",
        "Sequences",
        "Generate terms",
        ("A sequence starts at {a} and goes up in {b}s. What is the third term?",),
        lambda a, b: a + 2 * b,
        "{a} + 2 × {b}",
        range(11, 60),
        range(3, 20),
    ),
    Skill(
        "finding a missing angle in a triangle",
        "Angles",
        "Reason about shapes",
        ("Two angles of a triangle are {a}° and {b}°. What is the third?",),
        lambda a, b: 180 - a - b,
        "180 - {a} - {b}",
        range(21, 80),
        range(21, 80),
    ),
)
"""Skills of one subject share their words with each other rather than with their sentences."""

FAMILIES = (
    Family("Gives only the first number", lambda q: f"{q.a}"),
    Family("Gives only the second number", lambda q: f"{q.b}"),
    Family("Adds the two numbers", lambda q: f"{q.a + q.b}"),
    Family("Takes the smaller number from the larger", lambda q: f"{abs(q.a - q.b)}"),
    Family("Multiplies the two numbers", lambda q: f"{q.a * q.b}"),
    Family("Writes the two numbers side by side", lambda q: f"{q.a}{q.b}"),
    Family(
        "Writes one number over the other",
        lambda q: f"{q.a}/{q.b}" if q.a != q.b * q.c else "",  # else it is the right answer
    ),
    Family("Leaves the calculation undone", lambda q: q.working),
    Family("Writes the digits backwards", lambda q: f"{q.c}"[::-1] if q.c % 10 else ""),
    Family("Puts an extra zero at the end", lambda q: f"{q.c}0"),
    Family("Puts a decimal point before the last digit", lambda q: f"{q.c // 10}.{q.c % 10}"),
    Family("Makes the answer negative", lambda q: f"-{q.c}"),
    Family("Gives one over the answer", lambda q: f"1/{q.c}"),
    Family("Doubles the answer", lambda q: f"{2 * q.c}"),
    Family("Halves the answer", lambda q: f"{q.c / 2:g}"),
    Family("Counts one too many", lambda q: f"{q.c + 1}"),
    Family("Counts one too few", lambda q: f"{q.c - 1}"),
    Family("Rounds to the nearest ten", lambda q: f"{(q.c + 5) // 10 * 10}"),
)


def sentence(skill: Skill, family: Family) -> str:
    """Return the sentence of a misconception.

    >>> sentence(SKILLS[4], FAMILIES[0])
    'Gives only the first number when finding the mean of two numbers'
    """
    return f"{family.phrase} when {skill.phrase}"


def draw(skill: Skill, random: Random) -> Case:
    """Draw a question whose right answer is whole and has two or three digits."""
    while True:
        a, b = random.choice(skill.first), random.choice(skill.second)
        c = Fraction(skill.right(a, b))
        if a != b and c.denominator == 1 and 10 <= c < 1000:
            return Case(a, b, int(c), skill.working.format(a=a, b=b))


def families(skill: Skill) -> tuple[Family, ...]:
    """Return the families that this skill's questions can distinguish.

    Adding the two numbers is right in an addition, and of two families that always agree only the
    first counts.
    """
    random = Random(0)
    cases = [draw(skill, random) for _ in range(100)]
    distinct: list[Family] = []
    for family in FAMILIES:
        rivals = [lambda q: f"{q.c}", *(other.wrong for other in distinct)]
        distinguishing = [
            q for q in cases if family.wrong(q) not in {"", *(rival(q) for rival in rivals)}
        ]
        if len(distinguishing) >= len(cases) // 4:
            distinct.append(family)
    return tuple(distinct)


def wrong_answers(skill: Skill, case: Case, candidates: Sequence[Family]) -> dict[Family, str]:
    """Return the wrong answers of a question from which the family can be inferred.

    Returns:
        Family → the text of its answer, which neither the right answer nor another family has.
    """
    numbers_by_family = {family: family.wrong(case) for family in candidates}
    numbers = [f"{case.c}", *numbers_by_family.values()]
    return {
        family: skill.answer.format(a=case.a, b=case.b, n=number)
        for family, number in numbers_by_family.items()
        if number and numbers.count(number) == 1
    }
