"""A file server on this machine that can resume, cut connections and change files."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class FileServer:
    """Serves ``files`` (path to bytes) and notes in ``ranges`` what was asked for.

    Attributes:
        files: Content by path.
        ranges: ``Range`` header of each request, None without one.
        cut_after: Bytes after which each of the next answers ends; an answer uses one up.
        statuses: Answers to give instead of the file, used up one by one.
        knows_ranges: Whether ``Range`` is honoured.
        tells_versions: Whether an ``ETag`` is sent.
        new_versions: Whether each answer has another one.
        endless: How many of the next answers have no length, and a last chunk that never comes.
        headers: More headers of every answer.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges: list[str | None] = []
        self.cut_after: list[int] = []
        self.statuses: list[int] = []
        self.knows_ranges = True
        self.tells_versions = True
        self.new_versions = False
        self.endless = 0
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # a client that has seen enough resets the connection: no news, and told on stderr otherwise
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        content = self.files.get(request.path)
        status = self.statuses.pop(0) if self.statuses else 200 if content is not None else 404
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.knows_ranges else 0
        if content is not None and start >= len(content):
            status = 416
        if status != 200 or content is None:
            request.send_response(status)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if start:
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        if self.tells_versions:
            turn = len(self.ranges) if self.new_versions else 0
            request.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}-{turn}"')
        endless = self.endless > 0
        self.endless -= endless
        if endless:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", str(len(content) - start))
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.end_headers()
        body = content[start:]
        if endless:
            request.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            request.close_connection = True
            return
        cut = self.cut_after.pop(0) if self.cut_after else None
        request.wfile.write(body[:cut])
        if cut is not None:
            request.close_connection = True

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def google_hash(content: bytes) -> str:
    """The header that Google Storage sends."""
    return f"crc32c=AAAAAA==,md5={base64.b64encode(hashlib.md5(content).digest()).decode()}"


@pytest.fixture
def server() -> Iterator[FileServer]:
    running = FileServer()
    yield running
    running.close()
