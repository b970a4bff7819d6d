"""Kaggle's four files of the Eedi competition → queries, labels and corpus.

Nothing is corrected, trimmed or guessed: ids are joined by number and texts keep every character.
"""

import re
from pathlib import Path

from parity.competition import csv_reader
from parity.competition.base import CompetitionData
from parity.competition.corpus import Corpus
from parity.competition.csv_reader import CsvTable
from parity.competition.query import PassageId, Qrels, Query, QueryId, QueryLayout, UnitId
from parity.run.errors import BadData

ANSWERS = ("A", "B", "C", "D")
MAPPING, TRAIN, TEST, SAMPLE = (
    "misconception_mapping.csv",
    "train.csv",
    "test.csv",
    "sample_submission.csv",
)
ROW, PREDICTED = SUBMISSION_COLUMNS = ("QuestionId_Answer", "MisconceptionId")
FIELDS = ("subject", "construct", "question", "correct", "wrong")
LAYOUT = QueryLayout(
    shorten=("question", "correct", "wrong"),
    nearest=("subject", "construct", "question"),
    identity=("question",),
)

_IDS = ("QuestionId", "ConstructId", "SubjectId")
_TEXTS = ("ConstructName", "SubjectName", "QuestionText", *(f"Answer{a}Text" for a in ANSWERS))
_LABELS = tuple(f"Misconception{answer}Id" for answer in ANSWERS)
_TEST_COLUMNS = (*_IDS, "CorrectAnswer", *_TEXTS)
_QUERY_ID = re.compile(r"[0-9]+_[ABCD]", re.ASCII)


def read(folder: Path) -> CompetitionData:
    """Read and check train.csv, test.csv, misconception_mapping.csv and sample_submission.csv.

    Labeled queries are ordered by question id, then answer; passages by misconception id.

    Raises:
        BadData: names file, row (from 1, the header not counted), question id and column.
    """
    mapping = csv_reader.read(folder / MAPPING, ("MisconceptionId", "MisconceptionName"))
    train = csv_reader.read(folder / TRAIN, (*_TEST_COLUMNS, *_LABELS))
    test = csv_reader.read(folder / TEST, _TEST_COLUMNS)
    sample = csv_reader.read(folder / SAMPLE, SUBMISSION_COLUMNS)
    corpus = _corpus(mapping)
    queries, qrels = _wrong_answers(train), _qrels(train, corpus)
    return CompetitionData(
        queries=[queries[query_id] for query_id in qrels],
        qrels=qrels,
        test=_sampled(sample, test),
        corpus=corpus,
        files={table.path.name: table.sha256 for table in (mapping, sample, test, train)},
    )


def read_test(folder: Path) -> list[Query]:
    """Read and check only test.csv and sample_submission.csv.

    Raises:
        BadData: as `read`.
    """
    test = csv_reader.read(folder / TEST, _TEST_COLUMNS)
    return _sampled(csv_reader.read(folder / SAMPLE, SUBMISSION_COLUMNS), test)


def read_corpus(folder: Path) -> Corpus:
    """Read and check only misconception_mapping.csv.

    Raises:
        BadData: as `read`.
    """
    return _corpus(csv_reader.read(folder / MAPPING, ("MisconceptionId", "MisconceptionName")))


def build_query(
    question_id: int,
    answer: str,
    *,
    construct: tuple[int, str],
    subject: tuple[int, str],
    question: str,
    answers: tuple[str, str],
) -> Query:
    """Return the query of one question with one wrong answer.

    Args:
        question_id: number of the question.
        answer: letter of the wrong answer.
        construct: its id and name.
        subject: its id and name.
        question: text of the question.
        answers: texts of the right and of the wrong answer.
    """
    name = f"{question_id}_{answer}"
    texts = (subject[1], construct[1], question, *answers)
    return Query(
        query_id=QueryId(name),
        unit=UnitId(str(question_id)),
        order=question_id * len(ANSWERS) + ANSWERS.index(answer),
        row=name,
        unit_size=len(ANSWERS) - 1,
        fields=dict(zip(FIELDS, texts, strict=True)),
        groups={"subject": str(subject[0]), "construct": str(construct[0])},
        layout=LAYOUT,
    )


def _corpus(table: CsvTable) -> Corpus:
    ids = table.distinct("MisconceptionId")
    texts = dict(zip(ids, table.texts("MisconceptionName"), strict=True))
    return Corpus({PassageId(str(number)): texts[number] for number in sorted(texts)})


def _wrong_answers(table: CsvTable) -> dict[QueryId, Query]:
    """Return every question with each of its wrong answers, in the file's order."""
    table.distinct("QuestionId")
    ids = {name: table.integers(name) for name in _IDS}
    texts = {name: table.texts(name) for name in _TEXTS}
    queries = {}
    for index, question_id in enumerate(ids["QuestionId"]):
        correct = _correct(table, index)
        for answer in ANSWERS:
            if answer == correct:
                continue
            query_id = QueryId(f"{question_id}_{answer}")
            queries[query_id] = build_query(
                question_id,
                answer,
                construct=(ids["ConstructId"][index], texts["ConstructName"][index]),
                subject=(ids["SubjectId"][index], texts["SubjectName"][index]),
                question=texts["QuestionText"][index],
                answers=(
                    texts[f"Answer{correct}Text"][index],
                    texts[f"Answer{answer}Text"][index],
                ),
            )
    return queries


def _correct(table: CsvTable, index: int) -> str:
    correct = table.columns["CorrectAnswer"][index]
    if correct not in ANSWERS:
        raise table.fault("CorrectAnswer", index, f"{correct!r} is not A, B, C or D")
    return correct


def _qrels(table: CsvTable, corpus: Corpus) -> Qrels:
    """Return the labels by question id, then answer; blank cells hold no label."""
    ids = table.integers("QuestionId")
    index_of = {question_id: index for index, question_id in enumerate(ids)}
    qrels: Qrels = {}
    for question_id in sorted(index_of):
        index = index_of[question_id]
        for answer, column in zip(ANSWERS, _LABELS, strict=True):
            if not table.columns[column][index].strip():
                continue
            label = table.integer(column, index)
            if answer == _correct(table, index):
                raise table.fault(column, index, "a label on the correct answer")
            position = corpus.find(str(label))
            if position is None:
                raise table.fault(column, index, f"no misconception {label} in {MAPPING}")
            qrels[QueryId(f"{question_id}_{answer}")] = frozenset({position})
    if not qrels:
        raise BadData(f"{table.path}, columns {_LABELS[0]} … {_LABELS[-1]}: no row has a label")
    return qrels


def _sampled(sample: CsvTable, test: CsvTable) -> list[Query]:
    """Return the queries of the test in the sample's order; both must name the same rows."""
    csv_reader.check_columns(sample, SUBMISSION_COLUMNS)
    queries = _wrong_answers(test)
    correct = {
        f"{question_id}_{_correct(test, index)}": index
        for index, question_id in enumerate(test.integers("QuestionId"))
    }
    first: dict[str, int] = {}
    for index, name in enumerate(sample.columns[ROW]):
        if _QUERY_ID.fullmatch(name) is None:
            raise sample.fault(ROW, index, f"{name!r} is not QuestionId_Answer, as 12_B is")
        if name in correct:
            problem = f"{name} is the correct answer (row {correct[name] + 1} of {TEST})"
            raise sample.fault(ROW, index, problem)
        if name not in queries:
            raise sample.fault(ROW, index, f"{name} is not an answer to a question of {TEST}")
        if first.setdefault(name, index) != index:
            raise sample.fault(ROW, index, f"{name} is also in row {first[name] + 1}")
    if missing := [query_id for query_id in queries if query_id not in first]:
        raise BadData(
            f"{sample.path}, row {len(first) + 1}, column {ROW}: {len(missing)} rows that {TEST} "
            f"asks for are missing (first: {missing[0]})"
        )
    return [queries[QueryId(name)] for name in first]
