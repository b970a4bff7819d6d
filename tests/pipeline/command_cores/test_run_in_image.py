"""`--where image`: its mounts, its command and its errors, with a script for docker.

`test_standin_image.py` runs stages in a built image.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from deploy.wheelhouse import wheelhouses
from pipeline.run_fixture import RunFixture

from parity.cli import main
from parity.deploy.image import freeze, image_lock
from parity.pipeline.command_cores.image import RECORD, read_image_inputs
from parity.pipeline.command_cores.run_in_image import run_stage_in_image, without_where
from parity.run import files
from parity.run.errors import BadConfig, StaleInput
from parity.run.paths import RunPaths

BASE = "localhost/base:1"
DOCKER = f"""#!{sys.executable}
import json, pathlib, sys
words = sys.argv[1:]
if words[0] in ("version", "--version"):
    print("27.1")
elif words[0] == "image":
    print(json.dumps([{{"Id": "sha256:b", "Config": {{}}}}]))
elif words[0] == "run":
    pathlib.Path("arguments.json").write_text(json.dumps(words))
    code = pathlib.Path("code")
    sys.exit(int(code.read_text()) if code.exists() else 0)
"""


@pytest.fixture
def built(small_run: RunFixture, monkeypatch: pytest.MonkeyPatch) -> RunFixture:
    """Return a small run with the record of an image that is built from the present project."""
    folder = small_run.folder / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    house = small_run.folder / "house"
    house.mkdir()
    lock_path = wheelhouses.ROOT / "kaggle" / "image.lock"
    wheelhouses.lock_toy(
        house, freeze.fingerprint(freeze.parse_freeze(image_lock.read_freeze(lock_path)))
    )
    monkeypatch.setattr(RunPaths, "wheelhouse", property(lambda _: house))
    inputs, _, _ = read_image_inputs(small_run.open().workspace, BASE)
    record = {"engine": "docker", "tag": inputs.tag, "id": "ab" * 32, "layers": asdict(inputs)}
    files.write_json(small_run.data / RECORD, record)
    return small_run


def docker_arguments() -> list[str]:
    words: list[str] = json.loads(Path("arguments.json").read_text())
    return words


def mounts() -> dict[str, str]:
    """Return target → `ro` or `rw` of docker's mounts."""
    words = docker_arguments()
    modes = {}
    for position, word in enumerate(words):
        if word == "--mount":
            parts = words[position + 1].split(",")
            modes[parts[2].removeprefix("target=")] = "ro" if parts[-1] == "readonly" else "rw"
    return modes


def test_the_same_command_runs_in_the_image_in_the_same_folder(
    built: RunFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "small.toml", "--where", "image", "--set=split.seed=1"]
    run_stage_in_image(built.open(), words)
    assert docker_arguments()[-7:] == [
        *("ab" * 32, "python", "-m", "parity", "prepare", "small.toml", "--set=split.seed=1")
    ]
    assert docker_arguments()[docker_arguments().index("--workdir") + 1] == str(built.folder)
    assert "with docker 27.1" in capsys.readouterr().out


def test_only_the_data_folder_is_writable(built: RunFixture) -> None:
    run_stage_in_image(built.open(), ["prepare", "small.toml"])
    writable = {target for target, mode in mounts().items() if mode == "rw"}
    assert writable == {str(built.data)}
    assert mounts()[str(built.source)] == "ro"
    assert mounts()[str(built.folder / "small.toml")] == "ro"


def test_a_stage_with_a_model_gets_the_base_model_and_packages_missing_in_the_image(
    built: RunFixture,
) -> None:
    run_stage_in_image(built.open(), ["mine", "small.toml", "--where=image"])
    assert mounts()[str(built.base)] == "ro"
    assert mounts()["/opt/parity-packages/bm25s"] == "ro"
    assert "PYTHONPATH=/opt/parity-packages" in docker_arguments()
    assert "HF_HUB_OFFLINE=1" in docker_arguments()


def test_other_files_that_the_command_names_are_mounted(built: RunFixture) -> None:
    built.write_config("other")
    (built.folder / "mined.jsonl").touch()
    run_stage_in_image(built.open(), ["mine", "small.toml", "--import", "mined.jsonl"])
    assert mounts()[str(built.folder / "mined.jsonl")] == "ro"
    run_stage_in_image(built.open(), ["eval", "small.toml", "--against=other.toml"])
    assert mounts()[str(built.folder / "other.toml")] == "ro"


def test_an_adapter_in_a_folder_is_mounted(built: RunFixture) -> None:
    (built.folder / "downloaded").mkdir()
    (built.folder / "best").mkdir()
    run_stage_in_image(built.open(), ["eval", "small.toml", "--model", "downloaded"])
    assert mounts()[str(built.folder / "downloaded")] == "ro"
    run_stage_in_image(built.open(), ["eval", "small.toml", "--model=best", "--as", "plain"])
    assert not {str(built.folder / name) for name in ("downloaded", "best")} & mounts().keys()
    built.write_config(training={"init_from": "downloaded"})
    run_stage_in_image(built.open(), ["train", "small.toml"])
    assert mounts()[str(built.folder / "downloaded")] == "ro"


def test_the_exit_code_of_the_stage_is_returned(built: RunFixture) -> None:
    Path("code").write_text("3")
    with pytest.raises(SystemExit) as error:
        run_stage_in_image(built.open(), ["prepare", "small.toml"])
    assert error.value.code == 3


@pytest.mark.parametrize("stage", ["rehearse", "package", "push"])
def test_a_stage_that_does_not_run_in_the_image_is_refused(built: RunFixture, stage: str) -> None:
    with pytest.raises(
        BadConfig, match=rf"{stage} does not run inside\. Use it with prepare, mine"
    ):
        run_stage_in_image(built.open(), [stage, "small.toml"])
    assert not Path("arguments.json").exists()


def test_without_an_image_the_error_has_the_command_that_builds_it(built: RunFixture) -> None:
    (built.data / RECORD).unlink()
    with pytest.raises(StaleInput, match=r"^no image has been built$") as error:
        run_stage_in_image(built.open(), ["prepare", "small.toml"])
    assert error.value.fix == ("image",)


@pytest.mark.parametrize("layer", ["code", "image_lock", "wheels_lock"])
def test_an_image_of_other_inputs_is_refused_with_the_fix(built: RunFixture, layer: str) -> None:
    record: dict[str, Any] = files.read_json(built.data / RECORD)
    record["layers"][layer] = "0" * 64
    files.write_json(built.data / RECORD, record)
    with pytest.raises(StaleInput) as error:
        run_stage_in_image(built.open(), ["prepare", "small.toml"])
    assert str(error.value) == f"the image was built from another {layer}"
    assert error.value.fix == ("image", f"--base={BASE}")


def test_an_engine_that_no_longer_responds_is_refused(built: RunFixture) -> None:
    (built.folder / "bin" / "docker").unlink()
    with pytest.raises(BadConfig, match="built with docker, which does not respond"):
        run_stage_in_image(built.open(), ["prepare", "small.toml"])


def test_the_command_in_the_image_has_no_where_flag() -> None:
    assert without_where(["eval", "a.toml", "--where=image", "--model=base"]) == [
        *("eval", "a.toml", "--model=base")
    ]


def test_the_command_line_runs_a_stage_in_the_image(built: RunFixture) -> None:
    Path("code").write_text("6")
    with pytest.raises(SystemExit) as error:
        main(["prepare", "small.toml", "--where", "image"])
    assert error.value.code == 6
    assert docker_arguments()[-2:] == ["prepare", "small.toml"]
    assert os.environ["PARITY_DATA"] in "".join(docker_arguments())
