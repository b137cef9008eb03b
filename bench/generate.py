"""`make bench-generate`: a grid of 16 adapters in passes of many rows, against 16 pictures one by one, and against diffusers' own way.

All on the demo's base at 64 x 64 with guidance, by turns in one process, so that a busy machine is as busy for either; medians of rounds.
Writes bench/results/generate.json: `a_over_b` is how many times as fast a is, but for `second_adapter_...`, which are shares of time.
"""

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

from bench import results_file
from examples.demo import BASE_MODEL
from lorafleet import generation_spec
from lorafleet.catalog import METHODS
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.writing import write
from trainer.adapters.layout import weight_shape
from trainer.generation import files
from trainer.generation import request as requests
from trainer.generation.adapter import Adapter
from trainer.generation.sampler import How, Picture, Sampler

NUM, RANK, ROUNDS = 16, 8, 2
HOW = How(width=64, height=64, num_inference_steps=5, guidance_scale=5.0)
PROMPT = "an emoji of cat face"
ENDS = ("to_q", "to_k", "to_v", "to_out.0")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        results_file.write("generate", bench.measured())
    return 0


class Bench:
    def __init__(self, folder: Path) -> None:
        spec = generation_spec.parse({"base_model": {"uri": BASE_MODEL.absolute().as_uri()}, "prompts": [PROMPT]})
        self.base = requests.inspect(spec)
        self.sampler: Sampler = requests.sampler(self.base, device="cpu")
        self.files = [self._written(folder, number) for number in range(NUM + 1)]
        self.memory_mib = {"rss_mib_with_base": _rss_mib()}
        self.adapters = [self._read(path) for path in self.files[:NUM]]
        self.theirs: Any = StableDiffusionPipeline.from_pretrained(BASE_MODEL, safety_checker=None, torch_dtype=torch.float32)

    def measured(self) -> dict[str, float]:
        ways: dict[str, Callable[[], None]] = {
            "grid16": lambda: self.grid(NUM),
            "grid16_in_passes_of_8": lambda: self.grid(8),
            "lone16": self.lone,
            "padded16": self.padded,
            "diffusers_loop": self.loop,
            "second": self.second,
            "second_without_drawing": self.second_without_drawing,
            "first_of_diffusers": self.first_of_diffusers,
            "first_of_diffusers_without_drawing": self.first_without_drawing,
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(ROUNDS + 1):  # the first warms up
            for name, way in ways.items():
                seconds = _seconds(way)
                if number:
                    found[name].append(seconds)
        median = {name: statistics.median(each) for name, each in found.items()}
        return {
            "threads": torch.get_num_threads(),
            "grid16_over_lone16": median["lone16"] / median["grid16"],
            "grid16_in_passes_of_8_over_lone16": median["lone16"] / median["grid16_in_passes_of_8"],
            "grid16_over_diffusers_loop": median["diffusers_loop"] / median["grid16"],
            "second_adapter_first_picture_over_first": median["second"] / median["first_of_diffusers"],
            "second_adapter_over_first_without_drawing": median["second_without_drawing"] / median["first_of_diffusers_without_drawing"],
            "padded_over_unpadded_seconds": median["padded16"] / (median["lone16"] / NUM),
            **{f"{name}_s": seconds for name, seconds in median.items()},
            **self.memory_mib,
            "adapters16_mib": sum(each.size_bytes for each in self.adapters) / 2**20,
            "rss_mib_in_the_end": _rss_mib(),
        }

    # Ours

    def grid(self, num_rows: int) -> None:
        for start in range(0, NUM, num_rows):
            self._draw(self.adapters[start : start + num_rows], num_rows)

    def lone(self) -> None:
        for each in self.adapters:
            self._draw([each], 1)

    def padded(self) -> None:
        """A lone picture as rows of a grid are drawn."""
        self._draw(self.adapters[:1], 8)

    def second(self) -> None:
        """From another file to its picture, on a sampler that has drawn with others."""
        self._draw([self._read(self.files[NUM])], 1)

    def second_without_drawing(self) -> None:
        self._read(self.files[NUM])

    def _draw(self, adapters: list[Adapter], num_rows: int) -> None:
        rows = [Picture(prompt=PROMPT, seed=number, uses=[(each, 0.5)]) for number, each in enumerate(adapters)]
        self.sampler.draw(rows, HOW, num_rows=num_rows)

    def _read(self, path: Path) -> Adapter:
        uri = path.as_uri()
        found, _ = files.look([uri], self.base, self.sampler.layers)
        return files.read(uri, self.base, self.sampler.layers, found[uri].digest)

    # diffusers'

    def loop(self) -> None:
        for number, path in enumerate(self.files[:NUM]):
            self.theirs.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="it")
            self.theirs.set_adapters(["it"], adapter_weights=[0.5])
            self._theirs(self.theirs, number)
            self.theirs.unload_lora_weights()

    def first_of_diffusers(self) -> None:
        self._theirs(self._fresh(), 0)
        self.theirs.unload_lora_weights()

    def first_without_drawing(self) -> None:
        self._fresh()
        self.theirs.unload_lora_weights()

    def _fresh(self) -> Any:
        """A pipeline around parts in memory, with the adapter."""
        pipeline: Any = StableDiffusionPipeline(**self.theirs.components, requires_safety_checker=False)
        pipeline.load_lora_weights(str(self.files[0].parent), weight_name=self.files[0].name, adapter_name="it")
        return pipeline

    def _theirs(self, pipeline: Any, seed: int) -> None:
        pipeline.set_progress_bar_config(disable=True)
        pipeline(
            prompt=PROMPT,
            width=HOW.width,
            height=HOW.height,
            num_inference_steps=HOW.num_inference_steps,
            guidance_scale=HOW.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(seed),
        )

    def _written(self, folder: Path, seed: int) -> Path:
        """LoRA on attention, with numbers of a seed."""
        draws = torch.Generator().manual_seed(seed)
        modules: list[Module] = []
        for path, layer in self.sampler.layers.items():
            if path.startswith("unet.") and path.endswith(ENDS):
                shapes = METHODS.get("lora").tensors(RANK, weight_shape(layer))
                tensors = {role: torch.randn(shape, generator=draws) / 10 for role, shape in shapes.items()}
                modules.append(Module(paths=(path,), method="lora", tensors=tensors, rank=RANK, alpha=float(RANK)))
        made = folder / f"{seed}.safetensors"
        made.write_bytes(write(AdapterFile(format="kohya", families=("sd1",), modules=tuple(modules)), "kohya").files[""])
        return made


def _seconds(way: Callable[[], None]) -> float:
    gc.collect()
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _rss_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    sys.exit(main())
