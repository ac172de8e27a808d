"""Getting published weights onto this machine: fetched, verified and recorded.

Files of the hub go to its cache, where other tools find them (``HF_HOME`` and ``HF_HUB_CACHE`` say
where that is); files of other servers go to ``<folder>/<model>/``. ``HF_HUB_OFFLINE`` keeps both
from the network, ``HF_ENDPOINT`` names a mirror of the hub, ``HF_TOKEN`` opens gated repositories.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from huggingface_hub import constants, get_token, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from vitfeat.errors import ModelError
from vitfeat.files import replacing, sha256_of
from vitfeat.text import size
from vitfeat.weights.download import (
    ContentError,
    DownloadError,
    StatusError,
    download,
    headers_of,
    locked,
)
from vitfeat.weights.records import (
    COMMIT,
    SHA256,
    WeightsRecord,
    WeightsSource,
    blob_sha256,
    cached_file,
    find_record,
    pinned,
    place,
    placed_files,
    record_path,
)

logger = logging.getLogger(__name__)


def ensure(
    model_id: str,
    source: WeightsSource,
    folder: Path,
    *,
    command: str | None = None,
    progress: bool = True,
) -> WeightsRecord:
    """Make sure that a model's weights are on this machine, verified and recorded.

    Weights that are here are used without any network, looked for in this order: the file of an
    earlier record; a file placed by hand in ``<folder>/<model_id>/``; the hub's cache. Only then
    are they fetched. A source without a revision is the repository's main branch of the first time:
    its record keeps the commit, and a file that is lost is fetched from that commit again.

    Several processes may ask for the same file at once; one fetches it, the others wait. Messages
    name the command that a user runs to fetch them; a bar is shown on a terminal.
    """
    command = command or f"vitfeat fetch {model_id}"
    return _Weights(model_id, source, Path(folder), command, progress).ensure()


@dataclass(frozen=True)
class _Described:
    """What the hub says of a file."""

    file: str
    #: Full hash of the commit that the revision is.
    commit: str
    #: The hub's name of the content: its SHA-256, for a small file git's SHA-1.
    etag: str
    #: Bytes, if the hub says so.
    size: int | None

    @classmethod
    def read(cls, file: str, headers: Message) -> _Described:
        """Read the hub's headers; raise a DownloadError when they are not a hub's."""
        commit = headers["X-Repo-Commit"] or ""
        etag = (headers["X-Linked-Etag"] or headers["ETag"] or "").removeprefix("W/").strip('"')
        if not COMMIT.fullmatch(commit) or not re.fullmatch(r"[\w.-]*\w", etag, re.ASCII):
            raise DownloadError(
                f"{constants.ENDPOINT} does not answer as a model hub: check HF_ENDPOINT, proxies "
                "and firewalls"
            )
        # A redirect's own length says nothing of the file.
        size = headers["X-Linked-Size" if headers["X-Linked-Etag"] else "Content-Length"] or ""
        return cls(file, commit, etag, int(size) if size.isdecimal() else None)

    @property
    def sha256(self) -> str | None:
        """The content's SHA-256, if the hub says so."""
        return self.etag if SHA256.fullmatch(self.etag) else None


class _Weights:
    """The weights of one model."""

    def __init__(
        self, model_id: str, source: WeightsSource, folder: Path, command: str, progress: bool
    ) -> None:
        self._id = model_id
        self._source = source
        self._folder = folder
        self._command = f"run `{command}`"
        self._progress = progress
        self._record_path = record_path(folder, model_id)
        self._look_up()

    def _look_up(self) -> None:
        """Read the record, and whether it is of this source: that may have changed since."""
        self._record = find_record(self._folder, self._id)
        self._same = self._record if self._record and self._record.source == self._source else None
        self._wanted = pinned(self._source, self._record)

    def ensure(self) -> WeightsRecord:
        if record := self._recorded() or self._placed() or self._cached():
            return record
        if constants.HF_HUB_OFFLINE:
            raise self._unreachable("HF_HUB_OFFLINE is set")
        if self._wanted.url is not None:
            return self._from_url(self._wanted.url)
        assert self._wanted.repository is not None
        return self._from_hub(self._wanted.repository)

    # What is on this machine.

    def _recorded(self) -> WeightsRecord | None:
        """Return the record, if it is of this source and its file is as it was."""
        record = self._same
        if record is None or not record.path.is_file():
            return None
        found = sha256_of(record.path)
        if found != record.sha256:
            undo = "put it back" if record.placed else "remove the file, to have it fetched again"
            raise self._error(
                f"{record.path} has changed since it was recorded: it has SHA-256 {found}, and "
                f"{self._record_path} says {record.sha256}; {undo}, or remove the record, to take "
                f"the file as it is; then {self._command}"
            )
        return record

    def _placed(self) -> WeightsRecord | None:
        """Record a file that was placed by hand."""
        expected = self._wanted.sha256
        for file, path in placed_files(self._wanted, self._folder, self._id):
            found = sha256_of(path)
            if found != expected:
                left = self._record
                if left is not None and (left.path, left.sha256) == (path, found):
                    if not left.placed:
                        # An earlier source's; what this one's server sends will replace it.
                        continue
                    if expected is None:
                        raise self._error(
                            f"{path} was placed there for another source than {self._name}; "
                            f"replace it, or remove {self._record_path} if it is of both"
                        )
                if expected is not None:
                    raise self._error(
                        f"{path} has SHA-256 {found}, needed is {expected} ({self._authority}); "
                        f"place the right file, or remove it and {self._command}"
                    )
            checked = "as expected" if expected else "taken as it is"
            logger.info(f"{self._id}: found {path}, SHA-256 {found} ({checked})")
            # A file with the recorded SHA-256 is also of the recorded commit.
            commit = self._same.revision if self._same else None
            return self._keep(path, file, found, commit, placed=True)
        return None

    def _cached(self) -> WeightsRecord | None:
        """Record a file that the hub's cache has."""
        cached = cached_file(self._wanted)
        if cached is None:
            return None
        file, path, commit = cached
        found, expected = sha256_of(path), blob_sha256(path)
        if expected not in (None, found):
            _remove(path)
            raise self._error(
                f"the hub's cache was damaged: {path} had SHA-256 {found}, and {expected} when it "
                f"was fetched; it was removed: {self._command} again"
            )
        if self._wanted.sha256 not in (None, found):
            return None
        logger.info(f"{self._id}: found {file} of {self._wanted.repository}@{commit} in the cache")
        return self._keep(path, file, found, commit)

    # What is elsewhere.

    def _from_url(self, url: str) -> WeightsRecord:
        file = self._wanted.files[0]
        target = place(self._folder.absolute(), self._id, file)
        part = target.with_name(f"{file}.part")
        with locked(target.with_name(f"{file}.lock"), self._name):
            # Another process may have fetched it meanwhile.
            self._look_up()
            if record := self._recorded() or self._placed():
                return record
            logger.info(f"{self._id}: fetching {url}")
            with self._in_words():
                sha256 = download(
                    url,
                    target,
                    part,
                    name=self._id,
                    progress=self._progress,
                    sha256=self._wanted.sha256,
                )
            return self._keep(target, file, sha256, None)

    def _from_hub(self, repository: str) -> WeightsRecord:
        described = self._describe(repository)
        file, commit = described.file, described.commit
        sha256 = self._fetch_blob(repository, described)
        try:
            # Links the blob into the cache under its commit and name; nothing is left to fetch.
            path = Path(hf_hub_download(repository, file, revision=commit)).absolute()
        except (LocalEntryNotFoundError, HfHubHTTPError) as error:
            raise self._unreachable(str(error)) from error
        revision = self._wanted.revision or constants.DEFAULT_REVISION
        if revision != commit:
            # So that other projects find it by this name, without a network.
            with replacing(_cache_of(repository) / "refs" / revision) as ref:
                ref.write_text(commit, "utf-8")
        return self._keep(path, file, sha256, commit)

    def _describe(self, repository: str) -> _Described:
        """Ask the hub which of the files there is."""
        for file in self._wanted.files:
            url = hf_hub_url(repository, file, revision=self._wanted.revision)
            with self._in_words():
                try:
                    described = _Described.read(file, headers_of(url, _token()))
                    break
                except StatusError as error:
                    absent = error.headers["X-Error-Code"] == "EntryNotFound"
                    if not absent or file == self._wanted.files[-1]:
                        raise
        if self._wanted.sha256 and described.sha256 not in (None, self._wanted.sha256):
            raise self._other_content(described.etag)
        return described

    def _fetch_blob(self, repository: str, described: _Described) -> str:
        """Make sure that a file is in the hub's cache, and return its SHA-256."""
        blob = _cache_of(repository) / "blobs" / described.etag
        expected = described.sha256 or self._wanted.sha256
        # The hub's own lock for this file: other tools wait for it, and it for them.
        locks = _cache_of(repository).parent / ".locks" / _cache_of(repository).name
        with locked(locks / f"{described.etag}.lock", self._name):
            if blob.exists():
                if expected in (None, found := sha256_of(blob)):
                    return found
                logger.warning(f"{self._id}: the hub's cache has a damaged copy; fetching it anew")
            amount = "" if described.size is None else f" ({size(described.size)})"
            logger.info(
                f"{self._id}: fetching {described.file} of {repository}@{described.commit}{amount}"
            )
            with self._in_words(described.sha256):
                return download(
                    hf_hub_url(repository, described.file, revision=described.commit),
                    blob,
                    # The hub's tools for tidying up know this ending.
                    blob.with_name(f"{described.etag}.vitfeat.incomplete"),
                    name=self._id,
                    progress=self._progress,
                    token=_token(),
                    sha256=expected,
                    size=described.size,
                )

    # What comes of it.

    @contextmanager
    def _in_words(self, told: str | None = None) -> Iterator[None]:
        """Say which weights a failed download is of; `told` is their SHA-256 by the hub."""
        try:
            yield
        except ContentError as error:
            raise self._other_content(error.sha256, told) from error
        except StatusError as error:
            raise self._refused(error) from error
        except DownloadError as error:
            raise self._unreachable(str(error)) from error

    def _keep(
        self, path: Path, file: str, sha256: str, revision: str | None, *, placed: bool = False
    ) -> WeightsRecord:
        record = WeightsRecord(
            source=self._source,
            repository=self._source.repository,
            revision=revision,
            url=self._source.url,
            file=file,
            sha256=sha256,
            bytes=path.stat().st_size,
            path=path,
            placed=placed,
        )
        record.write(self._record_path)
        return record

    @property
    def _name(self) -> str:
        files = " or ".join(self._wanted.files)
        if self._wanted.url:
            return f"{self._wanted.url}, file {files}"
        at = f", revision {self._wanted.revision}" if self._wanted.revision else ""
        return f"repository {self._wanted.repository}{at}, file {files}"

    def _error(self, text: str) -> ModelError:
        return ModelError(f"model {self._id}: {text}")

    def _unreachable(self, reason: str) -> ModelError:
        places = " or ".join(
            str(place(self._folder, self._id, file)) for file in self._wanted.files
        )
        return self._error(
            f"its weights ({self._name}) are not on this machine and could not be fetched "
            f"({reason}); {self._command} where there is a network, or place the file at {places}"
        )

    @property
    def _authority(self) -> str:
        """Who says which SHA-256 is needed."""
        return "by the entry's sha256" if self._source.sha256 else f"by {self._record_path}"

    def _other_content(self, found: str, told: str | None = None) -> ModelError:
        """Tell of a file that is not the right one; `told` is what the hub says of it."""
        if told:
            return self._error(
                f"what came of {self._name} has SHA-256 {found}, and {told} by the hub; it was "
                f"removed: {self._command} again"
            )
        undo = "correct the sha256" if self._source.sha256 else "remove that record"
        return self._error(
            f"the weights at {self._name} have SHA-256 {found}, needed is {self._wanted.sha256} "
            f"({self._authority}); {self._command} again, or, if they were published anew and are "
            f"what you want, {undo}"
        )

    def _refused(self, error: StatusError) -> ModelError:
        """Say in words why a server or the hub does not give a file."""
        if self._wanted.url is not None:
            if error.status in (404, 410):
                return self._error(f"there is no file at {self._wanted.url} ({error})")
            return self._unreachable(str(error))
        repository = self._wanted.repository
        code, reason = error.headers["X-Error-Code"], error.headers["X-Error-Message"] or str(error)
        page = f"{constants.ENDPOINT}/{repository}"
        if code == "RevisionNotFound":
            return self._error(
                f"the repository {repository} has no revision {self._wanted.revision}; "
                f"{page}/commits/main lists them"
            )
        if code == "EntryNotFound":
            return self._error(f"not found: {self._name}; {page}/tree/main lists the files")
        if code == "GatedRepo" or error.status == 403:
            return self._error(
                f"the repository {repository} is gated ({reason}): accept its licence on {page}, "
                f"set HF_TOKEN to an access token of the same account, and {self._command}"
            )
        if code == "RepoNotFound" or error.status in (401, 404):
            return self._error(
                f"the hub shows no repository {repository} ({reason}): correct its name, or, if it "
                "is private or gated, set HF_TOKEN to a valid access token that may read it"
            )
        return self._unreachable(reason)


def _cache_of(repository: str) -> Path:
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE).absolute() / folder


def _token() -> str | None:
    return None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()


def _remove(path: Path) -> None:
    """Remove a file of the hub's cache, with the links that lead to it."""
    while path.is_symlink():
        link, path = path, path.parent / path.readlink()
        link.unlink()
    path.unlink(missing_ok=True)
