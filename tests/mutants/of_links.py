"""Guards that keep what is read and written on disk inside its folder."""

FILES = "tests/service/store/test_file_store.py"
TRAINER = "tests/trainer/test_links.py"

GUARDS = (
    (
        "links: nothing is read through one that leads out",
        "lorafleet/contract/confined_files.py",
        "    if not found.is_relative_to(os.path.realpath(folder)):",
        "    if False:",
        FILES,
    ),
    (
        "links: a folder that becomes one while it is opened is not followed",
        "lorafleet/contract/confined_files.py",
        "_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW",
        "_FOLDER = os.O_DIRECTORY",
        FILES,
    ),
    (
        "links: a log lies in its job's folder",
        "service/store/job_logs.py",
        "    store = store.within(layout.root)\n    number, inside = divmod(start",
        "    number, inside = divmod(start",
        FILES,
    ),
    (
        "links: a run reads nothing through one that leads out",
        "trainer/storage.py",
        "with plain_files.opened(self._on_disk(path), _path(self._within)) as file:",
        "with self._on_disk(path).open() as file:",
        TRAINER,
    ),
    (
        "links: a run writes nothing through one that leads out",
        "trainer/storage.py",
        'yield f"{_HELD}/{held}/{place.name}"',
        'yield str(place).lstrip("/")',
        TRAINER,
    ),
    (
        "links: a run reads the file that was looked at",
        "trainer/storage.py",
        'yield f"{_HELD}/{file.fileno()}"',
        'yield str(self._on_disk(path)).lstrip("/")',
        TRAINER,
    ),
)
