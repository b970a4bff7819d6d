"""The kernel's main module on a finished local run and on faulty copies of it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy.bundle.finished_run import SYNTHETIC, TESTED, FinishedRun, rewrite_rows, rows
from safetensors.numpy import load_file, save_file

from parity.competition.eedi import kaggle_files
from parity.deploy.bundle import bundle, sealed_folder
from parity.deploy.kernel import main, mounts, run_report
from parity.pipeline.command_cores import report as reports
from parity.pipeline.stage_cores import evaluate, package, prepare
from parity.run import digest, files
from parity.run import manifest as manifests
from parity.run.errors import Mismatch
from parity.run.experiment import Run, open_run
from parity.run.layers import RECORDED

OUTPUTS = {"submission.csv", "run_report.json", "probe_ranking.jsonl", "probe.npy"}
Fault = Callable[..., str]
PARTS = ("bundle", "wheelhouse", "base")
pytestmark = pytest.mark.xdist_group("chain")  # the finished run is shared


def part(kaggle: Path, name: str) -> Path:
    return kaggle / "input" / mounts.owner(f"ann/small-{name}")


def competition(kaggle: Path) -> Path:
    return kaggle / "input" / mounts.owner("buggy-rules")


def start(kaggle: Path) -> int:
    """Run the kernel's main module in this process and return its exit code."""
    return main.main([*map(str, (kaggle, *(part(kaggle, name) for name in PARTS))), "0"])


@pytest.fixture
def fault(copy: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """Return a function that runs the kernel, checks that it fails, and returns its message."""

    def message(code: int = Mismatch.exit_code) -> str:
        assert start(copy) == code
        assert list((copy / "working").iterdir()) == []
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("error: ")
        assert output.err.count("\n") == 1
        return output.err.removeprefix("error: ").strip()

    return message


def reseal(kaggle: Path) -> None:
    """Seal a changed bundle again, so that only its contents show the fault."""
    folder = part(kaggle, "bundle")
    sealed_folder.seal(folder, "bundle", files.read_json(folder / "manifest.json")["facts"])


def test_prompts_of_the_finished_run_have_examples(chain: FinishedRun) -> None:
    texts = files.read_jsonl(chain.run.workspace.texts(0, "best"))
    assert all(row["text"].count("<response>") == 2 for row in texts)


def test_every_stage_has_its_manifest(chain: FinishedRun) -> None:
    for stage in ("mine", "train", "predict", "package", "rehearse"):
        manifest = manifests.require(chain.run.workspace.stage(stage, 0), ())
        assert manifest.outputs
        assert manifest.stage == stage


@pytest.fixture
def moved(chain: FinishedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return the run with its data folder copied elsewhere."""
    shutil.copytree(chain.run.workspace.data, tmp_path / "data")
    monkeypatch.setenv("PARITY_DATA", str(tmp_path / "data"))
    return open_run(chain.run.file)


def test_a_bundle_packaged_in_another_folder_has_the_same_digest(
    chain: FinishedRun, moved: Run
) -> None:
    package.package(moved)
    repeated = moved.workspace.stage("package", 0) / "bundle"
    assert bundle.read(repeated).digest == bundle.read(chain.bundle).digest


def test_b6_a_score_of_another_split_is_left_out_of_the_report(
    moved: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    evaluate.evaluate(moved, "base")
    names = ["BM25", "TF-IDF", "base model", "round 0"]
    assert [name for name, _ in reports.rows(moved)] == names
    text = reports.report(moved).read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in names)
    assert "stale" not in text
    file = tmp_path / moved.file.name
    settings = moved.file.read_text()
    file.write_text(settings.replace("valid = 0.3", "valid = 0.3\nseed = 7"))
    other = open_run(file)
    prepare.prepare(other)
    assert reports.rows(other) == []
    text = reports.report(other).read_text(encoding="utf-8")
    assert "left out as stale: base. Run: `" in text
    assert "left out as stale: round-0/best. Run: `" in text
    assert "| BM25 |" not in text
    assert "left out as stale" in capsys.readouterr().out


def test_a_bundle_holds_no_local_path(chain: FinishedRun) -> None:
    names = {path.name for path in chain.bundle.iterdir()}
    assert {"README.md", "adapter.json", "adapter_config.json", "base.json", "run.json"} < names
    for path in chain.bundle.iterdir():
        if path.suffix != ".safetensors":
            text = path.read_text(encoding="utf-8")
            paths = re.findall(r'(?:"|`|\s|=)((?:/|[A-Z]:\\)[\w.-]+[/\\][^"`\s]*)', text)
            assert not paths, (path.name, paths)
        assert str(chain.run.workspace.data.parent).encode() not in path.read_bytes()
    assert files.read_json(chain.bundle / "run.json")["data"]["source"] == ""
    assert files.read_json(chain.bundle / "base.json")["name"] == "random-llama"


def test_a_bundle_holds_no_text_of_the_competition(chain: FinishedRun) -> None:
    read = kaggle_files.read(Path(chain.run.config.data.source))
    texts = {query.fields[name] for query in read.queries for name in ("question", "construct")}
    for path in chain.bundle.iterdir():
        text = path.read_bytes().decode("utf-8", errors="replace")
        for forbidden in (*texts, *read.corpus.values()):
            assert forbidden not in text, (path.name, forbidden)


# Faults of the mounted files


def test_the_copy_runs_and_writes_all_outputs(copy: Path, chain: FinishedRun) -> None:
    assert start(copy) == 0
    assert {path.name for path in (copy / "working").iterdir()} == OUTPUTS
    for name in OUTPUTS - {"run_report.json"}:
        expected = chain.kaggle / "working" / name
        assert digest.of_file(copy / "working" / name) == digest.of_file(expected)


def test_a_hidden_test_changes_no_layer_of_the_probe(copy: Path, chain: FinishedRun) -> None:
    """Kaggle replaces test.csv and the sample with longer files."""
    for name in (kaggle_files.TEST, kaggle_files.SAMPLE):
        shutil.copy(SYNTHETIC / name, competition(copy) / name)
    assert start(copy) == 0
    written = rows(copy / "working" / "submission.csv")
    assert [row[0] for row in written] == [row[0] for row in rows(SYNTHETIC / kaggle_files.SAMPLE)]
    assert written[: 3 * TESTED + 1] == rows(chain.kaggle / "working" / "submission.csv")
    evidence, _ = run_report.read(copy / "working")
    expected = chain.evidence("rehearsal").layers
    unequal = {name for name in RECORDED if evidence.layers[name] != expected[name]}
    assert unequal == {"data", "submission"}


def change_weights(kaggle: Path) -> Path:
    path = part(kaggle, "bundle") / "adapter_model.safetensors"
    save_file({name: value + 0.01 for name, value in load_file(path).items()}, path)
    return path


def test_changed_adapter_weights_are_named_by_the_manifest(copy: Path, fault: Fault) -> None:
    path = change_weights(copy)
    assert fault() == f"bundle small-bundle: {path.name} is not the file its manifest names"


def test_changed_adapter_weights_are_named_by_their_record(copy: Path, fault: Fault) -> None:
    change_weights(copy)
    reseal(copy)
    assert fault().endswith("safetensors: not the weights that adapter.json names")


def test_another_adapter_with_its_own_record_is_named_as_a_layer(copy: Path, fault: Fault) -> None:
    path = change_weights(copy)
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


def swap_texts(body: list[list[str]]) -> list[list[str]]:
    (key, first), (other_key, second), *remaining = body
    return [[key, second], [other_key, first], *remaining]


def rename_passage(body: list[list[str]]) -> list[list[str]]:
    (key, text), *remaining = body
    return [[key, text + "."], *remaining]


@pytest.mark.parametrize(
    "change", [swap_texts, rename_passage, lambda body: [*body, ["9999", "Adds 1"]]]
)
def test_another_corpus_is_named(
    copy: Path, fault: Fault, change: Callable[[list[list[str]]], list[list[str]]]
) -> None:
    rewrite_rows(competition(copy) / kaggle_files.MAPPING, change)
    assert re.match(r"layer corpus: |example \w+: its text here is not the one", fault())


def test_a_corpus_in_another_order_is_the_same(copy: Path, chain: FinishedRun) -> None:
    rewrite_rows(competition(copy) / kaggle_files.MAPPING, lambda body: body[::-1])
    assert start(copy) == 0
    submission = copy / "working" / "submission.csv"
    assert submission.read_bytes() == (chain.kaggle / "working" / "submission.csv").read_bytes()


def change_cells(kaggle: Path, query_id: str, **cells: str) -> None:
    """Change cells of a question in the mounted train.csv; `_` is the answer's letter."""
    path = competition(kaggle) / kaggle_files.TRAIN
    header = rows(path)[0]
    question_id, answer = query_id.split("_")

    def change(body: list[list[str]]) -> list[list[str]]:
        (row,) = (row for row in body if row[0] == question_id)
        for name, text in cells.items():
            row[header.index(name.replace("_", answer))] = text
        return body

    rewrite_rows(path, change)


def ids(chain: FinishedRun, name: str) -> list[str]:
    return [row["query_id"] for row in files.read_jsonl(chain.bundle / f"{name}.jsonl")]


def test_a_changed_text_of_the_probe_is_named_by_its_row(
    copy: Path, chain: FinishedRun, fault: Fault
) -> None:
    query_id = next(id_ for id_ in ids(chain, "probe") if id_ not in ids(chain, "examples"))
    change_cells(copy, query_id, Answer_Text="12345")
    assert fault().startswith(f"probe {query_id}: its prompt here is not the one that the adapter")


def test_a_changed_text_of_an_example_outside_the_probe_is_named(
    copy: Path, chain: FinishedRun, fault: Fault
) -> None:
    query_id = next(id_ for id_ in ids(chain, "examples") if id_ not in ids(chain, "probe"))
    change_cells(copy, query_id, Answer_Text="12345")
    assert fault() == f"example {query_id}: its text here is not the one it was packed with"


@pytest.mark.parametrize("name", ["probe", "examples"])
def test_rows_without_digests_are_proven_by_their_layer(
    copy: Path, chain: FinishedRun, fault: Fault, name: str
) -> None:
    other = {"probe": "examples", "examples": "probe"}[name]
    path = part(copy, "bundle") / f"{name}.jsonl"
    stripped = [{key: row[key] for key in row if key != "sha256"} for row in files.read_jsonl(path)]
    files.write_jsonl(path, stripped)
    reseal(copy)
    change_cells(
        copy, next(id_ for id_ in ids(chain, name) if id_ not in ids(chain, other)), Answer_Text="1"
    )
    assert fault().startswith({"probe": "layer texts: ", "examples": "layer pool: "}[name])


def test_an_example_missing_from_train_is_named(copy: Path, fault: Fault) -> None:
    path = part(copy, "bundle") / "examples.jsonl"
    first, *remaining = files.read_jsonl(path)
    files.write_jsonl(path, [{**first, "query_id": "99999_A"}, *remaining])
    reseal(copy)
    problem = "examples.jsonl, line 1: no labeled row '99999_A' in the data"
    assert fault(3).endswith(problem)


def test_a_label_missing_from_train_is_named(copy: Path, chain: FinishedRun, fault: Fault) -> None:
    query_id = next(id_ for id_ in ids(chain, "probe") if id_ not in ids(chain, "examples"))
    change_cells(copy, query_id, Misconception_Id="")
    assert fault(3) == f"probe: {query_id} is not a labeled row of the mounted competition"


def test_fewer_examples_are_named(copy: Path, fault: Fault) -> None:
    path = part(copy, "bundle") / "examples.jsonl"
    files.write_jsonl(path, files.read_jsonl(path)[:1])
    reseal(copy)
    assert fault().startswith("layer pool: ")


def test_a_competition_that_is_not_attached_is_named(copy: Path, fault: Fault) -> None:
    shutil.rmtree(competition(copy))
    assert fault(3).startswith("want the competition's files once under input/, found them 0")


def test_only_the_first_of_several_processes_prints_the_error(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(competition(copy))
    monkeypatch.setenv("RANK", "1")
    assert start(copy) == 3
    assert capsys.readouterr() == ("", "")


def test_kaggle_s_variables_of_the_run_are_recorded(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    assert start(copy) == 0
    _, record = run_report.read(copy / "working")
    assert record["kaggle"] == {"run_type": "Batch", "rerun": "1"}
