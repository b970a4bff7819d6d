"""The package's half of the kernel, on what a whole local run made and on faulty copies of it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy.bundle import finished_run as chains
from deploy.bundle.finished_run import SYNTHETIC, TESTED, Chain, rewritten, rows
from safetensors.numpy import load_file, save_file

from parity.competition.eedi import kaggle_files
from parity.deploy.bundle import bundle, sealed_folder
from parity.deploy.kernel import main, mounts, run_report
from parity.pipeline.command_cores import report as reports
from parity.pipeline.stage_cores import evaluate, package, prepare
from parity.run import digest, files, ledger
from parity.run import manifest as manifests
from parity.run.errors import Mismatch
from parity.run.experiment import Run, open_run

LEFT = {"submission.csv", "run_report.json", "probe_ranking.jsonl", "probe.npy"}
Fault = Callable[..., str]
PARTS = ("bundle", "wheelhouse", "base")
pytestmark = pytest.mark.xdist_group("chain")  # which takes a while to make


@pytest.fixture
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chains.shared(tmp_path_factory.getbasetemp())


@pytest.fixture
def copy(chain: Chain, tmp_path: Path) -> Path:
    """Return a copy of the laid-out folder that may be spoilt; not one of its files is linked."""
    place = tmp_path / "kaggle"
    shutil.copytree(chain.kaggle / "input", place / "input")
    (place / "working").mkdir()
    return place


def part(place: Path, name: str) -> Path:
    return place / "input" / mounts.owner(f"ann/small-{name}")


def competition(place: Path) -> Path:
    return place / "input" / mounts.owner("buggy-rules")


def start(place: Path) -> int:
    """Do the package's half of the kernel in this process; return its exit code."""
    return main.main([*map(str, (place, *(part(place, name) for name in PARTS))), "0"])


@pytest.fixture
def fault(copy: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """Return what tells how the kernel names the fault; it has left nothing behind."""

    def told(code: int = Mismatch.exit_code) -> str:
        assert start(copy) == code
        assert list((copy / "working").iterdir()) == []
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        return said.err.removeprefix("error: ").strip()

    return told


def reseal(place: Path) -> None:
    """Seal a spoilt bundle anew, so that only its contents can tell."""
    folder = part(place, "bundle")
    sealed_folder.seal(folder, "bundle", files.read_json(folder / "manifest.json")["facts"])


def test_prompts_of_the_chain_do_carry_examples(chain: Chain) -> None:
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
    assert [name for name, _ in reports.rows(moved)] == names
    text = reports.report(moved).read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in names)
    assert "stale" not in text
    other = open_run(moved.file, ("split.seed=7",))
    prepare.prepare(other)
    assert reports.rows(other) == []
    text = reports.report(other).read_text(encoding="utf-8")
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
    read = kaggle_files.read(Path(chain.run.config.data.source))
    said = {query.question for query in read.queries} | {query.construct for query in read.queries}
    for path in chain.bundle.iterdir():
        text = path.read_bytes().decode("utf-8", errors="replace")
        for one in (*said, *read.corpus.values()):
            assert one not in text, (path.name, one)


# Whatever is mounted


def test_the_copy_runs_and_its_working_folder_is_full(copy: Path, chain: Chain) -> None:
    assert start(copy) == 0
    assert {path.name for path in (copy / "working").iterdir()} == LEFT
    for name in LEFT - {"run_report.json"}:
        there = chain.kaggle / "working" / name
        assert digest.of_file(copy / "working" / name) == digest.of_file(there)


def test_a_hidden_test_changes_no_layer_of_the_probe(copy: Path, chain: Chain) -> None:
    """On Kaggle test.csv and the sample are exchanged for longer ones."""
    for name in (kaggle_files.TEST, kaggle_files.SAMPLE):
        shutil.copy(SYNTHETIC / name, competition(copy) / name)
    assert start(copy) == 0
    written = rows(copy / "working" / "submission.csv")
    assert [row[0] for row in written] == [row[0] for row in rows(SYNTHETIC / kaggle_files.SAMPLE)]
    assert written[: 3 * TESTED + 1] == rows(chain.kaggle / "working" / "submission.csv")
    there, _ = run_report.read(copy / "working")
    known = chain.evidence("rehearsal").layers
    odd = {name for name in ledger.LAYERS if there.layers[name] != known[name]}
    assert odd == {"data", "submission"}


def weights_moved(place: Path) -> Path:
    path = part(place, "bundle") / "adapter_model.safetensors"
    save_file({name: value + 0.01 for name, value in load_file(path).items()}, path)
    return path


def test_changed_adapter_weights_are_named_by_the_manifest(copy: Path, fault: Fault) -> None:
    path = weights_moved(copy)
    assert fault() == f"bundle small-bundle: {path.name} is not the file its manifest names"


def test_changed_adapter_weights_are_named_by_their_record(copy: Path, fault: Fault) -> None:
    weights_moved(copy)
    reseal(copy)
    assert fault().endswith("safetensors: not the weights that adapter.json names")


def test_another_adapter_with_a_record_of_its_own_is_named_as_a_layer(
    copy: Path, fault: Fault
) -> None:
    path = weights_moved(copy)
    record = files.read_json(path.with_name("adapter.json"))
    changed = {**record, "weights": digest.of_file(path)}
    files.write_json(path.with_name("adapter.json"), changed)
    reseal(copy)
    assert fault().startswith("layer adapter: ")


def test_d25_another_base_than_the_adapters_is_named(copy: Path, fault: Fault) -> None:
    path = part(copy, "bundle") / "base.json"
    record = files.read_json(path)
    files.write_json(path, {**record, "files": {**record["files"], "more.txt": "0" * 64}})
    reseal(copy)
    assert fault().endswith("trained on another base than random-llama (digests differ)")


def test_c15_a_changed_template_is_named(copy: Path, fault: Fault) -> None:
    path = part(copy, "bundle") / "run.json"
    record = files.read_json(path)
    record["prompt"]["query"] = "{wrong} {question}"
    files.write_json(path, record)
    reseal(copy)
    assert fault().startswith("layer template: ")


def swapped(body: list[list[str]]) -> list[list[str]]:
    (one, first), (other, second), *rest = body
    return [[one, second], [other, first], *rest]


def renamed(body: list[list[str]]) -> list[list[str]]:
    (key, text), *rest = body
    return [[key, text + "."], *rest]


@pytest.mark.parametrize("change", [swapped, renamed, lambda body: [*body, ["9999", "Adds 1"]]])
def test_another_corpus_is_named(
    copy: Path, fault: Fault, change: Callable[[list[list[str]]], list[list[str]]]
) -> None:
    rewritten(competition(copy) / kaggle_files.MAPPING, change)
    assert re.match(r"layer corpus: |few-shot example \w+: its text here is not the one", fault())


def test_a_corpus_in_another_order_is_the_same(copy: Path, chain: Chain) -> None:
    rewritten(competition(copy) / kaggle_files.MAPPING, lambda body: body[::-1])
    assert start(copy) == 0
    there = copy / "working" / "submission.csv"
    assert there.read_bytes() == (chain.kaggle / "working" / "submission.csv").read_bytes()


def spoilt(place: Path, query_id: str, **cells: str) -> None:
    """Change cells of a question of the mounted train.csv; `_` stands for the answer's letter."""
    path = competition(place) / kaggle_files.TRAIN
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


def test_a_changed_text_of_the_probe_is_named_by_its_row(
    copy: Path, chain: Chain, fault: Fault
) -> None:
    asked = next(id_ for id_ in ids(chain, "probe") if id_ not in ids(chain, "examples"))
    spoilt(copy, asked, Answer_Text="12345")
    assert fault().startswith(f"probe {asked}: its prompt here is not the one that the adapter")


def test_a_changed_text_of_an_example_that_the_probe_never_shows_is_named(
    copy: Path, chain: Chain, fault: Fault
) -> None:
    beside = next(id_ for id_ in ids(chain, "examples") if id_ not in ids(chain, "probe"))
    spoilt(copy, beside, Answer_Text="12345")
    assert fault() == f"example {beside}: its text here is not the one it was packed with"


@pytest.mark.parametrize("name", ["probe", "examples"])
def test_rows_without_digests_are_proven_by_their_layer(
    copy: Path, chain: Chain, fault: Fault, name: str
) -> None:
    other = {"probe": "examples", "examples": "probe"}[name]
    path = part(copy, "bundle") / f"{name}.jsonl"
    kept = [{key: row[key] for key in row if key != "sha256"} for row in files.read_jsonl(path)]
    files.write_jsonl(path, kept)
    reseal(copy)
    spoilt(
        copy, next(id_ for id_ in ids(chain, name) if id_ not in ids(chain, other)), Answer_Text="1"
    )
    assert fault().startswith({"probe": "layer texts: ", "examples": "layer pool: "}[name])


def test_an_example_that_train_lacks_is_named(copy: Path, fault: Fault) -> None:
    path = part(copy, "bundle") / "examples.jsonl"
    first, *rest = files.read_jsonl(path)
    files.write_jsonl(path, [{**first, "query_id": "99999_A"}, *rest])
    reseal(copy)
    problem = "examples.jsonl, line 1: no labeled row '99999_A' in train.csv"
    assert fault(3).endswith(problem)


def test_a_label_that_is_gone_from_train_is_named(copy: Path, chain: Chain, fault: Fault) -> None:
    query_id = next(id_ for id_ in ids(chain, "probe") if id_ not in ids(chain, "examples"))
    spoilt(copy, query_id, Misconception_Id="")
    assert fault(3) == f"probe: {query_id} is no labeled row of the mounted train.csv"


def test_fewer_examples_are_named(copy: Path, fault: Fault) -> None:
    path = part(copy, "bundle") / "examples.jsonl"
    files.write_jsonl(path, files.read_jsonl(path)[:1])
    reseal(copy)
    assert fault().startswith("layer few-shot examples: ")


def test_a_competition_that_is_not_attached_is_named(copy: Path, fault: Fault) -> None:
    shutil.rmtree(competition(copy))
    assert fault(3).startswith("want the competition's files once under input/, found them 0")


def test_of_several_processes_one_tells_the_fault(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(competition(copy))
    monkeypatch.setenv("RANK", "1")
    assert start(copy) == 3
    assert capsys.readouterr() == ("", "")


def test_what_kaggle_says_of_the_run_is_told(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    assert start(copy) == 0
    _, told = run_report.read(copy / "working")
    assert told["kaggle"] == {"run_type": "Batch", "rerun": "1"}
