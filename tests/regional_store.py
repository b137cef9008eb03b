"""A store on loopback that takes calls for its one bucket only when they are signed for the bucket's region, and else answers as S3 does:
with where the bucket is, in one of the ways in which S3 says it."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

OBJECT = b"what lies there"
_SIGNED_FOR = re.compile(r"Credential=[^/]+/\d{8}/([^/]+)/s3/aws4_request")


class Says(StrEnum):
    """How it tells a caller who asks in another region. HEAD has no body."""

    MOVED = "301 PermanentRedirect, with x-amz-bucket-region"
    MALFORMED = "400 AuthorizationHeaderMalformed with Region, and x-amz-bucket-region"
    MALFORMED_IN_BODIES = "400 AuthorizationHeaderMalformed with Region: HEAD learns nothing"
    MOVED_WITHOUT_A_WORD = "301 PermanentRedirect: only GetBucketLocation tells, to everybody"


@contextmanager
def regional_store(says: Says, region: str, location: str | None = None) -> Iterator[dict[str, str]]:
    """The environment in which clients reach it, but for their region. `location`: what GetBucketLocation answers."""
    told = region if location is None else location
    in_header = {"x-amz-bucket-region": region}

    class Regional(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            signed_for = _SIGNED_FOR.search(self.headers.get("authorization", ""))
            query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            is_there = signed_for is not None and signed_for[1] == region
            if "location" in query and (is_there or says is Says.MOVED_WITHOUT_A_WORD):
                self._send(200, f'<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{told}</LocationConstraint>'.encode())
            elif not is_there:
                self._refuse(signed_for[1] if signed_for else "")
            else:
                self._send(200, OBJECT if "/" in self.path.strip("/") else b"", {} if says is Says.MOVED_WITHOUT_A_WORD else in_header)

        def _refuse(self, asked: str) -> None:
            match says:
                case Says.MOVED:
                    self._send(301, _error("PermanentRedirect", "<Endpoint>bucket.s3.amazonaws.com</Endpoint>"), in_header)
                case Says.MOVED_WITHOUT_A_WORD:
                    self._send(301, _error("PermanentRedirect", ""))
                case _:
                    body = _error("AuthorizationHeaderMalformed", f"<Region>{region}</Region>", f"the region '{asked}' is wrong")
                    self._send(400, body, in_header if says is Says.MALFORMED else {})

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.send_header("content-type", "application/xml")
            self.send_header("etag", '"x"')
            self.send_header("last-modified", "Mon, 30 Nov 2026 07:00:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Not into the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Regional)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "something"}
    try:
        yield {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", **keys}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _error(code: str, more: str, message: str = "x") -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'.encode()
