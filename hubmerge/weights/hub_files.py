"""The files of a Hub repo at one commit, read by HTTP range.

A range is asked from the Hub once; it redirects to a signed URL elsewhere, which then serves the file's other ranges
without the token and without counting against the Hub's rate limits, until it expires.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin, urlsplit

from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from hubmerge.errors import HubmergeError, TransferError
from hubmerge.version import __version__
from hubmerge.weights.files import FileEntry, OpenFiles, entry_of
from hubmerge.weights.hub_client import PATIENT, PassingError, RetryPolicy, check_passing_status, open_stream
from hubmerge.weights.hub_errors import explain
from hubmerge.weights.ranges import ByteRange

PROGRESS_BYTES = 1 << 20
"""An attempt that brings this much makes up for the failures before it."""

MAX_REDIRECTS = 5

REDIRECTS = frozenset({301, 302, 303, 307, 308})

EXPIRED = frozenset({400, 401, 403, 404, 410})
"""What stores answer to a signed URL that is no longer valid."""


@dataclass(frozen=True)
class Location:
    """Where a file is asked for.

    Attributes:
        is_hub: On the Hub itself: the token is sent. Elsewhere the URL carries its own permission.
    """

    url: str
    is_hub: bool

    def follow(self, target: str) -> Location:
        """Returns where a redirect leads; only the same scheme, host and port count as the Hub."""
        url = urljoin(self.url, target)
        return Location(url, self.is_hub and _origin(url) == _origin(self.url))


class HubFiles:
    """The files of a model repo at one commit; those in the local Hub cache are read from there."""

    def __init__(
        self,
        repo_id: str,
        sha: str,
        *,
        entries: Iterable[FileEntry],
        token: str | bool | None = None,
        endpoint: str | None = None,
        retry: RetryPolicy = PATIENT,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.repo_id = repo_id
        self.sha = sha
        self.label = f"{repo_id}@{sha[:7]}"
        self._entries = MappingProxyType({entry.path: entry for entry in sorted(entries, key=lambda entry: entry.path)})
        self._endpoint = endpoint
        self._token = token
        self._headers = build_hf_headers(token=token, library_name="hubmerge", library_version=__version__)
        self._retry = retry
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._signed: dict[str, Location] = {}
        self._cached: dict[str, Path | None] = {}
        self._descriptors = OpenFiles()

    def entries(self) -> Mapping[str, FileEntry]:
        """Returns the commit's files."""
        return self._entries

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Returns the bytes [start, stop); see `Files`."""
        buffer = bytearray(stop - start)
        self.read_into(path, start, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, path: str, start: int, buffer: memoryview) -> None:
        """Fills the buffer; see `Files`."""
        size_bytes = entry_of(self, path).size_bytes
        if start + buffer.nbytes > size_bytes:
            excess = start + buffer.nbytes - size_bytes
            raise TransferError(f"{self.label}/{path} ends {excess:,} bytes too early, at {size_bytes:,}")
        cached = self.local_path(path)
        if cached is not None:
            self._descriptors.read_into(cached, start, buffer)
        elif buffer.nbytes:
            self._download(path, start, buffer)

    def local_path(self, path: str) -> Path | None:
        """Returns the file of the local Hub cache; see `Files`."""
        if path not in self._cached:
            self._cached[path] = self._find_in_cache(entry_of(self, path))
        return self._cached[path]

    def close(self) -> None:
        """Closes the cached files that were read; a read that waits for another try gives up."""
        self._closed.set()
        self._descriptors.close()

    def _find_in_cache(self, entry: FileEntry) -> Path | None:
        """Returns the cached file if it has the size and, where the cache names its blobs, the hash of the listing."""
        found = try_to_load_from_cache(self.repo_id, entry.path, revision=self.sha)
        if not isinstance(found, str):
            return None
        path = Path(found).resolve()
        try:
            is_complete = path.stat().st_size == entry.size_bytes
        except OSError:  # the cache was cleaned this moment
            return None
        is_named = path.parent.name != "blobs" or path.name in (entry.sha256, entry.blob_id)
        return path if is_complete and is_named else None

    def _download(self, path: str, start: int, buffer: memoryview) -> None:
        """Fills the buffer, going on after each failure from the last byte that arrived."""
        failures = 0
        while buffer.nbytes:
            received, error = self._receive(path, start, buffer)
            start += received
            buffer = buffer[received:]
            if error is None:
                continue
            failures = 1 if received >= PROGRESS_BYTES else failures + 1
            if failures >= self._retry.attempts or self._closed.is_set():
                raise self._failure(path, ByteRange(start, start + buffer.nbytes), failures, error) from error
            self._sleep(self._retry.wait_seconds(failures, error))

    def _receive(self, path: str, start: int, buffer: memoryview) -> tuple[int, PassingError | None]:
        """Returns how many bytes one request brought, and what cut it short."""
        received = 0
        try:
            with self._open(path, ByteRange(start, start + buffer.nbytes)) as response:
                for chunk in response.iter_raw():
                    if received + len(chunk) > buffer.nbytes:
                        raise TransferError(f"{self.label}/{path}: the answer has more bytes than were asked for")
                    buffer[received : received + len(chunk)] = chunk
                    received += len(chunk)
        except PassingError as error:
            return received, error
        if received < buffer.nbytes:
            return received, PassingError(f"the answer ended after {received:,} of {buffer.nbytes:,} bytes")
        return received, None

    @contextmanager
    def _open(self, path: str, wanted: ByteRange) -> Iterator[Any]:
        """Yields the answer that holds exactly the wanted range, wherever redirects lead."""
        hub = Location(hf_hub_url(self.repo_id, path, revision=self.sha, endpoint=self._endpoint), is_hub=True)
        location = self._signed.get(path, hub)
        for _ in range(MAX_REDIRECTS):
            headers = self._headers_for(location, wanted)
            with open_stream(location.url, headers, timeout_seconds=self._retry.timeout_seconds) as response:
                if response.status_code in REDIRECTS:
                    self._check_version(path, response)
                    location = location.follow(response.headers.get("location", ""))
                elif response.status_code in EXPIRED and self._signed.pop(path, None) is not None:
                    location = hub
                else:
                    self._check_answer(path, wanted, location, response)
                    if not location.is_hub:
                        self._signed[path] = location
                    yield response
                    return
        raise TransferError(f"{self.label}/{path} is redirected more than {MAX_REDIRECTS} times")

    def _headers_for(self, location: Location, wanted: ByteRange) -> dict[str, str]:
        headers = {"Range": f"bytes={wanted.start}-{wanted.stop - 1}", "Accept-Encoding": "identity"}
        return self._headers | headers if location.is_hub else headers

    def _check_version(self, path: str, response: Any) -> None:
        sha256 = self._entries[path].sha256
        linked = response.headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
        if sha256 and linked and linked != sha256:
            raise TransferError(f"{self.label}/{path}: the Hub offers {linked} instead of {sha256}")

    def _check_answer(self, path: str, wanted: ByteRange, location: Location, response: Any) -> None:
        check_passing_status(response)
        status = response.status_code
        if status in EXPIRED:
            raise self._refusal(response) if location.is_hub else PassingError(f"HTTP {status} from the store")
        problem = _problem_of(response, wanted, file_size=self._entries[path].size_bytes)
        if problem is not None:
            raise TransferError(f"{self.label}/{path}: asked for {_text(wanted)}, but {problem}")

    def _refusal(self, response: Any) -> HubmergeError:
        response.read()
        try:
            hf_raise_for_status(response)
        except HfHubHTTPError as error:
            return explain(error, self.repo_id, self.sha, token=self._token)
        raise AssertionError(f"HTTP {response.status_code} is no refusal")

    def _failure(self, path: str, missing: ByteRange, failures: int, cause: PassingError) -> TransferError:
        return TransferError(
            f"{self.label}/{path}: {_text(missing)} did not arrive in {failures} attempts; the last one: {cause}",
            hint="Check the connection and run the command again.",
        )


def _problem_of(response: Any, wanted: ByteRange, *, file_size: int) -> str | None:
    """Returns why an answer does not hold exactly the wanted bytes, None if it does.

    A server may answer 200 to a range that is the whole file; for any other range it would send the wrong bytes.
    """
    headers = response.headers
    if headers.get("content-encoding", "identity") != "identity":
        return f"the answer is encoded with {headers['content-encoding']}"
    if response.status_code == 200:
        return None if wanted == ByteRange(0, file_size) else "the server ignored the range"
    if response.status_code != 206:
        return f"the answer is HTTP {response.status_code}"
    stated = headers.get("content-range", "")
    expected = f"bytes {wanted.start}-{wanted.stop - 1}/{file_size}"
    return None if stated == expected else f"the answer holds {stated or 'an unknown range'} instead of {expected}"


def _text(byte_range: ByteRange) -> str:
    return f"bytes {byte_range.start:,} to {byte_range.stop:,}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
