"""Reads an artifact by the URLs that the server signed for it: plain HTTPS, no credentials of the store and no boto3. Knows no jobs."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from io import RawIOBase
from typing import IO, Any, cast

from lorafleet.errors import LorafleetError, NotFound, Unavailable

TIMEOUT_S = 60.0  # of silence


class SignedBlobs:
    """A folder whose files each have a URL. Messages name only the file, since anyone with its URL can read it."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        for path, url in urls.items():
            if not url.startswith(("https://", "http://")):
                raise LorafleetError(f"the server signed {path} with something else than an http URL", reason="BAD_URL")
        self._urls = urls

    @contextmanager
    def open(self, path: str, *, start: int = 0) -> Generator[IO[bytes]]:
        """The file's bytes from `start` on. Raises NotFound, Unavailable, and LorafleetError (URL_EXPIRED)."""
        if path not in self._urls:
            raise NotFound(f"the server signed no URL for {path}")
        request = urllib.request.Request(self._urls[path], headers={"Range": f"bytes={start}-"} if start else {})
        with _told_of(path), urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if start and answer.status != http.client.PARTIAL_CONTENT:
                answer.read(start)  # a proxy that knows no ranges
            yield cast(IO[bytes], _Whole(answer))

    def folders(self) -> Iterator[str]:
        """None are known: only files are signed."""
        return iter(())


class _Whole(RawIOBase):
    """An answer that must be as long as it said: http.client takes a connection that broke off for the end of the file."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self._answer.read(None if size < 0 else size)
        if not data and size and self._answer.length:
            raise http.client.IncompleteRead(b"", self._answer.length)
        return data


@contextmanager
def _told_of(path: str) -> Generator[None]:
    """HTTP's errors as ours, each with the file that it is about."""
    try:
        yield
    except urllib.error.HTTPError as error:
        raise _refused(path, error.code) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise Unavailable(f"{path}: the store broke off ({getattr(error, 'reason', None) or error})", reason="STORE") from None


def _refused(path: str, status: int) -> LorafleetError:
    if status == http.client.NOT_FOUND:
        return NotFound(f"{path} is not in the store")
    if status == http.client.FORBIDDEN:
        return LorafleetError(
            f"{path}: the store refuses the URL that the server signed; it may have expired: try again", reason="URL_EXPIRED"
        )
    if status >= http.client.INTERNAL_SERVER_ERROR or status == http.client.TOO_MANY_REQUESTS:
        return Unavailable(f"{path}: the store answers HTTP {status}", reason="STORE")
    return LorafleetError(f"{path}: the store answers HTTP {status}", reason="STORE")
