"""A plain HTTP client of the stand-in for Kaggle that records all responses.

It takes a demo from files to a score; the recorded responses show the effect of a fault.
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

REF, KERNEL, COMPETITION = "me/demo-bundle", "me/demo-kernel", "buggy-rules"
SERVICES = {
    **dict.fromkeys(("StartBlobUpload",), "blobs.BlobApiService"),
    **dict.fromkeys(METHODS[1:6], "datasets.DatasetApiService"),
    **dict.fromkeys(METHODS[6:10], "kernels.KernelsApiService"),
    **dict.fromkeys(METHODS[10:], "competitions.CompetitionApiService"),
    "GetModelInstance": "models.ModelApiService",
    "IntrospectToken": "security.OAuthService",
}
OLD, NEW = {"a.bin": b"0123456789", "b.txt": b"old"}, {"a.bin": b"9876543210", "b.txt": b"newer"}
DATASET = {"ownerSlug": "me", "datasetSlug": "demo-bundle"}
KERNEL_VERSION = {"userName": "me", "kernelSlug": "demo-kernel", "versionLabel": "v1"}
SOURCES = {"datasetDataSources": [f"{REF}/2"], "competitionDataSources": [COMPETITION]}
PUSH: Json = {"slug": KERNEL, "newTitle": "Demo kernel", "text": "print(1)", "language": "python"}
PUSH |= {"kernelType": "script", "enableInternet": False, "dockerImage": "image@sha256:0"}
PUSH |= SOURCES
SUBMIT: Json = {"competitionName": COMPETITION, "kernelOwner": "me", "kernelSlug": "demo-kernel"}
SUBMIT |= {"kernelVersion": 1, "fileName": "submission.csv", "submissionDescription": "kp1:1"}


@dataclass(frozen=True)
class Response:
    """A response; status 0 if the connection was lost or timed out."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""


@dataclass
class Client:
    """Sends requests over plain HTTP and records all responses."""

    standin: StandIn
    timeout: float = 5.0
    responses: list[tuple[str, Response]] = field(default_factory=list)

    def request(
        self, endpoint: str, method: str, url: str, data: bytes = b"", **headers: str
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.standin.port, self.timeout)
        name = base64.b64encode(b"me:k").decode()
        try:
            headers = {"Authorization": f"Basic {name}", **headers}
            connection.request(method, urlsplit(url).path, data, headers)
            reply = connection.getresponse()
            raw = reply.read()
            fields = {key.title(): value for key, value in reply.getheaders()}
            has_json = "json" in fields["Content-Type"] and raw
            response = Response(reply.status, json.loads(raw) if has_json else None, fields, raw)
        except (OSError, http.client.HTTPException) as error:
            response = Response(0, raw=getattr(error, "partial", b""))
        finally:
            connection.close()
        self.responses.append((endpoint, response))
        return response

    def rpc(self, name: str, body: Json) -> Response:
        data = json.dumps(body).encode()
        return self.request(name, "POST", f"/api/v1/{SERVICES[name]}/{name}", data)

    def put(self, url: str, data: bytes, first: int = 0) -> Response:
        size = first + len(data)
        span = {"Content-Range": f"bytes {first}-{size - 1}/{size}"} if first else {}
        return self.request("PUT", "PUT", url, data, **span)

    def query(self, url: str, size: int) -> Response:
        return self.request("QUERY", "PUT", url, b"", **{"Content-Range": f"bytes */{size}"})

    def upload(self, name: str, content: bytes) -> str:
        """Upload as the official client does: after a 503 it queries the received bytes."""
        body = {"name": name, "contentLength": len(content), "type": "DATASET"}
        session: Json = {}
        for _ in range(4):
            session = self.rpc("StartBlobUpload", body).body or {}
            url = session.get("createUrl", "")
            if not url:
                continue
            if self.put(url, content).status in (200, 0):
                break
            progress = self.query(url, len(content))
            if progress.status == 308:
                first = int(progress.headers.get("Range", "0--1").split("-")[1] or -1) + 1
                self.put(url, content[first:], first)
                break
        return str(session.get("token", ""))

    def files(self, contents: dict[str, bytes]) -> list[Json]:
        return [{"token": self.upload(name, content)} for name, content in contents.items()]

    def create(self) -> None:
        title = {"ownerSlug": "me", "slug": "demo-bundle", "title": "Demo bundle"}
        options = {"licenseName": "other", "isPrivate": True, "files": self.files(OLD)}
        self.rpc("CreateDataset", {**title, **options, "description": "sha256:00000001"})
        self.settle()

    def settle(self) -> None:
        for _ in range(8):
            self.rpc("GetDatasetStatus", DATASET)
            self.rpc("GetDataset", DATASET)

    def version(self) -> None:
        version = {"versionNotes": "sha256:00000002", "files": self.files(NEW)}
        self.rpc("CreateDatasetVersion", {**DATASET, "body": version})
        self.settle()
        for page in (0, 1):
            request = {"datasetVersionNumber": 2, "pageSize": 1, "pageToken": str(page or "")}
            self.rpc("ListDatasetFiles", {**DATASET, **request})

    def run(self) -> None:
        self.rpc("SaveKernel", dict(PUSH))
        self.rpc("GetKernel", KERNEL_VERSION)
        for _ in range(4):
            self.rpc("GetKernelSessionStatus", KERNEL_VERSION)
        outputs = self.rpc("ListKernelSessionOutput", KERNEL_VERSION).body or {}
        for file in outputs.get("files", []):
            self.request("OUTPUT", "GET", file["url"])
        self.request("LOG", "GET", "/api/v1/kernels/logs/stream/me/demo-kernel")

    def submit(self) -> None:
        self.rpc("GetSubmissionLimits", {"competitionName": COMPETITION})
        submission = self.rpc("CreateCodeSubmission", SUBMIT).body or {}
        for _ in range(3):
            self.rpc("ListSubmissions", {"competitionName": COMPETITION})
            self.rpc("GetSubmission", {"ref": submission.get("ref", 0)})

    def run_all(self) -> None:
        """Take a build from files to a score."""
        for step in (self.create, self.version, self.run, self.submit):
            step()

    def all(self, endpoint: str) -> list[Response]:
        return [response for name, response in self.responses if name == endpoint]

    def values(self, endpoint: str, name: str) -> list[Any]:
        return [response.body.get(name) for response in self.all(endpoint) if response.body]


def sha256(contents: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def kaggle(**options: Any) -> Kaggle:
    server = Kaggle(**options)
    server.competitions[COMPETITION] = Competition({"test.csv": b"id\n1\n"})
    server.expect(REF, sha256(OLD))
    server.expect(REF, sha256(NEW))
    return server
