"""Quick, Draw! files from Google's public bucket: resumable, size-checked, checksummed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

import requests
from filelock import FileLock
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential
from urllib3.exceptions import MaxRetryError

from smoe_ray import bounded_answers
from smoe_ray.atomic_write import write_whole
from smoe_ray.data.files import Progress, one_line, sha256_of
from smoe_ray.errors import DataError
from smoe_ray.spec import CLASS_PATTERN

BUCKET = "https://storage.googleapis.com/quickdraw_dataset"
_PLACES = {"sketchrnn": "sketchrnn/{}.npz", "bitmap": "full/numpy_bitmap/{}.npy"}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

_ATTEMPTS = 6
_FIRST_WAIT_S = 0.5  # doubled after each attempt
_LONGEST_WAIT_S = 30.0
_TIMEOUT_S = (10.0, 60.0)  # to connect, between two chunks
_CHUNK_BYTES = 2**16


class TransferError(Exception):
    """The server or the connection failed in a way that may be temporary."""


_TRANSIENT = (TransferError, requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


def fetch(
    categories: Sequence[str],
    layout: Literal["sketchrnn", "bitmap"],
    folder: Path,
    base_url: str = BUCKET,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Download the files of `categories` that `folder` does not hold yet.

    An interrupted download resumes where it stopped (``<file>.part``), unless the file has changed on the server. A
    finished one appears atomically, with its SHA-256 beside it in ``<file>.sha256``.

    Args:
        categories: as Google names them, for instance ``The Eiffel Tower``.
        layout: vector drawings or 28x28 bitmaps.
        folder: where to put them, created if absent.
        base_url: https, or http on this machine.
        progress: called with (what, bytes done, total bytes).

    Returns:
        one path per category.

    Raises:
        DataError: no such category, no connection after several attempts, or the folder cannot be written.
    """
    address = urlsplit(base_url)
    if address.scheme != "https" and address.hostname not in _LOOPBACK:
        raise DataError(f"{base_url}: drawings are downloaded over https only")
    for category in categories:
        if not re.fullmatch(CLASS_PATTERN, category):
            raise DataError(f"'{category}' cannot be the name of a category; see https://quickdraw.withgoogle.com/data")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tuple(_fetch_one(category, layout, folder, base_url, progress) for category in categories)
    except requests.RequestException as error:
        raise DataError(f"{base_url}: cannot be downloaded from ({one_line(error)}); run again to resume") from None
    except OSError as error:
        problem = f"cannot be used: {error.strerror or one_line(error)}; check disk space and permissions"
        raise DataError(f"{error.filename or folder}: {problem}") from None


def _fetch_one(category: str, layout: str, folder: Path, base_url: str, progress: Progress | None) -> Path:
    place = _PLACES[layout]
    url = f"{base_url.rstrip('/')}/{place.format(quote(category))}"
    target = folder / Path(place.format(category)).name
    if target.is_file():
        return target
    with FileLock(folder / f".{target.name}.lock"):
        if target.is_file():
            return target
        part = target.with_name(f"{target.name}.part")
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            reraise=True,
        )
        try:
            retrying(_download, url, part, progress)
        except _TRANSIENT as error:
            if reason := bounded_answers.refusal(error):
                raise DataError(f"{url}: {reason}; download the file by hand into data.root") from None
            if _never_connected(error):
                raise DataError(
                    f"cannot reach {urlsplit(url).netloc}; fetch elsewhere with 'smoe-ray data fetch' and set data.root"
                ) from None
            raise DataError(
                f"{url}: failed {_ATTEMPTS} times ({one_line(error)}); run again to resume where it stopped"
            ) from None
        # The checksum first, so that a file never exists without one.
        write_whole(target.with_name(f"{target.name}.sha256"), f"{sha256_of(part)}  {target.name}\n".encode())
        part.replace(target)
        _etag_file(part).unlink(missing_ok=True)
    return target


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, _TRANSIENT) and bounded_answers.refusal(error) is None


def _never_connected(error: BaseException) -> bool:
    """Whether no connection was made: no network, no such host, or nothing listens there."""
    cause = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    return isinstance(cause, MaxRetryError) and not isinstance(error, requests.exceptions.SSLError)


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _download(url: str, part: Path, progress: Progress | None) -> None:
    """Download the rest of the file to `part`."""
    etag_file = _etag_file(part)
    have = part.stat().st_size if part.is_file() and etag_file.is_file() else 0
    headers = {}
    if have:
        headers = {"Range": f"bytes={have}-", "If-Range": etag_file.read_text(encoding="ascii")}

    with (
        bounded_answers.bounded_session(bounded_answers.FILE) as session,
        session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S, allow_redirects=False) as response,
    ):
        _refuse_failure(response, url)
        resumed = response.status_code == requests.codes.partial_content
        if response.status_code == requests.codes.requested_range_not_satisfiable or (
            resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        ):
            part.unlink(missing_ok=True)
            raise TransferError("the server and the partial file disagree; starting again")
        have = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        if not length.isdigit():
            raise DataError(f"{url}: the server does not say how large the file is; download it by hand")
        total = have + int(length)
        with part.open("ab" if resumed else "wb") as file:
            _remember_etag(response, etag_file)
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                if progress:
                    progress(f"downloading {part.stem}", have, total)
    if have != total:  # urllib3 2 notices by itself, urllib3 1 does not
        raise TransferError(f"{have:,} bytes arrived of {total:,}")


def _refuse_failure(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in (requests.codes.forbidden, requests.codes.not_found):
        raise DataError(f"{url}: no such file (HTTP {status}); categories: https://quickdraw.withgoogle.com/data")
    if status >= 500 or status in (requests.codes.too_many_requests, requests.codes.request_timeout):
        raise TransferError(f"HTTP {status}")
    if status not in (200, 206, 416):
        raise DataError(f"{url}: HTTP {status}; download the file by hand into data.root")


def _remember_etag(response: requests.Response, etag_file: Path) -> None:
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):  # a weak one (W/"…") does not promise the same bytes
        etag_file.write_text(etag, encoding="ascii")
    else:
        etag_file.unlink(missing_ok=True)
