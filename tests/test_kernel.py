"""The kernel's script, run as Kaggle would on what a whole local run made, and on faulty copies."""

import ast
import contextlib
import csv
import importlib.metadata
import io
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from parity.competition import ranking as rankings
from parity.competition import tables
from parity.run import digest, files, ledger
from parity.run import manifest as manifests
from parity.run.errors import BadData, Mismatch
from parity.run.ledger import Evidence
from parity.shipping import bundle, rehearsal
from parity.stages import evaluate, mine, package, predict, prepare, rehearse, train
from parity.stages.run import Run, open_run

ROOT = Path(__file__).parents[1]
KERNEL = ROOT / "kaggle" / "kernel.py"
SYNTHETIC = ROOT / "data" / "synthetic"
QUESTIONS, TESTED, CORPUS = 30, 5, 60
RUN_FILE = """\
[data]
source = "{source}"
competition = "buggy-rules"

[split]
kind = "random"
valid = 0.3

[prompt]
format = "icl"
instruction = "Name the mistake."
query = "{{question}} {{wrong}}"
exemplars = "question"
exemplar_count = 1
query_max = 320

[encoder]
base = "{base}"
precision = "fp32"
device = "cpu"

[mining]
count = 5

[training]
rank = 2
epochs = 1
learning_rate = 1e-2
warmup_steps = 0
group = 3

[scoring]
bootstrap = 100
"""


@dataclass(frozen=True, slots=True)
class Chain:
    """A run whose every stage is done, on a competition and a base of its own.

    Attributes:
        run: round 0.
        printed: what the stages told.
    """

    run: Run
    printed: str

    @property
    def kaggle(self) -> Path:
        return self.run.workspace.stage("rehearse", 0) / "kaggle"

    @property
    def bundle(self) -> Path:
        return self.run.workspace.stage("package", 0) / "bundle"

    def evidence(self, kind: str) -> Evidence:
        (found,) = (one for one in ledger.read(self.run.workspace.ledger) if one.kind == kind)
        return found


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))


def rewritten(path: Path, change: Callable[[list[list[str]]], list[list[str]]]) -> None:
    """Change the rows of a CSV, the header not among them."""
    header, *body = rows(path)
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([header, *change(body)])


def cut(folder: Path) -> Path:
    """Write the first questions of the synthetic competition, and no more ids than they need."""
    folder.mkdir()
    for name in (tables.MAPPING, tables.SAMPLE, tables.TEST, tables.TRAIN):
        shutil.copy(SYNTHETIC / name, folder / name)
    rewritten(folder / tables.TRAIN, lambda body: body[:QUESTIONS])
    used = {cell.removesuffix(".0") for row in rows(folder / tables.TRAIN)[1:] for cell in row[-4:]}
    rewritten(
        folder / tables.MAPPING,
        lambda body: sorted(body, key=lambda row: row[0] not in used)[:CORPUS],
    )
    rewritten(folder / tables.TEST, lambda body: body[:TESTED])
    kept = {row[0] for row in rows(folder / tables.TEST)}
    rewritten(
        folder / tables.SAMPLE, lambda body: [row for row in body if row[0].split("_")[0] in kept]
    )
    return folder


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    models.write(folder / "random-llama", "llama", max_position_embeddings=512)
    source = cut(folder / "competition")
    text = RUN_FILE.format(source=source, base=folder / "random-llama")
    (folder / "small.toml").write_text(text)
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told):
        patch.setenv("PARITY_DATA", str(folder / "data"))
        run = open_run(folder / "small.toml")
        prepare.prepare(run)
        mine.mine(run)
        train.train(run)
        evaluate.evaluate(run)
        predict.predict(run)
        package.package(run)
        rehearse.rehearse(run)
    return Chain(run, told.getvalue())


@pytest.fixture
def copy(chain: Chain, tmp_path: Path) -> Path:
    """Return a copy of the laid-out folder that may be spoilt; not one of its files is linked."""
    place = tmp_path / "kaggle"
    shutil.copytree(chain.kaggle, place)
    shutil.rmtree(place / "working")
    (place / "working").mkdir()
    return place


def start(place: Path) -> None:
    """Run the script in this process; the wheel that it puts on the path is taken off again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARITY_KAGGLE", str(place))
        patch.setattr(sys, "path", list(sys.path))
        runpy.run_path(str(KERNEL), run_name="__main__")


def fault(place: Path, error: type[Exception] = Mismatch) -> str:
    """Return how the kernel names the fault; it has left nothing behind."""
    with pytest.raises(error) as caught:
        start(place)
    assert list((place / "working").iterdir()) == []
    message = str(caught.value)
    assert "\n" not in message
    return message


def reseal(place: Path) -> None:
    """Seal a spoilt bundle anew, so that only its contents can tell."""
    folder = place / "input" / "small-bundle"
    sealed = files.read_json(folder / "manifest.json")
    bundle.seal(folder, run=sealed["run"], round_=sealed["round"], layers=sealed["layers"])


def test_the_submission_is_the_local_one_byte_for_byte(chain: Chain) -> None:
    local = chain.run.workspace.stage("predict", 0) / "submission.csv"
    theirs = chain.kaggle / "working" / "submission.csv"
    assert theirs.read_bytes() == local.read_bytes()
    assert "the kernel's submission is the local one, byte for byte" in chain.printed
    sample = rows(SYNTHETIC / tables.SAMPLE)[1 : 3 * TESTED + 1]
    assert [row[0] for row in rows(theirs)[1:]] == [row[0] for row in sample]
    assert all(len(set(row[1].split())) == 25 for row in rows(theirs)[1:])


def test_the_rehearsal_is_evidence_with_the_pinned_layers_of_the_cv(chain: Chain) -> None:
    scored, rehearsed = chain.evidence("cv"), chain.evidence("rehearsal")
    assert (rehearsed.run, rehearsed.round, rehearsed.status) == ("small", 0, "unscored")
    odd = {name for name in ledger.LAYERS if scored.layers[name] != rehearsed.layers[name]}
    assert odd == {"submission"}  # a CV has none
    assert set(bundle.PINNED) - {"corpus"} <= set(ledger.LAYERS) - odd
    local = chain.run.workspace.stage("predict", 0) / "submission.csv"
    assert rehearsed.layers["submission"] == digest.of_file(local)
    assert all(rehearsed.layers.values())
    assert "layers equal in training and rehearsal: 14 of 14" in chain.printed


def test_the_probe_is_ranked_there_as_here(chain: Chain) -> None:
    here = chain.run.workspace.evaluation(0, "best")
    there = chain.kaggle / "working"
    one, other = (rankings.read(place / "probe_ranking.jsonl") for place in (here, there))
    assert one.query_ids == other.query_ids
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(np.load(here / "probe.npy"), np.load(there / "probe.npy"))


def test_prompts_of_the_chain_do_carry_exemplars(chain: Chain) -> None:
    texts = files.read_jsonl(chain.run.workspace.texts(0, "best"))
    assert all(row["text"].count("<response>") == 2 for row in texts)


def test_every_stage_has_its_manifest(chain: Chain) -> None:
    for stage in ("mine", "train", "predict", "package", "rehearse"):
        found = manifests.require(chain.run.workspace.stage(stage, 0), "")
        assert found.outputs
        assert found.stage == stage


def test_a_bundle_made_again_has_the_same_digest(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = bundle.read(chain.bundle).digest
    shutil.copytree(chain.run.workspace.data, tmp_path / "data")
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    again = open_run(chain.run.file)
    package.package(again)
    assert bundle.read(again.workspace.stage("package", 0) / "bundle").digest == first


def test_a_bundle_holds_no_place_of_this_machine(chain: Chain) -> None:
    names = {path.name for path in chain.bundle.iterdir()}
    assert {"README.md", "adapter.json", "adapter_config.json", "base.json", "run.json"} < names
    for path in chain.bundle.iterdir():
        if path.suffix != ".safetensors":
            text = path.read_text(encoding="utf-8")
            found = re.findall(r'(?:"|`|\s|=)((?:/|[A-Z]:\\)[\w.-]+[/\\][^"`\s]*)', text)
            assert not found, (path.name, found)
        assert str(chain.run.workspace.data.parent).encode() not in path.read_bytes()
    assert files.read_json(chain.bundle / "run.json")["data"]["source"] == ""
    assert files.read_json(chain.bundle / "base.json")["name"] == "random-llama"


def test_a_bundle_holds_no_text_of_the_competition(chain: Chain) -> None:
    read = tables.read(Path(chain.run.config.data.source))
    said = {one.question for one in read.queries} | {one.construct for one in read.queries}
    for path in chain.bundle.iterdir():
        text = path.read_bytes().decode("utf-8", errors="replace")
        for one in (*said, *read.corpus.values()):
            assert one not in text, (path.name, one)


def test_the_copy_runs_and_its_working_folder_is_full(copy: Path, chain: Chain) -> None:
    start(copy)
    made = {path.name for path in (copy / "working").iterdir()}
    assert made == {"submission.csv", "run_report.json", "probe_ranking.jsonl", "probe.npy"}
    for name in made - {"run_report.json"}:
        assert digest.of_file(copy / "working" / name) == digest.of_file(
            chain.kaggle / "working" / name
        )


def test_other_mounts_and_a_hidden_test_change_no_layer(copy: Path, chain: Chain) -> None:
    """On Kaggle the files lie deeper, and test.csv and the sample are exchanged for longer ones."""
    mounts = {
        "small-bundle": "datasets/owner/small-bundle",
        "small-base": "models/owner/random-llama/transformers/default/1",
        "buggy-rules": "competitions/buggy-rules",
    }
    for name, mount in mounts.items():
        (copy / "input" / mount).parent.mkdir(parents=True)
        (copy / "input" / name).rename(copy / "input" / mount)
    place = copy / "input" / mounts["buggy-rules"]
    for name in (tables.TEST, tables.SAMPLE):
        shutil.copy(SYNTHETIC / name, place / name)
    start(copy)
    written = rows(copy / "working" / "submission.csv")
    assert [row[0] for row in written] == [row[0] for row in rows(SYNTHETIC / tables.SAMPLE)]
    assert written[: 3 * TESTED + 1] == rows(chain.kaggle / "working" / "submission.csv")
    report = files.read_json(copy / "working" / "run_report.json")
    assert report["evidence"]["layers"]["data"] != chain.evidence("cv").layers["data"]


def test_another_base_is_named(copy: Path, tmp_path: Path) -> None:
    place = copy / "input" / "small-base"
    shutil.rmtree(place)
    other = models.write(place, "llama", seed=1, max_position_embeddings=512)
    files.write_json(place / "base.json", {"name": "x", "files": other.files, "licence": ""})
    assert re.fullmatch(
        r"no base with digest \w{12} under input/; attach its dataset", fault(copy)
    )


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_base_file_that_was_changed_is_named(copy: Path, name: str) -> None:
    path = copy / "input" / "small-base" / name
    path.write_bytes(path.read_bytes() + b" ")
    assert fault(copy) == f"base random-llama: {name} is not the file its base.json names"


def weights_moved(place: Path) -> Path:
    path = place / "input" / "small-bundle" / "adapter_model.safetensors"
    save_file({name: value + 0.01 for name, value in load_file(path).items()}, path)
    return path


def test_changed_adapter_weights_are_named_by_the_manifest(copy: Path) -> None:
    path = weights_moved(copy)
    assert fault(copy) == f"bundle small-bundle: {path.name} is not the file its manifest names"


def test_changed_adapter_weights_are_named_by_their_record(copy: Path) -> None:
    weights_moved(copy)
    reseal(copy)
    assert fault(copy).endswith("safetensors: not the weights that adapter.json names")


def test_another_adapter_with_a_record_of_its_own_is_named_as_a_layer(copy: Path) -> None:
    path = weights_moved(copy)
    record = files.read_json(path.with_name("adapter.json"))
    changed = {**record, "weights": digest.of_file(path)}
    files.write_json(path.with_name("adapter.json"), changed)
    reseal(copy)
    assert fault(copy).startswith("layer adapter: ")


def test_a_changed_template_is_named_by_the_manifest(copy: Path) -> None:
    path = copy / "input" / "small-bundle" / "run.json"
    record = files.read_json(path)
    record["prompt"]["query"] = "{wrong} {question}"
    files.write_json(path, record)
    assert fault(copy) == "bundle small-bundle: run.json is not the file its manifest names"
    reseal(copy)
    assert fault(copy).startswith("layer template: ")


def swapped(body: list[list[str]]) -> list[list[str]]:
    (one, first), (other, second), *rest = body
    return [[one, second], [other, first], *rest]


def renamed(body: list[list[str]]) -> list[list[str]]:
    (key, text), *rest = body
    return [[key, text + "."], *rest]


@pytest.mark.parametrize("change", [swapped, renamed, lambda body: [*body, ["9999", "Adds 1"]]])
def test_another_corpus_is_named(
    copy: Path, change: Callable[[list[list[str]]], list[list[str]]]
) -> None:
    rewritten(copy / "input" / "buggy-rules" / tables.MAPPING, change)
    assert fault(copy).startswith("layer corpus: ")


def test_a_corpus_in_another_order_is_the_same(copy: Path, chain: Chain) -> None:
    rewritten(copy / "input" / "buggy-rules" / tables.MAPPING, lambda body: body[::-1])
    start(copy)
    there = copy / "working" / "submission.csv"
    assert there.read_bytes() == (chain.kaggle / "working" / "submission.csv").read_bytes()


def spoilt(place: Path, query_id: str, **cells: str) -> None:
    """Change cells of a question of the mounted train.csv; `_` stands for the answer's letter."""
    path = place / "input" / "buggy-rules" / tables.TRAIN
    header = rows(path)[0]
    question_id, answer = query_id.split("_")

    def change(body: list[list[str]]) -> list[list[str]]:
        (row,) = (row for row in body if row[0] == question_id)
        for name, text in cells.items():
            row[header.index(name.replace("_", answer))] = text
        return body

    rewritten(path, change)


def probed(chain: Chain, *, shown: bool) -> str:
    """Return a probe row that is, or is not, among the exemplars."""
    pool = {row["query_id"] for row in files.read_jsonl(chain.bundle / "exemplars.jsonl")}
    ids = [row["query_id"] for row in files.read_jsonl(chain.bundle / "probe.jsonl")]
    return next(one for one in ids if (one in pool) == shown)


def test_a_changed_text_of_the_probe_is_named(copy: Path, chain: Chain) -> None:
    spoilt(copy, probed(chain, shown=False), Answer_Text="12345")
    assert fault(copy).startswith("layer texts: ")


def test_an_exemplar_that_train_lacks_is_named(copy: Path) -> None:
    path = copy / "input" / "small-bundle" / "exemplars.jsonl"
    first, *rest = files.read_jsonl(path)
    files.write_jsonl(path, [{**first, "query_id": "99999_A"}, *rest])
    assert "exemplars.jsonl is not the file" in fault(copy)
    reseal(copy)
    problem = "exemplars.jsonl, line 1: no labelled row '99999_A' in train.csv"
    assert fault(copy, BadData).endswith(problem)


def test_a_label_that_is_gone_from_train_is_named(copy: Path, chain: Chain) -> None:
    query_id = probed(chain, shown=False)
    spoilt(copy, query_id, Misconception_Id="")
    told = f"probe: {query_id} is no labelled row of the mounted train.csv"
    assert fault(copy, BadData) == told


def test_fewer_exemplars_are_named(copy: Path) -> None:
    path = copy / "input" / "small-bundle" / "exemplars.jsonl"
    files.write_jsonl(path, files.read_jsonl(path)[:1])
    reseal(copy)
    assert fault(copy).startswith("layer exemplars: ")


@pytest.mark.parametrize(
    ("name", "error", "problem"),
    [
        ("small-bundle", Mismatch, "want one bundle under input/, found: none"),
        ("small-base", Mismatch, "no base with digest"),
        ("buggy-rules", BadData, "want the competition's files once under input/, found them 0"),
    ],
)
def test_a_dataset_that_is_not_attached_is_named(
    copy: Path, name: str, error: type[Exception], problem: str
) -> None:
    shutil.rmtree(copy / "input" / name)
    assert fault(copy, error).startswith(problem)


def test_without_its_wheel_the_kernel_does_not_run(copy: Path) -> None:
    shutil.rmtree(copy / "input" / "small-wheelhouse")
    with pytest.raises(Mismatch, match="exit code 1: ModuleNotFoundError: No module named 'par"):
        rehearsal.run(KERNEL, copy)


def test_a_submission_that_differs_is_told_by_its_row(tmp_path: Path) -> None:
    here, there = tmp_path / "predict" / "s.csv", tmp_path / "working" / "s.csv"
    for path, text in ((here, "head\n1_A,1 2\n1_B,3 4\n"), (there, "head\n1_A,1 2\n1_B,4 3\n")):
        path.parent.mkdir()
        path.write_text(text)
    told = r"^row 2: the kernel's submission is not the local one \(working against predict\)"
    with pytest.raises(Mismatch, match=told):
        rehearse._same(here, there)
    there.write_text("head\n1_A,1 2\n")
    with pytest.raises(Mismatch, match="^row 2: "):
        rehearse._same(here, there)


# What the kernel imports: other than this it may find nothing on Kaggle.

DISTRIBUTIONS = {"sklearn": "scikit-learn"}
IMPORTED = {
    *("accelerate", "numpy", "pandas", "peft", "pydantic", "safetensors", "sklearn"),
    *("tokenizers", "torch", "tqdm", "transformers"),
}
ON_DEMAND = {"gguf", "huggingface_hub"}
"""Imported within functions that no kernel calls: a conversion, a download."""


def imported(path: Path, *, within: bool) -> set[str]:
    """Return the modules a file imports at its top, or within its functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if (id(node) in inner) != within:
            continue
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
    return found


def source_of(module: str) -> Path | None:
    stem = ROOT / "src" / Path(*module.split("."))
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


def closure() -> dict[str, Path]:
    """Return the project's modules that the kernel loads."""
    found: dict[str, Path] = {}
    waiting = sorted(imported(KERNEL, within=False))
    while waiting:
        module = waiting.pop()
        path = source_of(module) if module.startswith("parity") else None
        if path is not None and module not in found:
            found[module] = path
            waiting += imported(path, within=False)
    return found


def foreign(*, within: bool) -> set[str]:
    paths = [KERNEL, *closure().values()]
    tops = {name.split(".")[0] for path in paths for name in imported(path, within=within)}
    return tops - sys.stdlib_module_names - {"parity"}


def test_the_kernel_loads_no_room_that_trains_compares_or_knows_this_machine() -> None:
    rooms = {module.split(".")[1] for module in closure() if "." in module}
    assert rooms == {"run", "competition", "retrieval", "shipping"}


def test_the_kernel_imports_what_the_image_has() -> None:
    assert foreign(within=False) == IMPORTED
    assert foreign(within=True) == ON_DEMAND
    lines = (ROOT / "kaggle" / "image-freeze.txt").read_text(encoding="utf-8").splitlines()
    frozen = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert {DISTRIBUTIONS.get(name, name) for name in IMPORTED} <= frozen


def test_the_list_above_names_installed_packages() -> None:
    known: Any = importlib.metadata.packages_distributions()
    assert {DISTRIBUTIONS.get(name, name) for name in IMPORTED} == {
        known[name][0] for name in IMPORTED
    }


def test_the_kernel_is_short_and_has_no_branch() -> None:
    text = KERNEL.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    branches = (ast.If, ast.Try, ast.For, ast.While, ast.FunctionDef, ast.ClassDef)
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, branches)]
