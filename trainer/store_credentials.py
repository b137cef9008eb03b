"""The store credentials that a run is given: its tenant's own, where it has some, before those of the machine.

They come in the run's environment, or in a file that the run's user alone may read, and never in its manifest.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

# What says who we are to the store, of any kind: with a key of the tenant's own, nothing of the machine's may be left.
_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def given(file: str | None) -> dict[str, str]:
    """The variables of the file; none without one."""
    return {} if file is None else json.loads(Path(file).read_text())


def adopt(store_env: Mapping[str, str]) -> None:
    """This process reaches the store with them from now on. Call it before the store is asked anything."""
    os.environ.update(store_env)
    for name in _NAMES:
        if os.environ.get(name) == "":  # set so that an inherited one does not count; SDKs would send it all the same
            del os.environ[name]
