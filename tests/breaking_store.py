"""A store on loopback with one object, whose answers break off in the middle as often as they are told to."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ETAG = '"it-is-this"'


@dataclass
class BreakingStore:
    """What it serves and what it was asked. It knows no ETags but its own, and compares none, as some stores do not."""

    content: bytes
    etag: str = ETAG
    break_off: int = 0  # the next so many answers
    asked: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])  # (start, end) of ranges
    environment: dict[str, str] = field(default_factory=dict[str, str])


@contextmanager
def breaking_store(content: bytes) -> Iterator[BreakingStore]:
    """With the environment in which clients reach it."""
    store, lock = BreakingStore(content), threading.Lock()

    class Serving(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range") or "")
            assert found is not None, "it is asked for ranges alone"
            start, end = int(found[1]), int(found[2]) + 1
            with lock:
                breaks, store.break_off = store.break_off > 0, max(0, store.break_off - 1)
                store.asked.append((start, end))
            body = store.content[start:end]
            self.send_response(206)
            self.send_header("content-length", str(len(body)))
            self.send_header("content-range", f"bytes {start}-{start + len(body) - 1}/{len(store.content)}")
            self.send_header("etag", store.etag)
            self.send_header("last-modified", "Mon, 30 Nov 2026 12:00:00 GMT")
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if breaks else body)
            self.close_connection = breaks

        def log_message(self, format: str, *args: object) -> None:
            """Not into the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Serving)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}
    store.environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_REGION": "us-east-1", **keys}
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
