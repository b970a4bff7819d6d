"""Verify the attached datasets, install the wheels offline, start the kernel on all GPUs.

Uses only the standard library, because no package is verified yet. All settings are in the bundle.
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


def need(condition: object, problem: str) -> None:
    """Exit with one line and code 1 unless the condition is true."""
    if not condition:
        sys.exit(f"error: {problem}")


def first_mismatch(folder: Path, files: dict) -> str:
    """Return the first file that is missing or differs from its sha256; empty if all match."""
    for name, sha256 in sorted(files.items()):
        if not (folder / name).is_file():
            return name
        with (folder / name).open("rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != sha256:
                return name
    return ""


def find_sealed(kind: str) -> tuple:
    """Return folder, facts and digest of the only sealed folder of a kind, at any mount point."""
    mark, manifests = f'"kind": "{kind}"'.encode(), (KAGGLE / "input").rglob("manifest.json")
    folders = [path.parent for path in sorted(manifests) if mark in path.read_bytes()]
    dirs = ", ".join(map(str, folders)) or "none"
    need(len(folders) == 1, f"want one {kind} in {KAGGLE}/input, found {dirs}; attach one dataset")
    record = json.loads((folders[0] / "manifest.json").read_bytes())
    digest = record.pop("digest")
    plain = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    is_unchanged = hashlib.sha256(plain.encode()).hexdigest() == digest
    bad = first_mismatch(folders[0], record["files"]) if is_unchanged else "manifest.json"
    need(not bad, f"{kind} {folders[0].name}: {bad} is not the file that was sealed")
    return folders[0], record["facts"], digest


bundle, facts, _ = find_sealed("bundle")
wheelhouse, wheels, digest = find_sealed("wheelhouse")
need(digest == facts["wheelhouse"], f"wheelhouse {wheelhouse.name} is not the one of this bundle")
base = json.loads((bundle / "base.json").read_bytes())
config = {"config.json": base["files"]["config.json"]}  # finds a dataset and a Kaggle model alike
folders = {path.parent for path in (KAGGLE / "input").rglob("config.json")}
folders = [folder for folder in folders if not first_mismatch(folder, config)]
bases = [(first_mismatch(folder, base["files"]), folder) for folder in folders]
need(bases, f"base {base['name']} is nowhere in {KAGGLE}/input; attach its dataset or model")
bad, weights = min(bases)
need(not bad, f"base {base['name']}: {bad} is not the file that the bundle names")

gpus = subprocess.getoutput("nvidia-smi -L").count("(UUID: GPU-")
gpus = min(gpus, len(os.environ.get("CUDA_VISIBLE_DEVICES", "," * gpus).split(",")))
processes = 1 if facts.get("parallelism") == "model" else max(gpus, 1)
hardware = ["--multi_gpu"] if processes > 1 else ["--cpu"] * (gpus == 0)
plain = "--num_machines 1 --main_process_port 0 --mixed_precision no --dynamo_backend no --quiet"
with tempfile.TemporaryDirectory() as target:  # a separate folder: the image's packages stay
    path = os.pathsep.join(filter(None, (target, os.environ.get("PYTHONPATH"))))
    isolated = {"PIP_CONFIG_FILE": os.devnull, "HF_HOME": target, "HF_HUB_OFFLINE": "1"}
    env = {**os.environ, **isolated, "PYTHONPATH": path}  # no user settings, no network
    pip = "--isolated install --no-index --no-deps --no-cache-dir --no-warn-script-location"
    run = [sys.executable, "-m", "pip", *pip.split(), "--target", target]
    run += ["--find-links", wheelhouse, *wheels["install"]]
    install = subprocess.run(run, env=env, capture_output=True, text=True)
    need(install.returncode == 0, "pip: " + "".join(install.stderr.splitlines()[-1:]))
    run = [sys.executable, "-m", "accelerate.commands.launch", *hardware, *plain.split()]
    run += ["--num_processes", str(processes), "-m", "parity.deploy.kernel.main"]
    run += map(str, (KAGGLE, bundle, wheelhouse, weights, STARTED))
    error, crash, last = "", "", "parity.deploy.kernel.main ended without a message"
    with subprocess.Popen(run, env=env, stderr=subprocess.PIPE, text=True) as child:
        for line in child.stderr:  # progress too, as it comes
            text = line.strip()
            last = text or last
            text = text.partition("]: ")[2] if text.startswith("[rank") else text
            if text.startswith("error: "):
                error = error or text.removeprefix("error: ")
            elif text.partition(":")[0].endswith("Error") and "ChildFailedError" not in text:
                crash = text  # of a process; ChildFailedError only repeats that a process failed
            print(line, end="", file=sys.stderr, flush=True)
need(child.returncode == 0, error or crash or last)
