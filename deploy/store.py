"""The MinIO of `dev.minio` from outside the cluster: S3 through a port-forward, with the credentials of the chart's Secret."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from deploy.kubectl import get, port_forward

BUCKETS = ("base-models", "data-sets")  # what examples/emoji-style.yaml names; that of artifacts is the chart's
SERVICE, PORT, SECRET = "lorafleet-minio", 9000, "lorafleet-store"


@dataclass(frozen=True)
class Store:
    """An open way to the store. `environment` is what S3 clients of this machine need: it holds a secret."""

    s3: Any
    environment: dict[str, str]

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")

    def keys(self, bucket: str, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@contextmanager
def open_store(namespace: str) -> Iterator[Store]:
    secret = get("secret", namespace=namespace, name=SECRET)["data"]
    with port_forward(namespace, SERVICE, PORT) as address:
        environment = {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_REGION": "us-east-1",
            **{name: base64.b64decode(secret[name]).decode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
        }
        s3 = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name=environment["AWS_REGION"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"mode": "standard", "max_attempts": 8}),  # its pod may be a new one
        )
        yield Store(s3, environment)
