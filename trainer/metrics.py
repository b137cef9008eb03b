"""TensorBoard event files of a style, written on the worker and copied to the store as they grow."""

import tempfile
from pathlib import Path

from tensorboardX import SummaryWriter

from trainer.storage import Folder


class Metrics:
    """Scalars and pictures by step. `upload` makes them visible to whoever points TensorBoard at the store."""

    def __init__(self, folder: Folder, *, resumed_at: int) -> None:
        self._folder = folder
        self._directory = tempfile.TemporaryDirectory(prefix="lorafleet-metrics-")
        # An attempt that resumes takes back what the killed one wrote past its last checkpoint.
        self._writer = SummaryWriter(self._directory.name, purge_step=resumed_at + 1 if resumed_at else None, flush_secs=3600)

    def scalars(self, step: int, **values: float | None) -> None:
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def upload(self) -> None:
        self._writer.flush()
        self._folder.write_all({path.name: path for path in Path(self._directory.name).iterdir()})

    def close(self) -> None:
        self.upload()
        self._writer.close()
        self._directory.cleanup()
