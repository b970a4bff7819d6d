"""A client that says to the stand-in what it is told to, over plain HTTP, and keeps the answers.

It carries a demo from files to a score; what it meets on the way shows what a fault does.
"""

import base64
import hashlib
import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kagglestandin import Kaggle
from kagglestandin_faults import METHODS
from kagglestandin_server import StandIn
from kagglestandin_state import Competition, Json

REF, KERNEL, GAME = "me/demo-bundle", "me/demo-kernel", "buggy-rules"
SERVICES = {
    **dict.fromkeys(("StartBlobUpload",), "blobs.BlobApiService"),
    **dict.fromkeys(METHODS[1:6], "datasets.DatasetApiService"),
    **dict.fromkeys(METHODS[6:10], "kernels.KernelsApiService"),
    **dict.fromkeys(METHODS[10:], "competitions.CompetitionApiService"),
    "GetModelInstance": "models.ModelApiService",
    "IntrospectToken": "security.OAuthService",
}
OLD, NEW = {"a.bin": b"0123456789", "b.txt": b"old"}, {"a.bin": b"9876543210", "b.txt": b"newer"}
OWN = {"ownerSlug": "me", "datasetSlug": "demo-bundle"}
ASKED = {"userName": "me", "kernelSlug": "demo-kernel", "versionLabel": "v1"}
SOURCES = {"datasetDataSources": [f"{REF}/2"], "competitionDataSources": [GAME]}
PUSH: Json = {"slug": KERNEL, "newTitle": "Demo kernel", "text": "print(1)", "language": "python"}
PUSH |= {"kernelType": "script", "enableInternet": False, "dockerImage": "image@sha256:0"}
PUSH |= SOURCES
SUBMIT: Json = {"competitionName": GAME, "kernelOwner": "me", "kernelSlug": "demo-kernel"}
SUBMIT |= {"kernelVersion": 1, "fileName": "submission.csv", "submissionDescription": "kp1:1"}


@dataclass(frozen=True)
class Seen:
    """What came back; status 0 if the connection was lost or nothing came in time."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""


@dataclass
class Client:
    """Says what it is told to over plain HTTP, and keeps all that came back."""

    standin: StandIn
    patience: float = 5.0
    seen: list[tuple[str, Seen]] = field(default_factory=list)

    def say(self, place: str, method: str, url: str, data: bytes = b"", **headers: str) -> Seen:
        connection = http.client.HTTPConnection("127.0.0.1", self.standin.port, self.patience)
        name = base64.b64encode(b"me:k").decode()
        try:
            headers = {"Authorization": f"Basic {name}", **headers}
            connection.request(method, urlsplit(url).path, data, headers)
            reply = connection.getresponse()
            raw, found = reply.read(), {key.title(): one for key, one in reply.getheaders()}
            whole = "json" in found["Content-Type"] and raw
            seen = Seen(reply.status, json.loads(raw) if whole else None, found, raw)
        except (OSError, http.client.HTTPException) as error:
            seen = Seen(0, raw=getattr(error, "partial", b""))
        finally:
            connection.close()
        self.seen.append((place, seen))
        return seen

    def rpc(self, name: str, body: Json) -> Seen:
        data = json.dumps(body).encode()
        return self.say(name, "POST", f"/api/v1/{SERVICES[name]}/{name}", data)

    def put(self, url: str, data: bytes, first: int = 0) -> Seen:
        size = first + len(data)
        span = {"Content-Range": f"bytes {first}-{size - 1}/{size}"} if first else {}
        return self.say("PUT", "PUT", url, data, **span)

    def query(self, url: str, size: int) -> Seen:
        return self.say("QUERY", "PUT", url, b"", **{"Content-Range": f"bytes */{size}"})

    def upload(self, name: str, content: bytes) -> str:
        """Upload as the client does: after a 503 it asks how far it came."""
        body = {"name": name, "contentLength": len(content), "type": "DATASET"}
        begun: Json = {}
        for _ in range(4):
            begun = self.rpc("StartBlobUpload", body).body or {}
            url = begun.get("createUrl", "")
            if not url:
                continue
            if self.put(url, content).status in (200, 0):
                break
            found = self.query(url, len(content))
            if found.status == 308:
                first = int(found.headers.get("Range", "0--1").split("-")[1] or -1) + 1
                self.put(url, content[first:], first)
                break
        return str(begun.get("token", ""))

    def files(self, contents: dict[str, bytes]) -> list[Json]:
        return [{"token": self.upload(name, one)} for name, one in contents.items()]

    def create(self) -> None:
        title = {"ownerSlug": "me", "slug": "demo-bundle", "title": "Demo bundle"}
        rest = {"licenseName": "other", "isPrivate": True, "files": self.files(OLD)}
        self.rpc("CreateDataset", {**title, **rest, "description": "sha256:00000001"})
        self.settle()

    def settle(self) -> None:
        for _ in range(8):
            self.rpc("GetDatasetStatus", OWN)
            self.rpc("GetDataset", OWN)

    def version(self) -> None:
        made = {"versionNotes": "sha256:00000002", "files": self.files(NEW)}
        self.rpc("CreateDatasetVersion", {**OWN, "body": made})
        self.settle()
        for page in (0, 1):
            asked = {"datasetVersionNumber": 2, "pageSize": 1, "pageToken": str(page or "")}
            self.rpc("ListDatasetFiles", {**OWN, **asked})

    def run(self) -> None:
        self.rpc("SaveKernel", dict(PUSH))
        self.rpc("GetKernel", ASKED)
        for _ in range(4):
            self.rpc("GetKernelSessionStatus", ASKED)
        outputs = self.rpc("ListKernelSessionOutput", ASKED).body or {}
        for one in outputs.get("files", []):
            self.say("OUTPUT", "GET", one["url"])
        self.say("LOG", "GET", "/api/v1/kernels/logs/stream/me/demo-kernel")

    def submit(self) -> None:
        self.rpc("GetSubmissionLimits", {"competitionName": GAME})
        made = self.rpc("CreateCodeSubmission", SUBMIT).body or {}
        for _ in range(3):
            self.rpc("ListSubmissions", {"competitionName": GAME})
            self.rpc("GetSubmission", {"ref": made.get("ref", 0)})

    def play(self) -> None:
        """Carry a build from files to a score."""
        for step in (self.create, self.version, self.run, self.submit):
            step()

    def all(self, place: str) -> list[Seen]:
        return [seen for where, seen in self.seen if where == place]

    def values(self, place: str, name: str) -> list[Any]:
        return [seen.body.get(name) for seen in self.all(place) if seen.body]


def sha256(contents: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(one).hexdigest() for name, one in contents.items()}


def kaggle(**options: Any) -> Kaggle:
    made = Kaggle(**options)
    made.competitions[GAME] = Competition({"test.csv": b"id\n1\n"})
    made.expect(REF, sha256(OLD))
    made.expect(REF, sha256(NEW))
    return made
