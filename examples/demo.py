"""`make demo`: serve, submit a style, watch a LoRA learn it, download it, and draw before and after.

    python -m examples.demo [--store file|minio] [--family sdxl|flow]

Writes build/demo/before-after.png and build/demo/report.json (of a family build/demo-FAMILY/), and leaves no process behind.
Exit code: 0 when the job succeeded and the LoRA has learned the style, 130 after Ctrl-C, else 1.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from PIL import Image
from rich.console import Console
from rich.markup import escape

from examples import demo_store
from examples.demo_store import Store
from examples.processes import InUse, ServerDied, Servers, fresh_folder
from examples.restyle import restyle
from examples.serving import serve
from lorafleet import spec_file
from lorafleet.blobs import blobs_at
from lorafleet.client import Client
from lorafleet.contact_sheet import Row, contact_sheet
from lorafleet.contract.layout import JobLayout
from lorafleet.control_characters import visible
from lorafleet.download import download
from lorafleet.errors import LorafleetError
from lorafleet.progress_view import view_on
from lorafleet.spec import Spec
from lorafleet.states import label
from lorafleet.v1 import training_service_pb2 as pb

EXAMPLES = Path(__file__).resolve().parent
BUILD = EXAMPLES.parent / "build" / "demo"
BASE_MODEL = EXAMPLES / "models" / "emoji-sd"
PICTURES = EXAMPLES / "data" / "noto-emoji"
SPEC = EXAMPLES / "emoji-style.yaml"
STYLE = "sunset"
LEARNED = 0.65  # of the base's held-out loss: with more than that the LoRA has not learned the style

console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What is trained on what, and where its pictures go."""

    base_model: Path
    spec: Path
    build: Path


DEMO = Demo(base_model=BASE_MODEL, spec=SPEC, build=BUILD)
FAMILIES = {
    family: Demo(
        base_model=BASE_MODEL.with_name(f"emoji-{family}"),
        spec=SPEC.with_name(f"emoji-style-{family}.yaml"),
        build=BUILD.with_name(f"demo-{family}"),
    )
    for family in ("sdxl", "flow")  # flow is Stable Diffusion 3's kind
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        demo = FAMILIES.get(options.family, DEMO)
        with Servers(log_dir=fresh_folder(demo.build)) as servers:
            return run(demo, options.store, servers)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has ended")
        return 130
    except (LorafleetError, InUse, ServerDied, TimeoutError) as error:
        console.print(f"the demo failed: {error}", style="red", markup=False)
        return 1


def run(demo: Demo, store_kind: str, servers: Servers) -> int:
    """The story of one job."""
    started = time.monotonic()
    style = demo.build / "style"
    console.print(f"1. [bold]restyle[/] {restyle(STYLE, PICTURES, style)} pictures as {STYLE}")
    store = open_store(demo, store_kind, style, servers)

    address = serve(servers, demo.build, "--artifacts", store.artifacts_uri, environment=store.environment)
    console.print(f"2. [bold]serve[/] on {address}: SQLite, a local Ray, {store.artifacts_uri}")

    spec = spec_file.load(demo.spec, [f"base_model.uri={store.base_model_uri}", f"dataset.uri={store.dataset_uri}"])
    with Client(address) as client:
        job = client.create(spec, job_id="demo")
        console.print(f"3. [bold]submit[/] {_short(demo.spec)}: accepted as {job.name}")
        job, pictures_per_second = watch(client, job.name)
        if job.state != pb.JOB_STATE_SUCCEEDED:
            show_end_of_log(client, job.name)

    sheet = fetch(job, spec, demo.build) if job.state == pb.JOB_STATE_SUCCEEDED else None
    told = write_report(job, pictures_per_second, sheet, demo.build)
    console.print(
        f"[bold]{label(job)}[/] after {time.monotonic() - started:.0f} s: {_short(sheet) if sheet else escape(visible(job.message))}"
    )
    console.print(f"report: {_short(demo.build / 'report.json')}, server's log: {_short(demo.build / 'server.log')}")
    if sheet and not has_learned(told):
        losses = f"{told['held_out_loss_adapter']} against {told['held_out_loss_base']} of the base"
        console.print(f"the LoRA has not learned the style: its held-out loss is {losses}, more than {LEARNED:.0%}", style="red")
    return 0 if has_learned(told) else 1


def open_store(demo: Demo, kind: str, style: Path, servers: Servers) -> Store:
    if kind == "minio":
        return demo_store.minio_store(demo.base_model, style, demo.build, servers)
    return demo_store.file_store(demo.base_model, style, demo.build)


def watch(client: Client, name: str) -> tuple[pb.TrainingJob, float]:
    """The job once it has ended, and the speed of its training loop."""
    job, pictures_per_second = client.get(name), 0.0
    with view_on(console) as show:
        for job in client.watch(name):
            show(job)
            pictures_per_second = job.progress.pictures_per_second or pictures_per_second
    return job, pictures_per_second


def show_end_of_log(client: Client, name: str) -> None:
    lines = "".join(piece.text for piece in client.logs(name)).splitlines()
    console.print("\n".join(lines[-40:]), style="dim", markup=False)


def fetch(job: pb.TrainingJob, spec: Spec, build: Path) -> Path:
    """Download the adapter, and draw its pictures below those of the base: same prompts, same seeds."""
    folder = build / "adapter"
    manifest = download(blobs_at(job.artifact.uri), job.artifact.manifest_sha256, folder)
    console.print(f"4. [bold]download[/] {len(manifest.files)} files, verified, to {_short(folder)}")

    prompts = spec.validation.prompts
    rows = [
        Row("base", samples(job, step=0, count=len(prompts))),
        Row(f"LoRA\nstep {job.progress.step}", samples(job, step=job.progress.step, count=len(prompts))),
    ]
    sheet = build / "before-after.png"
    contact_sheet(prompts, rows).save(sheet)
    return sheet


def samples(job: pb.TrainingJob, step: int, count: int) -> list[Image.Image]:
    folder = blobs_at(JobLayout(job.output_uri).samples(step))
    pictures: list[Image.Image] = []
    for index in range(count):
        with folder.open(f"{index:03d}.png") as file:
            pictures.append(Image.open(BytesIO(file.read())).convert("RGB"))
    return pictures


def write_report(job: pb.TrainingJob, pictures_per_second: float, sheet: Path | None, build: Path) -> dict[str, Any]:
    """The report, once it is in the file."""
    written = report(job, pictures_per_second, sheet)
    (build / "report.json").write_text(json.dumps(written, indent=2) + "\n")
    return written


def report(job: pb.TrainingJob, pictures_per_second: float, sheet: Path | None) -> dict[str, Any]:
    """What there is to know of the run, for whoever checks it."""
    progress, first_step = job.progress, job.first_step_time
    return {
        "job": job.name,
        "state": label(job),
        "steps": progress.step,
        "held_out_loss_base": progress.held_out_loss_base if progress.HasField("held_out_loss_base") else None,
        "held_out_loss_adapter": progress.held_out_loss if progress.HasField("held_out_loss") else None,
        "seconds_submit_to_first_step": _seconds_between(job.create_time, first_step) if job.HasField("first_step_time") else None,
        "pictures_per_second": round(pictures_per_second, 1),
        "artifact_uri": job.artifact.uri or None,
        "sheet": str(_short(sheet)) if sheet else None,
    }


def has_learned(report: Mapping[str, Any]) -> bool:
    """Whether the job succeeded, and its LoRA predicts held-out pictures clearly better than the base."""
    base, adapter = report["held_out_loss_base"], report["held_out_loss_adapter"]
    return report["state"] == "SUCCEEDED" and None not in (base, adapter) and adapter <= LEARNED * base


def _short(path: Path) -> Path:
    return path.relative_to(EXAMPLES.parent)


def _seconds_between(start: Timestamp, end: Timestamp) -> float:
    return round((end.ToDatetime() - start.ToDatetime()).total_seconds(), 1)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a style and draw before and after.")
    parser.add_argument("--store", choices=("file", "minio"), default="file", help="where everything is kept")
    parser.add_argument(
        "--family", choices=FAMILIES, help="train on the small base of that kind (else on emoji-sd, of Stable Diffusion 1.x)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
