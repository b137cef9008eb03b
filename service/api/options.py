"""How the gRPC server is set up: its interceptors in their order, its limits, and how long it lets silence last."""

import grpc.aio

from service.api.auditing import AuditInterceptor
from service.api.authentication import AuthenticationInterceptor, WhoCalls
from service.api.compressing import CompressionInterceptor
from service.api.errors import ErrorInterceptor
from service.api.flow import FlowInterceptor
from service.api.limiting import LimitsInterceptor
from service.api.observing import ObservingInterceptor
from service.db.database import Database
from service.settings import CallLimits

MAX_REQUEST_BYTES = 4 * 2**20
MAX_RESPONSE_BYTES = 4 * 2**20  # what clients take unless they say otherwise; pages end earlier: see service.api.paging
# A level and no algorithm: gRPC then takes one that the client has said it takes, and would else send it what it cannot read.
COMPRESSION_LEVEL = 1  # gzip
PING_EVERY_MS = 60_000  # a client that has gone without a word is noticed, and its streams end
PING_ANSWER_MS = 20_000
CLIENT_PINGS_MS = 20_000  # a client that asks more often than this for longer is sent away (too_many_pings)
OTHER_CALLS = 2_000  # that may be under way beside the streams


def new_server(limits: CallLimits, who_calls: WhoCalls, db: Database) -> grpc.aio.Server:
    """A server without services. What a call meets first stands first: its pace, what goes compressed, what is noted of it, its
    errors' form, who calls, its limits; and last what the audit log keeps."""
    return grpc.aio.server(
        interceptors=[
            FlowInterceptor(limits.slow_reader_s),
            CompressionInterceptor(),
            ObservingInterceptor(),
            ErrorInterceptor(),
            AuthenticationInterceptor(who_calls),
            LimitsInterceptor(limits, db),
            AuditInterceptor(db),
        ],
        options=options(limits),
        maximum_concurrent_rpcs=limits.max_streams + OTHER_CALLS,
    )


def options(limits: CallLimits) -> list[tuple[str, int]]:
    """Of the server's channels. Our own limit on streams answers before gRPC's, which lets a caller wait without a word."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
        ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
        ("grpc.max_concurrent_streams", limits.max_streams + OTHER_CALLS),
        ("grpc.default_compression_level", COMPRESSION_LEVEL),
        ("grpc.keepalive_time_ms", PING_EVERY_MS),
        ("grpc.keepalive_timeout_ms", PING_ANSWER_MS),
        ("grpc.http2.min_ping_interval_without_data_ms", CLIENT_PINGS_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", CLIENT_PINGS_MS),
        ("grpc.http2.max_ping_strikes", 2),
    ]
