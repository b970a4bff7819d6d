"""What a base folder says about embedding is run, reported or refused, never dropped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as steps

from parity.retrieval.models import base_model
from parity.retrieval.models.base_model import BaseModel
from parity.retrieval.models.conventions import Conventions, notes, read_conventions
from parity.run.config.prompt import PromptConfig
from parity.run.errors import BadConfig


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return models.write(tmp_path / "bert", "bert")


def saved(base: BaseModel, folder: Path, pooling: str, *others: Any, **options: Any) -> Path:
    """Save a model with sentence-transformers, and return its folder."""
    transformer = steps.Transformer(str(base.folder))
    pooled = steps.Pooling(32, pooling)
    model = SentenceTransformer(modules=[transformer, pooled, *others], device="cpu", **options)
    model.save(str(folder))
    return folder


@pytest.mark.parametrize(
    ("mode", "name"), [("cls", "cls"), ("mean", "mean"), ("lasttoken", "last")]
)
def test_the_pooling_that_the_library_saved_is_read(
    base: BaseModel, tmp_path: Path, mode: str, name: str
) -> None:
    folder = saved(base, tmp_path / "st", mode, steps.Normalize())
    assert read_conventions(folder) == Conventions(pooling=name)
    described = base_model.describe("st", folder)
    encoder = models.load(described, pooling="mean")  # a normalizing step is run anyway
    assert encoder.embed([[1, 5, 2]]).shape == (1, encoder.model.config.hidden_size)


def test_the_older_form_of_a_pooling_is_read_too(base: BaseModel) -> None:
    step = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    (base.folder / "modules.json").write_text(json.dumps([step]))
    (base.folder / "1_Pooling").mkdir()
    path = base.folder / "1_Pooling" / "config.json"
    path.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert read_conventions(base.folder).pooling == "cls"
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    path.write_text(json.dumps(both))
    assert read_conventions(base.folder).pooling == "cls,mean"


def test_prompts_that_the_library_saved_are_read(base: BaseModel, tmp_path: Path) -> None:
    prompts = {"query": "query: ", "document": "passage: "}
    folder = saved(base, tmp_path / "st", "mean", prompts=prompts)
    assert read_conventions(folder) == Conventions("mean", query="query: ", passage="passage: ")


def test_a_dense_layer_is_refused_and_not_dropped(base: BaseModel, tmp_path: Path) -> None:
    dense = steps.Dense(in_features=32, out_features=8)
    described = base_model.describe("st", saved(base, tmp_path / "st", "mean", dense))
    with pytest.raises(BadConfig, match=r"steps after pooling that are not run \(2_Dense\)"):
        models.load(described, pooling="mean")


def test_a_decoder_that_asks_for_both_directions_is_refused(tmp_path: Path) -> None:
    base = models.write(tmp_path, "qwen2")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "is_causal": False}))
    with pytest.raises(BadConfig, match="attention in both directions"):
        models.load(base_model.describe(base.name, tmp_path))


def test_a_folder_that_says_nothing_is_taken_as_the_run_file_has_it(base: BaseModel) -> None:
    assert read_conventions(base.folder) == Conventions()
    assert list(notes(Conventions(), "mean", PromptConfig())) == []


PROMPT = PromptConfig(query="query: {question}", passage="passage: {passage}")


@pytest.mark.parametrize(
    ("conventions", "pooling", "prompt", "expected"),
    [
        (Conventions("cls"), "cls", PROMPT, []),
        (Conventions("cls"), "mean", PROMPT, ["trained with cls pooling"]),
        (Conventions(query="query: ", passage="passage: "), "mean", PROMPT, []),
        (
            Conventions(query="Q> ", passage="P> "),
            "mean",
            PROMPT,
            ["'Q> ' in front of a query", "'P> ' in front of a passage"],
        ),
        (Conventions(query="find: "), "mean", PromptConfig(instruction="find: it"), []),
    ],
)
def test_a_run_file_that_decides_otherwise_is_reported(
    conventions: Conventions, pooling: str, prompt: PromptConfig, expected: Sequence[str]
) -> None:
    lines = list(notes(conventions, pooling, prompt))
    assert len(lines) == len(expected)
    assert all(text in line for text, line in zip(expected, lines, strict=True))
