"""`kaggle/kernel.py`: what it verifies, how it starts the package, how it ends."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import attached
import pytest
from attached import BUNDLE, HOUSE, KERNEL, Child, KernelInput

from parity.deploy.bundle import sealed_folder
from parity.deploy.kernel import mounts

T4X2 = "GPU 0: Tesla T4 (UUID: GPU-a1)\nGPU 1: Tesla T4 (UUID: GPU-b2)\n"


@pytest.fixture
def kernel_input(tmp_path: Path) -> KernelInput:
    return attached.attach(tmp_path / "kaggle", mounts.owner)


def error_of(kernel_input: KernelInput) -> str:
    """Return the script's error, after checking that it started and wrote nothing."""
    with pytest.raises(SystemExit) as error:
        attached.start(kernel_input.root)
    assert list((kernel_input.root / "working").iterdir()) == []
    message = str(error.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message.removeprefix("error: ")


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


# Verification


@pytest.mark.parametrize(("name", "kind"), [(BUNDLE, "bundle"), (HOUSE, "wheelhouse")])
def test_a_missing_dataset_is_named(kernel_input: KernelInput, name: str, kind: str) -> None:
    (kernel_input.root / "input" / mounts.owner(name)).rename(kernel_input.root / "elsewhere")
    folder = kernel_input.root / "input"
    assert error_of(kernel_input) == f"want one {kind} in {folder}, found none; attach one dataset"


@pytest.mark.parametrize(("name", "kind"), [(BUNDLE, "bundle"), (HOUSE, "wheelhouse")])
def test_a_dataset_attached_twice_is_named_with_its_paths(
    kernel_input: KernelInput, name: str, kind: str
) -> None:
    first = kernel_input.root / "input" / mounts.owner(name)
    other = kernel_input.root / "input" / "older"
    other.mkdir()
    for path in first.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    folder = kernel_input.root / "input"
    expected = f"want one {kind} in {folder}, found {first}, {other}; attach one dataset"
    assert error_of(kernel_input) == expected


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("bundle", "adapter_model.safetensors"),
        ("bundle", "base.json"),
        ("wheelhouse", "kaggle_parity-0.1.0-py3-none-any.whl"),
    ],
)
def test_a_file_that_differs_from_the_sealed_one_is_named(
    kernel_input: KernelInput, kind: str, file: str
) -> None:
    folder = {"bundle": kernel_input.bundle, "wheelhouse": kernel_input.house}[kind]
    expected = f"{kind} {folder.name}: {file} is not the file that was sealed"
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1] + b"!")
    assert error_of(kernel_input) == expected
    (folder / file).unlink()
    assert error_of(kernel_input) == expected


@pytest.mark.parametrize("kind", ["bundle", "wheelhouse"])
def test_a_changed_manifest_is_named(kernel_input: KernelInput, kind: str) -> None:
    folder = {"bundle": kernel_input.bundle, "wheelhouse": kernel_input.house}[kind]
    path = folder / sealed_folder.MANIFEST
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    assert (
        error_of(kernel_input)
        == f"{kind} {folder.name}: manifest.json is not the file that was sealed"
    )


def test_a_wheelhouse_of_another_bundle_is_named(kernel_input: KernelInput) -> None:
    (kernel_input.house / "more.whl").write_text("wheel")
    sealed_folder.seal(kernel_input.house, "wheelhouse", {"install": []})
    assert error_of(kernel_input) == "wheelhouse wheels is not the one of this bundle"


def test_d25_a_missing_base_is_named(kernel_input: KernelInput) -> None:
    (kernel_input.base / "config.json").write_text('{"another": 1}')
    folder = kernel_input.root / "input"
    assert error_of(kernel_input) == f"base llm is nowhere in {folder}; attach its dataset or model"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_changed_file_of_the_base_is_named(kernel_input: KernelInput, file: str) -> None:
    expected = f"base llm: {file} is not the file that the bundle names"
    (kernel_input.base / file).write_text("another")
    assert error_of(kernel_input) == expected
    (kernel_input.base / file).unlink()
    assert error_of(kernel_input) == expected


def test_the_right_base_is_taken_of_several_with_one_config(kernel_input: KernelInput) -> None:
    """A fine-tuned model has the config.json of its base."""
    for name in ("aaa", "zzz"):
        other = kernel_input.root / "input" / "models" / name
        other.mkdir(parents=True)
        for path in kernel_input.base.iterdir():
            (other / path.name).write_bytes(path.read_bytes())
        (other / "model.safetensors").write_text("tuned")
    assert attached.start(kernel_input.root).launch[-2] == str(kernel_input.base)


def test_other_attached_datasets_are_ignored(kernel_input: KernelInput) -> None:
    folder = kernel_input.root / "input" / "datasets" / "eve" / "other"
    for name, content in (("a", b"\xff\xfe"), ("b", b"[1]"), ("c", b'{"kind": "cut'), ("d", b"")):
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.json").write_bytes(content)
        (folder / name / "config.json").write_bytes(content)
    assert attached.start(kernel_input.root).launch


def test_sealed_facts_may_contain_any_character(kernel_input: KernelInput) -> None:
    kernel_input.seal(cv={"best": 0.1 + 0.2}, run="½ ≤ ünïcode")
    assert attached.start(kernel_input.root).launch


# Start


def test_wheels_are_installed_only_from_the_wheelhouse_into_a_separate_folder(
    kernel_input: KernelInput,
) -> None:
    kernel_input.seal(install=["bitsandbytes==0.50.2", attached.PIN])
    started = attached.start(kernel_input.root)
    flags = {"--isolated", "--no-index", "--no-deps", "--no-cache-dir", "--no-warn-script-location"}
    assert started.pip[:3] == [sys.executable, "-m", "pip"]
    assert flags <= set(started.pip)
    assert option(started.pip, "--find-links") == str(kernel_input.house)
    assert started.pip[-2:] == ["bitsandbytes==0.50.2", attached.PIN]
    target = option(started.pip, "--target")
    assert started.has_target
    assert not Path(target).exists()  # by now
    assert started.env["PYTHONPATH"].split(os.pathsep)[0] == target


def test_user_settings_and_the_network_are_not_used(
    kernel_input: KernelInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    started = attached.start(kernel_input.root)
    target = option(started.pip, "--target")
    expected = {"PIP_CONFIG_FILE": os.devnull, "HF_HOME": target, "HF_HUB_OFFLINE": "1"}
    assert expected.items() <= started.env.items()
    assert started.env["PYTHONPATH"] == f"{target}{os.pathsep}/somewhere"


@pytest.mark.parametrize(
    ("gpus", "parallelism", "visible", "processes", "flag"),
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
def test_each_gpu_gets_a_process_unless_the_model_is_split(
    kernel_input: KernelInput,
    monkeypatch: pytest.MonkeyPatch,
    gpus: str,
    parallelism: str,
    visible: str | None,
    processes: str,
    flag: str | None,
) -> None:
    kernel_input.seal(parallelism=parallelism)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    words = attached.start(kernel_input.root, gpus=gpus).launch
    assert words[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert option(words, "--num_processes") == processes
    assert [word for word in words if word in ("--cpu", "--multi_gpu")] == [flag] * bool(flag)
    plain = {"num_machines": "1", "mixed_precision": "no", "dynamo_backend": "no"}
    assert {name: option(words, f"--{name}") for name in plain} == plain


def test_the_package_gets_the_verified_folders_and_the_start_time(
    kernel_input: KernelInput,
) -> None:
    before = time.time()
    words = attached.start(kernel_input.root).launch
    assert words[-7:-5] == ["-m", "parity.deploy.kernel.main"]
    folders = (kernel_input.root, kernel_input.bundle, kernel_input.house, kernel_input.base)
    assert words[-5:-1] == [str(folder) for folder in folders]
    assert before <= float(words[-1]) <= time.time()


# End


def test_progress_is_passed_through(
    kernel_input: KernelInput, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["encode  10%|#  | 1/10\n", "encode 100%|###| 10/10\n"]
    attached.start(kernel_input.root, child=Child(lines))
    assert capsys.readouterr() == ("", "".join(lines))


def end_of(kernel_input: KernelInput, lines: list[str]) -> str:
    with pytest.raises(SystemExit) as error:
        attached.start(kernel_input.root, child=Child(lines, 1))
    return str(error.value.code)


def test_the_error_of_a_failed_child_is_the_last_line(kernel_input: KernelInput) -> None:
    """With several processes the launcher adds its own report of many lines."""
    lines = ["error: layer texts: a here, b there\n", "Traceback\n", "ChildFailedError\n"]
    assert end_of(kernel_input, lines) == "error: layer texts: a here, b there"
    assert end_of(kernel_input, lines[1:]) == "error: ChildFailedError"
    last = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
    assert end_of(kernel_input, [*lines, last, "rank 0 exitcode 1\n"]) == (
        "error: layer texts: a here, b there"
    )
    ranked = ["[rank0]: Traceback\n", "[rank0]: ValueError: no such id\n", last]
    assert end_of(kernel_input, ranked) == "error: ValueError: no such id"
    assert (
        end_of(kernel_input, ["error: the cause\n", "error: what follows\n"]) == "error: the cause"
    )
    crash = ["Traceback\n", "ModuleNotFoundError: No module named 'x'\n", "(a launcher)\n"]
    assert end_of(kernel_input, crash) == "error: ModuleNotFoundError: No module named 'x'"
    assert end_of(kernel_input, ["no such option\n", "\n"]) == "error: no such option"


def run_alone(kernel_input: KernelInput) -> subprocess.CompletedProcess[str]:
    """Run the script in its own process."""
    return subprocess.run(
        [sys.executable, str(KERNEL)],
        env={**os.environ, "PARITY_KAGGLE": str(kernel_input.root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_pin_missing_from_the_wheelhouse_is_named_by_pip(kernel_input: KernelInput) -> None:
    kernel_input.seal(install=["bitsandbytes==0.50.2"])
    answer = run_alone(kernel_input)
    assert (answer.returncode, answer.stdout) == (1, "")
    expected = "error: pip: ERROR: No matching distribution found for bitsandbytes==0.50.2\n"
    assert answer.stderr == expected


def test_an_error_is_one_line_and_exit_code_1(kernel_input: KernelInput) -> None:
    (kernel_input.bundle / "base.json").unlink()
    answer = run_alone(kernel_input)
    assert (answer.returncode, answer.stdout) == (1, "")
    expected = "error: bundle small-bundle: base.json is not the file that was sealed\n"
    assert answer.stderr == expected


# Properties of the script


def test_the_script_needs_only_the_standard_library() -> None:
    tree = ast.parse(KERNEL.read_text(encoding="utf-8"))
    modules = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [n.name for n in node.names]
        )
    }
    assert {name.split(".")[0] for name in modules} <= sys.stdlib_module_names


def test_the_script_is_short_and_reads_three_environment_variables() -> None:
    text = KERNEL.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    variables = {
        node.args[0].value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "os.environ.get"
        and isinstance(node.args[0], ast.Constant)
    }
    assert variables == {"PARITY_KAGGLE", "CUDA_VISIBLE_DEVICES", "PYTHONPATH"}
