"""What a step asks of a device, counted on a tiny model, so that it stays: no read by the host, few copies and few operations."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COPIES = 2  # of a pass: its batch, and the numbers of the update
MOST_MORE_A_STYLE = 24  # operations of its draws and its update


@pytest.mark.timeout(300)
def test_a_step_waits_for_nothing_and_takes_fewer_operations_than_pefts():
    """In a process of its own: DeepSpeed's accelerator is another one there."""
    ran = subprocess.run([sys.executable, "-m", "bench.launches", "--tiny"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["host_reads_per_step_tiny"] == 0
    assert found["copies_per_step_over_passes_tiny"] == COPIES
    assert found["ops_lone_over_peft_tiny"] <= 1.0
    assert (found["ops_pack16_tiny"] - found["ops_pack4_tiny"]) / 12 <= MOST_MORE_A_STYLE
