"""`make bench-loading`: what memory a denoiser of 3 B parameters takes while it is loaded, and how fast its bytes come from a store.

A FLUX.1 with few blocks and random weights in bf16, in shards on a MinIO on loopback, is loaded at each precision by a process of its
own, as a worker does it: straight from the store, and from a copy in the node's cache. Anonymous memory is what counts: pages of mapped
files are the kernel's to drop. Its growth is compared with what the planner's model says of the loaded denoiser. Writes
bench/results/loading.json; with other BLOCKS than the usual it only prints.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from bench import results_file
from examples.demo_store import start_minio
from examples.processes import Servers
from lorafleet.catalog import PRECISIONS
from lorafleet.spec import BaseModelSpec

USUAL = "4,11"
BLOCKS = os.environ.get("BLOCKS", USUAL)
NUM_DOUBLE, NUM_SINGLE = map(int, BLOCKS.split(","))  # FLUX.1 has 19 and 38
SHARD_BYTES = 2**30
NUM_PARTS = 4  # of the base: bytes per second of each are measured in every way, and the medians compared
EVERY_S = 0.02  # memory is looked at
URI = "s3://base-models/flux-3b"
LOAD_BEFORE = os.getloadavg()[0]  # of the machine, for whoever reads the figures


def main() -> int:
    if len(sys.argv) > 1:
        print(json.dumps(_loaded(sys.argv[1], Path(sys.argv[2]))))
        return 0
    with tempfile.TemporaryDirectory(prefix="lorafleet-loading-") as name, Servers(log_dir=Path(name)) as servers:
        folder = Path(name)
        os.environ.update(start_minio(servers, folder / "minio"))
        _put_base(folder / "base")
        metrics = _rates(folder / "rates") | {"load_average_before": LOAD_BEFORE}
        errors: list[float] = []
        for cache, suffix in (("off", ""), (str(folder / "cache"), "_from_cache")):
            for precision in ("bf16", "int8", "nf4"):
                found = _in_a_process(precision, folder, cache)
                print(precision, cache, found, flush=True)
                metrics[f"peak_over_final_{precision}{suffix}"] = found["peak_bytes"] / found["held_bytes"]
                metrics[f"load_s_{precision}{suffix}"] = found["load_s"]
                metrics[f"held_gib_{precision}"] = found["held_bytes"] / 2**30
                kinds = ("held_bytes", "grown_bytes") if cache == "off" else ("held_bytes",)  # of a copy pages are mapped
                errors += [abs(found[kind] / found["estimate_bytes"] - 1) for kind in kinds]
            _tell({"estimate_error_max": max(errors), **metrics, "load_average_after": os.getloadavg()[0]})
    return 0


def _tell(metrics: dict[str, float]) -> None:
    if BLOCKS == USUAL:
        results_file.write("loading", metrics)
    else:
        print(json.dumps(metrics, indent=2), flush=True)


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
    """Bytes per second of the ways that a base takes to a node, with its digest and without, over obstore's own.

    All keep what they have read until a part is there, as whoever loads a base must: memory that is new costs the kernel a third of what
    reading costs. How much is told by obstore's own rate that keeps nothing.
    """
    from trainer.ranges import Object
    from trainer.storage import Folder

    source = Folder(f"{URI}/transformer")
    files = [Object(folder=source, entry=entry) for entry in source.scan().entries if entry.path.endswith(".safetensors")]
    files = files[:NUM_PARTS]
    digests = {file.uri: source.sha256(file.entry.path) for file in files}  # the store has them in memory from then on
    ways = {
        "dropped": lambda file: _raw_ranges(file, kept=None),
        "stream": _raw_stream,
        "ranges": lambda file: _raw_ranges(file, kept=[]),
        "undigested": _undigested,
        "digested": _digested(digests),
        "copied": _copied(folder),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for file in files:
        for way, read in ways.items():
            began_s = time.perf_counter()
            read(file)
            rates[way].append(file.entry.size_bytes / 2**20 / (time.perf_counter() - began_s))
    print(rates, flush=True)
    median = {way: sorted(each)[len(each) // 2] for way, each in rates.items()}
    raw = max(median["stream"], median["ranges"])
    return {
        "mb_per_s_over_raw_obstore": median["undigested"] / raw,
        "mb_per_s_with_digest_over_raw_obstore": median["digested"] / raw,
        "mb_per_s_of_a_copy_over_raw_obstore": median["copied"] / raw,
        "raw_obstore_mb_per_s": raw,
        "raw_obstore_kept_over_dropped": raw / median["dropped"],
    }


def _raw_stream(file: Any) -> None:
    import obstore

    list(obstore.get(file.folder._store, file.folder._key(file.entry.path)).stream(min_chunk_size=8 * 2**20))


def _raw_ranges(file: Any, kept: list[Any] | None) -> None:
    """As many at a time as ours."""
    import obstore

    from trainer import ranges

    size_bytes, key = file.entry.size_bytes, file.folder._key(file.entry.path)

    def read(start: int) -> None:
        found = obstore.get_range(file.folder._store, key, start=start, end=min(size_bytes, start + ranges.RANGE_BYTES))
        if kept is not None:
            kept.append(found)

    with ThreadPoolExecutor(ranges.IN_FLIGHT) as pool:
        list(pool.map(read, range(0, size_bytes, ranges.RANGE_BYTES)))


def _undigested(file: Any) -> None:
    """Into tensors."""
    from trainer import ranges, weight_stream

    list(weight_stream._tensors(weight_stream._Bytes(ranges.of_all([file])), file.entry.size_bytes))


def _digested(digests: dict[str, str]) -> Callable[[Any], None]:
    """As a worker loads."""
    from trainer.weight_stream import WeightStream

    def digested(file: Any) -> None:
        list(WeightStream({file.uri: file}, digests))

    return digested


def _copied(folder: Path) -> Callable[[Any], None]:
    """To disk, and digested there: the way to a node's cache."""

    def copied(file: Any) -> None:
        from trainer.prepare.base_copy import _sha256_of

        file.folder.download([file.entry.path], into=folder)
        _sha256_of(folder / file.entry.path)
        (folder / file.entry.path).unlink()

    return copied


def _in_a_process(precision: str, folder: Path, cache: str) -> dict[str, float]:
    command: Sequence[str] = [sys.executable, "-m", "bench.loading", precision, str(folder)]
    environment = {**os.environ, "LORAFLEET_NODE_CACHE": cache}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


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
    _ = base.path  # with all that is not streamed
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
        "estimate_bytes": PRECISIONS.get(precision).held_bytes(num_params, layers),
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
    """The kernel's running count: to walk through all pages, as smaps_rollup does, would slow down what is measured."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


if __name__ == "__main__":
    sys.exit(main())
