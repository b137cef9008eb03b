"""Names the states of a job as people and programs read them. Knows no server."""

from typing import Any, Protocol, cast

from lorafleet.v1 import training_service_pb2 as pb

ENDED = frozenset({pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED})
_PREFIX = "JOB_STATE_"


class _Stated(Protocol):
    """A job, or other work."""

    @property
    def state(self) -> Any: ...


def label(job: _Stated) -> str:
    """`RUNNING`."""
    return name_of(job.state)


def name_of(state: int) -> str:
    """`RUNNING`. A state that a newer server has added is shown by its number."""
    if state in pb.JobState.values():
        return pb.JobState.Name(cast(pb.JobState, state)).removeprefix(_PREFIX)
    return str(int(state))


def has_ended(job: _Stated) -> bool:
    return job.state in ENDED


def job_id(job: pb.TrainingJob) -> str:
    """`fox` of tenants/acme/jobs/fox."""
    return job.name.rpartition("/")[2]
