"""Accesses the store for the control plane: small objects, `s3://` and `file://` through one interface.

Credentials come from the environment, the AWS files or web identity, or are a tenant's own (`Store.of`), and appear in no
message. The trainer's data path is its own (obstore); what both must agree on is `lorafleet.contract.layout`.
"""

import asyncio
import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, Protocol, TypeVar, cast

from lorafleet.contract import store_faults
from lorafleet.contract.s3_settings import S3Settings
from lorafleet.contract.store_faults import Fault
from lorafleet.errors import InvalidInput, LorafleetError, Unavailable
from service.core.telemetry import counting_operators_faults, outside_call
from service.store.bounded_reads import MAX_BYTES, StoreError, read, read_whole
from service.store.credentials import CredentialsFile, StoreCredentials
from service.store.file_store import FileBacking
from service.store.refusals import ALREADY_THERE, BEHIND_THE_END, conditional, of_response, raised

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
MAX_ATTEMPTS = 4
MAX_TENANTS = 256  # whose S3 clients are kept: one takes some MB
MAX_CALLS = 32  # at once: a batch asks after thousands of folders, and a call to S3 is mostly waiting
CALL_WITHIN_S = 120.0  # longer than all attempts at S3; a file system has no timeout of its own

_ELSEWHERE = {301, 307, 308, 400}  # of HeadBucket; 400: signed for another region
_OLDEST = {"": "us-east-1", "EU": "eu-west-1"}  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html

_Result = TypeVar("_Result")


class Backing(Protocol):
    """One kind of store. Blocks; `Store` calls it from threads. Raises StoreError and Unavailable only."""

    def get(self, uri: str, most_bytes: int = MAX_BYTES) -> bytes | None: ...
    def get_range(self, uri: str, start: int, size_bytes: int) -> bytes | None: ...
    def put(self, uri: str, data: bytes) -> None: ...
    def put_if_absent(self, uri: str, data: bytes) -> bool: ...
    def delete(self, uri: str) -> None: ...
    def exists(self, uri: str) -> bool: ...
    def is_empty(self, uri: str) -> bool: ...
    def signed_url(self, uri: str, lifetime_s: int) -> str: ...


class Store:
    """Every store behind one interface; the URI's scheme chooses."""

    def __init__(
        self, credentials: CredentialsFile | None = None, *, s3: "S3Backing | None" = None, threads: ThreadPoolExecutor | None = None
    ) -> None:
        self.credentials = credentials or CredentialsFile()
        self._backings: dict[str, Backing] = {"file": FileBacking(), "s3": s3 or S3Backing()}
        self._threads = threads or ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="store")
        self._of_tenants = OrderedDict[StoreCredentials, Store]()

    def of(self, reference: str) -> "Store":
        """The store as these credentials reach it; `""` are the service's own. Raises Unavailable when they are not known.

        Look it up each time: what a reference stands for may change.
        """
        if not reference:
            return self
        credentials = self.credentials.get(reference)
        known = self._of_tenants.pop(credentials, None) or Store(self.credentials, s3=S3Backing(credentials), threads=self._threads)
        self._of_tenants[credentials] = known
        if len(self._of_tenants) > MAX_TENANTS:
            self._of_tenants.popitem(last=False)
        return known

    def within(self, folder: str) -> "Store":
        """The store for objects below that folder: of one on disk, no symbolic link leads out. Without it, an object's own folder is
        taken for it, so only a link in the object's own place is told."""
        if not folder.startswith("file://"):
            return self
        view = copy.copy(self)
        view._backings = {**self._backings, "file": FileBacking(folder)}
        return view

    def env_of(self, reference: str) -> dict[str, str]:
        """Those credentials as a run gets them; empty for the service's own. Raises as `of` does."""
        return self.credentials.get(reference).env if reference else {}

    async def get(self, uri: str, *, most_bytes: int = MAX_BYTES) -> bytes | None:
        """The object's bytes; None when there is no such object. Raises StoreError (OBJECT_TOO_LARGE) before it reads more."""
        return await self._call(self._of(uri).get, uri, most_bytes)

    async def get_range(self, uri: str, start: int, size_bytes: int) -> bytes | None:
        """Bytes of the object from `start` on, fewer at its end; None when there is no such object."""
        return await self._call(self._of(uri).get_range, uri, start, size_bytes)

    async def put(self, uri: str, data: bytes) -> None:
        """Writes the object whole, over an older one."""
        await self._call(self._of(uri).put, uri, data)

    async def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Writes the object unless there is one; False when there is (If-None-Match: *)."""
        return await self._call(self._of(uri).put_if_absent, uri, data)

    async def delete(self, uri: str) -> None:
        """Deletes the object, if there is one."""
        await self._call(self._of(uri).delete, uri)

    async def exists(self, uri: str) -> bool:
        """Whether there is such an object."""
        return await self._call(self._of(uri).exists, uri)

    async def is_empty(self, uri: str) -> bool:
        """Whether nothing lies under the folder `uri`."""
        return await self._call(self._of(uri).is_empty, uri)

    async def regions(self, uris: Iterable[str]) -> dict[str, str]:
        """Where the buckets of these URIs are, of those that are not in the usual region. Never raises: one that does not tell is left
        out, and what is wrong with it comes out when it is used."""
        buckets = sorted({bucket_of(uri) for uri in uris if uri.startswith("s3://")})
        s3 = cast(S3Backing, self._backings["s3"])
        found = await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(self._threads, s3.region, bucket) for bucket in buckets))
        return {bucket: region for bucket, region in zip(buckets, found, strict=True) if region is not None}

    def signed_url(self, uri: str, lifetime_s: int) -> str:
        """A URL that reads the object without credentials, for a while. Blocks, for the work of a signature, and asks nobody.

        Raises StoreError (CANNOT_SIGN) for a kind of store that has no such URLs.
        """
        return self._of(uri).signed_url(uri, lifetime_s)

    async def _call(self, method: Callable[..., _Result], *arguments: Any) -> _Result:
        try:
            with outside_call("store", method.__name__), counting_operators_faults("store"):
                async with asyncio.timeout(CALL_WITHIN_S):
                    return await asyncio.get_running_loop().run_in_executor(self._threads, method, *arguments)
        except TimeoutError:
            raise Unavailable(f"the store did not answer within {CALL_WITHIN_S:.0f} s", reason="STORE_UNREACHABLE") from None

    def _of(self, uri: str) -> Backing:
        scheme = uri.split("://", 1)[0]
        if scheme not in self._backings:
            raise StoreError(f"{uri}: no such kind of store; use s3:// or file://", reason="BAD_URI")
        return self._backings[scheme]


def bucket_of(uri: str) -> str:
    """The bucket that an `s3://` URI names."""
    return uri.removeprefix("s3://").partition("/")[0]


class S3Backing:
    """`s3://bucket/key`. boto3 is imported on first use: it takes most of a second, and file:// needs none of it."""

    def __init__(self, credentials: StoreCredentials | None = None) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        self._client: Any = None
        self._regions: dict[str, str] = {}  # by bucket

    def get(self, uri: str, most_bytes: int = MAX_BYTES) -> bytes | None:
        def whole(s3: Any, where: dict[str, str]) -> bytes:
            response = s3.get_object(**where)
            with closing(response["Body"]) as body:
                return read_whole(uri, body, response.get("ContentLength", 0), most_bytes)

        return self._call(uri, whole)

    def get_range(self, uri: str, start: int, size_bytes: int) -> bytes | None:
        def part(s3: Any, where: dict[str, str]) -> bytes:
            with closing(s3.get_object(**where, Range=f"bytes={start}-{start + size_bytes - 1}")["Body"]) as body:
                return read(uri, body, size_bytes)

        try:
            return self._call(uri, part)
        except StoreError as error:
            if error.reason == BEHIND_THE_END:
                return b""
            raise

    def put(self, uri: str, data: bytes) -> None:
        self._call(uri, lambda s3, where: s3.put_object(**where, Body=data))

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        try:
            self._call(uri, lambda s3, where: s3.put_object(**where, Body=data, IfNoneMatch="*"))
        except StoreError as error:
            if error.reason == ALREADY_THERE:
                return False
            raise
        return True

    def delete(self, uri: str) -> None:
        self._call(uri, lambda s3, where: s3.delete_object(**where))

    def exists(self, uri: str) -> bool:
        return self._call(uri, lambda s3, where: s3.head_object(**where)) is not None

    def is_empty(self, uri: str) -> bool:
        def first(s3: Any, where: dict[str, str]) -> Any:
            prefix = f"{where['Key']}/" if where["Key"] else ""
            return s3.list_objects_v2(Bucket=where["Bucket"], Prefix=prefix, MaxKeys=1)

        answer = self._call(uri, first)
        return answer is None or answer["KeyCount"] == 0

    def signed_url(self, uri: str, lifetime_s: int) -> str:
        def sign(s3: Any, where: dict[str, str]) -> str:
            return s3.generate_presigned_url("get_object", Params=where, ExpiresIn=lifetime_s)

        return self._call(uri, sign)

    def region(self, bucket: str) -> str | None:
        """The region of a bucket that is not in the usual one; asked once. None: in the usual one, or not to be had.

        This client follows a bucket to its region by itself, others do not.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if bucket not in self._regions:
                self._regions[bucket] = _region(self._connected(), bucket)
            usual = _settings().region
        except (BotoCoreError, ClientError, LorafleetError):
            return None
        return None if self._regions[bucket] in {"", usual} else self._regions[bucket]

    def time_s(self, uri: str) -> float:
        """The store's clock, in whole seconds since the epoch: the date of an answer of it."""
        answer = self._call(uri, lambda s3, where: s3.list_objects_v2(Bucket=where["Bucket"], MaxKeys=1))
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    def _call(self, uri: str, call: Callable[[Any, dict[str, str]], Any]) -> Any:
        """Calls S3; None when there is no such object."""
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            return call(self._connected(), {"Bucket": bucket, "Key": key.rstrip("/")})
        except ClientError as error:
            if (told := conditional(error.response)) is not None:
                raise told from None
            fault = of_response(error)
            if fault is store_faults.OBJECT_MISSING:
                return None
            _refuse(bucket, fault, error)
        except BotoCoreError as error:
            _unreachable(bucket, error)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _client(self._credentials)
            return self._client


def _client(credentials: StoreCredentials | None) -> Any:
    import boto3

    session = boto3.Session() if credentials is None else _session(credentials)
    return _settings().boto3_client(
        session,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=MAX_CALLS,
        retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
    )


def _region(s3: Any, bucket: str) -> str:
    """From the answer to HeadBucket, a refusal too; else from GetBucketLocation, which fewer may ask. Empty: where it was asked.

    What does not send the caller elsewhere is taken for the place: other stores than S3 have locations that are no regions.
    """
    from botocore.exceptions import ClientError

    try:
        answer: Any = s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    if told := answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region"):
        return told
    if answer["ResponseMetadata"]["HTTPStatusCode"] not in _ELSEWHERE:
        return ""
    location: str = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or ""
    return _OLDEST.get(location, location)


def _settings() -> S3Settings:
    try:
        return S3Settings.of()
    except InvalidInput as error:  # the operators' mistake, and not the caller's
        raise StoreError(error.message, reason="STORE_ERROR") from None


def _session(credentials: StoreCredentials) -> Any:
    import boto3

    return boto3.Session(credentials.access_key_id, credentials.secret_access_key, credentials.session_token or None)


def _refuse(bucket: str, fault: Fault, error: Any) -> NoReturn:
    code = error.response["Error"].get("Code", "")
    raise raised(f'bucket "{bucket}": {fault.what} ({code})', fault) from None


def _unreachable(bucket: str, error: Exception) -> NoReturn:
    fault = store_faults.of_exception(type(error).__name__)
    if fault is store_faults.NO_ANSWER:
        where = _settings().endpoint or "AWS"
        what = f"the store at {where} does not answer ({type(error).__name__}) for bucket"
        raise Unavailable(f'{what} "{bucket}"; check AWS_ENDPOINT_URL and try again', reason="STORE_UNREACHABLE") from None
    raise raised(f'bucket "{bucket}": {fault.what} ({type(error).__name__})', fault) from None
