"""What the wire shows of a generation."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lorafleet import generation_proto
from lorafleet.v1 import generation_service_pb2 as pb
from lorafleet.work.generation import ServedGeneration, parse
from service.control.lifecycle import JobState
from service.db.attempts import JobRun
from service.db.models import JobRow
from service.jobs.kinds import Wire
from service.jobs.messages import artifact_of, attempts_of, job_etag, time
from service.runs.progress import progress_of


class GenerationWire(Wire):
    """Generation."""

    def message(self, row: JobRow, runs: Sequence[JobRun], *, with_spec: bool = True) -> pb.Generation:
        message = pb.Generation(
            name=row.name,
            uid=row.uid,
            state=f"JOB_STATE_{row.state}",
            reason=row.reason,
            message=row.message,
            progress=None if row.progress is None else progress_of(row.progress),
            attempts=attempts_of(runs),
            artifact=artifact_of(row),
            output_uri=row.output_uri,
            create_time=time(row.create_time),
            first_picture_time=time(row.first_step_time),
            end_time=time(row.end_time),
            update_time=time(row.update_time),
            etag=job_etag(row),
            queue_position=(row.queue_position or 0) if row.state == JobState.QUEUED.value else 0,
        )
        if with_spec:
            self.add_spec(message, row)
        return message

    def read(self, payload: bytes) -> pb.Generation:
        return pb.Generation.FromString(payload)

    def add_spec(self, message: Any, row: JobRow) -> None:
        with suppress(Exception):  # one that is no spec any more: it says so, and would be shown to nobody else
            asked = parse(row.spec)
            message.spec.CopyFrom(generation_proto.to_proto(asked))
            message.num_pictures = asked.num_pictures
            message.resolved_adapters.extend(_resolved(asked))

    def watched(self, message: Any, resume_token: str, *, snapshot: bool = False) -> pb.WatchGenerationsResponse:
        return pb.WatchGenerationsResponse(generation=message, resume_token=resume_token, snapshot=snapshot)


def _resolved(asked: ServedGeneration) -> list[pb.ResolvedAdapter]:
    return [
        pb.ResolvedAdapter(name=name, version=each.version, uri=each.folder, manifest_sha256=each.manifest_sha256)
        for name, each in asked.resolved.items()
    ]


WIRE = GenerationWire()
