"""Sets up the gRPC server: its interceptors in their order, its limits, and how long it lets silence last."""

import asyncio
from typing import Any, cast

import grpc.aio

from service.api.errors import ErrorInterceptor
from service.api.interceptors.auditing import AuditInterceptor
from service.api.interceptors.authentication import AuthenticationInterceptor, WhoCalls
from service.api.interceptors.call_intake import ArrivalInterceptor, IntakeInterceptor
from service.api.interceptors.call_stages import SlotPools
from service.api.interceptors.compression import CompressionInterceptor
from service.api.interceptors.flow_control import FlowInterceptor
from service.api.interceptors.limiting import LimitsInterceptor
from service.api.interceptors.observing import ObservingInterceptor
from service.api.interceptors.rpc_tasks import keep_calls
from service.db.database import Database
from service.settings.serve_settings import CallLimits

MAX_REQUEST_BYTES = 4 * 2**20
MAX_RESPONSE_BYTES = 4 * 2**20  # what clients take unless they say otherwise; pages end earlier: see service.api.lists.paging
# A level and no algorithm: gRPC then takes one that the client has said it takes, and would else send it what it cannot read.
COMPRESSION_LEVEL = 1  # gzip
PING_EVERY_MS = 60_000  # a client that has gone without a word is noticed, and its streams end
PING_ANSWER_MS = 20_000
CLIENT_PINGS_MS = 20_000  # a client that asks more often than this for longer is sent away (too_many_pings)
HANDSHAKE_WITHIN_MS = 10_000  # a connection that says nothing is closed
IDLE_CONNECTION_MS = 600_000  # one without a call, too: clients connect again by themselves
OTHER_CALLS = 3_000  # that may be under way beside the streams and those that wait: more than all limits of ours allow


def new_server(limits: CallLimits, who_calls: WhoCalls, db: Database) -> grpc.aio.Server:
    """A server without services. What a call meets first stands first: its pace, what goes compressed, what is noted of it, its
    errors' form, its place, who calls, the wait for its message, its limits; and last what the audit log keeps."""
    keep_calls(asyncio.get_running_loop())
    return cast(Any, grpc.aio).server(
        interceptors=[
            FlowInterceptor(limits.slow_reader_s),
            CompressionInterceptor(),
            ObservingInterceptor(),
            ErrorInterceptor(),
            IntakeInterceptor(limits),
            AuthenticationInterceptor(who_calls),
            ArrivalInterceptor(limits.slow_writer_s),
            LimitsInterceptor(limits, db),
            AuditInterceptor(db),
        ],
        options=options(limits),
        maximum_concurrent_rpcs=most_calls(limits),
    )


def most_calls(limits: CallLimits) -> int:
    """What one server has under way at most: more than all limits of ours allow together. Beyond it gRPC refuses whoever comes."""
    return limits.max_streams + OTHER_CALLS + SlotPools.num_slots(limits)


def options(limits: CallLimits) -> list[tuple[str, int]]:
    """Of the server's channels. Our own limit on streams answers before gRPC's, which lets a caller wait without a word."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
        ("grpc.max_concurrent_streams", limits.max_streams + OTHER_CALLS),
        ("grpc.default_compression_level", COMPRESSION_LEVEL),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_WITHIN_MS),
        ("grpc.max_connection_idle_ms", IDLE_CONNECTION_MS),
        ("grpc.keepalive_time_ms", PING_EVERY_MS),
        ("grpc.keepalive_timeout_ms", PING_ANSWER_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", CLIENT_PINGS_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", CLIENT_PINGS_MS),
        ("grpc.http2.max_ping_strikes", 2),
    ]
