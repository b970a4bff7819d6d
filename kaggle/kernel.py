"""Verify what is attached, install its wheels offline, start the kernel on all GPUs.

Standard library alone, for nothing else is proven yet, and no knobs: every setting is the bundle's.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STARTED, KAGGLE = time.time(), Path(os.environ.get("PARITY_KAGGLE", "/kaggle"))


def need(good: object, problem: str) -> None:
    """End with one line and exit code 1, unless it is good."""
    if not good:
        sys.exit(f"error: {problem}")


def odd(folder: Path, files: dict) -> str:
    """Return the first file that is missing or not of its sha256, empty where all are proven."""
    for name, told in sorted(files.items()):
        if not (folder / name).is_file():
            return name
        with (folder / name).open("rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != told:
                return name
    return ""


def sealed(kind: str) -> tuple:
    """Return the one folder of a kind, wherever it is mounted, with its facts and its digest."""
    mark, manifests = f'"kind": "{kind}"'.encode(), (KAGGLE / "input").rglob("manifest.json")
    found = [path.parent for path in sorted(manifests) if mark in path.read_bytes()]
    there = ", ".join(map(str, found)) or "none"
    need(len(found) == 1, f"want one {kind} in {KAGGLE}/input, found {there}; attach one dataset")
    record = json.loads((found[0] / "manifest.json").read_bytes())
    digest = record.pop("digest")
    plain = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    same = hashlib.sha256(plain.encode()).hexdigest() == digest
    bad = odd(found[0], record["files"]) if same else "manifest.json"
    need(not bad, f"{kind} {found[0].name}: {bad} is not the file that was sealed")
    return found[0], record["facts"], digest


bundle, facts, _ = sealed("bundle")
house, wheels, digest = sealed("wheelhouse")
need(digest == facts["wheelhouse"], f"wheelhouse {house.name} is not the one of this bundle")
base = json.loads((bundle / "base.json").read_bytes())
shape = {"config.json": base["files"]["config.json"]}  # finds own dataset and Kaggle's model alike
near = {path.parent for path in (KAGGLE / "input").rglob("config.json")}
near = [(odd(place, base["files"]), place) for place in near if not odd(place, shape)]
need(near, f"base {base['name']} is nowhere in {KAGGLE}/input; attach its dataset or model")
bad, weights = min(near)
need(not bad, f"base {base['name']}: {bad} is not the file that the bundle names")

gpus = subprocess.getoutput("nvidia-smi -L").count("(UUID: GPU-")
gpus = min(gpus, len(os.environ.get("CUDA_VISIBLE_DEVICES", "," * gpus).split(",")))
many = 1 if facts.get("parallelism") == "model" else max(gpus, 1)
how = ["--multi_gpu"] if many > 1 else ["--cpu"] * (gpus == 0)
told = "--num_machines 1 --main_process_port 0 --mixed_precision no --dynamo_backend no --quiet"
with tempfile.TemporaryDirectory() as target:  # a folder apart: the image's own packages stay
    path = os.pathsep.join(filter(None, (target, os.environ.get("PYTHONPATH"))))
    plain = {"PIP_CONFIG_FILE": os.devnull, "HF_HOME": target, "HF_HUB_OFFLINE": "1"}
    env = {**os.environ, **plain, "PYTHONPATH": path}  # nobody's settings, no network
    pip = "--isolated install --no-index --no-deps --no-cache-dir --no-warn-script-location"
    run = [sys.executable, "-m", "pip", *pip.split(), "--target", target, "--find-links", house]
    ended = subprocess.run([*run, *wheels["install"]], env=env, capture_output=True, text=True)
    need(ended.returncode == 0, "pip: " + "".join(ended.stderr.splitlines()[-1:]))
    run = [sys.executable, "-m", "accelerate.commands.launch", *how, *told.split()]
    run += ["--num_processes", str(many), "-m", "parity.deploy.kernel.main"]
    run += map(str, (KAGGLE, bundle, house, weights, STARTED))
    ours, crash, last = "", "", "parity.deploy.kernel.main ended without a word"
    with subprocess.Popen(run, env=env, stderr=subprocess.PIPE, text=True) as child:
        for line in child.stderr:  # progress too, as it comes
            said = line.strip()
            last = said or last
            said = said.partition("]: ")[2] if said.startswith("[rank") else said
            if said.startswith("error: "):
                ours = ours or said.removeprefix("error: ")
            elif said.partition(":")[0].endswith("Error") and "ChildFailedError" not in said:
                crash = said  # of a process; that one has failed is the launcher's own last word
            print(line, end="", file=sys.stderr, flush=True)
need(child.returncode == 0, ours or crash or last)
