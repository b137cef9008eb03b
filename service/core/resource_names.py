"""Parses and writes resource names (AIP-122): tenants/{tenant}, and below it jobs/{job}, batches/{batch}, generations/{generation},
adapters/{adapter} and adapters/{adapter}/versions/{version}."""

import re
from dataclasses import dataclass
from uuid import UUID

from lorafleet import work
from lorafleet.errors import InvalidInput, Violation
from lorafleet.spec_words import RESOURCE_ID

_ID = RESOURCE_ID
_TENANT = re.compile(rf"tenants/(?P<tenant>{_ID})")
_BATCH_ID = r"[a-z][a-z0-9-]{0,29}"  # shorter: the ids of its jobs begin with it
_BATCH = re.compile(rf"tenants/(?P<tenant>{_ID})/batches/(?P<batch>{_BATCH_ID})")
_JOB = re.compile(rf"tenants/(?P<tenant>{_ID})/jobs/(?P<job>{_ID})")
_GENERATION = re.compile(rf"tenants/(?P<tenant>{_ID})/(?P<id>generations/{_ID})")
_ADAPTER = re.compile(rf"tenants/(?P<tenant>{_ID})/adapters/(?P<adapter>{_ID})")
_ALIAS = re.compile(rf"{_ADAPTER.pattern}@(?P<alias>{_ID})")
_VERSION = re.compile(rf"{_ADAPTER.pattern}/versions/(?P<version>[1-9][0-9]{{0,8}})")


@dataclass(frozen=True)
class JobName:
    """tenants/{tenant}/jobs/{job}; of other work than jobs `job_id` begins with the collection."""

    tenant: str
    job_id: str

    def __str__(self) -> str:
        return work.name_of(self.tenant, self.job_id)


@dataclass(frozen=True)
class BatchName:
    """tenants/{tenant}/batches/{batch}."""

    tenant: str
    batch_id: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/batches/{self.batch_id}"


@dataclass(frozen=True)
class AdapterName:
    """tenants/{tenant}/adapters/{adapter}."""

    tenant: str
    adapter_id: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/adapters/{self.adapter_id}"


@dataclass(frozen=True)
class VersionName:
    """tenants/{tenant}/adapters/{adapter}/versions/{version}."""

    adapter: AdapterName
    number: int

    def __str__(self) -> str:
        return f"{self.adapter}/versions/{self.number}"


@dataclass(frozen=True)
class AliasName:
    """tenants/{tenant}/adapters/{adapter}@{alias}."""

    adapter: AdapterName
    alias: str

    def __str__(self) -> str:
        return f"{self.adapter}@{self.alias}"


def parse_tenant(name: str, field: str = "parent") -> str:
    """The tenant's id. Raises InvalidInput."""
    if (match := _TENANT.fullmatch(name)) is None:
        raise invalid(field, f"{name!r} is not a tenant; write tenants/TENANT, of a-z, 0-9 and '-', starting with a letter")
    return match["tenant"]


def parse_job(name: str, field: str = "name") -> JobName:
    """The job's name. Raises InvalidInput."""
    if (match := _JOB.fullmatch(name)) is None:
        raise invalid(field, f"{name!r} is not a job; write tenants/TENANT/jobs/JOB")
    return JobName(match["tenant"], match["job"])


def parse_generation(name: str, field: str = "name") -> JobName:
    """The generation's name. Raises InvalidInput."""
    if (match := _GENERATION.fullmatch(name)) is None:
        raise invalid(field, f"{name[:200]!r} is not a generation; write tenants/TENANT/generations/GENERATION")
    return JobName(match["tenant"], match["id"])


def parse_batch(name: str, field: str = "name") -> BatchName:
    """The batch's name. Raises InvalidInput."""
    if (match := _BATCH.fullmatch(name)) is None:
        raise invalid(field, f"{name!r} is not a batch; write tenants/TENANT/batches/BATCH")
    return BatchName(match["tenant"], match["batch"])


def parse_adapter(name: str, field: str = "name") -> AdapterName:
    """The adapter's name. Raises InvalidInput."""
    if (match := _ADAPTER.fullmatch(name)) is None:
        raise invalid(field, f"{name[:200]!r} is not an adapter; write tenants/TENANT/adapters/ADAPTER")
    return AdapterName(match["tenant"], match["adapter"])


def parse_alias(name: str, field: str = "name") -> AliasName:
    """The name of an alias. Raises InvalidInput."""
    if (match := _ALIAS.fullmatch(name)) is None:
        raise invalid(field, f"{name[:200]!r} is not an alias; write tenants/TENANT/adapters/ADAPTER@ALIAS")
    return AliasName(AdapterName(match["tenant"], match["adapter"]), match["alias"])


def parse_version(name: str, field: str = "name") -> VersionName | AliasName:
    """The name of a version, by its number or by an alias. Raises InvalidInput."""
    if _ALIAS.fullmatch(name) is not None:
        return parse_alias(name, field)
    return parse_number(name, field, hint=", or tenants/TENANT/adapters/ADAPTER@ALIAS")


def parse_number(name: str, field: str = "name", *, hint: str = "") -> VersionName:
    """The name of a version by its number. Raises InvalidInput."""
    if (match := _VERSION.fullmatch(name)) is None:
        raise invalid(field, f"{name[:200]!r} is not a version; write tenants/TENANT/adapters/ADAPTER/versions/NUMBER{hint}")
    return VersionName(AdapterName(match["tenant"], match["adapter"]), int(match["version"]))


def parse_held(name: str, kind: str, field: str = "name") -> tuple[str, str]:
    """Tenant and id of tenants/{tenant}/{kind}/{id}, as of a token or a reservation. Raises InvalidInput."""
    match = re.fullmatch(rf"tenants/(?P<tenant>{_ID})/{kind}/(?P<id>[a-z0-9][a-z0-9-]{{0,39}})", name)
    if match is None:
        raise invalid(field, f"{name[:200]!r} is not tenants/TENANT/{kind}/ID")
    return match["tenant"], match["id"]


def check_batch_id(batch_id: str, field: str) -> str:
    """The id itself. Raises InvalidInput."""
    if re.fullmatch(_BATCH_ID, batch_id) is None:
        raise invalid(field, f"{batch_id!r} is not 1 to 30 of a-z, 0-9 and '-', starting with a letter")
    return batch_id


def check_job_id(job_id: str, field: str = "training_job_id") -> str:
    """The id itself. Raises InvalidInput."""
    if re.fullmatch(_ID, job_id) is None:
        raise invalid(field, f"{job_id!r} is not 1 to 40 of a-z, 0-9 and '-', starting with a letter")
    return job_id


def parse_request_id(text: str) -> str:
    """In its canonical form, so that two spellings of one UUID are one request. Raises InvalidInput."""
    if not text:
        return ""
    try:
        return str(UUID(text))
    except ValueError:
        raise invalid("request_id", f"{text!r} is no UUID") from None


def invalid(field: str, message: str, *, reason: str | None = None) -> InvalidInput:
    """An InvalidInput about one field of the request."""
    return InvalidInput(f"{field}: {message}", violations=[Violation(field=field, message=message)], reason=reason)
