"""A real HTTP server on loopback, which misbehaves as real ones do."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Fault:
    """What goes wrong with one answer."""

    status: int = 0  # answer so, without the file
    stop: int | None = None  # break off after so many bytes of the body
    stall: bool = False  # and there, say nothing more until the client leaves
    flip: int | None = None  # change this byte of the file
    claim: int | None = None  # state another size


@dataclass
class Site:
    """Files by path, the faults that await each, and what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(
        default_factory=dict
    )  # one for each request, in order
    always: dict[str, Fault] = field(
        default_factory=dict
    )  # where the list is at its end
    ranges: bool = True
    versions: Callable[[bytes], dict] | None = (
        None  # headers that name a file's state
    )
    if_range: bool = True  # does it heed the header?
    asked: list[tuple[str, int]] = field(
        default_factory=list
    )  # path, first byte
    sent: int = 0  # bytes of bodies
    port: int = 0
    done: threading.Event = field(default_factory=threading.Event)

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


def etag(content: bytes) -> dict:
    return {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}


@contextmanager
def serve(**files: bytes) -> Iterator[Site]:
    """A site with these files; it ends with the block."""
    site = Site(
        {name.replace("__", "."): content for name, content in files.items()}
    )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            _answer(self, site)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # the client has left

    with Server(("127.0.0.1", 0), Handler) as server:
        site.port = server.server_address[1]
        thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), daemon=True
        )
        thread.start()
        try:
            yield site
        finally:
            site.done.set()
            server.shutdown()
            thread.join()


def _answer(request: BaseHTTPRequestHandler, site: Site) -> None:
    path = request.path.strip("/")
    waiting = site.faults.get(path)
    fault = waiting.pop(0) if waiting else site.always.get(path, Fault())
    wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    start = int(wanted.group(1)) if wanted else 0
    site.asked.append((path, start))
    content = site.files.get(path)
    if fault.status or content is None:
        request.send_response(fault.status or 404)
        request.send_header("Content-Length", "9")
        request.end_headers()
        request.wfile.write(b"<p>no</p>")
        return
    versions = (site.versions or etag)(content)
    if not site.ranges:
        start = 0
    elif site.if_range and request.headers.get("If-Range") not in (
        None,
        *versions.values(),
    ):
        start = 0
    if start and start >= len(content):
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{len(content)}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    if fault.flip is not None:
        content = bytearray(content)
        content[fault.flip] ^= 1
    request.send_response(206 if start else 200)
    if start:
        request.send_header(
            "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
        )
    request.send_header(
        "Content-Length", str(fault.claim or len(content) - start)
    )
    for name, value in versions.items():
        request.send_header(name, value)
    request.end_headers()
    body = (
        content[start:]
        if fault.stop is None
        else content[start : start + fault.stop]
    )
    request.wfile.write(body)
    request.wfile.flush()
    site.sent += len(body)
    if fault.stall:
        site.done.wait(60)
    if fault.stop is not None:
        request.close_connection = True
