"""A bundle is found by its manifest at any mount point, and only if it is complete."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.competition.eedi.eedi import Eedi
from parity.deploy.bundle import bundle, sealed_folder
from parity.run import digest, files
from parity.run.config import run_file as configs
from parity.run.errors import BadConfig, BadData, Mismatch
from parity.run.layers import EXACT, ORDER, PINNED

SHOWN = {name: digest.of_text(name) for name in (*PINNED, "split", "lineage", "data")}
SCORES = {"best": {"map": 0.25, "rows": 12}}


def write_bundle(folder: Path, layers: dict[str, str] = SHOWN, config: str = "") -> Path:
    """Write a bundle as `package` does, without its weights; return its folder."""
    frozen = configs.build({"name": "small", "scoring": {"bootstrap": 200}}, "test")
    texts = {
        "adapter_model.safetensors": "weights",
        "run.json": config or frozen.model_dump_json(),
        "examples.jsonl": '{"misconception_id":1,"query_id":"10_B"}\n',
    }
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    bundle.seal(folder, run="small", round_=1, layers=layers, cv=SCORES, parallelism="queries")
    return folder


def error_of(folder: Path, error: type[Exception] = Mismatch) -> str:
    with pytest.raises(error) as raised:
        bundle.read(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "mount",
    ["small-bundle", "datasets/owner/small-bundle", "a/b/c/d/e/versions/7"],
)
def test_a_bundle_is_read_where_it_is_mounted(tmp_path: Path, mount: str) -> None:
    files.write_json(tmp_path / "wheelhouse" / "manifest.json", {"kind": "wheelhouse"})
    files.write_json(tmp_path / "somebody" / "manifest.json", ["not an object"])
    write_bundle(tmp_path / mount)
    result = bundle.read(tmp_path / mount)
    assert result.folder == tmp_path / mount
    assert (result.run, result.round, result.layers) == ("small", 1, SHOWN)
    assert result.facts == {"cv": SCORES, "parallelism": "queries"}
    assert result.config.scoring.bootstrap == 200
    assert result.digest == files.read_json(tmp_path / mount / "manifest.json")["digest"]


def test_the_manifest_lists_facts_and_files_of_the_bundle(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    record = files.read_json(folder / "manifest.json")
    names = ("adapter_model.safetensors", "examples.jsonl", "run.json")
    assert record.keys() == {"kind", "schema", "facts", "files", "digest"}
    assert (record["kind"], record["schema"]) == ("bundle", 1)
    assert record["files"] == digest.of_tree(folder, names)
    assert record["facts"] == {
        "run": "small",
        "round": 1,
        "layers": SHOWN,
        "cv": SCORES,
        "parallelism": "queries",
    }
    assert sealed_folder.read(folder).facts == record["facts"]


def test_a_bundle_is_flat(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    (folder / "checkpoints").mkdir()
    with pytest.raises(BadData, match=r"a bundle is flat, .* folder checkpoints"):
        bundle.seal(folder, run="small", round_=1, layers=SHOWN)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "run.json", "examples.jsonl"])
@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda path: path.write_text(path.read_text() + " "),
        lambda path: path.write_bytes(b""),
    ],
    ids=["missing", "changed", "empty"],
)
def test_a_file_that_differs_from_the_sealed_one_is_named(
    tmp_path: Path, name: str, harm: Callable[[Path], object]
) -> None:
    folder = write_bundle(tmp_path / "bundle")
    harm(folder / name)
    assert error_of(folder) == f"bundle bundle: {name} is not the file its manifest names"


def edits(record: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """Yield a record with one key changed, and without it."""
    yield {**record, key: "other"}
    yield {name: value for name, value in record.items() if name != key}


@pytest.mark.parametrize("key", ["run", "round", "layers", "cv", "parallelism"])
def test_a_fact_that_was_edited_is_refused(tmp_path: Path, key: str) -> None:
    folder = write_bundle(tmp_path / "bundle")
    record = files.read_json(folder / "manifest.json")
    for facts in edits(record["facts"], key):
        files.write_json(folder / "manifest.json", {**record, "facts": facts})
        assert error_of(folder) == "bundle: manifest.json was changed after it was sealed"


@pytest.mark.parametrize("key", ["kind", "schema", "facts", "files", "digest"])
def test_a_manifest_that_was_edited_is_refused(tmp_path: Path, key: str) -> None:
    folder = write_bundle(tmp_path / "bundle")
    record = files.read_json(folder / "manifest.json")
    for changed in edits(record, key):
        files.write_json(folder / "manifest.json", changed)
        is_manifest = changed.keys() >= {"kind", "schema", "facts", "files"}
        is_manifest = is_manifest and changed["kind"] == "bundle"
        problem = (
            "was changed after it was sealed" if is_manifest else "is not the manifest of a base, "
        )
        assert error_of(folder).startswith(f"bundle: manifest.json {problem}")


def test_a_truncated_manifest_is_named(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "bundle") / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadData, match=r"bundle/manifest\.json: not JSON"):
        bundle.read(path.parent)


def test_a_config_of_another_version_is_refused_by_its_key(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", config='{"name": "small", "rerank": {}}')
    assert error_of(folder, BadConfig) == "bundle/run.json: rerank: unknown key"


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.from_regex("[a-h_][a-h._=-]{0,8}", fullmatch=True),
        st.binary(min_size=1, max_size=30),
        min_size=1,
        max_size=4,
    )
)
def test_equal_files_have_one_digest_in_any_folder(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]
) -> None:
    digests = set()
    for names in (list(contents), list(contents)[::-1]):
        folder = tmp_path_factory.mktemp("bundle")
        for name in names:
            (folder / name).write_bytes(contents[name])
        digests.add(bundle.seal(folder, run="small", round_=0, layers=SHOWN))
        resealed = bundle.seal(
            folder, run="small", round_=0, layers=SHOWN
        )  # the manifest is not part of it
        digests.add(resealed)
        assert str(folder) not in (folder / "manifest.json").read_text()
    assert len(digests) == 1


def test_any_change_of_files_names_or_facts_changes_the_digest(tmp_path: Path) -> None:
    folders = [write_bundle(tmp_path / name) for name in "abcdef"]
    (folders[1] / "run.json").write_text("{}")
    (folders[2] / "run.json").rename(folders[2] / "Run.json")
    digests = {bundle.seal(folder, run="small", round_=1, layers=SHOWN) for folder in folders[:3]}
    digests.add(bundle.seal(folders[3], run="small", round_=0, layers=SHOWN))
    digests.add(bundle.seal(folders[4], run="other", round_=1, layers=SHOWN))
    digests.add(bundle.seal(folders[0], run="small", round_=1, layers={**SHOWN, "base": "x"}))
    digests.add(bundle.seal(folders[5], run="small", round_=1, layers=SHOWN, parallelism="model"))
    assert len(digests) == 7


def test_pinned_layers_are_in_causal_order() -> None:
    assert list(PINNED) == sorted(PINNED, key=ORDER.index)
    assert set(PINNED) - set(EXACT) == {"corpus", "pool"}


@pytest.mark.parametrize("name", PINNED)
def test_check_names_the_first_layer_that_differs(tmp_path: Path, name: str) -> None:
    shipped = bundle.read(write_bundle(tmp_path / "bundle"))
    shipped.check({**SHOWN, "device": "cuda", "embeddings": "others"})
    later = PINNED[PINNED.index(name) :]
    for layers in ({**SHOWN, **dict.fromkeys(later, "f" * 64)}, {**SHOWN, name: ""}):
        with pytest.raises(Mismatch) as error:
            shipped.check(layers)
        message = str(error.value)
        assert message.startswith(
            f"layer {name}: {layers[name][:12]} here, {SHOWN[name][:12]} where"
        )
        assert message.endswith("adapter of small was trained; it is the first that differs")


def test_a_bundle_that_does_not_know_a_layer_does_not_pass(tmp_path: Path) -> None:
    layers = {name: value for name, value in SHOWN.items() if name != "texts"}
    shipped = bundle.read(write_bundle(tmp_path / "bundle", layers))
    with pytest.raises(Mismatch, match=r"^layer texts: \w{12} here, +where"):
        shipped.check(SHOWN)


@pytest.mark.parametrize("mount", ["tiny", "competitions/tiny"])
def test_the_competition_is_found_by_its_files(tmp_path: Path, mount: str) -> None:
    folder = tiny.write_competition(tmp_path / "input" / mount)
    half = tmp_path / "input" / "another"
    half.mkdir()
    shutil.copy2(folder / "sample_submission.csv", half)
    assert Eedi().folder(tmp_path / "input") == folder


def test_a_missing_or_duplicate_competition_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "input"
    root.mkdir()
    with pytest.raises(BadData, match="once under input/, found them 0 times; attach"):
        Eedi().folder(root)
    for name in ("one", "two"):
        tiny.write_competition(root / name)
    with pytest.raises(BadData, match="found them 2 times"):
        Eedi().folder(root)
    (root / "two" / "test.csv").unlink()
    assert Eedi().folder(root) == root / "one"
