"""Builds of one folder that the Kaggle client can't distinguish."""

import json
import os
from pathlib import Path

from kagglestandin_server import StandIn

from parity.deploy.bundle import sealed_folder
from parity.deploy.kaggle_api.publish import DatasetUpload
from parity.run import digest

REF = "me/some-bundle"


class Builds:
    """Builds of one folder: same names, sizes and times, different bytes."""

    def __init__(self, standin: StandIn, folder: Path) -> None:
        self.standin, self.folder = standin, folder

    def build(self, letter: str, files: int = 3) -> DatasetUpload:
        """Build the folder; from now on the stand-in accepts this build."""
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            path.unlink()
        for number in range(files):
            (self.folder / f"part-{number}.json").write_text(json.dumps(letter * 4000))
        sealed_folder.seal(self.folder, "bundle", {})
        for path in self.folder.iterdir():
            os.utime(path, (1_700_000_000, 1_700_000_000))
        sealed = sealed_folder.read(self.folder)
        upload = DatasetUpload(
            REF, "some bundle", "other", self.folder, sealed.sizes(), sealed.digest
        )
        self.standin.kaggle.expect(REF, self.contents(upload))
        return upload

    def contents(self, upload: DatasetUpload) -> dict[str, str]:
        return {name: digest.of_file(upload.folder / name) for name in upload.sizes}

    @property
    def published(self) -> list[dict[str, str]]:
        """The contents of every version on Kaggle."""
        dataset = self.standin.kaggle.datasets.get(REF)
        return [version.contents for version in dataset.versions] if dataset else []
