"""The kernel's script, run as Kaggle would on what a whole local run made, and on faulty copies."""

import ast
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from shipping import chain as chains
from shipping.chain import SYNTHETIC, TESTED, Chain, rewritten, rows

from parity.competition import ranking as rankings
from parity.competition import tables
from parity.run import digest, files, ledger
from parity.run import manifest as manifests
from parity.run.errors import BadData, Mismatch
from parity.shipping import bundle, rehearsal
from parity.stages import evaluate, package, prepare, rehearse, report
from parity.stages.run import Run, open_run

KERNEL = Path(__file__).parents[1] / "kaggle" / "kernel.py"


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chains.make(tmp_path_factory.mktemp("chain"))


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
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    assert set(bundle.PINNED) - {"corpus", "pool"} <= set(ledger.LAYERS) - odd
    local = chain.run.workspace.stage("predict", 0) / "submission.csv"
    assert rehearsed.layers["submission"] == digest.of_file(local)
    assert all(rehearsed.layers.values())
    assert "layers equal in training and rehearsal: 14 of 14" in chain.printed


def test_c19_the_probe_is_ranked_there_as_here(chain: Chain) -> None:
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


@pytest.fixture
def moved(chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return the run with its data folder copied to another place."""
    shutil.copytree(chain.run.workspace.data, tmp_path / "data")
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    return open_run(chain.run.file)


def test_a_bundle_made_again_elsewhere_has_the_same_digest(chain: Chain, moved: Run) -> None:
    package.package(moved)
    again = moved.workspace.stage("package", 0) / "bundle"
    assert bundle.read(again).digest == bundle.read(chain.bundle).digest


def test_b6_a_score_of_another_split_is_left_out_of_the_report(
    moved: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.evaluate(moved, "base")
    names = ["BM25", "TF-IDF", "base model", "round 0"]
    assert [name for name, _ in report.rows(moved)] == names
    text = report.report(moved).read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in names)
    assert "stale" not in text
    other = open_run(moved.file, ("split.seed=7",))
    prepare.prepare(other)
    assert report.rows(other) == []
    text = report.report(other).read_text(encoding="utf-8")
    assert "left out as stale: round 0, base; run: invoke eval" in text
    assert "left out as stale: round 0, best; run: invoke eval" in text
    assert "| BM25 |" not in text
    assert "left out as stale" in capsys.readouterr().out


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
    left = files.read_json(copy / "working" / "run_report.json")
    assert left["evidence"]["layers"]["data"] != chain.evidence("cv").layers["data"]


def test_d25_another_base_is_named(copy: Path, tmp_path: Path) -> None:
    place = copy / "input" / "small-base"
    shutil.rmtree(place)
    other = models.write(place, "llama", seed=1, max_position_embeddings=512)
    files.write_json(place / "base.json", {"name": "x", "files": other.files, "licence": ""})
    assert re.fullmatch(r"no base with digest \w{12} under input/; attach its dataset", fault(copy))


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


def test_c15_a_changed_template_is_named(copy: Path) -> None:
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


def ids(chain: Chain, name: str) -> list[str]:
    return [row["query_id"] for row in files.read_jsonl(chain.bundle / f"{name}.jsonl")]


def test_a_changed_text_of_the_probe_is_named(copy: Path, chain: Chain) -> None:
    asked = next(one for one in ids(chain, "probe") if one not in ids(chain, "exemplars"))
    spoilt(copy, asked, Answer_Text="12345")
    assert fault(copy).startswith("layer texts: ")


def test_a_changed_text_of_an_exemplar_that_the_probe_never_shows_is_named(
    copy: Path, chain: Chain
) -> None:
    beside = next(one for one in ids(chain, "exemplars") if one not in ids(chain, "probe"))
    spoilt(copy, beside, Answer_Text="12345")
    assert fault(copy).startswith("layer pool: ")


def test_an_exemplar_that_train_lacks_is_named(copy: Path) -> None:
    path = copy / "input" / "small-bundle" / "exemplars.jsonl"
    first, *rest = files.read_jsonl(path)
    files.write_jsonl(path, [{**first, "query_id": "99999_A"}, *rest])
    assert "exemplars.jsonl is not the file" in fault(copy)
    reseal(copy)
    problem = "exemplars.jsonl, line 1: no labelled row '99999_A' in train.csv"
    assert fault(copy, BadData).endswith(problem)


def test_a_label_that_is_gone_from_train_is_named(copy: Path, chain: Chain) -> None:
    query_id = next(one for one in ids(chain, "probe") if one not in ids(chain, "exemplars"))
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
    with pytest.raises(Mismatch, match=r"^row 2: "):
        rehearse._same(here, there)


def test_the_kernel_is_short_and_has_no_branch() -> None:
    text = KERNEL.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    branches = (ast.If, ast.Try, ast.For, ast.While, ast.FunctionDef, ast.ClassDef)
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, branches)]
