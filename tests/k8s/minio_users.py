"""Users of a MinIO that may read and write under given prefixes alone, as a platform makes them for tenants."""

from collections.abc import Sequence

from minio import MinioAdmin
from minio.credentials import StaticProvider

from deploy.store import Store


def make_user(store: Store, name: str, secret: str, *, writes: Sequence[str], reads: Sequence[str]) -> None:
    """`writes` and `reads` are prefixes, as bucket/folder. The user's access key is its name."""
    environment = store.environment
    provider = StaticProvider(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    admin = MinioAdmin(endpoint=environment["AWS_ENDPOINT_URL"].removeprefix("http://"), credentials=provider, secure=False)
    admin.policy_add(name, policy=policy(writes=writes, reads=reads))
    admin.user_add(name, secret)
    admin.policy_set(name, user=name)


def policy(*, writes: Sequence[str], reads: Sequence[str]) -> dict[str, object]:
    """In AWS's language: objects under the prefixes, and lists of the prefixes' own."""
    statements: list[dict[str, object]] = []
    for prefixes, actions in ((writes, ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]), (reads, ["s3:GetObject"])):
        for prefix in prefixes:
            bucket, _, folder = prefix.partition("/")
            inside = f"{folder}/*" if folder else "*"
            statements += [
                {"Effect": "Allow", "Action": actions, "Resource": [f"arn:aws:s3:::{bucket}/{inside}"]},
                {
                    "Effect": "Allow",
                    "Action": ["s3:ListBucket"],
                    "Resource": [f"arn:aws:s3:::{bucket}"],
                    "Condition": {"StringLike": {"s3:prefix": [inside]}},
                },
            ]
    return {"Version": "2012-10-17", "Statement": statements}
