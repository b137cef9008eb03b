"""The trainer's data path: s3:// and file:// through obstore, streaming both ways.

Credentials come from the environment (AWS_*), web identity, or the usual AWS files; they are never printed.
Every error becomes a RunFailed that names the URI; a store that is away for a while is ridden out.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from botocore.exceptions import BotoCoreError
from obstore import exceptions
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from lorafleet.contract import confined_files, plain_files, store_faults
from lorafleet.contract.s3_settings import S3Settings, region_of
from lorafleet.contract.store_faults import Fault, FaultKind
from lorafleet.errors import InvalidInput, RunFailed
from trainer import listing
from trainer.listing import Entry, Listing

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta

CONCURRENCY = 32
CHUNK_BYTES = 8 * 2**20
_HELD = "proc/self/fd"  # obstore opens files by their names: here are those that this process holds, whoever renames them

T = TypeVar("T")

_obstore: Any = obstore  # the types of some of its calls name a library of tables that is not installed
_MISSING = (exceptions.NotFoundError, FileNotFoundError)  # pyright: ignore[reportDeprecated]  obstore raises one or the other

# A store that is restarted comes back within half a minute; two minutes leave it room. The time decides, not the number:
# with jitter 40 retries were seen to be over after 21 s.
_RETRY: dict[str, Any] = {
    "max_retries": 10_000,
    "retry_timeout": timedelta(seconds=120),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}
_CLIENT: dict[str, Any] = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=120)}


class Folder:
    """A prefix of an S3 bucket, or a folder on disk. Paths are relative to it.

    On disk, no symbolic link leads out of the folder `within`, which is this one unless another above it is told.
    """

    def __init__(self, uri: str, *, within: str | None = None) -> None:
        self.uri = uri.rstrip("/")
        self._within = (within or uri).rstrip("/")

    def __repr__(self) -> str:
        return f"Folder({self.uri!r})"

    def child(self, *parts: str) -> "Folder":
        return Folder("/".join([self.uri, *(part.strip("/") for part in parts)]), within=self._within)

    @cached_property
    def _store(self) -> S3Store | LocalStore:
        if self.uri.startswith("file://"):
            return LocalStore("/")
        bucket = self.uri.removeprefix("s3://").split("/", 1)[0]
        options: Any = _s3_options(bucket)
        return S3Store(bucket, **options)

    @cached_property
    def _prefix(self) -> str:
        path = self.uri.split("://", 1)[1]
        return path.strip("/") if self.uri.startswith("file://") else path.partition("/")[2].strip("/")

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    @contextmanager
    def _to_read(self, path: str) -> Generator[str]:
        """The key of what is read. On disk it is that of a file which we hold open: what is put in its place meanwhile is not met."""
        if not self._is_on_disk(path):
            yield self._key(path)
            return
        try:
            with plain_files.opened(self._on_disk(path), _path(self._within)) as file:
                yield f"{_HELD}/{file.fileno()}"
        except (IsADirectoryError, NotADirectoryError):
            raise FileNotFoundError(f"{self.uri}/{path} is no file") from None

    @contextmanager
    def _to_change(self, path: str, *, make: bool = True) -> Generator[str]:
        """The key of what is written or deleted, in a folder that we hold: a link in its own place is replaced, not followed."""
        if not self._is_on_disk(path):
            yield self._key(path)
            return
        place = self._on_disk(path)
        with confined_files.holding(place, _path(self._within), make=make) as held:
            yield f"{_HELD}/{held}/{place.name}"

    def _is_on_disk(self, path: str) -> bool:
        return self.uri.startswith("file://") and listing.can_hold(path)  # obstore refuses other names, and says so

    def _on_disk(self, path: str) -> Path:
        return _path(self.uri) / path

    def list(self) -> list[Entry]:
        """Everything under the folder, sorted by path. An absent folder is an empty one."""
        return self.scan().entries

    def scan(self) -> Listing:
        """As `list`, with what could not be listed, and which entries lie outside the folder."""
        with _naming(self.uri):
            if self.uri.startswith("file://"):
                return listing.on_disk(self.uri, self._within)
            try:
                return self._listed()
            except BaseError as error:
                if not _is_of_a_name(error):
                    raise
                return listing.in_bucket(self.uri)

    def _listed(self) -> Listing:
        found, offset = Listing(self.uri), len(self._prefix) + 1 if self._prefix else 0
        for page in _pages(self._store, self._prefix):
            for meta in page:
                found.add(_entry(meta, offset))
        return found.sorted()

    def get(self, path: str) -> bytes:
        with _naming(f"{self.uri}/{path}"), self._to_read(path) as key:
            return bytes(obstore.get(self._store, key).bytes())

    def get_or_none(self, path: str, *, most_bytes: int | None = None) -> bytes | None:
        """None when it is not there. Raises RunFailed OBJECT_TOO_LARGE, before it reads, when it is longer than told."""
        with _naming(f"{self.uri}/{path}"):
            try:
                with self._to_read(path) as key:
                    found = obstore.get(self._store, key)
                    _check_size(f"{self.uri}/{path}", found.meta["size"], most_bytes)
                    return bytes(found.bytes())
            except _MISSING:
                return None

    def get_range(self, path: str, start: int, length: int) -> bytes:
        with _naming(f"{self.uri}/{path}"), self._to_read(path) as key:
            return bytes(obstore.get_range(self._store, key, start=start, length=length))

    def get_range_of(self, entry: Entry, start: int, length: int) -> memoryview:
        """A range of an object that is as it was when it was listed. Raises RunFailed OBJECT_CHANGED where it is not."""
        uri = f"{self.uri}/{entry.path}"
        asked: GetOptions = {"range": (start, start + length)}
        if entry.etag is not None:
            asked["if_match"] = entry.etag
        with _naming(uri), self._to_read(entry.path) as key:
            try:
                found = obstore.get(self._store, key, options=asked)
            except PreconditionError:
                raise _changed(uri, entry, obstore.head(self._store, key)) from None
            if found.meta["size"] != entry.size_bytes or entry.etag not in (None, found.meta["e_tag"]):  # not every store compares
                raise _changed(uri, entry, found.meta)
            return memoryview(found.bytes())

    def sha256(self, path: str) -> str:
        """Hex digest of an object's content, streamed."""
        digest = hashlib.sha256()
        for chunk in self.chunks(path):
            digest.update(chunk)
        return digest.hexdigest()

    def chunks(self, path: str) -> Iterator[bytes]:
        """An object's content, in pieces."""
        with _naming(f"{self.uri}/{path}"), self._to_read(path) as key:
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def put(self, path: str, data: bytes | Path) -> None:
        with _naming(f"{self.uri}/{path}"), self._to_change(path) as key:
            obstore.put(self._store, key, data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """False if an object exists already (If-None-Match: *)."""
        with _naming(f"{self.uri}/{path}"), self._to_change(path) as key:
            try:
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def delete(self, paths: Sequence[str]) -> None:
        """Deletes; what is absent already is fine."""
        for path in paths:
            with _naming(f"{self.uri}/{path}"):
                try:
                    with self._to_change(path, make=False) as key:
                        obstore.delete(self._store, key)
                except _MISSING:
                    continue

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Many small objects at once, by path."""

        async def read(path: str) -> tuple[str, bytes]:
            with _naming(f"{self.uri}/{path}"), self._to_read(path) as key:
                result = await obstore.get_async(self._store, key)
                return path, bytes(await result.bytes_async())

        return dict(asyncio.run(_gather(read, paths)))

    def write_all(self, objects: Mapping[str, bytes | Path]) -> None:
        """Many objects at once; files stream from disk."""

        async def write(path: str) -> None:
            with _naming(f"{self.uri}/{path}"), self._to_change(path) as key:
                await obstore.put_async(self._store, key, objects[path])

        asyncio.run(_gather(write, objects))

    def download(self, paths: Iterable[str], into: Path) -> None:
        """Streams objects to files under `into`; a file appears only when it is whole."""

        async def download(path: str) -> None:
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{os.getpid()}.part")
            try:
                with _naming(f"{self.uri}/{path}"), self._to_read(path) as key, partial.open("wb") as file:
                    result = await obstore.get_async(self._store, key)
                    async for chunk in _chunks(result):
                        file.write(chunk)
                partial.rename(target)
            finally:
                partial.unlink(missing_ok=True)

        asyncio.run(_gather(download, paths))


def _check_size(uri: str, size_bytes: int, most_bytes: int | None) -> None:
    if most_bytes is not None and size_bytes > most_bytes:
        raise RunFailed(f"{uri} is {size_bytes} bytes long; at most {most_bytes} are read", reason="OBJECT_TOO_LARGE")


def _changed(uri: str, entry: Entry, now: "ObjectMeta") -> RunFailed:
    was = f"it was {entry.size_bytes} bytes long with the ETag {entry.etag}"
    message = f"{uri} changed while it was read: {was}, now it is {now['size']} with {now['e_tag']}; try again"
    return RunFailed(message, reason="OBJECT_CHANGED", retryable=True)


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://") or os.sep)


def _pages(store: S3Store | LocalStore, prefix: str) -> "Iterable[Sequence[ObjectMeta]]":
    return _obstore.list(store, prefix=prefix or None)


def _entry(meta: "ObjectMeta", offset: int) -> Entry:
    version = meta.get("e_tag") or str(meta["last_modified"])
    return Entry(path=meta["path"][offset:], size_bytes=meta["size"], version=f"{version}/{meta['size']}")


async def _chunks(result: Any) -> AsyncIterator[bytes]:
    async for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
        yield bytes(chunk)


async def _gather(call: Callable[[str], Awaitable[T]], paths: Iterable[str]) -> list[T]:
    limit = asyncio.Semaphore(CONCURRENCY)

    async def limited(path: str) -> T:
        async with limit:
            return await call(path)

    return list(await asyncio.gather(*(limited(path) for path in paths)))


def _s3_options(bucket: str) -> dict[str, Any]:
    try:
        settings = S3Settings.of()
    except InvalidInput as error:
        raise RunFailed(error.message, reason="STORE_NOT_USABLE") from None
    client: dict[str, Any] = dict(_CLIENT)
    options: dict[str, Any] = {"client_options": client, "retry_config": _RETRY, "region": region_of(bucket, settings.region)}
    virtual = settings.addressing_style == "virtual"
    options["virtual_hosted_style_request"] = virtual
    if settings.endpoint:
        scheme, _, host = settings.endpoint.partition("://")
        options["endpoint"] = f"{scheme}://{bucket}.{host}" if virtual else settings.endpoint  # obstore wants the bucket in it then
        client["allow_http"] = scheme == "http"
    if settings.ca_bundle:
        client["root_certificate"] = Path(settings.ca_bundle).read_bytes()
    if not _has_native_credentials():
        options["credential_provider"] = _boto3_credentials()
    return options


def _is_of_a_name(error: BaseError) -> bool:
    """Whether a listing ended at a key that obstore cannot hold."""
    return "invalid path" in str(error) or "parsing path" in str(error).lower()


def _boto3_credentials() -> Any:
    """obstore reads no ~/.aws files itself; boto3 knows all that they can say (profiles, SSO, processes)."""
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError:
        message = "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the run, or name a profile that has some"
        raise RunFailed(message, reason=store_faults.UNSET.reason, retryable=True) from None


def _has_native_credentials() -> bool:
    native = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    if any(os.environ.get(name) for name in native):
        return True
    files = (os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"))
    return not any(Path(file).expanduser().exists() for file in files)


@contextmanager
def _naming(uri: str) -> Generator[None]:
    """Turns the store's errors into RunFailed with the URI, the cause and what to do."""
    try:
        yield
    except (BaseError, OSError, ValueError, BotoCoreError) as error:  # ValueError: a name that cannot be one; boto3 finds credentials
        raise explain(uri, error) from None


def explain(uri: str, error: Exception) -> RunFailed:
    """What a failed call on `uri` means to the user, and whether trying again may help: as the control plane sees the same fault."""
    if isinstance(error, confined_files.LeadsOut):
        return RunFailed(f"{uri} {confined_files.OUT}", reason="LINK_OUT")
    if isinstance(error, plain_files.NoPlainFile):
        return RunFailed(f"{uri} is no plain file; no run reads a FIFO, socket or device", reason="NO_PLAIN_FILE")
    fault = _fault(error)
    match fault.kind:
        case FaultKind.OPERATOR | FaultKind.PERMANENT if fault is not store_faults.REFUSED:
            told = fault.what
        case FaultKind.TRANSIENT:
            told = f"the store does not answer: {_first_line(error)}"
        case _:
            told = f"{fault.what}: {_first_line(error)}"
    return RunFailed(f"{uri}: {told}", reason=fault.reason, retryable=fault.kind is not FaultKind.PERMANENT)


def _fault(error: Exception) -> Fault:
    fault = store_faults.of_text(str(error))
    if fault is not store_faults.NO_ANSWER:
        return fault
    if isinstance(error, OSError) and error.errno is not None:
        return store_faults.of_errno(error.errno)
    if isinstance(error, _MISSING):  # a missing object, of a store or a folder
        return store_faults.OBJECT_MISSING
    if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
        return store_faults.ACCESS_DENIED
    return store_faults.of_exception(type(error).__name__)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
