"""Fetching one known file: resumed where it stopped, its size and checksum verified, put in place whole."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cnnlab.data.cache import locked
from cnnlab.data.errors import DatasetError
from cnnlab.data.progress import progress_bar

_CHUNK = 1 << 18


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network that never changes.

    Attributes:
        url: where it is.
        size: in bytes.
        sha256: 64 hexadecimal digits.
    """

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Last part of the address."""
        return self.url.rsplit("/", 1)[-1]


class Unreachable(DatasetError):
    """The server cannot be reached, or does not have the file.

    Attributes:
        reason: what happened, without the address.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"Expected an answer from {url}, got '{reason}'; do check the network.")
        self.reason = reason


def download(remote: RemoteFile, folder: Path, *, progress: bool = True, timeout: float = 8.0) -> Path:
    """Fetch `remote` into `folder`.

    What has arrived stays in `<name>.part`; a later call asks the server for the rest. A broken connection is
    taken up again at once for as long as each attempt brings some bytes.

    Args:
        remote: the file, with its size and checksum.
        folder: where to put it; made if need be.
        progress: show a bar.
        timeout: seconds without an answer after which the server counts as unreachable.

    Returns:
        Path of the complete, verified file.

    Raises:
        Unreachable: no connection, or the server answers with an error.
        DatasetError: the file has another size or checksum than it should, or cannot be written.
    """
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    with locked(target):
        if target.is_file() and target.stat().st_size == remote.size:
            return target  # another process was faster
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with progress_bar(f"downloading {remote.name}", remote.size, enabled=progress, unit="bytes") as advance:
                _fetch_all(remote, part, timeout, advance)
            _verify(remote, part)
            os.replace(part, target)
        except OSError as error:
            raise DatasetError(
                f"Expected to write {target}, got '{error}'; do make room there or choose another folder."
            ) from error
    return target


def _fetch_all(remote: RemoteFile, part: Path, timeout: float, advance: Callable[[int], None]) -> None:
    """Fill `part` up to the full size, over as many connections as it takes."""
    have = part.stat().st_size if part.exists() else 0
    if have > remote.size:
        part.unlink()
        have = 0
    advance(have)
    while have < remote.size:
        reason = _fetch_some(remote, part, have, timeout, advance)
        now = part.stat().st_size if part.exists() else 0
        if now <= have:
            kept = f" after {now:,} of {remote.size:,} bytes, kept: the next try goes on from there" if now else ""
            raise Unreachable(remote.url, f"{reason}{kept}")
        have = now


def _fetch_some(remote: RemoteFile, part: Path, have: int, timeout: float, advance: Callable[[int], None]) -> str:
    """Append to `part` what one connection brings; return why it ended. It may start over."""
    request = urllib.request.Request(remote.url, headers={"User-Agent": "cnnlab"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = have if resumed else 0
        _check_announced_size(remote, response, start, resumed)
        advance(start - have)
        with open(part, "ab" if resumed else "wb") as file:
            while True:
                try:
                    chunk = response.read(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    return str(error) or type(error).__name__
                if not chunk:
                    return "the connection was cut"
                start += len(chunk)
                if start > remote.size:
                    raise DatasetError(_wrong_size(remote, f"more than {remote.size:,}"))
                file.write(chunk)
                advance(len(chunk))


def _check_announced_size(remote: RemoteFile, response: http.client.HTTPResponse, start: int, resumed: bool) -> None:
    announced = response.headers.get("Content-Length")
    if announced is not None and start + int(announced) != remote.size:
        raise DatasetError(_wrong_size(remote, f"{start + int(announced):,}"))
    if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise DatasetError(_wrong_size(remote, f"the range '{response.headers.get('Content-Range')}'"))


def _wrong_size(remote: RemoteFile, got: str) -> str:
    return (
        f"Expected {remote.size:,} bytes from {remote.url}, got {got}; "
        "do check for a proxy in between, or fetch the file by hand."
    )


def _verify(remote: RemoteFile, part: Path) -> None:
    digest = hashlib.sha256()
    with open(part, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != remote.sha256:
        part.unlink()
        raise DatasetError(
            f"Expected {remote.name} with SHA-256 {remote.sha256}, got {digest.hexdigest()}; "
            "do try again (what was downloaded is removed)."
        )
