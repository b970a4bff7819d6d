"""`kaggle/kernel.py`: what it proves, how it starts the package's half, how it ends."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import attached
import pytest
from attached import BUNDLE, HOUSE, KERNEL, Child, Input

from parity.deploy.bundle import sealed_folder
from parity.deploy.kernel import mounts

T4X2 = "GPU 0: Tesla T4 (UUID: GPU-a1)\nGPU 1: Tesla T4 (UUID: GPU-b2)\n"


@pytest.fixture
def given(tmp_path: Path) -> Input:
    return attached.attach(tmp_path / "kaggle", mounts.owner)


def fault(given: Input) -> str:
    """Return how the script names a fault; it has started nothing and left nothing behind."""
    with pytest.raises(SystemExit) as caught:
        attached.start(given.root)
    assert list((given.root / "working").iterdir()) == []
    told = str(caught.value.code)
    assert told.startswith("error: ")
    assert "\n" not in told
    return told.removeprefix("error: ")


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


# What it proves


@pytest.mark.parametrize(("name", "kind"), [(BUNDLE, "bundle"), (HOUSE, "wheelhouse")])
def test_one_that_is_not_attached_is_named(given: Input, name: str, kind: str) -> None:
    (given.root / "input" / mounts.owner(name)).rename(given.root / "elsewhere")
    place = given.root / "input"
    assert fault(given) == f"want one {kind} in {place}, found none; attach one dataset"


@pytest.mark.parametrize(("name", "kind"), [(BUNDLE, "bundle"), (HOUSE, "wheelhouse")])
def test_one_that_is_attached_twice_is_named_with_its_places(
    given: Input, name: str, kind: str
) -> None:
    first = given.root / "input" / mounts.owner(name)
    other = given.root / "input" / "older"
    other.mkdir()
    for path in first.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    told = f"want one {kind} in {given.root / 'input'}, found {first}, {other}; attach one dataset"
    assert fault(given) == told


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("bundle", "adapter_model.safetensors"),
        ("bundle", "base.json"),
        ("wheelhouse", "kaggle_parity-0.1.0-py3-none-any.whl"),
    ],
)
def test_a_file_that_is_not_the_one_that_was_sealed_is_named(
    given: Input, kind: str, file: str
) -> None:
    folder = {"bundle": given.bundle, "wheelhouse": given.house}[kind]
    told = f"{kind} {folder.name}: {file} is not the file that was sealed"
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1] + b"!")
    assert fault(given) == told
    (folder / file).unlink()
    assert fault(given) == told


@pytest.mark.parametrize("kind", ["bundle", "wheelhouse"])
def test_a_manifest_that_was_changed_is_named(given: Input, kind: str) -> None:
    folder = {"bundle": given.bundle, "wheelhouse": given.house}[kind]
    path = folder / sealed_folder.MANIFEST
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    assert fault(given) == f"{kind} {folder.name}: manifest.json is not the file that was sealed"


def test_another_wheelhouse_than_the_bundles_is_named(given: Input) -> None:
    (given.house / "more.whl").write_text("wheel")
    sealed_folder.seal(given.house, "wheelhouse", {"install": []})
    assert fault(given) == "wheelhouse wheels is not the one of this bundle"


def test_d25_a_base_that_is_not_attached_is_named(given: Input) -> None:
    (given.base / "config.json").write_text('{"another": 1}')
    place = given.root / "input"
    assert fault(given) == f"base llm is nowhere in {place}; attach its dataset or model"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_file_of_the_base_that_was_changed_is_named(given: Input, file: str) -> None:
    told = f"base llm: {file} is not the file that the bundle names"
    (given.base / file).write_text("another")
    assert fault(given) == told
    (given.base / file).unlink()
    assert fault(given) == told


def test_of_two_bases_of_one_shape_the_right_one_is_taken(given: Input) -> None:
    """A tuned model has the config.json of what it was tuned from."""
    for name in ("aaa", "zzz"):
        other = given.root / "input" / "models" / name
        other.mkdir(parents=True)
        for path in given.base.iterdir():
            (other / path.name).write_bytes(path.read_bytes())
        (other / "model.safetensors").write_text("tuned")
    assert attached.start(given.root).launch[-2] == str(given.base)


def test_what_else_is_attached_does_no_harm(given: Input) -> None:
    folder = given.root / "input" / "datasets" / "eve" / "other"
    for name, content in (("a", b"\xff\xfe"), ("b", b"[1]"), ("c", b'{"kind": "cut'), ("d", b"")):
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.json").write_bytes(content)
        (folder / name / "config.json").write_bytes(content)
    assert attached.start(given.root).launch


def test_a_sealed_text_may_hold_any_letter(given: Input) -> None:
    given.seal(cv={"best": 0.1 + 0.2}, run="½ ≤ ünïcode")
    assert attached.start(given.root).launch


# What it starts


def test_wheels_are_installed_from_the_wheelhouse_alone_into_a_folder_apart(given: Input) -> None:
    given.seal(install=["bitsandbytes==0.50.2", attached.PIN])
    started = attached.start(given.root)
    flags = {"--isolated", "--no-index", "--no-deps", "--no-cache-dir", "--no-warn-script-location"}
    assert started.pip[:3] == [sys.executable, "-m", "pip"]
    assert flags <= set(started.pip)
    assert option(started.pip, "--find-links") == str(given.house)
    assert started.pip[-2:] == ["bitsandbytes==0.50.2", attached.PIN]
    target = option(started.pip, "--target")
    assert started.target
    assert not Path(target).exists()  # by now
    assert started.env["PYTHONPATH"].split(os.pathsep)[0] == target


def test_nobodys_settings_are_read_and_no_network_is_tried(
    given: Input, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    started = attached.start(given.root)
    target = option(started.pip, "--target")
    wanted = {"PIP_CONFIG_FILE": os.devnull, "HF_HOME": target, "HF_HUB_OFFLINE": "1"}
    assert wanted.items() <= started.env.items()
    assert started.env["PYTHONPATH"] == f"{target}{os.pathsep}/somewhere"


@pytest.mark.parametrize(
    ("gpus", "spread", "shown", "many", "flag"),
    [
        ("", "queries", None, "1", "--cpu"),
        ("sh: nvidia-smi: not found", "queries", None, "1", "--cpu"),
        (T4X2.splitlines()[0], "queries", None, "1", None),
        (T4X2, "queries", None, "2", "--multi_gpu"),
        (T4X2, "queries", "1", "1", None),
        (T4X2, "queries", "0,1,2", "2", "--multi_gpu"),
        (T4X2, "model", None, "1", None),
        ("", "model", None, "1", "--cpu"),
    ],
)
def test_a_process_is_started_for_each_gpu_unless_the_model_is_spread(
    given: Input,
    monkeypatch: pytest.MonkeyPatch,
    gpus: str,
    spread: str,
    shown: str | None,
    many: str,
    flag: str | None,
) -> None:
    given.seal(spread=spread)
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    words = attached.start(given.root, gpus=gpus).launch
    assert words[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert option(words, "--num_processes") == many
    assert [word for word in words if word in ("--cpu", "--multi_gpu")] == [flag] * bool(flag)
    plain = {"num_machines": "1", "mixed_precision": "no", "dynamo_backend": "no"}
    assert {name: option(words, f"--{name}") for name in plain} == plain


def test_the_packages_half_is_told_what_was_proven_and_since_when(given: Input) -> None:
    before = time.time()
    words = attached.start(given.root).launch
    assert words[-7:-5] == ["-m", "parity.deploy.kernel.main"]
    folders = (given.root, given.bundle, given.house, given.base)
    assert words[-5:-1] == [str(folder) for folder in folders]
    assert before <= float(words[-1]) <= time.time()


# How it ends


def test_progress_comes_through(given: Input, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["encode  10%|#  | 1/10\n", "encode 100%|###| 10/10\n"]
    attached.start(given.root, child=Child(lines))
    assert capsys.readouterr() == ("", "".join(lines))


def ended(given: Input, lines: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        attached.start(given.root, child=Child(lines, 1))
    return str(caught.value.code)


def test_the_one_line_of_a_failed_child_is_the_last(given: Input) -> None:
    """With several processes a launcher adds a report of its own, of many lines."""
    lines = ["error: layer texts: a here, b there\n", "Traceback\n", "ChildFailedError\n"]
    assert ended(given, lines) == "error: layer texts: a here, b there"
    assert ended(given, lines[1:]) == "error: ChildFailedError"
    last = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
    assert ended(given, [*lines, last, "rank 0 exitcode 1\n"]) == (
        "error: layer texts: a here, b there"
    )
    ranked = ["[rank0]: Traceback\n", "[rank0]: ValueError: no such id\n", last]
    assert ended(given, ranked) == "error: ValueError: no such id"
    assert ended(given, ["error: the cause\n", "error: what follows\n"]) == "error: the cause"
    crash = ["Traceback\n", "ModuleNotFoundError: No module named 'x'\n", "(a launcher's)\n"]
    assert ended(given, crash) == "error: ModuleNotFoundError: No module named 'x'"
    assert ended(given, ["no such option\n", "\n"]) == "error: no such option"


def alone(given: Input) -> subprocess.CompletedProcess[str]:
    """Run the script as it is, in a process of its own."""
    return subprocess.run(
        [sys.executable, str(KERNEL)],
        env={**os.environ, "PARITY_KAGGLE": str(given.root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_pin_that_the_wheelhouse_lacks_is_named_by_pip(given: Input) -> None:
    given.seal(install=["bitsandbytes==0.50.2"])
    answer = alone(given)
    assert (answer.returncode, answer.stdout) == (1, "")
    told = "error: pip: ERROR: No matching distribution found for bitsandbytes==0.50.2\n"
    assert answer.stderr == told


def test_a_fault_is_one_line_and_exit_code_1(given: Input) -> None:
    (given.bundle / "base.json").unlink()
    answer = alone(given)
    assert (answer.returncode, answer.stdout) == (1, "")
    told = "error: bundle small-bundle: base.json is not the file that was sealed\n"
    assert answer.stderr == told


# What it is


def test_it_needs_nothing_but_the_standard_library() -> None:
    tree = ast.parse(KERNEL.read_text(encoding="utf-8"))
    found = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [n.name for n in node.names]
        )
    }
    assert {name.split(".")[0] for name in found} <= sys.stdlib_module_names


def test_it_is_short_and_knows_no_knob() -> None:
    text = KERNEL.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    read = {
        node.args[0].value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "os.environ.get"
        and isinstance(node.args[0], ast.Constant)
    }
    assert read == {"PARITY_KAGGLE", "CUDA_VISIBLE_DEVICES", "PYTHONPATH"}
