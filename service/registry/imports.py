"""Makes versions of files that were made elsewhere. What can be told from a file's header is told at once; `reconcile/imports.py` copies
it, and looks at every number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated
from uuid import uuid4

from pydantic import AfterValidator, Field, ValidationError

from lorafleet.adapter_files.described import Description
from lorafleet.contract.layout import join, tenant_root
from lorafleet.errors import InvalidInput, NotFound, Violation
from lorafleet.spec import MAX_LABELS
from lorafleet.spec_names import FamilyName
from lorafleet.spec_part import SpecPart
from lorafleet.spec_words import LabelKey, Text, check_uri
from lorafleet.v1 import adapter_service_pb2 as pb
from service.access.identity import Identity
from service.control.adapter_facts import VersionState
from service.control.adapter_parents import MAX_PARENTS, Parent, together
from service.core.resource_names import AdapterName, invalid, parse_version
from service.db import adapters, aliases, audit, named_versions, quotas
from service.db.database import Database
from service.db.named_versions import Reference
from service.db.registry_models import AdapterVersionRow
from service.db.tenants import store_credentials_of
from service.db.transaction import Transaction
from service.registry.messages import version_message
from service.store.adapter_sources import MAX_BYTES, header_of, source_of
from service.store.client import Store, StoreError
from service.tenancy.grants import Grants, Use
from service.untrusted.adapter_headers import read_header
from service.untrusted.parsing import Parser, Unreadable


class _Words(SpecPart):
    """What a request says, as a spec would have it."""

    uri: Annotated[str, AfterValidator(check_uri)]
    family: FamilyName | None
    trigger: Annotated[Text, Field(max_length=1000)]
    labels: Annotated[dict[LabelKey, Annotated[Text, Field(max_length=255)]], Field(max_length=MAX_LABELS)]
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


@dataclass(frozen=True, kw_only=True)
class NewImport:
    """What a caller asks for."""

    name: AdapterName
    uri: str
    family: str = ""
    trigger: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    sha256: str = ""
    parents: Sequence[str] = ()  # names of versions that it was made of
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Imports:
    """The imports of all tenants."""

    db: Database
    store: Store
    parser: Parser
    artifacts_uri: str

    async def start(self, new: NewImport, caller: Identity) -> pb.AdapterVersion:
        """The version, PENDING; the first one again for a repeated request. Raises InvalidInput with what is wrong with the file,
        QuotaExceeded, and Unavailable."""
        if (known := await self._answered(new)) is not None:
            return known
        uri, parents = _checked(new).uri, _parents(new)
        await Grants(self.db, self.artifacts_uri).check(new.name.tenant, [Use("uri", uri)])
        found, num_bytes = await self._looked_at(new, uri)
        async with self.db.transaction() as tx:
            (await quotas.room(tx, new.name.tenant)).take(0)
            adapter = await adapters.open_for_a_version(tx, new.name.tenant, new.name.adapter_id)
            made_of = await _found(tx, new.name.tenant, parents)
            uid = uuid4().hex
            root = join(tenant_root(self.artifacts_uri, new.name.tenant), "imports", uid)
            row = AdapterVersionRow(
                uid=uid,
                adapter_uid=adapter.uid,
                tenant=adapter.tenant,
                adapter_id=adapter.adapter_id,
                number=adapter.last_number,
                source_uri=uri,
                source_sha256=new.sha256,
                request_id=new.request_id or None,
                root_uri=root,
                artifact_uri=join(root, "adapter"),
                manifest_sha256="",
                size_bytes=num_bytes,
                is_ours=True,
                state=VersionState.PENDING.value,
                family=found.families[0],
                method=found.method,
                rank=found.rank,
                trigger=new.trigger,
                base_digest="",
                labels=dict(new.labels),
                quality={},
                parents=made_of or None,
                created_by=caller.principal,
                create_time=tx.now,
                due_at=tx.now,
            )
            adapters.add_version(tx, adapter, row)
            audit.about(row.name)
            await tx.session.flush()
            return version_message(row, await aliases.of_adapter(tx, adapter))

    async def _answered(self, new: NewImport) -> pb.AdapterVersion | None:
        if not new.request_id:
            return None
        async with self.db.snapshot() as tx:
            row = await adapters.version_of_request(tx, new.name.tenant, new.request_id)
            if row is None:
                return None
            if (row.adapter_id, row.source_uri) != (new.name.adapter_id, new.uri.rstrip("/")):
                raise invalid("request_id", "was used for another import", reason="REQUEST_ID_REUSED")
            return version_message(row, (await aliases.of_adapters(tx, [row.adapter_uid]))[row.adapter_uid])

    async def _looked_at(self, new: NewImport, uri: str) -> tuple[Description, int]:
        """What the file is, and its bytes."""
        store = self.store.of(await store_credentials_of(self.db, new.name.tenant))
        source = source_of(uri)
        try:
            async with self.parser.lanes.of(new.name.tenant):
                header = await header_of(store, source)
                found = await read_header(self.parser, header, None, new.family)
        except (StoreError, Unreadable, InvalidInput) as error:
            raise invalid("uri", f"{source.weights}: {error.message}", reason=error.reason) from None
        if len(found.description.families) > 1:
            fits = " and ".join(found.description.families)
            raise invalid("family", f"must say of which family {source.weights} is: it fits {fits}", reason="FAMILY_NOT_TOLD")
        num_bytes = len(header) + 8 + found.num_data_bytes
        if num_bytes > MAX_BYTES:
            raise invalid("uri", f"{source.weights} has {num_bytes:,} bytes; {MAX_BYTES:,} are taken", reason="OBJECT_TOO_LARGE")
        return found.description, num_bytes


def _parents(new: NewImport) -> list[Reference]:
    """Raises InvalidInput."""
    if len(new.parents) > MAX_PARENTS:
        raise invalid("parents", f"names {len(new.parents):,} versions; {MAX_PARENTS} are taken")
    return list(dict.fromkeys(parse_version(name, f"parents[{number}]") for number, name in enumerate(new.parents)))


async def _found(tx: Transaction, tenant: str, names: Sequence[Reference]) -> list[Parent]:
    """With the numbers that aliases stand for now. Raises NotFound."""
    found = await named_versions.find(tx, tenant, names)
    if missing := next((name for name in names if name not in found), None):
        raise NotFound(f"parents: there is no {missing} of tenants/{tenant}", reason="ADAPTER_VERSION_NOT_FOUND")
    rows = [found[name][1] for name in names]
    return together(tenant, [{"name": row.name, **({"digest": row.manifest_sha256} if row.manifest_sha256 else {})} for row in rows])


def _checked(new: NewImport) -> _Words:
    """Raises InvalidInput with everything that is wrong in the request."""
    words = {"uri": new.uri, "family": new.family or None, "trigger": new.trigger, "labels": dict(new.labels), "sha256": new.sha256}
    try:
        return _Words.model_validate(words)
    except ValidationError as error:
        found = [Violation(field=".".join(map(str, each["loc"])), message=each["msg"]) for each in error.errors(include_input=False)]
        raise InvalidInput("\n".join(map(str, found)), violations=found) from None
