"""Writes generations as text: plain values for programs, tables for people. Pure."""

from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format

from lorafleet import tables
from lorafleet.output import when
from lorafleet.states import name_of
from lorafleet.v1 import generation_service_pb2 as pb

GENERATIONS = (
    tables.name("GENERATION"),
    tables.state("STATE"),
    tables.number("PICTURES", leaves=1),
    tables.value("CREATED", leaves=3),
    tables.message("MESSAGE"),
)


def plain(generation: pb.Generation) -> dict[str, Any]:
    """By the proto's names."""
    return json_format.MessageToDict(generation, preserving_proto_field_name=True)


def pictures(generation: pb.Generation) -> str:
    """`3 of 16`: once it draws, progress counts pictures."""
    done = generation.num_pictures if generation.HasField("artifact") else 0
    if generation.progress.phase == "drawing":
        done = max(done, generation.progress.step)
    return f"{done} of {generation.num_pictures}"


def generations(found: Iterable[pb.Generation]) -> tables.Table:
    rows = ((_id(each), name_of(each.state), pictures(each), when(each.create_time), each.message) for each in found)
    return tables.Table(GENERATIONS, rows)


def change(generation: pb.Generation) -> str:
    """One line for a log: what is new of it."""
    newest = f", {generation.progress.file}" if generation.progress.file else ""
    why = f": {generation.message}" if generation.message else ""
    return f"{_id(generation)} {name_of(generation.state)}, {pictures(generation)} pictures{newest}{why}"


def details(generation: pb.Generation) -> tables.Table:
    """One generation, a line for each thing that is known of it."""
    adapters = "\n".join(f"{each.name}: {each.version}" for each in generation.resolved_adapters if each.name != each.version)
    return tables.details(
        [
            ("name", generation.name),
            ("state", name_of(generation.state)),
            ("reason", generation.reason),
            ("message", generation.message),
            ("pictures", pictures(generation)),
            ("adapters", adapters),
            ("place in queue", str(generation.queue_position or "")),
            ("attempts", str(len(generation.attempts) or "")),
            ("folder", generation.artifact.uri),
            ("created", when(generation.create_time)),
            ("first picture", when(generation.first_picture_time)),
            ("ended", when(generation.end_time)),
        ]
    )


def _id(generation: pb.Generation) -> str:
    return generation.name.rpartition("/")[2]
