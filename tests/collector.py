"""A stand-in for an OpenTelemetry collector: the real OTLP service on loopback, which keeps what it is sent."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc

from tests.service.serving import until


@dataclass(frozen=True)
class Told:
    """A span as it was sent."""

    service: str
    name: str
    trace_id: str
    parent_id: str
    links: tuple[str, ...]
    attributes: dict[str, str]


@dataclass
class Collector(rpc.TraceServiceServicer):
    endpoint: str = ""
    spans: list[Told] = field(default_factory=list)

    def Export(self, request: pb.ExportTraceServiceRequest, context: grpc.ServicerContext) -> pb.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            service = {each.key: each.value.string_value for each in resource.resource.attributes}.get("service.name", "")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    links = tuple(link.trace_id.hex() for link in span.links)
                    attributes = {each.key: each.value.string_value or str(each.value.int_value) for each in span.attributes}
                    told = Told(service, span.name, span.trace_id.hex(), span.parent_span_id.hex(), links, attributes)
                    self.spans.append(told)
        return pb.ExportTraceServiceResponse()

    def named(self, name: str, timeout_s: float = 30) -> Told:
        """The first span of that name, waited for."""
        until(lambda: any(span.name == name for span in self.spans), timeout_s, f"a span {name}")
        return next(span for span in self.spans if span.name == name)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    rpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield collector
    server.stop(None)
