"""The three datasets of a run: what they are called on Kaggle, and their folders here, sealed."""

import re
from pathlib import Path

from parity.deploy.bundle import scan, sealed_folder
from parity.deploy.bundle.sealed_folder import Sealed
from parity.deploy.kaggle_api.publish import DatasetUpload
from parity.pipeline import dag, encoder_loading
from parity.retrieval.models import base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run import files
from parity.run.errors import BadConfig
from parity.run.experiment import Run

WHEELHOUSE = "kaggle-parity-wheelhouse"
"""One for all runs: what it holds changes with its lock."""
_KAGGLES = {
    "apache-2.0": "apache-2.0",
    "mit": "MIT",
    "cc0-1.0": "CC0-1.0",
    "cc-by-4.0": "CC-BY-4.0",
}
_OTHER = "other"
_LONGEST = 50


def owner(run: Run, user: str) -> str:
    """Return the account that owns the datasets: the run's, else whoever is logged in."""
    return run.config.shipping.owner or user


def slug(*words: str) -> str:
    """Return a name as Kaggle writes it in an address, at most 50 characters.

    >>> slug("qwen2.5-14b", "bundle")
    'qwen2-5-14b-bundle'
    """
    name = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
    return name[:_LONGEST].rstrip("-")


def bundle(run: Run, user: str) -> DatasetUpload:
    """Return the run's bundle as a parcel.

    Raises:
        BadConfig: the run names no license for it.
    """
    folder = dag.folder(run, "package") / "bundle"
    name = slug(run.config.name, "bundle")
    license = run.config.shipping.license
    return _parcel(sealed_folder.read(folder), f"{owner(run, user)}/{name}", license)


def wheelhouse(run: Run, user: str) -> DatasetUpload:
    """Return the run's wheelhouse as a parcel; its wheels have licenses of their own."""
    folder = dag.folder(run, "package") / "wheelhouse"
    return _parcel(sealed_folder.read(folder), f"{owner(run, user)}/{WHEELHOUSE}", _OTHER)


def base_ref(run: Run, user: str) -> str:
    """Return owner/slug of the dataset that holds the run's base."""
    return f"{owner(run, user)}/{slug('parity-base', encoder_loading.base(run).name)}"


def base_digest(run: Run) -> str:
    """Return the digest of the sealed base, from what is known of its files."""
    base = encoder_loading.base(run)
    return sealed_folder.digest_of("base", _facts(run, base), base.files)


def base(run: Run, user: str) -> DatasetUpload:
    """Return the run's base as a parcel, its files linked into a sealed folder.

    Raises:
        BadConfig: its license is not known.
        BadData: a file of it is a pickle.
        Mismatch: a file is not the one its record names.
    """
    found = encoder_loading.base(run)
    facts = _facts(run, found)
    if not facts["license"]:
        raise BadConfig(
            f"base {found.name}: its license is not known and its dataset needs one; name it: "
            '--set shipping.base_license="Apache-2.0"'
        )
    base_model.verify(found)
    folder = run.workspace.root / "base"
    with files.replacing(folder) as temporary:
        sealed_folder.link([found.folder / name for name in found.files], temporary)
        scan.refuse_pickles(temporary)
        sealed_folder.seal(temporary, "base", facts)
    license = _KAGGLES.get(facts["license"].lower(), _OTHER)
    return _parcel(sealed_folder.read(folder), base_ref(run, user), license)


def _facts(run: Run, base: BaseModel) -> dict[str, str]:
    license = base.license or run.config.shipping.base_license
    return {"name": Path(base.name).name, "license": license}


def _parcel(found: Sealed, ref: str, license: str) -> DatasetUpload:
    return DatasetUpload(
        ref=ref,
        title=ref.partition("/")[2].replace("-", " "),
        license=license,
        folder=found.folder,
        sizes=found.sizes(),
        digest=found.digest,
    )
