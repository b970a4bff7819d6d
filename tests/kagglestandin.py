"""The replies of the stand-in for Kaggle to the calls that this project makes.

HTTP is in kagglestandin_server.py, faults are in kagglestandin_faults.py. Field names are those of
kagglesdk 0.1.38; behavior follows the project's Kaggle reference, sections 2 to 5. Each poll
advances the state.
"""

import json
from collections.abc import Callable
from urllib.parse import quote

from kagglestandin_state import (
    Blob,
    Competition,
    Dataset,
    DatasetVersion,
    File,
    HttpError,
    Json,
    Kernel,
    KernelResult,
    Mount,
    SavedVersion,
    State,
    Submission,
    paged,
)

WEB = "https://www.kaggle.com"


class Kaggle(State):
    """The state, and `answer`, which returns the reply to a request."""

    def answer(self, method: str, body: Json) -> Json:
        """Return the reply of `service/Method`.

        Raises:
            HttpError: the reply is not 200.
        """
        methods: dict[str, Callable[[Json], Json]] = {
            "blobs.BlobApiService/StartBlobUpload": self._start_blob,
            "datasets.DatasetApiService/GetDatasetStatus": self._dataset_status,
            "datasets.DatasetApiService/GetDataset": self._get_dataset,
            "datasets.DatasetApiService/CreateDataset": self._create_dataset,
            "datasets.DatasetApiService/CreateDatasetVersion": self._create_version,
            "datasets.DatasetApiService/ListDatasetFiles": self._list_files,
            "models.ModelApiService/GetModelInstance": self._get_model,
            "kernels.KernelsApiService/SaveKernel": self._save_kernel,
            "kernels.KernelsApiService/GetKernelSessionStatus": self._kernel_status,
            "kernels.KernelsApiService/ListKernelSessionOutput": self._kernel_output,
            "kernels.KernelsApiService/GetKernel": self._get_kernel,
            "kernels.KernelsApiService/GetAcceleratorQuotaStatistics": self._quota,
            "competitions.CompetitionApiService/CreateCodeSubmission": self._submit,
            "competitions.CompetitionApiService/GetSubmissionLimits": self._limits,
            "competitions.CompetitionApiService/ListSubmissions": self._list_submissions,
            "competitions.CompetitionApiService/GetSubmission": self._get_submission,
            "security.OAuthService/IntrospectToken": self._introspect,
        }
        if method not in methods:
            raise HttpError(404, f"the stand-in has no {method}")
        return methods[method](body)

    # Blobs

    def _start_blob(self, body: Json) -> Json:
        token = f"blob-{len(self.blobs) + 1}"
        self.blobs[token] = Blob(token, body["name"], body.get("contentLength", 0))
        return {"token": token, "createUrl": f"{self.base}/upload/{token}"}

    def put(self, token: str, first: int, data: bytes) -> tuple[int, dict[str, str]]:
        """Store the bytes from offset `first` on; return status and headers."""
        blob = self.blobs.get(token)
        if blob is None or not blob.alive:
            return 404, {}
        if first > len(blob.data) or first + len(data) > blob.size:
            return 400, {}
        del blob.data[first:]
        blob.data += data
        return self.query(token)

    def query(self, token: str) -> tuple[int, dict[str, str]]:
        """Return status and headers with the number of bytes received."""
        blob = self.blobs.get(token)
        if blob is None or not blob.alive:
            return 404, {}
        if blob.complete:
            return 200, {}
        return 308, {"Range": f"bytes=0-{len(blob.data) - 1}"} if blob.data else {}

    # Datasets

    def _own(self, owner: str) -> None:
        if owner != self.user:
            raise HttpError(403, f"Permission denied: {self.user} may not write for {owner}")

    def _dataset(self, body: Json) -> Dataset:
        dataset = self.datasets.get(f"{body['ownerSlug']}/{body['datasetSlug']}")
        if dataset is None or dataset.unseen:
            if dataset:
                dataset.unseen -= 1
            raise HttpError(404, "Dataset not found")
        return dataset

    def _dataset_status(self, body: Json) -> Json:
        statuses = self._dataset(body).versions[-1].statuses
        return {"status": statuses.pop(0) if len(statuses) > 1 else statuses[0]}

    def _get_dataset(self, body: Json) -> Json:
        dataset = self._dataset(body)
        visible = dataset.visible
        for version in dataset.versions:
            version.hidden = max(0, version.hidden - 1)
        versions = [
            {
                "versionNumber": version.number,
                "versionNotes": version.notes,
                "creationDate": version.date,
            }
            for version in reversed(visible)
        ]
        reply: Json = {"id": dataset.id, "ref": dataset.ref, "title": dataset.title}
        reply |= {"isPrivate": dataset.private, "licenseName": dataset.license}
        reply |= {"subtitle": dataset.subtitle, "description": dataset.description}
        reply |= {"versions": versions, "ownerRef": self.user}
        if visible:
            total = sum(len(file_path.content) for file_path in visible[-1].files.values())
            reply |= {"currentVersionNumber": visible[-1].number, "totalBytes": total}
        return reply

    def _create_dataset(self, body: Json) -> Json:
        self._own(body["ownerSlug"])
        ref = f"{body['ownerSlug']}/{body['slug']}"
        if ref in self.datasets:
            return _error(f'The requested slug "{body["slug"]}" is already in use by a dataset.')
        dataset = Dataset(
            len(self.datasets) + 1,
            ref,
            body.get("title", ""),
            body.get("licenseName", ""),
            body.get("isPrivate", False),
        )
        reply = self._commit(dataset, {"versionNotes": "Initial release", **body})
        if dataset.versions:
            self.datasets[ref] = dataset
        return reply

    def _create_version(self, body: Json) -> Json:
        self._own(body["ownerSlug"])
        return self._commit(self._dataset(body), body.get("body", {}))

    def _commit(self, dataset: Dataset, body: Json) -> Json:
        """Add a version, unless a file is not uploaded completely."""
        blobs = [self.blobs.get(file.get("token", "")) for file in body.get("files", [])]
        if not all(blob and blob.complete for blob in blobs):
            return _error("A file was not uploaded completely.")
        files = {blob.name: File.of(bytes(blob.data)) for blob in blobs if blob}
        numbers = [version.number for version in dataset.versions if not version.failed]
        if body.get("deleteOldVersions"):
            dataset.versions.clear()
        dataset.subtitle = body.get("subtitle") or dataset.subtitle
        dataset.description = body.get("description") or dataset.description
        dataset.versions.append(
            DatasetVersion(
                max(numbers, default=0) + 1,
                body.get("versionNotes", ""),
                body.get("description") or "",
                files,
                [*["BLOBS_RECEIVED"] * self.polls, "READY"],
                self.polls,
                self.stamp(),
            )
        )
        return {"ref": f"/{dataset.ref}", "url": f"{WEB}/datasets/{dataset.ref}", "status": "ok"}

    def _list_files(self, body: Json) -> Json:
        dataset = self._dataset(body)
        number = body.get("datasetVersionNumber")
        versions = [item for item in dataset.visible if number in (None, item.number)]
        if not versions:
            raise HttpError(404, "Dataset version not found")
        listed = [
            {"name": name, "totalBytes": len(file.content), "creationDate": versions[-1].date}
            for name, file in sorted(versions[-1].files.items())
        ]
        page, token = paged(listed, body)
        return {"datasetFiles": page, "nextPageToken": token}

    # Models

    def _get_model(self, body: Json) -> Json:
        framework = body.get("framework", "").removeprefix("MODEL_FRAMEWORK_").replace("_", "")
        model = [body["ownerSlug"], body["modelSlug"], framework.lower(), body["instanceSlug"]]
        versions = {ref: item for ref, item in self.models.items() if _model(ref)[:4] == model}
        if not versions:
            raise HttpError(404, "Model instance not found")
        newest = max(versions, key=lambda ref: int(_model(ref)[4]))
        number, license = int(_model(newest)[4]), versions[newest].license
        return {"id": 1, "slug": model[3], "versionNumber": number, "licenseName": license}

    # Kernels

    def _mounts(self, body: Json) -> tuple[dict[str, list[str]], dict[str, Mount]]:
        """Return the missing sources by reply field, and the mounts of the existing ones."""
        finders: dict[str, Callable[[str], Mount | None]] = {
            "Dataset": self._dataset_mount,
            "Competition": self._competition_mount,
            "Kernel": self._kernel_mount,
            "Model": self._model_mount,
        }
        invalid: dict[str, list[str]] = {}
        mounts: dict[str, Mount] = {}
        for kind, find in finders.items():
            for source in body.get(f"{kind.lower()}DataSources", []):
                mount = find(source)
                if mount is None:
                    invalid.setdefault(f"invalid{kind}Sources", []).append(source)
                else:
                    mounts[source] = mount
        return invalid, mounts

    def _dataset_mount(self, source: str) -> Mount | None:
        ref, number = "/".join(source.split("/")[:2]), source.split("/")[2:]
        dataset = self.datasets.get(ref)
        usable = (
            [item for item in dataset.visible if item.statuses[0] == "READY"] if dataset else []
        )
        versions = [item for item in usable if not number or number == [str(item.number)]]
        if not versions:
            return None
        files = {name: file.content for name, file in versions[-1].files.items()}
        return Mount(ref.split("/")[1], f"datasets/{ref}", files)

    def _competition_mount(self, source: str) -> Mount | None:
        competition = self.competitions.get(source)
        return Mount(source, f"competitions/{source}", competition.files) if competition else None

    def _kernel_mount(self, source: str) -> Mount | None:
        kernel = self.kernels.get(source)
        results = [item.result for item in kernel.versions if item.result] if kernel else []
        slug = source.split("/")[-1]
        return Mount(slug, f"notebooks/{source}", results[-1].files) if results else None

    def _model_mount(self, source: str) -> Mount | None:
        model = self.models.get(source)
        path = "/".join(source.split("/")[1:])
        return Mount(path, f"models/{source}", model.files) if model else None

    def _save_kernel(self, body: Json) -> Json:
        self._own(body["slug"].split("/")[0])
        kernel = self.kernels.setdefault(
            body["slug"], Kernel(len(self.kernels) + 1, body["slug"], [])
        )
        invalid, mounts = self._mounts(body)
        saved = SavedVersion(len(kernel.versions) + 1, body, invalid, mounts, [], self.stamp())
        if body.get("kernelExecutionType") == "QUICK_SAVE":
            saved.result = KernelResult({}, status="NEW_SCRIPT")
        else:
            saved.waits = [*["QUEUED"] * self.polls, *["RUNNING"] * self.polls]
        kernel.versions.append(saved)
        reply: Json = {"ref": f"/{kernel.ref}", "url": f"{WEB}/code/{kernel.ref}"}
        return reply | invalid | {"versionNumber": saved.number, "kernelId": kernel.id}

    def saved(self, body: Json) -> SavedVersion:
        """Return the version with a request's `versionLabel`, the newest if there is no label.

        Raises:
            HttpError: 403 if there is no such kernel, as Kaggle says, 404 if no such version.
        """
        kernel = self.kernels.get(f"{body['userName']}/{body['kernelSlug']}")
        if kernel is None:
            raise HttpError(403, "Permission 'kernels.get' was denied")
        label = body.get("versionLabel") or f"v{len(kernel.versions)}"
        versions = [version for version in kernel.versions if f"v{version.number}" == label]
        if not versions:
            raise HttpError(404, f"No version {label}")
        return versions[0]

    def run(self, saved: SavedVersion) -> KernelResult:
        """Return the version's result; the runner is called once."""
        if saved.result is None:
            mounted = {
                mount.path_2026 if saved.uses_2026_paths else mount.path: dict(mount.files)
                for mount in saved.mounts.values()
            }
            saved.result = self.runner(saved.request, mounted)
        return saved.result

    def _kernel_status(self, body: Json) -> Json:
        saved = self.saved(body)
        if saved.waits:
            return {"status": saved.waits.pop(0)}
        result = self.run(saved)
        return {"status": result.status, "failureMessage": result.failure}

    def _kernel_output(self, body: Json) -> Json:
        saved = self.saved(body)
        if saved.waits:
            return {"files": [], "log": ""}
        result = self.run(saved)
        folder = f"{self.base}/output/{body['userName']}/{body['kernelSlug']}/v{saved.number}"
        files = [
            {"fileName": name, "url": f"{folder}/{quote(name)}"} for name in sorted(result.files)
        ]
        page, token = paged(files, body)
        return {"files": page, "log": json.dumps(events(result.log)), "nextPageToken": token}

    def _get_kernel(self, body: Json) -> Json:
        saved = self.saved(body)
        request, kernel = saved.request, self.kernels[f"{body['userName']}/{body['kernelSlug']}"]
        dropped = {source for sources in saved.invalid.values() for source in sources}
        metadata: Json = {name: request[name] for name in _COPIED if name in request}
        metadata |= {
            name: [source for source in request.get(name, []) if source not in dropped]
            for name in (f"{kind}DataSources" for kind in _KINDS)
        }
        metadata |= {"id": kernel.id, "ref": kernel.ref, "slug": body["kernelSlug"]}
        metadata |= {"title": request.get("newTitle", ""), "author": self.user}
        metadata |= {"currentVersionNumber": len(kernel.versions), "lastRunTime": saved.date}
        blob = {"source": request.get("text", ""), "slug": body["kernelSlug"]}
        blob |= {name: request.get(name, "") for name in ("language", "kernelType")}
        return {"metadata": metadata, "blob": blob}

    def _quota(self, body: Json) -> Json:
        gpu = {"timeUsed": "3600s", "timeReserved": "0s", "totalTimeAllowed": "36000s"}
        return {"quotaRefreshTime": self.stamp(), "gpuQuota": gpu}

    # Submissions

    def _competition(self, body: Json) -> Competition:
        competition = self.competitions.get(body["competitionName"])
        if competition is None:
            raise HttpError(404, "Competition not found")
        return competition

    def _limits(self, body: Json) -> Json:
        daily = self._competition(body).daily
        used = sum(
            submission.competition == body["competitionName"] for submission in self.submissions
        )
        return {"numToday": used, "numTotal": used, "numAllowedNow": max(0, daily - used)}

    def _submit(self, body: Json) -> Json:
        competition = self._competition(body)
        label = f"v{body['kernelVersion']}" if "kernelVersion" in body else None
        owner, slug = body["kernelOwner"], body["kernelSlug"]
        saved = self.saved({"userName": owner, "kernelSlug": slug, "versionLabel": label})
        if saved.waits or self.run(saved).status != "COMPLETE":
            raise HttpError(400, "The notebook version has not completed successfully")
        content = self.run(saved).files.get(body["fileName"])
        if content is None:
            raise HttpError(400, f"The notebook version has no output {body['fileName']}")
        if not self._limits(body)["numAllowedNow"]:
            raise HttpError(400, "Submission not allowed: the daily limit has been reached")
        submission = Submission(
            1001 + len(self.submissions),
            body["competitionName"],
            f"{owner}/{slug}",
            saved.number,
            body["fileName"],
            body.get("submissionDescription", ""),
            self.stamp(),
            competition.score(content),
            self.polls,
        )
        self.submissions.append(submission)
        return {
            "message": f"Successfully submitted to {submission.competition}",
            "ref": submission.ref,
        }

    def _submission(self, submission: Submission) -> Json:
        """Return a submission's current state and advance it by one poll."""
        status = submission.status
        scores = submission.scores if status == "COMPLETE" else ("", "")
        submission.waits = max(0, submission.waits - 1)
        reply: Json = {"ref": submission.ref, "date": submission.date}
        reply |= {"description": submission.description, "fileName": submission.file}
        reply |= {
            "status": status,
            "errorDescription": submission.error if status == "ERROR" else "",
        }
        reply |= {"publicScore": scores[0], "privateScore": scores[1]}
        return reply | {"teamName": self.user, "url": f"{WEB}/submissions/{submission.ref}"}

    def _list_submissions(self, body: Json) -> Json:
        self._competition(body)
        name = body["competitionName"]
        newest = [
            submission
            for submission in reversed(self.submissions)
            if submission.competition == name
        ]
        page, token = paged(newest, body)
        return {"submissions": [self._submission(item) for item in page], "nextPageToken": token}

    def _get_submission(self, body: Json) -> Json:
        for submission in self.submissions:
            if submission.ref == body["ref"]:
                return self._submission(submission)
        raise HttpError(404, "Submission not found")

    def _introspect(self, body: Json) -> Json:
        return {"active": True, "username": self.user} if body.get("token") else {}


_COPIED = (
    *("language", "kernelType", "isPrivate", "enableGpu", "enableTpu", "enableInternet"),
    *("dockerImage", "machineShape", "categoryIds"),
)
_KINDS = ("dataset", "competition", "kernel", "model")


def events(log: str) -> list[Json]:
    """Return a log's lines in Kaggle's format, one second apart."""
    return [
        {"stream_name": "stdout", "time": float(second), "data": line}
        for second, line in enumerate(log.splitlines(keepends=True))
    ]


def _model(ref: str) -> list[str]:
    parts = ref.split("/")
    return [*parts[:2], parts[2].lower(), *parts[3:]]


def _error(message: str) -> Json:
    return {"status": "error", "error": message}
