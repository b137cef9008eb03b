"""`make bench-loading`: what memory a denoiser of 3 B parameters takes while it is loaded, and how fast its bytes come from a store.

A FLUX.1 with few blocks and random weights in bf16, in shards on a MinIO on loopback, is loaded at each precision by a process of its
own, as a worker does it. Anonymous memory is what counts: pages of mapped files are the kernel's to drop. Its growth is compared with
what the planner's model says of the loaded denoiser. Writes bench/results/loading.json.
"""

import gc
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from bench import results_file
from examples.demo_store import start_minio
from examples.processes import Servers
from lorafleet.catalog import PRECISIONS
from lorafleet.spec import BaseModelSpec

NUM_DOUBLE, NUM_SINGLE = 4, 11  # blocks; FLUX.1 has 19 and 38
SHARD_BYTES = 2**30
NUM_PARTS = 4  # of the bytes per second, each measured so often; the medians are compared
EVERY_S = 0.02  # memory is looked at
URI = "s3://base-models/flux-3b"


def main() -> int:
    if len(sys.argv) > 1:
        print(json.dumps(_loaded(sys.argv[1], Path(sys.argv[2]))))
        return 0
    with tempfile.TemporaryDirectory(prefix="lorafleet-loading-") as name, Servers(log_dir=Path(name)) as servers:
        folder = Path(name)
        os.environ.update(start_minio(servers, folder / "minio"), LORAFLEET_NODE_CACHE=str(folder / "cache"))
        _put_base(folder / "base")
        metrics = _rates(folder / "rates")
        errors: list[float] = []
        for facts in PRECISIONS.all():
            if facts.name == "fp32":
                continue
            found = _in_a_process(facts.name, folder)
            metrics[f"peak_over_final_{facts.name}"] = found["peak_bytes"] / found["held_bytes"]
            metrics[f"held_gib_{facts.name}"] = found["held_bytes"] / 2**30
            metrics[f"load_s_{facts.name}"] = found["load_s"]
            errors.append(abs(found["held_bytes"] / found["estimate_bytes"] - 1))
            print(facts.name, found, flush=True)
        results_file.write("loading", {"estimate_error_max": max(errors), **metrics})
    return 0


def _put_base(folder: Path) -> None:
    """The tiny base of the tests with a larger denoiser."""
    import boto3

    from tests.trainer.families import flux

    flux.write(folder)
    denoiser = folder / "transformer"
    for path in denoiser.glob("*.safetensors*"):
        path.unlink()
    config = json.loads((denoiser / "config.json").read_text())
    size = {"num_layers": NUM_DOUBLE, "num_single_layers": NUM_SINGLE, "num_attention_heads": 24, "attention_head_dim": 128}
    (denoiser / "config.json").write_text(json.dumps({**config, **size, "axes_dims_rope": [16, 56, 56]}))
    _write_shards(denoiser)
    s3 = boto3.client("s3", region_name=os.environ["AWS_REGION"])
    bucket, _, prefix = URI.removeprefix("s3://").partition("/")
    s3.create_bucket(Bucket=bucket)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")
        if path.suffix == ".safetensors" and path.parent == denoiser:
            path.unlink()


def _write_shards(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    shards: list[dict[str, Any]] = [{}]
    sizes = [0]
    for name, shape in _shapes(folder).items():
        num_bytes = 2 * prod(shape)
        if sizes[-1] + num_bytes > SHARD_BYTES:
            shards.append({})
            sizes.append(0)
        shards[-1][name] = shape
        sizes[-1] += num_bytes
    where: dict[str, str] = {}
    for number, shapes in enumerate(shards, start=1):
        path = f"diffusion_pytorch_model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02) for name, shape in shapes.items()}
        save_file(tensors, folder / path)
        where |= dict.fromkeys(tensors, path)
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": where}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _rates(folder: Path) -> dict[str, float]:
    """Bytes per second of the way that a base takes to a node, with its digests and without, over obstore's own."""
    import obstore
    from obstore.store import S3Store

    from trainer.storage import Folder

    source = Folder(f"{URI}/transformer")
    names = sorted(entry.path for entry in source.scan().entries if entry.path.endswith(".safetensors"))[:NUM_PARTS]
    bucket, _, prefix = URI.removeprefix("s3://").partition("/")
    client = S3Store(bucket, endpoint=os.environ["AWS_ENDPOINT_URL"], client_options={"allow_http": True})  # pyright: ignore[reportCallIssue, reportArgumentType]

    def raw(name: str) -> int:
        with (folder / f"raw-{name}").open("wb") as file:
            return sum(file.write(chunk) for chunk in obstore.get(client, f"{prefix}/transformer/{name}").stream(min_chunk_size=8 * 2**20))

    def ours(name: str) -> int:
        source.download([name], into=folder)
        return (folder / name).stat().st_size

    def digested(name: str) -> int:
        size = ours(name)
        with (folder / name).open("rb") as file:
            hashlib.file_digest(file, "sha256")
        return size

    rates: dict[str, list[float]] = {"raw": [], "ours": [], "digested": []}
    folder.mkdir()
    for name in names:
        for kind, way in (("raw", raw), ("ours", ours), ("digested", digested)):
            began_s = time.perf_counter()
            num_bytes = way(name)
            rates[kind].append(num_bytes / 2**20 / (time.perf_counter() - began_s))
            for path in folder.iterdir():
                path.unlink()
    raw_rate, own, with_digest = (sorted(each)[len(each) // 2] for each in rates.values())
    return {
        "mb_per_s_over_raw_obstore": own / raw_rate,
        "mb_per_s_with_digest_over_raw_obstore": with_digest / raw_rate,
        "raw_obstore_mb_per_s": raw_rate,
    }


def _in_a_process(precision: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.loading", precision, str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def _loaded(precision: str, folder: Path) -> dict[str, float]:
    """Loads the denoiser once to see that it can, its libraries too, of the tiny base; then the large one, with its growth watched."""
    import torch

    from tests.trainer.families import flux
    from trainer.frozen_base import FrozenBase
    from trainer.prepare.base_model import inspect
    from trainer.storage import Folder

    cpu = torch.device("cpu")
    tiny = folder / f"tiny-{precision}"
    small = FrozenBase(inspect(BaseModelSpec(uri=flux.write(tiny).as_uri()), Folder((folder / "facts").as_uri())), precision, cpu)
    _ = small.parts["transformer"]
    base = FrozenBase(inspect(BaseModelSpec(uri=URI), Folder((folder / "facts").as_uri())), precision, cpu)
    _ = base.path  # on this node
    gc.collect()
    began_s = time.perf_counter()
    with _watched() as seen:
        denoiser = base.parts["transformer"]
    load_s = time.perf_counter() - began_s
    held = [*denoiser.parameters(), *denoiser.buffers()]
    shapes = _shapes(folder / "base" / "transformer")
    layers = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) == 2}
    num_params = sum(map(prod, shapes.values()))
    return {
        "peak_bytes": max(seen) - seen[0],
        "grown_bytes": seen[-1] - seen[0],
        "held_bytes": sum(each.numel() * each.element_size() for each in held) + _scales(denoiser),
        "estimate_bytes": PRECISIONS.get(precision).denoiser_bytes(num_params, layers),
        "load_s": load_s,
    }


def _scales(denoiser: Any) -> int:
    """Of NF4, whose scales are no buffers."""
    states = [getattr(each, "quant_state", None) for each in denoiser.parameters()]
    inner = [state.state2 for state in states if state is not None]
    return sum(state.absmax.nbytes for state in states if state is not None) + sum(each.absmax.nbytes for each in inner if each is not None)


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from accelerate import init_empty_weights
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    with init_empty_weights():
        model = FluxTransformer2DModel(
            **{name: value for name, value in json.loads((folder / "config.json").read_text()).items() if name[0] != "_"}
        )
    return {name: tuple(each.shape) for name, each in model.named_parameters()}


@contextmanager
def _watched() -> Iterator[list[int]]:
    """Anonymous memory of this process in bytes: before, all the while, and after."""
    seen, done = [_anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_S):
            seen.append(_anonymous_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        seen.append(_anonymous_bytes())


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024


if __name__ == "__main__":
    sys.exit(main())
