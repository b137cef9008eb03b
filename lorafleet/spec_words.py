"""Checks single words of a spec: URIs, names of modules, labels and files. Each check answers the word, or says what is wrong."""

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

MAX_OUTPUT_NAME = 100
MAX_URI = 2000  # bytes: a key of S3 has 1024, an entry of a PostgreSQL index 2704
MAX_MODULE_NAME = 200
RESOURCE_ID = r"[a-z][a-z0-9-]{0,39}"  # of a job, a tenant or an adapter
VERSION = rf"{RESOURCE_ID}(@{RESOURCE_ID}|/versions/[1-9][0-9]{{0,8}})"  # of an adapter: by an alias, or a number
_LABEL_KEY = re.compile(r"[a-z]([a-z0-9_.-]{0,61}[a-z0-9])?")
_MODULE_NAME = re.compile(r"\w[\w-]*(\.\w[\w-]*)*", re.ASCII)  # Z-Image has a layer "2-1"
_PATTERN = re.compile(r"[\w*][\w*-]*(\.[\w*][\w*-]*)*", re.ASCII)
_PART_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_OUTPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))})  # Windows'
_URI = re.compile(r"(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|file:///.*)")


def check_uri(uri: str) -> str:
    if len(uri) > MAX_URI or len(uri.encode(errors="replace")) > MAX_URI:
        raise PydanticCustomError("uri", "{uri}… is longer than {most} bytes", {"uri": repr(uri[:80]), "most": MAX_URI})
    if not _URI.fullmatch(uri):
        raise PydanticCustomError("uri", "{uri} is not a store URI; write s3://bucket/prefix or file:///folder", {"uri": repr(uri)})
    path = uri.split("://", 1)[1]
    if any(part in {"..", "."} for part in path.split("/")) or re.search(r"[\x00-\x1f\\%?#]|//", path):
        raise PydanticCustomError(
            "uri", "{uri} has '..', '.', '//', '%', '?', '#', a backslash or a control character in its path", {"uri": repr(uri)}
        )
    return uri.rstrip("/")


def _check_output_name(name: str) -> str:
    """A name that is a file's on every system, without its ending."""
    if len(name) > MAX_OUTPUT_NAME:
        raise PydanticCustomError("name", "is longer than {most} characters", {"most": MAX_OUTPUT_NAME})
    if not _OUTPUT_NAME.fullmatch(name) or ".." in name or name.endswith("."):
        message = "{name} is no safe file name: letters, digits, '-', '_' and single '.' within, beginning with a letter or digit"
        raise PydanticCustomError("name", message, {"name": repr(name)})
    if name.lower().endswith(".safetensors"):
        raise PydanticCustomError("name", "{name}: leave the ending off, it is added", {"name": repr(name)})
    if name.lower().partition(".")[0] in _DEVICES:
        raise PydanticCustomError("name", "{name} is the name of a device on Windows; choose another", {"name": repr(name)})
    return name


def _check_adapter_id(adapter_id: str) -> str:
    if re.fullmatch(RESOURCE_ID, adapter_id) is None:
        raise PydanticCustomError("id", "{id} is not 1 to 40 of a-z, 0-9 and '-', starting with a letter", {"id": repr(adapter_id[:80])})
    return adapter_id


def _check_job(name: str) -> str:
    if re.fullmatch(rf"(tenants/{RESOURCE_ID}/jobs/|jobs/)?{RESOURCE_ID}", name) is None:
        raise PydanticCustomError("job", "{name} is no job; write its id, or tenants/TENANT/jobs/JOB", {"name": repr(name[:80])})
    return name


def _check_version(name: str) -> str:
    if len(name) > MAX_URI or re.fullmatch(rf"(tenants/{RESOURCE_ID}/adapters/|adapters/)?{VERSION}", name) is None:
        message = "{name} is no version of an adapter; write ADAPTER@ALIAS or ADAPTER/versions/NUMBER, or its whole name"
        raise PydanticCustomError("version", message, {"name": repr(name[:80])})
    return name


def _check_module(name: str) -> str:
    if not is_module_name(".".join("any" if step == "*" else step for step in name.split("."))):
        raise PydanticCustomError("module", "{name} is not a module name", {"name": repr(name)})
    return name


def is_module_name(name: str) -> bool:
    return len(name) <= MAX_MODULE_NAME and _MODULE_NAME.fullmatch(name) is not None


def is_part_name(name: str) -> bool:
    return _PART_NAME.fullmatch(name) is not None


def _check_part(name: str) -> str:
    if not is_part_name(name):
        raise PydanticCustomError("part", "{name} is no name of a part, such as vae or text_encoder_2", {"name": repr(name[:80])})
    return name


def _check_pattern(pattern: str) -> str:
    if len(pattern) > MAX_MODULE_NAME or not _PATTERN.fullmatch(pattern):
        message = "{pattern} is no pattern of a path: names of modules with dots between them, and * for anything"
        raise PydanticCustomError("pattern", message, {"pattern": repr(pattern[:80])})
    return pattern


def _check_label(key: str) -> str:
    if not _LABEL_KEY.fullmatch(key):
        raise PydanticCustomError("label", "a key is 1 to 63 of a-z, 0-9, '_', '.', '-', and starts with a letter")
    return key


def check_text(text: str) -> str:
    """Databases and tools end a text at a NUL, or refuse it."""
    if "\x00" in text:
        raise PydanticCustomError("text", "has a NUL character in it")
    return text


Text = Annotated[str, AfterValidator(check_text)]
AdapterId = Annotated[str, AfterValidator(_check_adapter_id)]
JobReference = Annotated[str, AfterValidator(_check_job)]
VersionReference = Annotated[str, AfterValidator(_check_version)]
OutputName = Annotated[str, AfterValidator(_check_output_name)]
ModuleName = Annotated[str, AfterValidator(_check_module)]
PartName = Annotated[str, AfterValidator(_check_part)]
Pattern = Annotated[str, AfterValidator(_check_pattern)]
LabelKey = Annotated[str, AfterValidator(_check_label)]
