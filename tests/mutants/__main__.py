"""`make mutants`: takes each guard away in a copy of the repository and names the test that notices.

Exits with 1 when one survives, when a patch no longer applies, or when the tests are red without any patch.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.guards import Guard, guards

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = (".venv", ".tools", "examples/models")  # too large to copy, and nothing of them is patched
TIMEOUT_S = 600  # of the tests of one guard
ALL_TIMEOUT_S = 3600  # of those of all guards, without a patch


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("--only", default="", help="those whose name holds this")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th from the K-th on, so that N processes share the work")
    options = parser.parse_args()
    number, of = map(int, options.part.split("/"))
    chosen = [guard for guard in guards() if options.only in guard.name][number - 1 :: of]
    if options.list:
        for guard in chosen:
            print(f"{guard.name}\n    {guard.path}: {guard.tests}")
        return 0
    with tempfile.TemporaryDirectory(prefix="lorafleet-mutants-") as name:
        copy = Path(name)
        _copy(copy)
        all_tests = sorted({test for guard in chosen for test in guard.tests.split()})
        if (red := _red(copy, all_tests, ALL_TIMEOUT_S)) is not None:
            print(f"red without any patch: {red}", file=sys.stderr)
            return 1
        survivors = [guard for guard in chosen if not _is_killed(copy, guard)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    return 1 if survivors else 0


def _copy(to: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file() and not name.startswith("examples/models"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, to / name)
    for name in SHARED:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).symlink_to(REPOSITORY / name)


def _is_killed(copy: Path, guard: Guard) -> bool:
    path = copy / guard.path
    text = path.read_text()
    if (times := text.count(guard.before)) != 1:
        print(f"NO PATCH  {guard.name}: its text occurs {times} times in {guard.path}")
        return False
    path.write_text(text.replace(guard.before, guard.after))
    started_s = time.monotonic()
    try:
        killer = _red(copy, guard.tests.split())
    finally:
        path.write_text(text)
    told = f"killed by {killer}" if killer else "SURVIVED"
    print(f"{told.split()[0]:9} {guard.name}: {told} ({time.monotonic() - started_s:.0f} s)", flush=True)
    return killer is not None


def _red(copy: Path, tests: list[str], timeout_s: int = TIMEOUT_S) -> str | None:
    """The first test that fails; None when all pass. An import that breaks is no test that fails."""
    command = [
        ".venv/bin/python",
        "-B",
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not integration and not postgresql",
        *tests,
    ]  # guards are the same on both databases
    ran = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=timeout_s)
    if ran.returncode == 0:
        return None
    found = re.search(r"^FAILED (\S+)", ran.stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f"pytest did not get to its tests:\n{ran.stdout[-3000:]}{ran.stderr[-1000:]}")
    return found[1]


if __name__ == "__main__":
    raise SystemExit(main())
