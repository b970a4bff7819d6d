"""A sealed folder lists its files and facts, works at any mount point, and arrives unchanged."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.deploy.bundle import sealed_folder
from parity.deploy.bundle.sealed_folder import MANIFEST, Kind
from parity.run import digest, files
from parity.run.errors import BadData, Mismatch

KINDS: tuple[Kind, ...] = get_args(Kind)
FACTS = {"install": ["parity==0.1"], "license": "MIT", "cv": {"map": 0.25}}
TEXTS = {"model.safetensors": "weights", "config.json": "{}"}

names = (
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,9}", fullmatch=True)
    .filter(lambda name: not name.lower().endswith(sealed_folder._ARCHIVES))
    .filter(lambda name: name.lower() != MANIFEST)
)
contents = st.dictionaries(names, st.binary(min_size=1, max_size=30), min_size=1, max_size=4)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
values = texts | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
facts = st.dictionaries(texts, values | st.lists(values, max_size=3), max_size=4)


def write_sealed(
    folder: Path,
    kind: Kind = "base",
    texts: Mapping[str, str] = TEXTS,
    facts: Mapping[str, Any] = FACTS,
) -> Path:
    """Write and seal a folder; return it."""
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    sealed_folder.seal(folder, kind, facts)
    return folder


def seal_error(folder: Path) -> str:
    """Return why a folder cannot be sealed, after checking that nothing was written into it."""
    before = sorted(folder.iterdir())
    with pytest.raises(BadData) as raised:
        sealed_folder.seal(folder, "wheelhouse", FACTS)
    assert sorted(folder.iterdir()) == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


def error_of(call: Callable[[], object], error: type[Exception] = Mismatch) -> str:
    with pytest.raises(error) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Seal and read


@pytest.mark.parametrize("kind", KINDS)
def test_a_sealed_folder_is_read_back(tmp_path: Path, kind: Kind) -> None:
    folder = write_sealed(tmp_path / "anywhere", kind)
    result = sealed_folder.read(folder)
    assert (result.kind, result.folder, result.facts) == (kind, folder, FACTS)
    assert result.files == {name: digest.of_text(text) for name, text in TEXTS.items()}
    assert result.digest == sealed_folder.seal(
        folder, kind, FACTS
    )  # the manifest is not part of it


def test_the_manifest_has_kind_schema_facts_files_and_digest(tmp_path: Path) -> None:
    folder = write_sealed(tmp_path / "a")
    record = files.read_json(folder / MANIFEST)
    sealed_digest = record.pop("digest")
    assert record == {
        "kind": "base",
        "schema": sealed_folder.SCHEMA,
        "facts": FACTS,
        "files": digest.of_tree(folder, TEXTS),
    }
    assert sealed_digest == digest.of_value(record)


@settings(max_examples=40, deadline=None)
@given(contents, facts, st.sampled_from(KINDS))
def test_equal_files_and_facts_have_one_digest_in_any_folder_and_order(
    tmp_path_factory: pytest.TempPathFactory,
    contents: dict[str, bytes],
    facts: dict[str, Any],
    kind: Kind,
) -> None:
    digests, manifests = set(), set()
    for turn in (1, -1):
        folder = tmp_path_factory.mktemp("sealed")
        for name in list(contents)[::turn]:
            (folder / name).write_bytes(contents[name])
            os.utime(folder / name, (turn + 2, turn + 2))  # another day
        ordered_facts = {name: facts[name] for name in list(facts)[::turn]}
        for _ in range(2):
            digests.add(sealed_folder.seal(folder, kind, ordered_facts))
        digests.add(sealed_folder.read(folder).digest)
        hashes = {name: digest.of_bytes(contents[name]) for name in list(contents)[::turn]}
        digests.add(sealed_folder.compute_digest(kind, ordered_facts, hashes))
        manifests.add((folder / MANIFEST).read_bytes())
    assert len(digests) == len(manifests) == 1


def test_any_change_of_files_names_facts_or_kind_changes_the_digest(tmp_path: Path) -> None:
    folders = [
        write_sealed(tmp_path / "0"),
        write_sealed(tmp_path / "1", texts={**TEXTS, "config.json": "{ }"}),
        write_sealed(tmp_path / "2", texts={"model.safetensors": "weights", "Config.json": "{}"}),
        write_sealed(tmp_path / "3", texts={**TEXTS, "more": "."}),
        write_sealed(tmp_path / "4", texts={"model.safetensors": "{}", "config.json": "weights"}),
        write_sealed(tmp_path / "5", facts={**FACTS, "license": "mit"}),
        write_sealed(tmp_path / "6", facts={}),
        write_sealed(tmp_path / "7", kind="bundle"),
    ]
    assert len({sealed_folder.read(folder).digest for folder in folders}) == len(folders)


def test_sizes_include_all_files_of_a_dataset(tmp_path: Path) -> None:
    folder = write_sealed(tmp_path / "a")
    (folder / "later.txt").write_text("not sealed")
    sizes = sealed_folder.read(folder).sizes()
    manifest = (folder / MANIFEST).stat().st_size
    assert sizes == {"config.json": 2, MANIFEST: manifest, "model.safetensors": 7}
    assert list(sizes) == sorted(sizes)


# Files that Kaggle would change


def test_a_subfolder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert seal_error(tmp_path) == (
        "a wheelhouse is flat, and the Kaggle client would skip its folder checkpoints"
    )


@pytest.mark.parametrize(
    "name",
    [
        "dataset-metadata.json",
        "datapackage.json",
        "kernel-metadata.json",
        "model-metadata.json",
        "model-instance-metadata.json",
        "dataset-cover-image.png",
        "dataset-cover-image.jpg",
    ],
)
def test_a_name_that_the_client_skips_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    expected = f"wheelhouse: the Kaggle client skips {name}. Rename it"
    assert seal_error(tmp_path) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("a.zip", "A.ZIP", "a.tar", "a-1.0.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"),
        *("a.json.gz", "a.bz2", "a.7z", "a.rar"),
    ],
)
def test_an_archive_that_kaggle_would_unpack_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("PK")
    expected = f"wheelhouse: Kaggle would unpack {name}. Ship its files"
    assert seal_error(tmp_path) == expected


@pytest.mark.parametrize("name", ["a-1.0-py3-none-any.whl", "zip", "tar.json", "x.zip.json"])
def test_a_name_that_only_looks_like_an_archive_passes(tmp_path: Path, name: str) -> None:
    assert sealed_folder.read(write_sealed(tmp_path / "a", texts={name: "PK"})).files.keys() == {
        name
    }


@pytest.mark.parametrize(
    "name",
    [
        *("torch-2.10.0+cpu-cp312.whl", "a b", "a#b", "a(1)", "a%20b", "é.json"),
        *(".hidden", "-rf", "a\nb", "a\\b", "a:b"),
    ],
)
def test_a_name_that_kaggle_would_change_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert seal_error(tmp_path) == (
        f"wheelhouse: Kaggle would rename {name!r}. Use letters, digits, . _ - ="
    )


@pytest.mark.parametrize("name", ["a_b-c.d=e", "_x", "0", "a.", "tokenizer.model", "a=b"])
def test_a_plain_name_passes(tmp_path: Path, name: str) -> None:
    assert sealed_folder.read(write_sealed(tmp_path / "a", texts={name: "x"})).files.keys() == {
        name
    }


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").touch()
    expected = "wheelhouse: merges.txt is empty, and Kaggle may drop an empty file"
    assert seal_error(tmp_path) == expected


def test_a_refusal_does_not_change_an_older_manifest(tmp_path: Path) -> None:
    folder = write_sealed(tmp_path / "a")
    before = (folder / MANIFEST).read_bytes()
    (folder / "b.zip").write_text("PK")
    assert "b.zip" in seal_error(folder)
    assert (folder / MANIFEST).read_bytes() == before


# Changed files


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "harm",
    [Path.unlink, lambda path: path.write_text("other"), lambda path: path.write_bytes(b"")],
    ids=["missing", "changed", "empty"],
)
def test_a_file_that_differs_from_the_sealed_one_is_named(
    tmp_path: Path, name: str, harm: Callable[[Path], object]
) -> None:
    folder = write_sealed(tmp_path / "small-base")
    harm(folder / name)
    message = error_of(lambda: sealed_folder.read(folder))
    assert message == f"base small-base: {name} is not the file its manifest names"


@pytest.mark.parametrize("key", ["facts", "files", "schema", "digest", "more"])
def test_a_manifest_that_was_edited_is_refused(tmp_path: Path, key: str) -> None:
    path = write_sealed(tmp_path / "small-base") / MANIFEST
    files.write_json(path, {**files.read_json(path), key: {"license": "MIT"}})
    message = error_of(lambda: sealed_folder.read(tmp_path / "small-base"))
    assert message == "small-base: manifest.json was changed after it was sealed"


def test_a_changed_kind_is_refused(tmp_path: Path) -> None:
    path = write_sealed(tmp_path / "input" / "a") / MANIFEST
    files.write_json(path, {**files.read_json(path), "kind": "bundle"})
    message = error_of(lambda: sealed_folder.read(path.parent))
    assert message == "a: manifest.json was changed after it was sealed"


@pytest.mark.parametrize(
    "record",
    [
        ["not an object"],
        {},
        {"kind": "base"},
        {"kind": "model", "schema": 1, "facts": {}, "files": {}, "digest": ""},
        {"kind": ["base"], "schema": 1, "facts": {}, "files": {}},
        {"schema": 1, "facts": {}, "files": {}, "digest": ""},
    ],
    ids=str,
)
def test_a_manifest_of_something_else_is_refused(tmp_path: Path, record: object) -> None:
    files.write_json(tmp_path / "a" / MANIFEST, record)
    message = error_of(lambda: sealed_folder.read(tmp_path / "a"))
    assert message == "a: manifest.json is not the manifest of a base, wheelhouse or bundle"


def test_a_manifest_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = write_sealed(tmp_path / "a") / MANIFEST
    record = {**files.read_json(path), "schema": sealed_folder.SCHEMA + 1}
    del record["digest"]
    files.write_json(path, {**record, "digest": digest.of_value(record)})
    message = error_of(lambda: sealed_folder.read(tmp_path / "a"))
    assert message == f"a: {MANIFEST} has schema 2; this version reads {sealed_folder.SCHEMA}"


# Large files are not copied


def test_linked_files_are_the_same_and_the_source_gets_no_manifest(
    tmp_path: Path,
) -> None:
    source = tmp_path / "base"
    for name, text in TEXTS.items():
        files.write_text(source / name, text)
    target = tmp_path / "sealed" / "base"
    sealed_folder.link_files([source / name for name in TEXTS], target)
    assert {path.name for path in target.iterdir()} == TEXTS.keys()
    assert all((target / name).samefile(source / name) for name in TEXTS)
    result = sealed_folder.seal(target, "base", FACTS)
    assert not (source / MANIFEST).exists()
    hashes = {name: digest.of_file(source / name) for name in TEXTS}
    assert result == sealed_folder.compute_digest("base", FACTS, hashes)


def test_an_existing_folder_is_not_linked_into(tmp_path: Path) -> None:
    folder = write_sealed(tmp_path / "a")
    (tmp_path / "config.json").write_text("other")
    with pytest.raises(FileExistsError):
        sealed_folder.link_files([tmp_path / "config.json"], folder)
    assert (folder / "config.json").read_text() == "{}"
