"""Kaggle's four files of the competition → queries, qrels, corpus; every fault is one clear error.

Nothing is mended, trimmed or guessed: ids are joined by number and texts keep every character.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from parity.competition import csv_reader
from parity.competition.csv_reader import CsvTable
from parity.competition.query import ANSWERS, Corpus, MisconceptionId, Qrels, Query, QueryId
from parity.run.errors import BadData

MAPPING, TRAIN, TEST, SAMPLE = (
    "misconception_mapping.csv",
    "train.csv",
    "test.csv",
    "sample_submission.csv",
)
ROW, PREDICTED = SUBMISSION_COLUMNS = ("QuestionId_Answer", "MisconceptionId")

_IDS = ("QuestionId", "ConstructId", "SubjectId")
_TEXTS = ("ConstructName", "SubjectName", "QuestionText", *(f"Answer{a}Text" for a in ANSWERS))
_LABELS = tuple(f"Misconception{answer}Id" for answer in ANSWERS)
_TEST_COLUMNS = (*_IDS, "CorrectAnswer", *_TEXTS)
_QUERY_ID = re.compile(r"[0-9]+_[ABCD]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Competition:
    """What the organizer gives.

    Attributes:
        queries: the labeled rows of train.csv, by question id, then answer.
        qrels: the labels of exactly these.
        test: the rows of sample_submission.csv, in its order.
        corpus: all misconceptions, by id.
        sample: the query ids of `test`.
        files: file name → sha256.
    """

    queries: list[Query]
    qrels: Qrels
    test: list[Query]
    corpus: Corpus
    sample: tuple[QueryId, ...]
    files: dict[str, str]


def read(folder: Path) -> Competition:
    """Read and check train.csv, test.csv, misconception_mapping.csv and sample_submission.csv.

    Raises:
        BadData: names file, row (from 1, the header not counted), question id and column.
    """
    mapping = csv_reader.read(folder / MAPPING, ("MisconceptionId", "MisconceptionName"))
    train = csv_reader.read(folder / TRAIN, (*_TEST_COLUMNS, *_LABELS))
    test = csv_reader.read(folder / TEST, _TEST_COLUMNS)
    sample = csv_reader.read(folder / SAMPLE, SUBMISSION_COLUMNS)
    corpus = _corpus(mapping)
    asked, qrels = _wrong_answers(train), _qrels(train, corpus)
    hidden = _sampled(sample, test)
    return Competition(
        queries=[asked[query_id] for query_id in qrels],
        qrels=qrels,
        test=hidden,
        corpus=corpus,
        sample=tuple(query.query_id for query in hidden),
        files={sheet.path.name: sheet.sha256 for sheet in (mapping, sample, test, train)},
    )


def read_test(folder: Path) -> list[Query]:
    """Read and check test.csv and sample_submission.csv alone, as `Competition.test` has them.

    Raises:
        BadData: as `read`.
    """
    test = csv_reader.read(folder / TEST, _TEST_COLUMNS)
    return _sampled(csv_reader.read(folder / SAMPLE, SUBMISSION_COLUMNS), test)


def read_corpus(folder: Path) -> Corpus:
    """Read and check misconception_mapping.csv alone, as `Competition.corpus` has it.

    Raises:
        BadData: as `read`.
    """
    return _corpus(csv_reader.read(folder / MAPPING, ("MisconceptionId", "MisconceptionName")))


def _corpus(sheet: CsvTable) -> Corpus:
    ids = sheet.distinct("MisconceptionId")
    texts = dict(zip(ids, sheet.texts("MisconceptionName"), strict=True))
    return {MisconceptionId(key): texts[key] for key in sorted(texts)}


def _wrong_answers(sheet: CsvTable) -> dict[QueryId, Query]:
    """Return every question with each of its wrong answers, in the file's order."""
    sheet.distinct("QuestionId")
    ids = {name: sheet.integers(name) for name in _IDS}
    texts = {name: sheet.texts(name) for name in _TEXTS}
    queries = {}
    for place, question_id in enumerate(ids["QuestionId"]):
        correct = _correct(sheet, place)
        for answer in ANSWERS:
            if answer == correct:
                continue
            query_id = QueryId(f"{question_id}_{answer}")
            queries[query_id] = Query(
                query_id=query_id,
                question_id=question_id,
                answer=answer,
                construct_id=ids["ConstructId"][place],
                construct=texts["ConstructName"][place],
                subject_id=ids["SubjectId"][place],
                subject=texts["SubjectName"][place],
                question=texts["QuestionText"][place],
                correct=texts[f"Answer{correct}Text"][place],
                wrong=texts[f"Answer{answer}Text"][place],
            )
    return queries


def _correct(sheet: CsvTable, place: int) -> str:
    correct = sheet.columns["CorrectAnswer"][place]
    if correct not in ANSWERS:
        raise sheet.fault("CorrectAnswer", place, f"{correct!r} is not A, B, C or D")
    return correct


def _qrels(sheet: CsvTable, corpus: Corpus) -> Qrels:
    """Return the labels by question id, then answer; blank cells are no labels."""
    places = {question_id: place for place, question_id in enumerate(sheet.integers("QuestionId"))}
    qrels: Qrels = {}
    for question_id in sorted(places):
        place = places[question_id]
        for answer, column in zip(ANSWERS, _LABELS, strict=True):
            if not sheet.columns[column][place].strip():
                continue
            label = MisconceptionId(sheet.integer(column, place))
            if answer == _correct(sheet, place):
                raise sheet.fault(column, place, "a label on the correct answer")
            if label not in corpus:
                raise sheet.fault(column, place, f"no misconception {label} in {MAPPING}")
            qrels[QueryId(f"{question_id}_{answer}")] = frozenset({label})
    if not qrels:
        raise BadData(f"{sheet.path}, columns {_LABELS[0]} … {_LABELS[-1]}: no row has a label")
    return qrels


def _sampled(sample: CsvTable, test: CsvTable) -> list[Query]:
    """Return the queries of the test in the sample's order; both must name the same rows."""
    csv_reader.only(sample, SUBMISSION_COLUMNS)
    asked = _wrong_answers(test)
    correct = {
        f"{question_id}_{_correct(test, place)}": place
        for place, question_id in enumerate(test.integers("QuestionId"))
    }
    first: dict[str, int] = {}
    for place, name in enumerate(sample.columns[ROW]):
        if _QUERY_ID.fullmatch(name) is None:
            raise sample.fault(ROW, place, f"{name!r} is not QuestionId_Answer, as 12_B is")
        if name in correct:
            problem = f"{name} is the correct answer (row {correct[name] + 1} of {TEST})"
            raise sample.fault(ROW, place, problem)
        if name not in asked:
            raise sample.fault(ROW, place, f"{name} is no answer to a question of {TEST}")
        if first.setdefault(name, place) != place:
            raise sample.fault(ROW, place, f"{name} is also in row {first[name] + 1}")
    if missing := [query_id for query_id in asked if query_id not in first]:
        raise BadData(
            f"{sample.path}, row {len(first) + 1}, column {ROW}: {len(missing)} rows that {TEST} "
            f"asks for are missing (first: {missing[0]})"
        )
    return [asked[QueryId(name)] for name in first]
