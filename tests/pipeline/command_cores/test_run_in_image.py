"""`--where image`: what is mounted, what is run, and when it is refused. Docker is a script here.

With an image that was really built it is `test_standin_image.py`.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from deploy.wheelhouse import wheelhouses
from pipeline.run_fixture import Bench

from parity.__main__ import main
from parity.deploy.image import freeze, image_lock
from parity.pipeline.command_cores.image import RECORD, sources
from parity.pipeline.command_cores.run_in_image import inside, within
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
    pathlib.Path("told.json").write_text(json.dumps(words))
    code = pathlib.Path("code")
    sys.exit(int(code.read_text()) if code.exists() else 0)
"""


@pytest.fixture
def built(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench for whose project an image was built."""
    folder = bench.folder / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    house = bench.folder / "house"
    house.mkdir()
    kept = wheelhouses.ROOT / "kaggle" / "image.lock"
    wheelhouses.lock_toy(house, freeze.fingerprint(freeze.parse(image_lock.freeze(kept))))
    monkeypatch.setattr(RunPaths, "wheelhouse", property(lambda _: house))
    made, _, _ = sources(bench.run(), BASE)
    record = {"engine": "docker", "tag": made.tag, "id": "ab" * 32, "layers": asdict(made)}
    files.write_json(bench.data / RECORD, record)
    return bench


def told() -> list[str]:
    words: list[str] = json.loads(Path("told.json").read_text())
    return words


def mounts() -> dict[str, str]:
    """Return target → `ro` or `rw` of what docker was told to mount."""
    words = told()
    found = {}
    for place, word in enumerate(words):
        if word == "--mount":
            parts = words[place + 1].split(",")
            found[parts[2].removeprefix("target=")] = "ro" if parts[-1] == "readonly" else "rw"
    return found


def test_the_same_words_are_run_inside_in_the_same_folder(
    built: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "small.toml", "--where", "image", "--set=split.seed=1"]
    inside(built.run(), words)
    assert told()[-7:] == [
        *("ab" * 32, "python", "-m", "parity", "prepare", "small.toml", "--set=split.seed=1")
    ]
    assert told()[told().index("--workdir") + 1] == str(built.folder)
    assert "with docker 27.1" in capsys.readouterr().out


def test_the_data_folder_alone_can_be_written(built: Bench) -> None:
    inside(built.run(), ["prepare", "small.toml"])
    writable = {target for target, mode in mounts().items() if mode == "rw"}
    assert writable == {str(built.data)}
    assert mounts()[str(built.source)] == "ro"
    assert mounts()[str(built.folder / "small.toml")] == "ro"


def test_a_stage_with_a_model_also_sees_the_base_and_what_the_image_lacks(built: Bench) -> None:
    inside(built.run(), ["mine", "small.toml", "--where=image"])
    assert mounts()[str(built.base)] == "ro"
    assert mounts()["/opt/parity-packages/bm25s"] == "ro"
    assert "PYTHONPATH=/opt/parity-packages" in told()
    assert "HF_HUB_OFFLINE=1" in told()


def test_other_files_that_the_words_name_are_seen(built: Bench) -> None:
    built.write("other")
    (built.folder / "mined.jsonl").touch()
    inside(built.run(), ["mine", "small.toml", "--import", "mined.jsonl"])
    assert mounts()[str(built.folder / "mined.jsonl")] == "ro"
    inside(built.run(), ["eval", "small.toml", "--against=other.toml"])
    assert mounts()[str(built.folder / "other.toml")] == "ro"


def test_the_exit_code_of_the_stage_is_ours(built: Bench) -> None:
    Path("code").write_text("3")
    with pytest.raises(SystemExit) as caught:
        inside(built.run(), ["prepare", "small.toml"])
    assert caught.value.code == 3


@pytest.mark.parametrize("stage", ["rehearse", "package", "push"])
def test_a_stage_that_belongs_outside_is_refused(built: Bench, stage: str) -> None:
    with pytest.raises(BadConfig, match=f"{stage} does not run inside; prepare, mine"):
        inside(built.run(), [stage, "small.toml"])
    assert not Path("told.json").exists()


def test_without_an_image_the_command_that_builds_one_is_named(built: Bench) -> None:
    (built.data / RECORD).unlink()
    with pytest.raises(StaleInput, match="no image has been built; run: invoke image"):
        inside(built.run(), ["prepare", "small.toml"])


@pytest.mark.parametrize("layer", ["code", "image_lock", "wheels_lock"])
def test_an_image_of_something_else_is_refused(built: Bench, layer: str) -> None:
    record: dict[str, Any] = files.read_json(built.data / RECORD)
    record["layers"][layer] = "0" * 64
    files.write_json(built.data / RECORD, record)
    with pytest.raises(StaleInput) as caught:
        inside(built.run(), ["prepare", "small.toml"])
    assert str(caught.value) == (
        f"the image was built from another {layer}; run: invoke image --base {BASE}"
    )


def test_an_engine_that_has_gone_is_named(built: Bench) -> None:
    (built.folder / "bin" / "docker").unlink()
    with pytest.raises(BadConfig, match="docker's, which does not answer; run: invoke image"):
        inside(built.run(), ["prepare", "small.toml"])


def test_words_are_the_same_but_for_where() -> None:
    assert within(["eval", "a.toml", "--where=image", "--adapter=base"]) == [
        *("eval", "a.toml", "--adapter=base")
    ]


def test_the_command_line_leads_there(built: Bench) -> None:
    Path("code").write_text("6")
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "small.toml", "--where", "image"])
    assert caught.value.code == 6
    assert told()[-2:] == ["prepare", "small.toml"]
    assert os.environ["PARITY_DATA"] in "".join(told())
