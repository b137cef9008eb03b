"""Prepares the state directory: there, its files readable by their owner alone, and a folder that others can read is said."""

import logging

from lorafleet import state_files
from service.settings.serve_options import DATABASE_NAME
from service.settings.serve_settings import Settings

_FILES = ("lock", "port", f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", "ray/head.json", "ray/head.log", "ray/token")

log = logging.getLogger(__name__)


def prepare(settings: Settings) -> None:
    """Raises OperatorsFault and Unavailable for a folder in which nothing can be written."""
    folder = settings.state_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (mode := folder.stat().st_mode & 0o777) & 0o077:
            log.warning("others can read %s (mode %o); its files are private all the same: chmod 700 hides their names too", folder, mode)
    except OSError as error:
        raise state_files.unwritable(folder, error) from None
    if settings.database_url is None:
        state_files.made_private(settings.database_path)  # SQLite gives what it writes beside a database the same mode
    for name in _FILES:
        state_files.make_private(folder / name)
