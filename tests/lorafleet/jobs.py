"""Jobs for tests."""

from typing import Any

from lorafleet import spec_proto
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.specs import smallest


def a_job(id: str = "fox", state: str = "RUNNING", *, step: int = 0, **fields: Any) -> pb.TrainingJob:
    return pb.TrainingJob(
        name=f"tenants/acme/jobs/{id}",
        state=pb.JobState.Value(f"JOB_STATE_{state}"),
        progress=pb.Progress(phase="training", step=step, max_steps=200),
        spec=spec_proto.to_proto(smallest()),
        **fields,
    )


def event(token: str, job: pb.TrainingJob | None = None, *, snapshot: bool = False) -> pb.WatchTrainingJobsResponse:
    """A change, or a heartbeat."""
    return pb.WatchTrainingJobsResponse(training_job=job, resume_token=token, snapshot=snapshot)


def a_batch(id: str = "tonight", num_jobs: int = 2, **counts: int) -> batch_pb.Batch:
    """`a_batch(SUCCEEDED=2)`."""
    return batch_pb.Batch(
        name=f"tenants/acme/batches/{id}",
        num_jobs=num_jobs,
        counts=[batch_pb.StateCount(state=pb.JobState.Value(f"JOB_STATE_{state}"), count=count) for state, count in counts.items()],
    )


def batch_event(token: str, job: pb.TrainingJob | None = None, *, snapshot: bool = False) -> batch_pb.WatchBatchResponse:
    """A change of a batch's job, or a heartbeat."""
    return batch_pb.WatchBatchResponse(training_job=job, resume_token=token, snapshot=snapshot)
