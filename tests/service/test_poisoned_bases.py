"""One tenant's poisoned bases, on a real server over a stand-in Ray: other tenants' jobs start as if they were not there."""

import json
import os
import struct
import time
from pathlib import Path

import pytest

from lorafleet import spec
from lorafleet.client import Client
from lorafleet.states import has_ended, label
from tests.service.serving import served
from tests.service.stand_in_ray import stand_in_ray

pytestmark = pytest.mark.integration

ENOUGH_S = 60.0  # for a job that takes two; a machine may be slow
KINDS = ("deep", "scalar", "huge", "infinity", "large", "fifo", "wide", "a device")


def make_base(folder: Path, kind: str = "") -> str:
    """A base with weights of no size; `kind` says in which way it is poisoned."""
    for part in ("unet", "vae"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "vae/config.json").write_text('{"block_out_channels": [1, 2]}')
    config, shapes = folder / "unet/config.json", {"conv_in.weight": [4, 4, 3, 3], "to_q.weight": [4, 4]}
    config.write_text('{"sample_size": 8}')
    match kind:
        case "deep":
            config.write_text('{"a":' * 100_000)
        case "infinity":
            config.write_text('{"sample_size": Infinity}')
        case "large":
            config.write_text(" " * 38 * 2**20)
        case "wide":
            shapes |= {f"{number}.weight": [1, 1] for number in range(100_000)}
        case "scalar":
            shapes["conv_in.weight"] = []
        case "huge":
            shapes["to_q.weight"] = [10**400, 4]
        case "fifo":
            config.unlink()
            os.mkfifo(config)
        case "a device":
            config.unlink()
            config.symlink_to("/dev/zero")
        case _:
            pass
    header = json.dumps({name: {"shape": shape} for name, shape in shapes.items()}).encode()
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return f"file://{folder}"


def job_on(base: str, pictures: Path) -> spec.Spec:
    return spec.parse({"base_model": {"uri": base}, "dataset": {"uri": f"file://{pictures}"}, "training": {"max_steps": 2}})


def test_poisoned_bases_hold_up_neither_other_tenants_nor_the_servers_end(tmp_path: Path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"png")
    good = make_base(tmp_path / "good")
    with (
        stand_in_ray() as ray,
        served(tmp_path / "state", "--ray-address", ray.address, "--max-running-runs", "2") as server,
        Client(server.address, tenant="evil") as evil,
        Client(server.address, tenant="acme") as acme,
    ):
        poisoned = [evil.create(job_on(make_base(tmp_path / f"base-{place}", kind), pictures)).name for place, kind in enumerate(KINDS)]
        healthy = acme.create(job_on(good, pictures)).name
        assert label(acme.wait(healthy, timeout_s=ENOUGH_S)) == "SUCCEEDED"
        for name in poisoned:  # what is wrong with a base is the trainer's to say: this one says nothing
            assert label(evil.wait(name, timeout_s=ENOUGH_S)) == "SUCCEEDED"
        assert has_ended(acme.get(healthy))
        began_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began_s < 30
    assert "loop admit failed" not in server.log.read_text()
