"""Asks a server's standard health service, as `helm test` does: the command `lorafleet health`. Needs no token, since it shows no data."""

from typing import Annotated

import typer

from lorafleet import DEFAULT_SERVER
from lorafleet.commands import ExitCode, Server, complain
from lorafleet.commands.connection import given_credentials
from lorafleet.terminal import say


def health(
    server: Server = DEFAULT_SERVER,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a response.")] = 30.0,
) -> None:
    """Check that a server is serving (grpc.health.v1); exit code 1 if it is not or does not answer."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from lorafleet.credentials import Credentials
    from lorafleet.transport.channel import open_channel

    with open_channel(server, Credentials(**given_credentials)) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s, wait_for_ready=True)
        except grpc.RpcError as error:
            code, details = error.code().name, error.details()  # pyright: ignore[reportAttributeAccessIssue] (it is a call too)
            complain(f"{server} does not answer within {timeout_s:g} s: {code}: {details}")
            raise typer.Exit(ExitCode.ERROR) from None
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    say(f"{server}: {status}")
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise typer.Exit(ExitCode.ERROR)
