"""Where the demo keeps its base model, its pictures and its artifacts: folders, or a MinIO of its own. Knows no training."""

import os
import secrets
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from examples.processes import Servers

REPOSITORY = Path(__file__).resolve().parents[1]
BUCKETS = ("base-models", "data-sets", "artifacts")


@dataclass(frozen=True, kw_only=True)
class Store:
    """URIs, and what a process needs in its environment to reach them."""

    base_model_uri: str
    dataset_uri: str
    artifacts_uri: str
    environment: dict[str, str] = field(default_factory=dict, repr=False)  # holds a secret


def file_store(base_model: Path, dataset: Path, build: Path) -> Store:
    """Nothing to start, nothing to copy."""
    return Store(base_model_uri=base_model.as_uri(), dataset_uri=dataset.as_uri(), artifacts_uri=(build / "store").as_uri())


def minio_store(base_model: Path, dataset: Path, build: Path, servers: Servers) -> Store:
    """A MinIO of the demo's own, with the base model and the pictures in it."""
    environment = start_minio(servers, build / "minio")
    os.environ.update(environment)
    _fill({f"base-models/{base_model.name}": base_model, "data-sets/emoji-style": dataset})
    return Store(
        base_model_uri=f"s3://base-models/{base_model.name}",
        dataset_uri="s3://data-sets/emoji-style",
        artifacts_uri="s3://artifacts",
        environment=environment,
    )


def start_minio(servers: Servers, data_dir: Path, *, certs_dir: Path | None = None, **settings: str) -> dict[str, str]:
    """Start a MinIO on loopback under credentials of its own; returns the environment in which S3 clients reach it.

    It speaks TLS with a `certs_dir`, and takes MinIO's own `settings` as they stand.
    """
    address, user, password = f"127.0.0.1:{_free_port()}", secrets.token_hex(8), secrets.token_hex(16)
    minio = subprocess.run([REPOSITORY / "scripts/get-minio.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    command = [minio, "server", "--quiet", "--address", address, str(data_dir)]
    tls = [] if certs_dir is None else ["--certs-dir", str(certs_dir)]
    root = {"MINIO_ROOT_USER": user, "MINIO_ROOT_PASSWORD": password, "MINIO_BROWSER": "off"}
    servers.start("minio", [*command, *tls], {**root, **settings})
    endpoint = f"{'https' if tls else 'http'}://{address}"
    wait_until_alive(f"{endpoint}/minio/health/live")
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": user,
        "AWS_SECRET_ACCESS_KEY": password,
        "AWS_REGION": "us-east-1",
    }


def _fill(folders: dict[str, Path]) -> None:
    import boto3

    s3 = boto3.client("s3", region_name=os.environ["AWS_REGION"])
    for bucket in BUCKETS:
        s3.create_bucket(Bucket=bucket)
    for target, folder in folders.items():
        bucket, _, prefix = target.partition("/")
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_alive(url: str, timeout_s: float = 60) -> None:
    """Whatever its certificate: this asks for nothing and tells nothing."""
    deadline = time.monotonic() + timeout_s
    trusting = ssl._create_unverified_context()
    while True:
        try:
            urlopen(url, timeout=1, context=trusting).close()
            return
        except (URLError, OSError):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} does not answer") from None
            time.sleep(0.1)
