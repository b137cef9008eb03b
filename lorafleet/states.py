"""The states of a job as people and programs read them. Knows no server."""

from lorafleet.v1 import training_service_pb2 as pb

ENDED = frozenset({pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED})
_PREFIX = "JOB_STATE_"


def label(job: pb.TrainingJob) -> str:
    """`RUNNING`. A state that a newer server has added is shown by its number."""
    if job.state in pb.JobState.values():
        return pb.JobState.Name(job.state).removeprefix(_PREFIX)
    return str(int(job.state))


def has_ended(job: pb.TrainingJob) -> bool:
    return job.state in ENDED


def job_id(job: pb.TrainingJob) -> str:
    """`fox` of tenants/acme/jobs/fox."""
    return job.name.rpartition("/")[2]
