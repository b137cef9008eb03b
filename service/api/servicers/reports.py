"""Serves ReportService, by which runs report. The call's metadata carries the run's token."""

from lorafleet.v1 import report_service_pb2 as pb
from lorafleet.v1 import report_service_pb2_grpc as rpc
from service.api.errors import Context
from service.api.handlers import metadata_of
from service.runs.reports import Reports

_BEARER = "Bearer "


class ReportServicer(rpc.ReportServiceServicer):
    """The inner API."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def Report(self, request: pb.ReportRequest, context: Context) -> pb.ReportResponse:
        return await self._reports.apply(_token(context), request)


def _token(context: Context) -> str:
    return str(metadata_of(context).get("authorization", "")).removeprefix(_BEARER)
