"""Tells a driver where its manifest's bucket is: the manifest itself says it of all others. Pure."""

from lorafleet.contract.s3_settings import shown_regions
from service.backends.base import RunRequest


def regions(run: RunRequest) -> list[str]:
    """The option; none where the bucket is in the usual region, so that a trainer that does not know it is not given it."""
    return ["--bucket-regions", shown_regions(run.bucket_regions)] if run.bucket_regions else []
