"""TensorBoard files: in the store while the style trains, readable, and never a reason to stop."""

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

import trainer.metrics
from lorafleet.errors import RunFailed
from tests.service.serving import until
from trainer.metrics import UPLOAD_EVERY_S, Metrics
from trainer.storage import Folder


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard would show: (name, step) to value, from all event files."""
    found = {}
    for file in folder.glob("events.out.tfevents.*"):
        data, at = file.read_bytes(), 0
        while at < len(data):  # a record is length (8 bytes), its checksum (4), the event, its checksum (4)
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            at += 16 + size
    return found


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_they_are_in_the_store_every_half_minute_long_before_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainer.metrics, "FLUSH_EVERY_S", 0.05)
    clock = Clock()
    metrics = Metrics(Folder(f"file://{tmp_path}"), resumed_at=0, clock=clock)
    metrics.scalars(1, loss=0.5)
    metrics.scalars(2, loss=0.25, held_out_loss=None)
    assert scalars(tmp_path) == {}

    def half_a_minute_later() -> dict[tuple[str, int], float]:
        clock.now_s += UPLOAD_EVERY_S
        metrics.scalars(2)
        return scalars(tmp_path)

    until(lambda: half_a_minute_later() == {("loss", 1): 0.5, ("loss", 2): 0.25}, 10, "an upload")
    metrics.scalars(3, loss=0.125)
    metrics.close()
    assert scalars(tmp_path)[("loss", 3)] == 0.125


def test_a_store_that_refuses_them_does_not_stop_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise RunFailed("the store does not answer", reason="STORE_UNAVAILABLE")

    clock = Clock()
    metrics = Metrics(Folder(f"file://{tmp_path}"), resumed_at=0, clock=clock)
    with monkeypatch.context() as away:
        away.setattr(Folder, "write_all", refuse)
        clock.now_s += UPLOAD_EVERY_S
        metrics.scalars(1, loss=0.5)
        until(lambda: metrics._upload is not None and metrics._upload.done(), 10, "the try")
    metrics.close()
    assert scalars(tmp_path) == {("loss", 1): 0.5}
