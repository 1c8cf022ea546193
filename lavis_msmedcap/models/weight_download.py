"""Downloading one weights file: resumed where it stopped, verified, written in one step.

    url ─GET, Range─▶ <name>.partial ─size, sha256─▶ <name> and <name>.sha256

Beside the partial file stands what the server said of it (``<name>.partial.json``), so that a file
that has changed on the server since is started again. A lock lets one process at a time write.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from filelock import FileLock
from tqdm import tqdm

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.weight_catalog import RemoteFile

CHUNK = 1 << 16  # bytes; of a cut connection, what arrived of the last one is lost
TIMEOUT = (15, 60)  # seconds to connect, and between two pieces of the answer
PAUSES = (1.0, 5.0, 15.0, 30.0)  # seconds before another attempt; only those without progress count
SPARE = 64 << 20  # bytes left free on the disk
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that may be different in a minute

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of a file.

    Attributes:
        url: Where it was asked for.
        version: ETag or date; None if the server gives neither, and resuming would be a gamble.
        size: Bytes, None if not told.
        checksum: ``sha256:<hex>`` or ``md5:<hex>``, None if not told.
    """

    url: str
    version: str | None
    size: int | None
    checksum: str | None


class _PassingError(Exception):
    """An attempt that failed for a reason that may pass."""


def download(file: RemoteFile, target: Path) -> None:
    """Downloads a file unless it is there, going on from where an earlier attempt stopped.

    Its sha256 is written to ``<target>.sha256`` in the format of ``sha256sum``. Safe to call from
    several processes at once: one downloads, the others wait.

    Args:
        file: The file; a checksum or size that it names must be met.
        target: Where it goes.

    Raises:
        WeightsError: If the server does not have it, cannot be reached, the disk is full, or size
            or checksum are not those expected. What has arrived is kept unless it is wrong.
    """
    lock = target.with_name(f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(lock)):
            if not target.is_file():
                logger.info("downloading %s to %s", shown(file.url), target)
                facts = _fetch(file, partial_of(target))
                _finish(file, facts, target)
            # whoever waits for the lock, or makes it anew, finds the finished file
            with contextlib.suppress(OSError):
                lock.unlink()
    except OSError as error:
        raise WeightsError(
            f"cannot write {target}: {error}; set LAVIS_MSMEDCAP_WEIGHTS to another folder"
        ) from error


def partial_of(target: Path) -> Path:
    """Returns where the unfinished file is."""
    return target.with_name(f"{target.name}.partial")


def checksum_file(path: Path) -> Path:
    """Returns where the sha256 of a downloaded file is kept."""
    return path.with_name(f"{path.name}.sha256")


def recorded_sha256(path: Path) -> str | None:
    """Returns the sha256 that was kept when a file was downloaded, None if there is none."""
    try:
        words = checksum_file(path).read_text(encoding="utf-8").split()
    except OSError:
        return None
    return words[0].lower() if words else None


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Returns the checksum of a file in hexadecimal digits."""
    hasher = hashlib.new(algorithm)
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(CHUNK), b""):
            hasher.update(block)
    return hasher.hexdigest()


def require_space(folder: Path, needed: int, what: str) -> None:
    """Checks the free space of the disk on which a folder is, or will be.

    Raises:
        WeightsError: If less than ``needed`` bytes and a reserve are free.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + SPARE:
        raise WeightsError(
            f"{what} needs {show_size(needed)} in {folder}, but only {show_size(free)} are free; "
            "make room, or set LAVIS_MSMEDCAP_WEIGHTS to a folder on another disk"
        )


def show_size(size: int | None) -> str:
    """Writes a number of bytes for people, "?" if unknown."""
    if size is None:
        return "?"
    number = float(size)
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def shown(url: str) -> str:
    """Returns an address without its query, which may hold a key."""
    return url.partition("?")[0].partition("#")[0]


# --- attempts ------------------------------------------------------------------------------------


def _fetch(file: RemoteFile, partial: Path) -> ServerFacts:
    """Fills the partial file in as many attempts as it takes.

    Progress is to have more than ever before: a file that is started again and again has none.
    """
    failures, most = 0, _size(partial)
    with requests.Session() as session:
        while True:
            try:
                return _attempt(session, file, partial)
            except (_PassingError, requests.RequestException) as error:
                have = _size(partial)
                failures = 1 if have > most else failures + 1
                most = max(most, have)
                if failures > len(PAUSES):
                    raise WeightsError(_given_up(file, partial, error)) from error
                logger.warning("%s: %s; trying again", shown(file.url), _reason(error))
                time.sleep(PAUSES[failures - 1])


def _attempt(session: requests.Session, file: RemoteFile, partial: Path) -> ServerFacts:
    """Asks for what is still missing and appends it.

    Raises:
        _PassingError: If the answer stopped early or the file has changed.
        requests.RequestException: If the connection failed.
        WeightsError: If another attempt would not help.
    """
    known = _read_facts(file, partial)
    have = _size(partial) if known else 0
    if known and known.size == have:
        return known
    headers = {"Accept-Encoding": "identity"}  # sizes and ranges count the bytes of the file itself
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(file.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            _forget(partial)
            raise _PassingError("the file has become shorter on the server")
        _refuse(file, response)
        if have and response.status_code != requests.codes.partial_content:
            have = 0  # the whole file: the server knows no ranges
        facts = _facts(file, response, have)
        if have and facts != known:
            _forget(partial)
            raise _PassingError("the file has changed on the server")
        if file.size is not None and facts.size not in (None, file.size):
            raise WeightsError(
                f"{shown(file.url)} has {facts.size} bytes, expected {file.size}; it is not the "
                "file that was published"
            )
        if facts.size is not None:
            require_space(partial.parent, facts.size - have, file.name)
        _write_facts(facts, partial)
        _receive(response, partial, have, facts)
    # urllib3 tells of a short answer by itself only from version 2 on
    if facts.size is not None and _size(partial) != facts.size:
        raise _PassingError(f"the connection ended after {_size(partial)} of {facts.size} bytes")
    return facts


def _receive(response: requests.Response, partial: Path, have: int, facts: ServerFacts) -> None:
    """Writes the body behind the first ``have`` bytes, with a progress bar on a terminal."""
    name = partial.name[: -len(".partial")]
    bar = tqdm(total=facts.size, initial=have, unit="B", unit_scale=True, desc=name, disable=None)
    with partial.open("ab" if have else "wb") as stream, bar:
        for block in response.iter_content(CHUNK):
            stream.write(block)
            bar.update(len(block))


def _refuse(file: RemoteFile, response: requests.Response) -> None:
    """Turns an answer that is not the file into an error."""
    status = response.status_code
    if urlsplit(file.url).scheme == "https" and urlsplit(response.url).scheme != "https":
        raise WeightsError(f"{shown(file.url)} leads to an address without https; refused")
    if status in BUSY:
        raise _PassingError(f"the server answers {status}")
    if status not in (requests.codes.ok, requests.codes.partial_content):
        raise WeightsError(
            f"{shown(file.url)}: the server answers {status} {response.reason}; check the address, "
            f"or get {file.name} another way and name its path in the configuration"
        )


def _finish(file: RemoteFile, facts: ServerFacts, target: Path) -> None:
    """Verifies the partial file, keeps its checksum and gives it its name."""
    partial = partial_of(target)
    found = digest(partial)
    expected = [("the one expected", f"sha256:{file.sha256}")] if file.sha256 else []
    if facts.checksum:
        expected.append(("that of the server", facts.checksum))
    for whose, checksum in expected:
        algorithm, _, wanted = checksum.partition(":")
        actual = found if algorithm == "sha256" else digest(partial, algorithm)
        if actual != wanted.lower():
            _forget(partial)
            raise WeightsError(
                f"{shown(file.url)}: the {algorithm} of what arrived is {actual}, {whose} is "
                f"{wanted}; the file was altered or damaged, and is not kept"
            )
    checksum_file(target).write_text(f"{found}  {target.name}\n", encoding="utf-8")
    partial.replace(target)
    _facts_file(partial).unlink(missing_ok=True)
    logger.info("%s: %s, sha256 %s", target, show_size(target.stat().st_size), found)


# --- what the server says ------------------------------------------------------------------------


def _facts(file: RemoteFile, response: requests.Response, have: int) -> ServerFacts:
    headers = response.headers
    size: int | None = None
    if have:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if not told or int(told[1]) != have:
            raise WeightsError(
                f"{shown(file.url)}: asked for the bytes from {have} on, the server answers "
                f"{headers.get('Content-Range')!r}; delete the unfinished file and start again"
            )
        size = int(told[2])
    elif headers.get("Content-Length", "").isdigit() and "Content-Encoding" not in headers:
        size = int(headers["Content-Length"])
    version = headers.get("ETag") or headers.get("Last-Modified")
    return ServerFacts(file.url, version, size, _told_checksum([*response.history, response]))


def _told_checksum(responses: Iterable[requests.Response]) -> str | None:
    """Reads the checksum that Hugging Face (before its redirection) or Google Storage sends."""
    for response in responses:
        linked = response.headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", linked):
            return f"sha256:{linked}"
        stored = re.search(r"md5=([\w+/]+=*)", response.headers.get("x-goog-hash", ""))
        if stored:
            return f"md5:{base64.b64decode(stored[1]).hex()}"
    return None


def _facts_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _read_facts(file: RemoteFile, partial: Path) -> ServerFacts | None:
    """Returns what is known of a partial file; None where it must be started again."""
    try:
        facts = ServerFacts(**json.loads(_facts_file(partial).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    usable = facts.url == file.url and facts.version and partial.is_file()
    return facts if usable and _size(partial) <= (facts.size or float("inf")) else None


def _write_facts(facts: ServerFacts, partial: Path) -> None:
    _facts_file(partial).write_text(json.dumps(asdict(facts)), encoding="utf-8")


def _forget(partial: Path) -> None:
    for path in (partial, _facts_file(partial)):
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _PassingError) else type(error).__name__


def _given_up(file: RemoteFile, partial: Path, error: Exception) -> str:
    kept = f"; {show_size(_size(partial))} are kept in {partial}" if _size(partial) else ""
    return (
        f"cannot download {shown(file.url)}: {_reason(error)} ({len(PAUSES) + 1} attempts in a "
        f"row){kept}. Check the network (proxies are taken from HTTPS_PROXY) and start again, or "
        f"get {file.name} another way"
    )
