"""`make bench-before BEFORE=COMMIT`: steps per second in the loop, of this tree over those of a commit before it, in one run.

Both trees take turns, the order changing from round to round, and are compared round by round, so that a busy machine is as busy for
either. Writes bench/results/before.json: for a lone style of batch 8 and for a pack of 16 the median ratio (1: as fast as before).
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import results_file

REPOSITORY = Path(__file__).resolve().parents[1]
ROUNDS = 7
KINDS = ("single", "pack")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="lorafleet-before-") as name:
        before = Path(name) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", before, sys.argv[1]], cwd=REPOSITORY, check=True)
        try:
            results_file.write("before", {f"in_loop_{kind}_over_before": _ratio(kind, before) for kind in KINDS})
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", before], cwd=REPOSITORY, check=True)
    return 0


def _ratio(kind: str, before: Path) -> float:
    """The median over rounds."""
    ratios: list[float] = []
    for number in range(ROUNDS):
        trees = [REPOSITORY, before] if number % 2 else [before, REPOSITORY]
        seconds = {tree: _seconds_per_step(kind, tree) for tree in trees}
        ratios.append(seconds[before] / seconds[REPOSITORY])
        print(f"{kind}: {seconds[REPOSITORY]:.4f} s a step, before {seconds[before]:.4f} s", flush=True)
    return statistics.median(ratios)


def _seconds_per_step(kind: str, tree: Path) -> float:
    command = [sys.executable, str(REPOSITORY / "bench" / "step_rate.py"), kind]
    ran = subprocess.run(
        command, cwd=tree, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=True
    )
    return float(ran.stdout.split()[-1])


if __name__ == "__main__":
    sys.exit(main())
