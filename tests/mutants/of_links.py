"""Guards that keep what is read and written on disk inside its folder."""

FILES = "tests/service/test_file_store.py"

GUARDS = (
    (
        "links: nothing is read through one that leads out",
        "lorafleet/inside.py",
        "    if not found.is_relative_to(os.path.realpath(folder)):",
        "    if False:",
        FILES,
    ),
    (
        "links: a folder that becomes one while it is opened is not followed",
        "lorafleet/inside.py",
        "_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW",
        "_FOLDER = os.O_DIRECTORY",
        FILES,
    ),
    (
        "links: a log lies in its job's folder",
        "service/log_copy.py",
        "    store = store.within(layout.root)\n    number, inside = divmod(start",
        "    number, inside = divmod(start",
        FILES,
    ),
)
