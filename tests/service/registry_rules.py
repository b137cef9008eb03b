"""What the state machine does to the registry beside jobs: aliases move, versions are deleted, brought back and purged."""

from collections.abc import Coroutine
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import update

from lorafleet.errors import LorafleetError
from lorafleet.v1 import adapter_service_pb2 as apb
from lorafleet.v1 import report_service_pb2 as rpb
from service.access.identity import Identity, Role
from service.api.lists.adapters import list_versions
from service.core.resource_names import AdapterName, AliasName, VersionName
from service.db import quotas
from service.db.database import Database
from service.db.registry_models import AdapterVersionRow
from service.reconcile.purge import purge_once
from service.registry.aliases import AliasMove, delete_alias, set_alias
from service.registry.deletion import delete_version, undelete_version
from service.registry.looking import get_adapter
from tests.service.registry_model import BYTES, ModelAdapter, ModelVersion
from tests.service.world import World, succeeded

ADAPTER = AdapterName("acme", "den")  # all jobs' artifacts are its versions
ANN = Identity(principal="user:ann", role=Role.ADMIN)
ALIASES, NUMBERS = st.sampled_from(["production", "candidate"]), st.integers(1, 4)


def trained() -> rpb.RunEvent:
    event = succeeded()
    event.ended.artifact.size_bytes = BYTES
    return event


class RegistryRules(RuleBasedStateMachine):
    """Rules of one adapter, which its machine's jobs have all their artifacts in."""

    db: Database
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.adapter = ModelAdapter()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        raise NotImplementedError

    def registers(self, job: str) -> None:
        """The job has succeeded just now."""
        self.adapter.versions.append(ModelVersion(job))

    @rule(alias=ALIASES, number=NUMBERS, expected=st.sampled_from([None, 0, 1, 2]))
    def move_alias(self, alias: str, number: int, expected: int | None) -> None:
        move = AliasMove(name=AliasName(ADAPTER, alias), number=number, expected=expected)
        self._answers(set_alias(self.db, move, ANN), self.adapter.move(alias, number, expected))

    @rule(alias=ALIASES)
    def take_alias_away(self, alias: str) -> None:
        self._answers(delete_alias(self.db, AliasName(ADAPTER, alias), "", ANN), self.adapter.take_away(alias))

    @rule(number=NUMBERS)
    def delete_a_version(self, number: int) -> None:
        self._answers(delete_version(self.db, VersionName(ADAPTER, number), ANN), self.adapter.delete(number))

    @rule(number=NUMBERS)
    def undelete_a_version(self, number: int) -> None:
        self._answers(undelete_version(self.db, VersionName(ADAPTER, number), ANN), self.adapter.undelete(number))

    @rule()
    def purge_what_is_deleted(self) -> None:
        """As if its 30 days were over."""

        async def purge() -> None:
            async with self.db.transaction() as tx:
                due = AdapterVersionRow.purge_at.is_not(None)
                await tx.session.execute(update(AdapterVersionRow).where(due).values(purge_at=tx.now))
            while await purge_once(self.world.tools):
                pass

        self.run(purge())
        self.adapter.purge()

    def _answers(self, call: Coroutine[Any, Any, Any], error: str) -> None:
        try:
            self.run(call)
            found = ""
        except LorafleetError as refused:
            found = type(refused).__name__
        assert found == error

    @invariant()
    def every_version_is_there_once_and_no_alias_points_to_a_deleted_one(self) -> None:
        versions, pointing, stored = self.run(self._registry())
        modelled = [(number, each.job, each.deleted, each.purged) for number, each in enumerate(self.adapter.versions, 1)]
        assert versions == modelled
        assert pointing == self.adapter.aliases
        assert not any(self.adapter.versions[number - 1].deleted for number in pointing.values())
        assert stored == self.adapter.stored_bytes

    async def _registry(self) -> tuple[list[tuple[int, str, bool, bool]], dict[str, int], int]:
        if not self.adapter.versions:
            return [], {}, await self._stored_bytes()
        request = apb.ListAdapterVersionsRequest(parent=str(ADAPTER), show_deleted=True, page_size=1000)
        page = (await list_versions(self.db, request)).adapter_versions
        purged = apb.ADAPTER_VERSION_STATE_PURGED
        found = [(each.number, each.job, each.HasField("delete_time"), each.state == purged) for each in reversed(page)]
        return found, dict((await get_adapter(self.db, ADAPTER)).aliases), await self._stored_bytes()

    async def _stored_bytes(self) -> int:
        async with self.db.snapshot() as tx:
            return await quotas.stored_bytes(tx, "acme")
