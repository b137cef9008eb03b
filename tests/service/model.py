"""What a small control plane ought to do, written down a second time: no database, no loops, no packs. Shares no code with it."""

from dataclasses import dataclass, field

ENDED = {"SUCCEEDED", "FAILED", "CANCELLED"}
IN_A_RUN = {"STARTING", "RUNNING", "STOPPING"}
MAX_FAILURES = 3
SILENT_TRAINING_S, SILENT_STARTING_S, GRACE_S, LINGER_S, BACKOFF_S = 60.0, 900.0, 120.0, 30.0, 5.0


@dataclass
class ModelJob:
    state: str = "QUEUED"
    failures: int = 0
    attempts: int = 0
    cancelled: bool = False
    not_before: float = 0.0
    batch: str = ""


@dataclass
class ModelRun:
    job: str
    heard_at: float
    alive: bool = True  # on the backend
    gone: bool = False  # and observed so
    word: str = ""  # what it said of its job's end
    stop_at: float = float("inf")


@dataclass
class Model:
    """Times are seconds since the start."""

    max_runs: int
    now: float = 0.0
    up_since: float = 0.0
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    runs: dict[str, ModelRun] = field(default_factory=dict)

    def cancel(self, name: str) -> bool:
        """False: it ended otherwise, which is an error."""
        job = self.jobs[name]
        before = job.state
        if before in {"SUCCEEDED", "FAILED"}:
            return False
        if before in {"STOPPING", "CANCELLED"}:
            return True
        job.cancelled = True
        job.state = "CANCELLED" if before == "QUEUED" else "STOPPING"
        for run in self._runs_of(name):
            run.stop_at = min(run.stop_at, self.now + (GRACE_S if before == "RUNNING" else 0))
        return True

    def retry(self, batch: str) -> None:
        for job in self.jobs.values():
            if job.batch == batch and job.state == "FAILED":
                job.state, job.failures, job.cancelled, job.not_before = "QUEUED", 0, False, 0.0

    def trains(self, run_id: str) -> None:
        run = self._heard(run_id)
        job = self.jobs[run.job]
        if not run.word and job.state == "STARTING":
            job.state = "RUNNING"

    def says(self, run_id: str, word: str) -> None:
        """SUCCEEDED, FAILED, RETRYABLE or STOPPED: the first word counts."""
        run = self._heard(run_id)
        job = self.jobs[run.job]
        if not run.word:
            run.word = word
            if job.state not in ENDED:
                if word in {"SUCCEEDED", "FAILED"}:
                    job.state = word
                elif word == "STOPPED" and job.cancelled:
                    job.state = "CANCELLED"

    def time_passes(self) -> None:
        """What the loops do of themselves, up to admission."""
        for run in self.runs.values():
            if run.gone:
                continue
            if run.stop_at == float("inf") and self.now - max(run.heard_at, self.up_since) >= self._silence_s(run):
                run.stop_at = self.now
            if run.stop_at <= self.now:
                run.alive = False
            if not run.alive:
                run.gone = True
                self._after(run)

    def startable(self) -> set[str]:
        """Jobs that could start now if there were room for all."""
        found = {name for name, job in self.jobs.items() if job.state == "QUEUED" and job.not_before <= self.now}
        return {name for name in found if not self._runs_of(name)}

    def num_free(self) -> int:
        return self.max_runs - sum(not run.gone for run in self.runs.values())

    def starts(self, name: str, run_id: str) -> None:
        job = self.jobs[name]
        job.state, job.attempts = "STARTING", job.attempts + 1
        self.runs[run_id] = ModelRun(job=name, heard_at=self.now)

    def _heard(self, run_id: str) -> ModelRun:
        run = self.runs[run_id]
        run.heard_at = self.now
        return run

    def let_go(self, run_id: str) -> None:
        """After a report: a run with nothing to do any more is stopped if it stays."""
        run = self.runs[run_id]
        if run.word or self.jobs[run.job].state in ENDED:
            run.stop_at = min(run.stop_at, self.now + LINGER_S)

    def _silence_s(self, run: ModelRun) -> float:
        return SILENT_TRAINING_S if self.jobs[run.job].state in {"RUNNING", "STOPPING"} else SILENT_STARTING_S

    def _after(self, run: ModelRun) -> None:
        job = self.jobs[run.job]
        if job.state not in IN_A_RUN:
            return
        if job.cancelled:
            job.state = "CANCELLED"
        elif run.word == "STOPPED":
            job.state, job.not_before = "QUEUED", self.now
        else:
            job.failures += 1
            job.state = "FAILED" if job.failures >= MAX_FAILURES else "QUEUED"
            job.not_before = self.now + BACKOFF_S * 2 ** (job.failures - 1)

    def _runs_of(self, name: str) -> list[ModelRun]:
        return [run for run in self.runs.values() if run.job == name and not run.gone]
