"""TensorBoard event files of a style, written on the worker and copied to the store every half minute, so that they can be watched."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from tensorboardX import SummaryWriter

from lorafleet.errors import RunFailed
from trainer.scratch import Scratch
from trainer.storage import Folder

log = logging.getLogger("lorafleet.metrics")

UPLOAD_EVERY_S = 30.0
FLUSH_EVERY_S = 5  # to the worker's own disk; the writer's flush() does not wait for values that are still in its queue


class Metrics:
    """Scalars by step. Uploaded files can be read by pointing TensorBoard at the store."""

    def __init__(self, folder: Folder, *, resumed_at: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._uploaded_s = clock()
        self._scratch = Scratch("lorafleet-metrics-")
        # An attempt that resumes takes back what the killed one wrote past its last checkpoint.
        self._writer = SummaryWriter(str(self._scratch.path), purge_step=resumed_at + 1 if resumed_at else None, flush_secs=FLUSH_EVERY_S)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")  # training does not wait for the store
        self._upload: Future[None] | None = None

    def scalars(self, step: int, **values: float | None) -> None:
        """Adds values of a step, and starts an upload if the last one was a while ago."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
        if self._clock() - self._uploaded_s >= UPLOAD_EVERY_S:
            self.upload()

    def upload(self) -> None:
        """Starts an upload, unless the last one is still under way."""
        if self._upload is None or self._upload.done():
            self._uploaded_s = self._clock()
            self._upload = self._thread.submit(self._try_write)

    def close(self) -> None:
        """Uploads the rest. Raises RunFailed."""
        self._thread.shutdown()
        self._writer.close()
        self._write()
        self._scratch.remove()

    def _try_write(self) -> None:
        try:
            self._write()
        except RunFailed as error:  # curves that lag are no reason to end the style; the end uploads them all
            log.warning("metrics were not uploaded, and will be later: %s", error)

    def _write(self) -> None:
        self._folder.write_all({path.name: path.read_bytes() for path in self._scratch.path.iterdir()})
