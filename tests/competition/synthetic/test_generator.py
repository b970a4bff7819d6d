"""The shipped competition: its bytes, and labels that can be inferred from the answers."""

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
from shipped_data import synthetic_folder, tracked_folder

from parity.competition import lineage
from parity.competition.base import CompetitionData
from parity.competition.eedi import kaggle_files
from parity.competition.eedi.kaggle_files import ANSWERS
from parity.competition.query import Position, Qrels, Query, QueryId
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
class GeneratedCompetition:
    """A competition in a folder, its questions one by one, and the labels of its test."""

    folder: Path
    read: CompetitionData
    solution: Qrels

    @property
    def labels(self) -> dict[QueryId, Position]:
        """Labels of train and test."""
        qrels = {**self.read.qrels, **self.solution}
        return {key: next(iter(ids)) for key, ids in qrels.items()}

    @property
    def queries(self) -> list[Query]:
        return [*self.read.queries, *self.read.test]

    def column(self, name: str, column: str) -> list[str]:
        return [row[column] for row in rows((self.folder / name).read_text(encoding="utf-8"))]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture(scope="module", params=["shipped", "seed 1", "seed 2"])
def competition(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> GeneratedCompetition:
    """Return the shipped competition or one of another seed."""
    folder = synthetic_folder()
    if request.param != "shipped":
        folder = tmp_path_factory.mktemp("synthetic")
        for name, text in generator.generate(int(request.param[-1])).items():
            files.write_text(folder / name, text)
    solution_rows = rows((folder / generator.SOLUTION).read_text(encoding="utf-8"))
    solution = {
        QueryId(row["QuestionId_Answer"]): frozenset({Position(int(row["MisconceptionId"]))})
        for row in solution_rows
    }
    assert len(solution) == len(solution_rows)
    return GeneratedCompetition(folder, kaggle_files.read(folder), solution)


def case_of(skill: Skill, question: str) -> Case:
    """Read a question's two numbers back from its text."""
    text = " ".join(question.split())
    for wording in skill.wordings:
        pattern = re.escape(wording).replace(r"\{", "{").replace(r"\}", "}").format(**NUMBERS)
        if match := re.search(pattern, text):
            a, b = int(match["a"]), int(match["b"])
            c = skill.right(a, b)
            assert c == int(c)
            return Case(a, b, int(c), skill.working.format(a=a, b=b))
    raise AssertionError(f"not a wording of {skill.phrase}: {question}")


def answer_of(skill: Skill, case: Case, family: Family | None = None) -> str:
    number = f"{case.c}" if family is None else family.wrong(case)
    return skill.answer.format(a=case.a, b=case.b, n=number)


def test_the_shipped_files_are_those_of_the_seed() -> None:
    expected = generator.generate(generator.SEED)
    shipped = digest.of_tree(tracked_folder("synthetic"))
    assert {name: digest.of_text(text) for name, text in expected.items()} == shipped


def test_the_command_writes_the_same_bytes_under_another_hash_seed(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "parity.competition.synthetic.generator", tmp_path / "made"],
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        check=True,
    )
    assert digest.of_tree(tmp_path / "made") == digest.of_tree(synthetic_folder())


def test_another_seed_makes_other_questions_of_the_same_rules() -> None:
    first, second = generator.generate(1), generator.generate(2)
    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first)
    questions = [
        {row["QuestionText"] for row in rows(texts[kaggle_files.TRAIN])}
        for texts in (first, second)
    ]
    assert len(questions[0] & questions[1]) < 0.2 * len(questions[0])
    mapped = [
        {row["MisconceptionName"] for row in rows(texts[kaggle_files.MAPPING])}
        for texts in (first, second)
    ]
    assert mapped[0] == mapped[1]


def test_there_are_many_misconceptions_and_five_hundred_questions(
    competition: GeneratedCompetition,
) -> None:
    assert len(competition.read.corpus) >= 300
    assert len(competition.column(kaggle_files.TRAIN, "QuestionId")) == 500
    assert len(competition.column(kaggle_files.TEST, "QuestionId")) == 100


def test_every_wrong_answer_of_the_test_is_a_row_of_the_sample(
    competition: GeneratedCompetition,
) -> None:
    correct = dict(
        zip(
            competition.column(kaggle_files.TEST, "QuestionId"),
            competition.column(kaggle_files.TEST, "CorrectAnswer"),
            strict=True,
        )
    )
    expected = {
        f"{key}_{answer}" for key in correct for answer in ANSWERS if answer != correct[key]
    }
    assert {query.query_id for query in competition.read.test} == expected
    assert len(competition.read.test) == 300


def test_the_sample_holds_25_existing_ids(competition: GeneratedCompetition) -> None:
    for cell in set(competition.column(kaggle_files.SAMPLE, "MisconceptionId")):
        ids = [Position(int(word)) for word in cell.split(" ")]
        assert len(set(ids)) == len(ids) == 25
        assert set(ids) <= set(competition.read.corpus)


def test_the_solution_labels_rows_of_the_sample(competition: GeneratedCompetition) -> None:
    assert set(competition.solution) < {query.query_id for query in competition.read.test}
    questions = {query_id.split("_")[0] for query_id in competition.solution}
    assert questions == set(competition.column(kaggle_files.TEST, "QuestionId"))


def test_most_labels_of_the_test_are_never_shown_by_train(
    competition: GeneratedCompetition,
) -> None:
    shown = frozenset[Position]().union(*competition.read.qrels.values())
    unseen = [key for key, ids in competition.solution.items() if not ids & shown]
    assert 0.60 <= len(unseen) / len(competition.solution) <= 0.75


def test_parts_of_a_rule_never_shown_are_shown_in_other_rules(
    competition: GeneratedCompetition,
) -> None:
    shown = [
        RULES[competition.read.corpus[id_]]
        for ids in competition.read.qrels.values()
        for id_ in ids
    ]
    hidden = [
        RULES[competition.read.corpus[id_]] for ids in competition.solution.values() for id_ in ids
    ]
    assert {skill for skill, _ in hidden} <= {skill for skill, _ in shown}
    assert {family for _, family in hidden} <= {family for _, family in shown}


def test_ids_are_numbered_without_regard_to_the_rules(competition: GeneratedCompetition) -> None:
    names = list(competition.read.corpus.values())
    phrases = [RULES[name][0].phrase for name in names]
    assert list(competition.read.corpus) == list(range(len(names)))
    neighbors = sum(phrase == next_phrase for phrase, next_phrase in pairwise(phrases))
    assert neighbors < 0.15 * len(phrases)


def test_two_misconceptions_share_one_sentence(competition: GeneratedCompetition) -> None:
    names = list(competition.read.corpus.values())
    (twice,) = {name for name in names if names.count(name) > 1}
    twins = {key for key, name in competition.read.corpus.items() if name == twice}
    assert len(twins) == 2
    assert twins & set(competition.labels.values())


def test_some_questions_ask_the_same_in_other_white_space(
    competition: GeneratedCompetition,
) -> None:
    for name, least in ((kaggle_files.TRAIN, 10), (kaggle_files.TEST, 1)):
        texts = competition.column(name, "QuestionText")
        groups: dict[str, set[str]] = {}
        for text in texts:
            groups.setdefault(lineage.normalize(text), set()).add(text)
        assert len(texts) - len(groups) >= least
        assert sum(len(group) > 1 for group in groups.values()) >= least


def test_no_question_of_the_test_is_asked_in_train(competition: GeneratedCompetition) -> None:
    train, test = (
        {lineage.normalize(text) for text in competition.column(name, "QuestionText")}
        for name in (kaggle_files.TRAIN, kaggle_files.TEST)
    )
    assert not train & test


def test_texts_have_long_latex_quotes_and_newlines(competition: GeneratedCompetition) -> None:
    texts = competition.column(kaggle_files.TRAIN, "QuestionText")
    latex = [text for text in texts if r"\begin{array}" in text]
    assert latex
    assert all(len(text) > 120 and text.count("\n") >= 5 for text in latex)
    assert [text for text in texts if '"' in text and "\n" in text]
    assert [text for text in texts if "×" in text or "÷" in text]


def test_labels_are_written_as_pandas_writes_them(competition: GeneratedCompetition) -> None:
    cells = [
        cell
        for a in ANSWERS
        for cell in competition.column(kaggle_files.TRAIN, f"Misconception{a}Id")
    ]
    assert all(cell == "" or re.fullmatch(r"\d+\.0", cell) for cell in cells)
    assert cells.count("") > len(cells) / 2


def test_no_two_answers_of_a_question_are_the_same(competition: GeneratedCompetition) -> None:
    for name in (kaggle_files.TRAIN, kaggle_files.TEST):
        columns = [competition.column(name, f"Answer{answer}Text") for answer in ANSWERS]
        assert all(len(set(answers)) == 4 for answers in zip(*columns, strict=True))


def test_the_right_answer_may_be_any_of_the_four(competition: GeneratedCompetition) -> None:
    correct = competition.column(kaggle_files.TRAIN, "CorrectAnswer")
    assert all(correct.count(answer) > len(correct) / 6 for answer in ANSWERS)


def test_a_labeled_answer_is_what_its_rule_gives_and_no_other_rule_does(
    competition: GeneratedCompetition,
) -> None:
    rules: dict[Skill, set[Family]] = {skill: set() for skill in SKILLS}
    for name in competition.read.corpus.values():
        skill, family = RULES[name]
        rules[skill].add(family)
    queries = {query.query_id: query for query in competition.queries}
    for query_id, label in competition.labels.items():
        query = queries[query_id]
        skill, family = RULES[competition.read.corpus[label]]
        case = case_of(skill, query.fields["question"])
        assert query.fields["correct"] == answer_of(skill, case)
        assert query.fields["wrong"] == answer_of(skill, case, family) != query.fields["correct"]
        rivals = rules[skill] - {family}
        assert query.fields["wrong"] not in {answer_of(skill, case, other) for other in rivals}


def test_a_question_says_its_subject_and_construct(competition: GeneratedCompetition) -> None:
    names = {(skill.subject, skill.construct) for skill in SKILLS}
    assert {
        (query.fields["subject"], query.fields["construct"]) for query in competition.queries
    } == names
    assert len({query.groups["subject"] for query in competition.queries}) == len(
        {subject for subject, _ in names}
    )
    assert len({query.groups["construct"] for query in competition.queries}) == len(
        {construct for _, construct in names}
    )


def test_the_readme_has_the_right_counts(competition: GeneratedCompetition) -> None:
    text = (competition.folder / "README.md").read_text(encoding="utf-8")
    shown = frozenset[Position]().union(*competition.read.qrels.values())
    assert f"Each of the {len(competition.read.corpus)} misconceptions" in text
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


def test_the_right_operation_of_a_skill_is_not_a_bug() -> None:
    phrases = {skill.phrase: {family.phrase for family in families(skill)} for skill in SKILLS}
    assert "Multiplies the two numbers" not in phrases["multiplying two numbers"]
    assert "Multiplies the two numbers" in phrases["adding two numbers"]
    assert "Adds the two numbers" not in phrases["adding two numbers"]
    assert (
        "Takes the smaller number from the larger" not in phrases["taking one number from another"]
    )


def test_an_answer_that_two_rules_give_is_used_for_neither() -> None:
    skill = next(skill for skill in SKILLS if skill.phrase == "adding two numbers")
    by_family = wrong_answers(skill, Case(60, 12, 72, "60 + 12"), FAMILIES)
    answers = {family.phrase: text for family, text in by_family.items()}
    assert "Multiplies the two numbers" not in answers  # 720
    assert "Puts an extra zero at the end" not in answers  # 720
    assert "Adds the two numbers" not in answers  # 72, which is right
    assert answers["Writes the two numbers side by side"] == "6012"
    assert len(set(answers.values())) == len(answers) == len(FAMILIES) - 3
