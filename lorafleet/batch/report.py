"""Reports the outcome of a batch, for programs (report.json) and for people (report.md). Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from lorafleet import output
from lorafleet.batch.summary import steps_of, summarize
from lorafleet.control_characters import one_line
from lorafleet.states import job_id, label, name_of
from lorafleet.v1 import batch_service_pb2 as batch_pb
from lorafleet.v1 import training_service_pb2 as pb


def report(batch: batch_pb.Batch, jobs: Sequence[pb.TrainingJob], now: datetime) -> dict[str, Any]:
    """The batch, and each of its styles in the order of its items. Rates count what has succeeded."""
    summary = summarize(jobs, now)
    succeeded = summary.counts.get(pb.JOB_STATE_SUCCEEDED, 0)
    return {
        "batch": batch.name,
        "num_styles": len(jobs),
        "states": {name_of(state): count for state, count in summary.counts.items()},
        "packs": len({attempt.run for job in jobs for attempt in job.attempts}),
        "wall_seconds": round(summary.elapsed_s, 1),
        "styles_per_hour": round(3600 * succeeded / summary.elapsed_s, 2) if summary.elapsed_s else 0.0,
        "styles": [style(job) for job in jobs],
    }


def style(job: pb.TrainingJob) -> dict[str, Any]:
    """One style. None: not known, or there is none."""
    progress, attempt = job.progress, job.attempts[-1] if job.attempts else None
    return {
        "job": job.name,
        "state": label(job),
        "reason": job.reason,
        "message": job.message,
        "steps": progress.step,
        "max_steps": steps_of(job),
        "held_out_loss_base": progress.held_out_loss_base if progress.HasField("held_out_loss_base") else None,
        "held_out_loss": progress.held_out_loss if progress.HasField("held_out_loss") else None,
        "final_loss": progress.loss if progress.step else None,
        "artifact_uri": job.artifact.uri or None,
        "attempts": len(job.attempts),
        "run": attempt.run if attempt else None,
        "pack_size": attempt.pack_size if attempt else None,
        "labels": dict(job.spec.labels),
    }


def markdown(batch: batch_pb.Batch, jobs: Sequence[pb.TrainingJob], now: datetime, sheets: Sequence[str]) -> str:
    """The same to read: the sheets, the failures with their reasons, then the table of losses."""
    summary = report(batch, jobs, now)
    counts = ", ".join(f"{count} {state.lower()}" for state, count in summary["states"].items())
    lines = [
        f"# {batch.name}",
        "",
        f"{output.number(summary['num_styles'], 'style')} ({counts}) in {output.number(summary['packs'], 'pack')},"
        f" {output.clock(summary['wall_seconds'])}:"
        f" {summary['styles_per_hour']:.0f} styles an hour.",
        "",
        *(f"![contact sheet]({sheet})" for sheet in sheets),
        *([""] if sheets else []),
        *_failures(jobs),
        "## Losses",
        "",
        "| style | state | steps | final loss | held-out loss: base → now | run | styles in it |",
        "|---|---|---|---|---|---|---|",
        *(_row(job) for job in jobs),
    ]
    return "\n".join(lines) + "\n"


def _failures(jobs: Sequence[pb.TrainingJob]) -> list[str]:
    failed = [job for job in jobs if job.state == pb.JOB_STATE_FAILED]
    if not failed:
        return []
    rows = [f"| {job_id(job)} | {_cell(job.reason)} | {_cell(job.message)} |" for job in failed]
    return ["## Failures", "", "| style | reason | what to do |", "|---|---|---|", *rows, ""]


def _row(job: pb.TrainingJob) -> str:
    run, size = (job.attempts[-1].run, str(job.attempts[-1].pack_size)) if job.attempts else ("", "")
    cells = [job_id(job), label(job).lower(), output.steps(job), output.loss(job), output.held_out(job), run, size]
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """One line, with nothing in it that ends a cell or begins HTML."""
    return one_line(text).replace("|", "\\|").replace("<", "&lt;")
