"""`make demo` on this machine, once in a run of the tests whichever of their processes asks, and with what the pods leave of the cores."""

import json
import subprocess
import sys
from pathlib import Path

from lorafleet.contract.layout import step_folder
from tests.k8s.apart import FOLDER, SESSION, locked
from tests.k8s.release import REPOSITORY

LAST_STEP = 200  # of examples/emoji-style.yaml
DEMO_S = 1200


def losses_here() -> dict[int, float]:
    """By step. Raises CalledProcessError; what the demo said is on stderr."""
    told = FOLDER / f"losses-{SESSION}.json"
    with locked("demo"):
        if not told.is_file():
            command = ["nice", "-n", "19", sys.executable, "-m", "examples.demo"]
            subprocess.run(command, check=True, cwd=REPOSITORY, timeout=DEMO_S, stdout=sys.stderr)
            told.write_bytes(_checkpoint().read_bytes())
    return losses_of(told.read_bytes())


def losses_of(progress: bytes) -> dict[int, float]:
    """Of a checkpoint's progress.json."""
    return dict(json.loads(progress)["losses"])


def _checkpoint() -> Path:
    [path] = (REPOSITORY / "build" / "demo" / "store").rglob(f"{step_folder(LAST_STEP)}/progress.json")
    return path
