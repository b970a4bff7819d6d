"""The competition that ships: its bytes, and that every label can be inferred from its answer."""

import csv
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from parity.competition import lineage
from parity.competition.eedi import kaggle_files
from parity.competition.eedi.kaggle_files import Competition
from parity.competition.query import ANSWERS, MisconceptionId, Qrels, Query, QueryId
from parity.competition.synthetic import generator
from parity.competition.synthetic.rules import (
    FAMILIES,
    SKILLS,
    Case,
    Family,
    Skill,
    families,
    sentence,
    wrong_answers,
)
from parity.run import digest, files

RULES = {sentence(skill, family): (skill, family) for skill in SKILLS for family in FAMILIES}
NUMBERS = {"a": r"(?P<a>\d+)", "b": r"(?P<b>\d+)"}


@dataclass(frozen=True)
class Made:
    """A competition in a folder, its questions one by one, and the labels of its test."""

    folder: Path
    read: Competition
    solution: Qrels

    @property
    def labels(self) -> dict[QueryId, MisconceptionId]:
        """Labels of train and test."""
        both = {**self.read.qrels, **self.solution}
        return {key: next(iter(ids)) for key, ids in both.items()}

    @property
    def queries(self) -> list[Query]:
        return [*self.read.queries, *self.read.test]

    def column(self, name: str, column: str) -> list[str]:
        return [row[column] for row in rows((self.folder / name).read_text(encoding="utf-8"))]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture(scope="module", params=["shipped", "seed 1", "seed 2"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Whatever holds of the competition that ships holds of other seeds too."""
    folder = Path(__file__).parents[3] / "data" / "synthetic"
    if request.param != "shipped":
        folder = tmp_path_factory.mktemp("synthetic")
        for name, text in generator.generate(int(request.param[-1])).items():
            files.write_text(folder / name, text)
    told = rows((folder / generator.SOLUTION).read_text(encoding="utf-8"))
    solution = {
        QueryId(row["QuestionId_Answer"]): frozenset({MisconceptionId(int(row["MisconceptionId"]))})
        for row in told
    }
    assert len(solution) == len(told)
    return Made(folder, kaggle_files.read(folder), solution)


def case_of(skill: Skill, question: str) -> Case:
    """Read a question's two numbers back from its text."""
    text = " ".join(question.split())
    for wording in skill.wordings:
        pattern = re.escape(wording).replace(r"\{", "{").replace(r"\}", "}").format(**NUMBERS)
        if found := re.search(pattern, text):
            a, b = int(found["a"]), int(found["b"])
            c = skill.right(a, b)
            assert c == int(c)
            return Case(a, b, int(c), skill.working.format(a=a, b=b))
    raise AssertionError(f"not asked as {skill.phrase} is: {question}")


def answer_of(skill: Skill, case: Case, family: Family | None = None) -> str:
    number = f"{case.c}" if family is None else family.wrong(case)
    return skill.answer.format(a=case.a, b=case.b, n=number)


def test_the_shipped_files_are_what_the_seed_makes(root: Path) -> None:
    made = generator.generate(generator.SEED)
    shipped = digest.of_tree(root / "data" / "synthetic")
    assert {name: digest.of_text(text) for name, text in made.items()} == shipped


def test_the_command_writes_the_same_bytes_under_another_hash_seed(
    root: Path, tmp_path: Path
) -> None:
    subprocess.run(
        [sys.executable, "-m", "parity.competition.synthetic.generator", tmp_path / "made"],
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        check=True,
    )
    assert digest.of_tree(tmp_path / "made") == digest.of_tree(root / "data" / "synthetic")


def test_another_seed_makes_other_questions_of_the_same_rules() -> None:
    one, two = generator.generate(1), generator.generate(2)
    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one)
    asked = [{row["QuestionText"] for row in rows(made[kaggle_files.TRAIN])} for made in (one, two)]
    assert len(asked[0] & asked[1]) < 0.2 * len(asked[0])
    mapped = [
        {row["MisconceptionName"] for row in rows(made[kaggle_files.MAPPING])}
        for made in (one, two)
    ]
    assert mapped[0] == mapped[1]


def test_there_are_many_misconceptions_and_five_hundred_questions(made: Made) -> None:
    assert len(made.read.corpus) >= 300
    assert len(made.column(kaggle_files.TRAIN, "QuestionId")) == 500
    assert len(made.column(kaggle_files.TEST, "QuestionId")) == 100


def test_every_wrong_answer_of_the_test_is_a_row_of_the_sample(made: Made) -> None:
    correct = dict(
        zip(
            made.column(kaggle_files.TEST, "QuestionId"),
            made.column(kaggle_files.TEST, "CorrectAnswer"),
            strict=True,
        )
    )
    wanted = {f"{key}_{answer}" for key in correct for answer in ANSWERS if answer != correct[key]}
    assert set(made.read.sample) == wanted
    assert len(made.read.sample) == 300


def test_the_sample_holds_25_ids_that_are_there(made: Made) -> None:
    for cell in set(made.column(kaggle_files.SAMPLE, "MisconceptionId")):
        ids = [MisconceptionId(int(word)) for word in cell.split(" ")]
        assert len(set(ids)) == len(ids) == 25
        assert set(ids) <= set(made.read.corpus)


def test_the_solution_labels_rows_of_the_sample(made: Made) -> None:
    assert set(made.solution) < set(made.read.sample)
    questions = {query_id.split("_")[0] for query_id in made.solution}
    assert questions == set(made.column(kaggle_files.TEST, "QuestionId"))


def test_most_labels_of_the_test_are_never_shown_by_train(made: Made) -> None:
    shown = frozenset[MisconceptionId]().union(*made.read.qrels.values())
    unseen = [key for key, ids in made.solution.items() if not ids & shown]
    assert 0.60 <= len(unseen) / len(made.solution) <= 0.75


def test_parts_of_a_rule_never_shown_are_shown_in_other_rules(made: Made) -> None:
    shown = [RULES[made.read.corpus[id_]] for ids in made.read.qrels.values() for id_ in ids]
    told = [RULES[made.read.corpus[id_]] for ids in made.solution.values() for id_ in ids]
    assert {skill for skill, _ in told} <= {skill for skill, _ in shown}
    assert {family for _, family in told} <= {family for _, family in shown}


def test_ids_are_numbered_without_regard_to_the_rules(made: Made) -> None:
    names = list(made.read.corpus.values())
    phrases = [RULES[name][0].phrase for name in names]
    assert list(made.read.corpus) == list(range(len(names)))
    neighbours = sum(one == two for one, two in pairwise(phrases))
    assert neighbours < 0.15 * len(phrases)


def test_two_misconceptions_share_one_sentence(made: Made) -> None:
    names = list(made.read.corpus.values())
    (twice,) = {name for name in names if names.count(name) > 1}
    twins = {key for key, name in made.read.corpus.items() if name == twice}
    assert len(twins) == 2
    assert twins & set(made.labels.values())


def test_some_questions_ask_the_same_in_other_white_space(made: Made) -> None:
    for name, least in ((kaggle_files.TRAIN, 10), (kaggle_files.TEST, 1)):
        texts = made.column(name, "QuestionText")
        groups: dict[str, set[str]] = {}
        for text in texts:
            groups.setdefault(lineage.normalize(text), set()).add(text)
        assert len(texts) - len(groups) >= least
        assert sum(len(group) > 1 for group in groups.values()) >= least


def test_no_question_of_the_test_is_asked_in_train(made: Made) -> None:
    train, test = (
        {lineage.normalize(text) for text in made.column(name, "QuestionText")}
        for name in (kaggle_files.TRAIN, kaggle_files.TEST)
    )
    assert not train & test


def test_texts_have_long_latex_quotes_and_newlines(made: Made) -> None:
    texts = made.column(kaggle_files.TRAIN, "QuestionText")
    latex = [text for text in texts if r"\begin{array}" in text]
    assert latex
    assert all(len(text) > 120 and text.count("\n") >= 5 for text in latex)
    assert [text for text in texts if '"' in text and "\n" in text]
    assert [text for text in texts if "×" in text or "÷" in text]


def test_labels_are_written_as_pandas_writes_them(made: Made) -> None:
    cells = [
        cell for a in ANSWERS for cell in made.column(kaggle_files.TRAIN, f"Misconception{a}Id")
    ]
    assert all(cell == "" or re.fullmatch(r"\d+\.0", cell) for cell in cells)
    assert cells.count("") > len(cells) / 2


def test_no_two_answers_of_a_question_are_the_same(made: Made) -> None:
    for name in (kaggle_files.TRAIN, kaggle_files.TEST):
        columns = [made.column(name, f"Answer{answer}Text") for answer in ANSWERS]
        assert all(len(set(answers)) == 4 for answers in zip(*columns, strict=True))


def test_the_right_answer_may_be_any_of_the_four(made: Made) -> None:
    correct = made.column(kaggle_files.TRAIN, "CorrectAnswer")
    assert all(correct.count(answer) > len(correct) / 6 for answer in ANSWERS)


def test_a_labeled_answer_is_what_its_rule_gives_and_no_other_rule_does(made: Made) -> None:
    rules: dict[Skill, set[Family]] = {skill: set() for skill in SKILLS}
    for name in made.read.corpus.values():
        skill, family = RULES[name]
        rules[skill].add(family)
    queries = {query.query_id: query for query in made.queries}
    for query_id, label in made.labels.items():
        query = queries[query_id]
        skill, family = RULES[made.read.corpus[label]]
        case = case_of(skill, query.question)
        assert query.correct == answer_of(skill, case)
        assert query.wrong == answer_of(skill, case, family) != query.correct
        others = rules[skill] - {family}
        assert query.wrong not in {answer_of(skill, case, other) for other in others}


def test_a_question_says_its_subject_and_construct(made: Made) -> None:
    names = {(skill.subject, skill.construct) for skill in SKILLS}
    assert {(query.subject, query.construct) for query in made.queries} == names
    assert len({query.subject_id for query in made.queries}) == len({one for one, _ in names})
    assert len({query.construct_id for query in made.queries}) == len({two for _, two in names})


def test_the_readme_counts_what_is_there(made: Made) -> None:
    text = (made.folder / "README.md").read_text(encoding="utf-8")
    shown = frozenset[MisconceptionId]().union(*made.read.qrels.values())
    assert f"Each of the {len(made.read.corpus)} misconceptions" in text
    assert f"Train shows {len(shown)} misconceptions" in text


def test_every_family_by_hand() -> None:
    """What a pupil gives for 24 × 5 = 120, and for 17 × 5 = 85 where that says more."""
    large, small = Case(24, 5, 120, "24 × 5"), Case(17, 5, 85, "17 × 5")
    assert {family.phrase: (family.wrong(large), family.wrong(small)) for family in FAMILIES} == {
        "Gives only the first number": ("24", "17"),
        "Gives only the second number": ("5", "5"),
        "Adds the two numbers": ("29", "22"),
        "Takes the smaller number from the larger": ("19", "12"),
        "Multiplies the two numbers": ("120", "85"),
        "Writes the two numbers side by side": ("245", "175"),
        "Writes one number over the other": ("24/5", "17/5"),
        "Leaves the calculation undone": ("24 × 5", "17 × 5"),
        "Writes the digits backwards": ("", "58"),
        "Puts an extra zero at the end": ("1200", "850"),
        "Puts a decimal point before the last digit": ("12.0", "8.5"),
        "Makes the answer negative": ("-120", "-85"),
        "Gives one over the answer": ("1/120", "1/85"),
        "Doubles the answer": ("240", "170"),
        "Halves the answer": ("60", "42.5"),
        "Counts one too many": ("121", "86"),
        "Counts one too few": ("119", "84"),
        "Rounds to the nearest ten": ("120", "90"),
    }


def test_what_is_right_in_a_skill_is_no_bug_of_it() -> None:
    told = {skill.phrase: {family.phrase for family in families(skill)} for skill in SKILLS}
    assert "Multiplies the two numbers" not in told["multiplying two numbers"]
    assert "Multiplies the two numbers" in told["adding two numbers"]
    assert "Adds the two numbers" not in told["adding two numbers"]
    assert "Takes the smaller number from the larger" not in told["taking one number from another"]


def test_answers_that_two_rules_give_tell_of_neither() -> None:
    skill = next(skill for skill in SKILLS if skill.phrase == "adding two numbers")
    told = wrong_answers(skill, Case(60, 12, 72, "60 + 12"), FAMILIES)
    answers = {family.phrase: text for family, text in told.items()}
    assert "Multiplies the two numbers" not in answers  # 720
    assert "Puts an extra zero at the end" not in answers  # 720
    assert "Adds the two numbers" not in answers  # 72, which is right
    assert answers["Writes the two numbers side by side"] == "6012"
    assert len(set(answers.values())) == len(answers) == len(FAMILIES) - 3
