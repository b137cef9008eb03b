"""Writes webhooks as text: plain values for programs, tables for people. Pure."""

from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format

from lorafleet import tables
from lorafleet.output import when
from lorafleet.v1 import webhook_service_pb2 as pb

WEBHOOKS = (
    tables.name("WEBHOOK"),
    tables.state("STATE"),
    tables.number("FAILURES", leaves=2),
    tables.value("DELIVERED", leaves=3),
    tables.prose("URL"),
    tables.message("MESSAGE"),
)


def plain(message: pb.Webhook | pb.CreateWebhookResponse) -> dict[str, Any]:
    """By the proto's names."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def webhooks(found: Iterable[pb.Webhook]) -> tables.Table:
    rows = (
        (each.name.rpartition("/")[2], state(each), str(each.failures or ""), when(each.deliver_time), each.url, each.message)
        for each in found
    )
    return tables.Table(WEBHOOKS, rows)


def details(webhook: pb.Webhook) -> tables.Table:
    """One webhook, a line for each thing that is known of it."""
    return tables.details(
        [
            ("name", webhook.name),
            ("url", webhook.url),
            ("events", ", ".join(webhook.event_types) or "all"),
            ("state", state(webhook)),
            ("failures", str(webhook.failures or "")),
            ("message", webhook.message),
            ("tried again", when(webhook.retry_time)),
            ("delivered", when(webhook.deliver_time)),
            ("created by", webhook.created_by),
            ("created", when(webhook.create_time)),
        ]
    )


def state(webhook: pb.Webhook) -> str:
    return pb.WebhookState.Name(webhook.state).removeprefix("WEBHOOK_STATE_")
