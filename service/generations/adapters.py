"""The adapters of the registry that a generation names: found once, when it is created, and kept as what they were then."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lorafleet.errors import FailedPrecondition, InvalidSpec, Violation
from lorafleet.work.generation import Resolved, ServedGeneration, ServedUse
from service.core.resource_names import parse_version
from service.db import named_versions
from service.db.database import Database
from service.db.named_versions import Found, Reference


@dataclass(frozen=True, kw_only=True)
class Version:
    """What a name stands for, and what is known of it."""

    resolved: Resolved
    family: str  # empty: not known yet
    base_digest: str  # empty: not known yet


async def versions_of(db: Database, tenant: str, spec: ServedGeneration) -> dict[str, Version]:
    """The version that each name stands for. Raises NotFound, as for another tenant's, and FailedPrecondition for one that cannot draw."""
    names = {use.uri: (field, _reference(tenant, use, field)) for field, use in reversed(spec.uses) if use.is_version}
    async with db.snapshot() as tx:
        found = await named_versions.find(tx, tenant, {name for _, name in names.values()})
    return {uri: _version(found.get(name), tenant, name, field) for uri, (field, name) in sorted(names.items())}


def _reference(tenant: str, use: ServedUse, field: str) -> Reference:
    return parse_version(use.uri if use.uri.startswith("tenants/") else f"tenants/{tenant}/{use.uri}", field)


def _version(found: Found | None, tenant: str, name: Reference, field: str) -> Version:
    if found is None:
        raise named_versions.not_found(field, name, tenant)
    _, row = found
    if (unusable := named_versions.unusable(found)) is not None:
        what, why = unusable
        raise FailedPrecondition(f"{field}: {row.name} {why}", reason=f"ADAPTER_VERSION_{what}")
    place = Resolved(version=row.name, folder=row.artifact_uri, manifest_sha256=row.manifest_sha256)
    return Version(resolved=place, family=row.family, base_digest=row.base_digest)


def check_fit(spec: ServedGeneration, versions: Mapping[str, Version]) -> None:
    """Whether one base can draw with all of them, as far as that is known: the run reads the base itself. Raises InvalidSpec."""
    if wrong := [*_other_families(spec, versions), *_other_bases(spec, versions)]:
        raise InvalidSpec(wrong)


def _other_families(spec: ServedGeneration, versions: Mapping[str, Version]) -> Iterator[Violation]:
    family, whose = spec.base_model.family or "", "the base"
    for field, use in spec.uses:
        version = versions.get(use.uri)
        if version is None or not version.family:
            continue
        if not family:
            family, whose = version.family, version.resolved.version
        elif version.family != family:
            yield Violation(field=field, message=f"{version.resolved.version} is of the family {version.family}, and {whose} of {family}")


def _other_bases(spec: ServedGeneration, versions: Mapping[str, Version]) -> Iterator[Violation]:
    digest, whose = "", ""
    for field, use in spec.uses:
        version = versions.get(use.uri)
        if version is None or not version.base_digest or spec.force:
            continue
        if not digest:
            digest, whose = version.base_digest, version.resolved.version
        elif version.base_digest != digest:
            message = f"{version.resolved.version} was trained on the base {version.base_digest}, and {whose} on {digest}"
            yield Violation(field=field, message=f"{message}: no base is both; force draws all the same, where shapes fit")
