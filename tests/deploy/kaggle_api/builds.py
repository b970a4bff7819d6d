"""Builds of one folder that Kaggle's client cannot tell from each other."""

import json
import os
from pathlib import Path

from kagglestandin_server import StandIn

from parity.deploy.bundle import sealed_folder
from parity.deploy.kaggle_api.publish import DatasetUpload
from parity.run import digest

REF = "me/some-bundle"


class Builds:
    """Builds of one folder: equal names, sizes and times, each byte another."""

    def __init__(self, standin: StandIn, folder: Path) -> None:
        self.standin, self.folder = standin, folder

    def build(self, letter: str, files: int = 3) -> DatasetUpload:
        """Build the folder anew; the stand-in takes this build from now on."""
        self.folder.mkdir(exist_ok=True)
        for path in self.folder.iterdir():
            path.unlink()
        for number in range(files):
            (self.folder / f"part-{number}.json").write_text(json.dumps(letter * 4000))
        sealed_folder.seal(self.folder, "bundle", {})
        for path in self.folder.iterdir():
            os.utime(path, (1_700_000_000, 1_700_000_000))
        found = sealed_folder.read(self.folder)
        parcel = DatasetUpload(
            REF, "some bundle", "other", self.folder, found.sizes(), found.digest
        )
        self.standin.kaggle.expect(REF, self.contents(parcel))
        return parcel

    def contents(self, parcel: DatasetUpload) -> dict[str, str]:
        return {name: digest.of_file(parcel.folder / name) for name in parcel.sizes}

    @property
    def held(self) -> list[dict[str, str]]:
        """What every version on Kaggle has in it."""
        dataset = self.standin.kaggle.datasets.get(REF)
        return [version.contents for version in dataset.versions] if dataset else []
