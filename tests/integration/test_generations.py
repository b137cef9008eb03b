"""Generations on a real fleet: the same pictures as on files, warm and cold, and ended once whatever is killed."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from lorafleet import generation_spec
from lorafleet.v1 import generation_service_pb2 as pb
from lorafleet.v1 import training_service_pb2 as jobs_pb
from lorafleet.work.generation import parse
from service.backends import ray_head
from tests.integration.conftest import PATIENCE_S, Fleet
from tests.service.serving import until
from trainer.generation import request as requests
from trainer.generation.drawing import Drawing
from trainer.storage import Folder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
FOX = {"prompts": ["an emoji of fox"], "num_inference_steps": 2}


def ask(fleet: Fleet, base: str, **fields: Any) -> str:
    return fleet.client.create_generation(parse({"base_model": {"uri": base}, **FOX, **fields})).name


def reach(fleet: Fleet, name: str, *states: str, step: int = 0) -> pb.Generation:
    def reached() -> bool:
        found = fleet.client.get_generation(name)
        state = jobs_pb.JobState.Name(found.state).removeprefix("JOB_STATE_")
        assert state in states or not found.HasField("end_time"), f"{state} {found.reason}: {found.message}"
        return state in states and found.progress.step >= step

    until(reached, PATIENCE_S, f"{name} to be {states} with {step} pictures")
    return fleet.client.get_generation(name)


def pixels(folder: Path) -> list[bytes]:
    found = [path for path in folder.glob("*.png") if not path.name.startswith("sheet")]
    return sorted(np.asarray(Image.open(path)).tobytes() for path in found)


@pytest.fixture(scope="module")
def drawn(base: str, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Of four seeds, as `lorafleet generate` draws them on one thread."""
    folder = tmp_path_factory.mktemp("files")
    spec = generation_spec.parse({"base_model": {"uri": base}, **FOX, "seeds": [1, 2, 3, 4]})
    found = requests.inspect(spec)
    sampler = requests.sampler(found, device="cpu")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker of one core has
    try:
        list(Drawing(requests.checked(spec, found, sampler, folder.as_uri()), sampler, Folder(folder.as_uri())).draw())
    finally:
        torch.set_num_threads(num_threads)
    return pixels(folder)


def test_it_draws_what_files_draw_and_the_next_one_on_warm_workers(fleet: Fleet, base: str, drawn: list[bytes], tmp_path: Path):
    cold = reach(fleet, ask(fleet, base, seeds=[1, 2, 3, 4]), "SUCCEEDED")
    fleet.client.download_generation(cold.name, tmp_path / "cold")
    assert pixels(tmp_path / "cold") == drawn
    warm = reach(fleet, ask(fleet, base, seeds=[4, 3, 2, 1]), "SUCCEEDED")
    fleet.client.download_generation(warm.name, tmp_path / "warm")
    assert pixels(tmp_path / "warm") == drawn
    took = [each.end_time.ToSeconds() - each.create_time.ToSeconds() for each in (cold, warm)]
    assert took[1] < took[0], "its base was loaded"
    assert len(hosts(fleet)) == 1


def hosts(fleet: Fleet) -> set[int]:
    """Drivers that live."""
    lines = [(each.pid, each.cmdline()) for each in ray_head.processes(fleet.head) if each.is_running()]
    return {pid for pid, line in lines if "trainer.run" in line and "sh" not in line[0]}


def test_a_killed_server_and_a_killed_worker_cost_no_picture_and_double_none(fleet: Fleet, base: str, tmp_path: Path):
    seeds = list(range(24))
    name = ask(fleet, base, seeds=seeds, num_inference_steps=20)
    reach(fleet, name, "RUNNING", step=1)
    fleet.served.kill()
    fleet.start()
    before = reach(fleet, name, "RUNNING", "SUCCEEDED", step=8)
    pictures = Path(before.output_uri.removeprefix("file://")) / "pictures"
    there = {path: path.stat().st_mtime_ns for path in pictures.glob("base-*.png")}
    for process in workers(fleet):
        process.send_signal(signal.SIGKILL)
    done = reach(fleet, name, "SUCCEEDED")
    assert len(done.attempts) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in there.items()), "what was there is not drawn again"
    fleet.client.download_generation(name, tmp_path / "out")
    assert len(pixels(tmp_path / "out")) == len(seeds)


def workers(fleet: Fleet) -> list[psutil.Process]:
    """Processes of Ray that do a generation now."""
    return [each for each in ray_head.processes(fleet.head) if "ray::generation" in " ".join(each.cmdline())]
