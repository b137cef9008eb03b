"""What the wire shows of a training job."""

from collections.abc import Sequence

from lorafleet.v1 import training_service_pb2 as pb
from service.db.attempts import JobRun
from service.db.models import JobRow
from service.jobs import messages
from service.jobs.kinds import Wire


class TrainingWire(Wire):
    """TrainingJob."""

    def message(self, row: JobRow, runs: Sequence[JobRun], *, with_spec: bool = True) -> pb.TrainingJob:
        return messages.job_message(row, runs, with_spec=with_spec)

    def read(self, payload: bytes) -> pb.TrainingJob:
        return pb.TrainingJob.FromString(payload)

    def add_spec(self, message: pb.TrainingJob, row: JobRow) -> None:
        messages.add_spec(message, row)

    def watched(self, message: pb.TrainingJob | None, resume_token: str, *, snapshot: bool = False) -> pb.WatchTrainingJobsResponse:
        return pb.WatchTrainingJobsResponse(training_job=message, resume_token=resume_token, snapshot=snapshot)


WIRE = TrainingWire()
