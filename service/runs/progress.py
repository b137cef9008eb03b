"""Reads progress as runs report it and the database keeps it. Pure."""

from google.protobuf.message import DecodeError

from lorafleet.v1 import training_service_pb2 as pb


def progress_of(stored: bytes | None) -> pb.Progress:
    """What a run reported last; nothing when that is none."""
    try:
        return pb.Progress.FromString(stored or b"")
    except DecodeError:
        return pb.Progress()
