"""The demo on a cluster: submit the style over gRPC with TLS and token, watch it train in pods, download the artifact.

    python -m deploy.demo [--workers 2] [--set training.max_steps=50] [--build build/kubernetes]

The cluster of KUBECONFIG has what install.sh installs. Writes BUILD/demo/before-after.png and report.json, as `make demo` does.
Exit code: 0 when the job succeeded, else 1.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.kubectl import KubectlFailed, port_forward
from deploy.store import Store, open_store
from examples import demo
from examples.restyle import restyle
from lorafleet import spec_file
from lorafleet.client import Client
from lorafleet.credentials import Credentials
from lorafleet.errors import LorafleetError
from lorafleet.states import label
from lorafleet.v1 import training_service_pb2 as pb

BUILD = Path(__file__).resolve().parents[1] / "build" / "kubernetes"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    build = options.build / "demo"
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    credentials = Credentials(token_file=options.build / "token", tls_ca=options.build / "ca.crt")
    try:
        with (
            open_store(options.namespace) as store,
            port_forward(options.namespace, "lorafleet", 7600) as address,
            Client(address, tenant=options.tenant, credentials=credentials) as client,
        ):
            return run(client, store, options, build)
    except KeyboardInterrupt:
        demo.console.print("interrupted; the job goes on: lorafleet cancel ends it")
        return 130
    except (LorafleetError, KubectlFailed, TimeoutError) as error:
        demo.console.print(f"the demo failed: {error}", style="red", markup=False)
        return 1


def run(client: Client, store: Store, options: argparse.Namespace, build: Path) -> int:
    """The story of one job."""
    started = time.monotonic()
    style = build / "style"
    demo.console.print(f"1. [bold]restyle[/] {restyle(demo.STYLE, demo.PICTURES, style)} pictures as {demo.STYLE}")
    store.upload(demo.BASE_MODEL, "base-models", "emoji-sd")
    store.upload(style, "data-sets", "emoji-style")
    demo.console.print("2. [bold]upload[/] base model and pictures to the cluster's MinIO")

    spec = spec_file.load(demo.SPEC, [f"cluster.num_workers={options.workers}", *options.set])
    job = client.create(spec)
    demo.console.print(f"3. [bold]submit[/] accepted as {job.name}; its pods: kubectl -n {options.runs_namespace} get pods")
    job, pictures_per_second = demo.watch(client, job.name)
    os.environ.update(store.environment)  # the download reads the store by itself
    if job.state != pb.JOB_STATE_SUCCEEDED:
        demo.show_end_of_log(client, job.name)
    sheet = demo.fetch(job, spec, build) if job.state == pb.JOB_STATE_SUCCEEDED else None
    demo.write_report(job, pictures_per_second, sheet, build)
    demo.console.print(f"[bold]{label(job)}[/] after {time.monotonic() - started:.0f} s: {sheet or job.message}")
    return 0 if sheet else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description="Train a style on a cluster.")
    parser.add_argument("--namespace", default=os.environ.get("NAMESPACE", "lorafleet"))
    parser.add_argument("--runs-namespace", default=os.environ.get("RUNS_NAMESPACE", "lorafleet-runs"))
    parser.add_argument("--tenant", default=os.environ.get("TENANT", "default"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the spec; repeatable")
    parser.add_argument("--build", type=Path, default=Path(os.environ.get("BUILD", BUILD)))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
