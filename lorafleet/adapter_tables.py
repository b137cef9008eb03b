"""Writes adapters and their versions as text: plain values for programs, tables for people. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format

from lorafleet import tables
from lorafleet.output import when
from lorafleet.v1 import adapter_service_pb2 as pb

ADAPTERS = (
    tables.name("ADAPTER"),
    tables.value("VERSION", leaves=1, right=True),
    tables.value("FAMILY", leaves=3),
    tables.value("METHOD", leaves=4),
    tables.number("RANK", leaves=5),
    tables.value("CREATED", leaves=6),
    tables.prose("ALIASES", leaves=2),
    tables.message("TRIGGER"),
)
VERSIONS = (
    tables.name("VERSION"),
    tables.state("STATE"),
    tables.prose("ALIASES"),
    tables.value("METHOD", leaves=4),
    tables.number("RANK", leaves=5),
    tables.number("SIZE", leaves=2),
    tables.number("HELD-OUT", leaves=3),
    tables.value("CREATED", leaves=1),
    tables.value("JOB", leaves=6),
    tables.prose("PARENTS", leaves=7),
)


def plain(message: pb.Adapter | pb.AdapterVersion | pb.AdapterAlias) -> dict[str, Any]:
    """By the proto's names."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def adapters(found: Iterable[pb.Adapter]) -> tables.Table:
    rows = (
        (
            _id(each.name),
            _number(each.newest_version),
            each.family,
            each.method,
            _number(each.rank),
            when(each.create_time),
            _aliases(each),
            each.trigger,
        )
        for each in found
    )
    return tables.Table(ADAPTERS, rows)


def versions(found: Iterable[pb.AdapterVersion]) -> tables.Table:
    rows = (
        (
            str(each.number),
            "DELETED" if each.HasField("purge_time") else state(each),
            ", ".join(each.aliases),
            each.method,
            _number(each.rank),
            megabytes(each.artifact.size_bytes),
            f"{each.quality['held_out_loss']:.4f}" if "held_out_loss" in each.quality else "",
            when(each.create_time),
            _id(each.job),
            ", ".join(map(_parent, each.made_of)),
        )
        for each in found
    )
    return tables.Table(VERSIONS, rows)


def details(message: pb.Adapter | pb.AdapterVersion) -> tables.Table:
    """One of them, a line for each thing that is known of it."""
    own = _of_adapter(message) if isinstance(message, pb.Adapter) else _of_version(message)
    shared = [
        ("family", message.family),
        ("method", message.method),
        ("rank", _number(message.rank)),
        ("trigger", message.trigger),
        ("base", message.base_digest),
        ("labels", _pairs(message.labels)),
        ("quality", _pairs({name: f"{figure:.4f}" for name, figure in message.quality.items()})),
        ("created", when(message.create_time)),
    ]
    files = [] if isinstance(message, pb.Adapter) else [("file", f"{file.path} ({megabytes(file.size_bytes)})") for file in message.files]
    return tables.details([("name", message.name), *own, *shared, *files])


def state(version: pb.AdapterVersion) -> str:
    return pb.AdapterVersionState.Name(version.state).removeprefix("ADAPTER_VERSION_STATE_")


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes else ""


def _of_adapter(adapter: pb.Adapter) -> list[tuple[str, str]]:
    rule = adapter.retention
    kept = [f"{rule.keep_newest} newest"] if rule.keep_newest else []
    kept += [f"younger than {rule.keep_days} days"] if rule.keep_days else []
    return [
        ("newest version", _number(adapter.newest_version)),
        ("aliases", _aliases(adapter)),
        ("keeps", ", ".join(kept)),
        *_deletion(adapter),
    ]


def _deletion(message: pb.Adapter | pb.AdapterVersion) -> list[tuple[str, str]]:
    return [("deleted", when(message.delete_time)), ("purged from", when(message.purge_time))]


def _aliases(adapter: pb.Adapter) -> str:
    return _pairs({alias: str(number) for alias, number in adapter.aliases.items()})


def _of_version(version: pb.AdapterVersion) -> list[tuple[str, str]]:
    return [
        ("state", state(version)),
        ("aliases", ", ".join(version.aliases)),
        ("message", version.message or version.reason),
        ("artifact", version.artifact.uri),
        ("size", megabytes(version.artifact.size_bytes)),
        ("job", version.job),
        ("source", version.source_uri),
        ("parents", ", ".join(map(_parent, version.made_of))),
        *_deletion(version),
    ]


def _parent(parent: pb.AdapterParent) -> str:
    """As people write it, with what it was multiplied by."""
    where = "/".join(parent.name.split("/")[3:]) or parent.uri
    return f"{where} x {parent.weight:g}" if parent.HasField("weight") else where


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _number(number: int) -> str:
    return str(number) if number else ""


def _pairs(mapping: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(mapping.items()))
