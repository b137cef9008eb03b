"""Keeps the state that lets a reader resume a broken stream. Pure."""

from collections import Counter

from lorafleet.states import has_ended
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb


class LogReader:
    """Passes over what was read before the stream broke: a log only grows."""

    def __init__(self) -> None:
        self._read: Counter[int] = Counter()  # characters by attempt
        self._position: Counter[int] = Counter()

    def start_again(self) -> None:
        """The stream begins at the log's beginning."""
        self._position.clear()

    def fresh(self, piece: pb.StreamTrainingJobLogsResponse) -> pb.StreamTrainingJobLogsResponse | None:
        """What of a piece was not read before."""
        text = piece.text[max(0, self._read[piece.attempt] - self._position[piece.attempt]) :]
        self._position[piece.attempt] += len(piece.text)
        self._read[piece.attempt] += len(text)
        return pb.StreamTrainingJobLogsResponse(attempt=piece.attempt, text=text) if text else None


class Left:
    """How many jobs of a watched batch have not ended yet."""

    def __init__(self, num_jobs: int) -> None:
        self._num_jobs = num_jobs
        self._ended = set[str]()
        self._in_snapshot = False

    def after(self, event: batch_pb.WatchBatchResponse) -> int:
        """How many are left after this event."""
        if event.snapshot and not self._in_snapshot:
            self._ended.clear()  # what ended before the absence may have been retried since
        self._in_snapshot = event.snapshot
        if has_ended(event.training_job):
            self._ended.add(event.training_job.name)
        else:
            self._ended.discard(event.training_job.name)
        return self._num_jobs - len(self._ended)
