"""The three Kaggle datasets of a run: bundle, wheelhouse and base model, as sealed folders."""

import re
from pathlib import Path

from parity.deploy.bundle import scan, sealed_folder
from parity.deploy.bundle.sealed_folder import SealedFolder
from parity.deploy.kaggle_api.publish import DatasetUpload
from parity.pipeline import encoder_loading
from parity.retrieval.models import base_model
from parity.retrieval.models.base_model import BaseModel
from parity.run import files
from parity.run.config.run_file import Config
from parity.run.config.shipping import ShippingConfig
from parity.run.errors import BadConfig
from parity.run.paths import RunPaths

WHEELHOUSE = "kaggle-parity-wheelhouse"
"""One dataset for all runs; its content changes with the wheel lock."""
_LICENSES = {
    "apache-2.0": "apache-2.0",
    "mit": "MIT",
    "cc0-1.0": "CC0-1.0",
    "cc-by-4.0": "CC-BY-4.0",
}
_OTHER = "other"
_LONGEST = 50


def dataset_owner(config: ShippingConfig, user: str) -> str:
    """Return the account that owns the datasets: the configured owner, else the user."""
    return config.owner or user


def kaggle_slug(*words: str) -> str:
    """Return a name as a Kaggle slug, at most 50 characters.

    >>> kaggle_slug("qwen2.5-14b", "bundle")
    'qwen2-5-14b-bundle'
    """
    name = re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
    return name[:_LONGEST].rstrip("-")


def bundle_upload(config: Config, package: Path, user: str) -> DatasetUpload:
    """Return the run's bundle, in the folder of the stage `package`, as an upload.

    Raises:
        BadConfig: the run has no license for it.
    """
    shipping = config.shipping
    ref = f"{dataset_owner(shipping, user)}/{kaggle_slug(config.name, 'bundle')}"
    return _upload(sealed_folder.read(package / "bundle"), ref, shipping.license)


def wheelhouse_upload(config: ShippingConfig, package: Path, user: str) -> DatasetUpload:
    """Return the run's wheelhouse as an upload; each wheel has its own license."""
    ref = f"{dataset_owner(config, user)}/{WHEELHOUSE}"
    return _upload(sealed_folder.read(package / "wheelhouse"), ref, _OTHER)


def base_ref(config: Config, paths: RunPaths, user: str) -> str:
    """Return owner/slug of the dataset with the run's base model."""
    name = kaggle_slug("parity-base", encoder_loading.load_base(config.encoder, paths).name)
    return f"{dataset_owner(config.shipping, user)}/{name}"


def base_digest(config: Config, paths: RunPaths) -> str:
    """Return the digest of the sealed base model, without reading its files."""
    model = encoder_loading.load_base(config.encoder, paths)
    return sealed_folder.compute_digest("base", _facts(config.shipping, model), model.files)


def base_upload(config: Config, paths: RunPaths, user: str) -> DatasetUpload:
    """Return the run's base model as an upload, its files linked into a sealed folder.

    Raises:
        BadConfig: its license is unknown.
        BadData: one of its files is a pickle.
        Mismatch: a file does not match its record.
    """
    model = encoder_loading.load_base(config.encoder, paths)
    facts = _facts(config.shipping, model)
    if not facts["license"]:
        raise BadConfig(
            f"base model {model.name} has no known license, which its dataset needs; set "
            "shipping.base_license, for example to Apache-2.0"
        )
    base_model.verify(model)
    folder = paths.root / "base"
    with files.replacing(folder) as temporary:
        sealed_folder.link_files([model.folder / name for name in model.files], temporary)
        scan.refuse_pickles(temporary)
        sealed_folder.seal(temporary, "base", facts)
    license = _LICENSES.get(facts["license"].lower(), _OTHER)
    return _upload(sealed_folder.read(folder), base_ref(config, paths, user), license)


def _facts(config: ShippingConfig, model: BaseModel) -> dict[str, str]:
    license = model.license or config.base_license
    return {"name": Path(model.name).name, "license": license}


def _upload(sealed: SealedFolder, ref: str, license: str) -> DatasetUpload:
    return DatasetUpload(
        ref=ref,
        title=ref.partition("/")[2].replace("-", " "),
        license=license,
        folder=sealed.folder,
        sizes=sealed.sizes(),
        digest=sealed.digest,
    )
