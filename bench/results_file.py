"""Where a bench leaves its figures: bench/results/NAME.json, flat, with the machine they were measured on."""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def write(name: str, metrics: Mapping[str, float]) -> Path:
    """Prints the metrics and writes them. Returns the file."""
    RESULTS.mkdir(exist_ok=True)
    found = {**{key: _rounded(value) for key, value in metrics.items()}, **machine()}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return path


def _rounded(value: float) -> float:
    """Six digits that count: a difference of 1e-7 and a similarity of 0.999996 must not be rounded away."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def machine() -> dict[str, str | int]:
    """What figures depend on beside the code."""
    names = [line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")]
    return {
        "machine": names[0] if names else platform.processor() or platform.machine(),
        "num_cpus": os.cpu_count() or 0,
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
