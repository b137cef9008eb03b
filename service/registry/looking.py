"""Shows one adapter, or one version."""

from lorafleet.v1 import adapter_service_pb2 as pb
from service.core.resource_names import AdapterName, AliasName, VersionName
from service.db import adapters, aliases
from service.db.database import Database
from service.registry.aliases import resolved
from service.registry.messages import adapter_message, version_message
from service.registry.reading import existing


async def get_adapter(db: Database, name: AdapterName) -> pb.Adapter:
    """Raises NotFound."""
    async with db.snapshot() as tx:
        row = await existing(tx, name)
        return adapter_message(row, await aliases.of_adapter(tx, row))


async def get_version(db: Database, name: VersionName | AliasName) -> pb.AdapterVersion:
    """With its files. Raises NotFound."""
    async with db.snapshot() as tx:
        row = await resolved(tx, name)
        pointing = await aliases.of_adapters(tx, [row.adapter_uid])
        return version_message(row, pointing[row.adapter_uid], await adapters.files_of(tx, row))
