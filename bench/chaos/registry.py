"""Adapters beside jobs: callers move an alias of their tenant's adapter; what the records say of versions and moves, as pure functions."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Event

from bench.chaos.database import FleetDatabase
from lorafleet.client import Client
from lorafleet.errors import Aborted, NotFound

STYLE, ALIAS = "style", "production"  # of each tenant: all its jobs are versions of one adapter

Move = tuple[int, int]  # number before and after; 0: none


@dataclass(frozen=True, kw_only=True)
class Shelves:
    """What the database holds."""

    versions: Sequence[tuple[str, int, str]]  # adapter, number, job
    moves: Mapping[str, Sequence[Move]]  # by adapter, oldest first
    aliases: Mapping[str, int]  # by adapter


def keep_moving(client: Client, draw: random.Random, over: Event) -> Iterator[Move]:
    """Moves that were answered. Another caller moves the same alias: of two at once one is refused, and looks again."""
    while not over.wait(draw.uniform(0.3, 1.5)):
        try:
            adapter = client.get_adapter(STYLE)
            before, after = adapter.aliases.get(ALIAS, 0), draw.randint(1, max(adapter.newest_version, 1))
            if before != after:
                client.set_adapter_alias(STYLE, ALIAS, after, expected_version=before)
                yield before, after
        except (NotFound, Aborted):  # no job has succeeded yet, or the other was first
            continue


def read(database: FleetDatabase) -> Shelves:
    """Past every proxy."""
    rows = database.rows("SELECT tenant, adapter_id, number, job_id FROM adapter_versions ORDER BY tenant, adapter_id, number")
    moves: dict[str, list[Move]] = {}
    told = database.rows("SELECT tenant, adapter_id, data FROM adapter_events WHERE kind = 'alias.moved' ORDER BY seq")
    for tenant, adapter_id, data in told:
        after = int(data["version"].rpartition("/")[2])
        moves.setdefault(f"tenants/{tenant}/adapters/{adapter_id}", []).append((data["previous_version"], after))
    pointing = database.rows("SELECT tenant, adapter_id, number FROM adapter_aliases JOIN adapters ON uid = adapter_uid")
    return Shelves(
        versions=[
            (f"tenants/{tenant}/adapters/{adapter}", number, f"tenants/{tenant}/jobs/{job}") for tenant, adapter, number, job in rows
        ],
        moves=moves,
        aliases={f"tenants/{tenant}/adapters/{adapter}": number for tenant, adapter, number in pointing},
    )


def lost(shelves: Shelves, states: Mapping[str, str], answered: Mapping[str, Sequence[Move]]) -> list[str]:
    """Versions that jobs have not, numbers that are left out, and moves that were answered and are not in the log."""
    made = {job for _, _, job in shelves.versions}
    done = [job for job, state in states.items() if state == "SUCCEEDED" and "/generations/" not in job]  # whose pictures are none
    told = [f"{job} has SUCCEEDED and is no version" for job in done if job not in made]
    for adapter in sorted({adapter for adapter, _, _ in shelves.versions}):
        numbers = [number for name, number, _ in shelves.versions if name == adapter]
        if numbers != [*range(1, len(numbers) + 1)]:
            told.append(f"{adapter} has the versions {numbers}")
    for adapter, moves in answered.items():
        known = shelves.moves.get(adapter, [])
        if known and known[0][0] == 0:  # else the log is not kept that far back
            told += [f"{adapter}: {move} was answered and is not in the log" for move in moves if move not in known]
    return told


def doubled(shelves: Shelves, states: Mapping[str, str]) -> list[str]:
    """Jobs with several versions, or with one that they should not have; moves that do not begin where the one before ended."""
    jobs = [job for _, _, job in shelves.versions]
    told = [f"{job} is {jobs.count(job)} versions" for job in sorted(set(jobs)) if jobs.count(job) > 1]
    told += [f"{job} is {states.get(job)} and a version" for job in jobs if states.get(job) != "SUCCEEDED"]
    for adapter, moves in shelves.moves.items():
        told += [f"{adapter}: {one} and then {other}" for one, other in pairwise(moves) if one[1] != other[0]]
        if moves[-1][1] != shelves.aliases.get(adapter):
            told.append(f"{adapter}: the alias points to {shelves.aliases.get(adapter)}, and was moved to {moves[-1][1]}")
    return told
