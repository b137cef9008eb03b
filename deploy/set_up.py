"""What is to be done once in a new lorafleet: buckets, a tenant with its grants, and the tenant's API token. Safe to repeat.

    python -m deploy.set_up --namespace lorafleet --tenant default --admin-token-file FILE --build FOLDER

The last step of install.sh. Leaves the token in FOLDER/token, which only its owner can read.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.kubectl import port_forward
from deploy.store import BUCKETS, Store, open_store
from lorafleet.client import Client
from lorafleet.credentials import Credentials
from lorafleet.errors import AlreadyExists, LorafleetError
from lorafleet.v1 import access_service_pb2 as pb


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        with open_store(options.namespace) as store:
            make_buckets(store)
        with admin_client(options.namespace, options.build, options.admin_token_file, options.tenant) as client:
            set_up_tenant(client, options.tenant, options.build / "token")
    except LorafleetError as error:
        sys.stderr.write(f"set_up: {error.message}\n")
        return 1
    return 0


@contextmanager
def admin_client(namespace: str, build: Path, token_file: Path, tenant: str) -> Iterator[Client]:
    credentials = Credentials(token_file=token_file, tls_ca=build / "ca.crt")
    with port_forward(namespace, "lorafleet", 7600) as address, Client(address, tenant=tenant, credentials=credentials) as client:
        yield client


def make_buckets(store: Store) -> None:
    known = {bucket["Name"] for bucket in store.s3.list_buckets()["Buckets"]}
    for bucket in BUCKETS:
        if bucket not in known:
            store.s3.create_bucket(Bucket=bucket)


def set_up_tenant(client: Client, tenant: str, token_file: Path) -> None:
    """The tenant, what it may read, and its token unless there is one that is still good."""
    with suppress(AlreadyExists):
        client.create_tenant(tenant)
    for bucket in BUCKETS:
        client.add_grant(f"s3://{bucket}")
    if _is_good(token_file, client):
        return
    made = client.create_api_token(pb.ROLE_OPERATOR, display_name="made by deploy/install.sh")
    write_secret(token_file, made.secret)


def write_secret(path: Path, secret: str) -> None:
    """Never readable by others, not even at first."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)


def _is_good(token_file: Path, client: Client) -> bool:
    """Whether the file's token is one of this database: the release may have been installed anew."""
    if not token_file.is_file():
        return False
    token_id = token_file.read_text().split("_")[1]
    return any(token.name.endswith(f"/{token_id}") and not token.HasField("revoke_time") for token in client.list_api_tokens())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.set_up")
    parser.add_argument("--namespace", default="lorafleet")
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--admin-token-file", type=Path, required=True)
    parser.add_argument("--build", type=Path, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
