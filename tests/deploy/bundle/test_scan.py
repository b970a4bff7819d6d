"""Planted secrets, paths, pickles and texts are found; a clean folder passes."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from parity.deploy.bundle.scan import MIN_QUOTE, refuse_pickles, scan
from parity.run.errors import BadData

QUOTE = "Adds the numerators and the denominators, both"
LETTERS = "a1" * 20


def error_of(folder: Path, texts: tuple[str, ...] = ()) -> str:
    with pytest.raises(BadData) as error:
        scan(folder, texts)
    message = str(error.value)
    assert "\n" not in message
    assert LETTERS not in message
    return message


def test_a_clean_folder_passes(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"token_budget": 1024, "base": "data/bases/x", "key": "a"}')
    (tmp_path / "README.md").write_text("See https://example.org/home/page and ../data/x, 1/2.\n")
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "adapter_model.safetensors")
    scan(tmp_path, [QUOTE])


@pytest.mark.parametrize(
    "planted",
    [
        f"hf_{LETTERS}",
        f"ghp_{LETTERS}",
        f"KGAT_{LETTERS}",
        json.dumps({"username": "ann", "key": LETTERS}),
        f"API_KEY = '{LETTERS}'",
        f"KAGGLE_KEY={LETTERS}",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
    ],
)
def test_a_planted_secret_is_found_and_not_repeated(tmp_path: Path, planted: str) -> None:
    (tmp_path / "notes.md").write_text(f"fine\n{planted}\n")
    assert "notes.md. Remove it" in error_of(tmp_path)


@pytest.mark.parametrize(
    "parts", [("", "home", "ann", "x"), ("", "tmp", "build"), ("C:\\" + "Users", "a")]
)
def test_a_planted_path_is_found(tmp_path: Path, parts: tuple[str, ...]) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"source": "/".join(parts)}))
    assert "run.json. Ship relative paths" in error_of(tmp_path)


def test_a_path_in_the_header_of_weights_is_found(tmp_path: Path) -> None:
    path = "/".join(["", "home", "ann", "base"])
    weights = {"a": np.zeros(3, np.float32)}
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"base": path})
    assert "adapter_model.safetensors. Ship relative paths" in error_of(tmp_path)


@pytest.mark.parametrize("name", ["adapter_model.bin", "state.pt", "harmless.json"])
def test_a_pickle_is_found_by_name_or_by_content(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
    assert f"{name} is a pickle" in error_of(tmp_path)
    with pytest.raises(BadData, match=f"{name} is a pickle"):
        refuse_pickles(tmp_path)


def test_only_pickles_of_a_base_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(["/".join(["", "home", "ann"])]))
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    refuse_pickles(tmp_path)
    assert "absolute path" in error_of(tmp_path)


@pytest.mark.parametrize("form", [QUOTE, json.dumps({"text": QUOTE}), f"in a line: {QUOTE}."])
def test_text_of_the_competition_is_found(tmp_path: Path, form: str) -> None:
    (tmp_path / "examples.jsonl").write_text(form)
    assert "competition text without a license" in error_of(tmp_path, (QUOTE,))
    scan(tmp_path)  # with a license no texts are passed


def test_text_that_json_escapes_is_found(tmp_path: Path) -> None:
    quote = 'Thinks that "½" of a\nnumber is twice the number'
    for ascii_only in (True, False):
        (tmp_path / "a.json").write_text(json.dumps([quote], ensure_ascii=ascii_only))
        assert "competition text without a license" in error_of(tmp_path, (quote,))


def test_a_short_text_passes(tmp_path: Path) -> None:
    short = "x" * (MIN_QUOTE - 1)
    (tmp_path / "a.md").write_text(short)
    scan(tmp_path, [short])
