"""`make bench-generate`: a grid of 16 adapters in passes of many rows, against 16 pictures one by one, and against diffusers' own way.

All on the demo's base at 64 x 64 with guidance, by turns in one process, so that a busy machine is as busy for either; medians of rounds.
The grid is drawn in passes of as many rows as `lorafleet generate` draws. Writes bench/results/generate.json: `a_over_b` is how many times
as fast a is, but for `second_adapter_...`, which are shares of time. A picture takes as many steps with the second adapter as with the
first: `..._without_drawing` has what switching takes alone. `denoiser_..._gflops_a_s` say what there is to gain: how fast it alone
computes for a lone picture, for a pass of the grid, and a large product, which is what this processor can do. `command_...`: as people
run `lorafleet generate`, once for 16 adapters, or 16 times for one, each loading the base.
"""

import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch.utils.flop_counter import FlopCounterMode

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
from trainer.generation.kept import KeptAdapters
from trainer.generation.sampler import How, Picture, Sampler, rows_at_once
from trainer.generation.stacks import stacked

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
        self.num_rows = rows_at_once(HOW.width, HOW.height, self.sampler.family)
        self.files = [self._written(folder, number) for number in range(NUM + 1)]
        self.memory_mib = {"rss_mib_with_base": _rss_mib()}
        self.adapters = [self._read(path) for path in self.files[:NUM]]
        self.theirs: Any = StableDiffusionPipeline.from_pretrained(BASE_MODEL, safety_checker=None, torch_dtype=torch.float32)

    def measured(self) -> dict[str, float]:
        ways: dict[str, Callable[[], None]] = {
            "grid16": lambda: self.grid(self.num_rows),
            "grid16_in_one_pass": lambda: self.grid(NUM),
            "lone16": self.lone,
            "padded": self.padded,
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
            "grid16_in_one_pass_over_lone16": median["lone16"] / median["grid16_in_one_pass"],
            "grid16_over_diffusers_loop": median["diffusers_loop"] / median["grid16"],
            "second_adapter_first_picture_over_first": median["second"] / median["first_of_diffusers"],
            "second_adapter_over_first_without_drawing": median["second_without_drawing"] / median["first_of_diffusers_without_drawing"],
            "padded_over_unpadded_seconds": median["padded"] / (median["lone16"] / NUM),
            **self.denoiser(),
            **self.commands(),
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
        self._draw(self.adapters[:1], self.num_rows)

    def second(self) -> None:
        """From another file to its picture, on a sampler that has drawn with others."""
        self._draw([self._read(self.files[NUM])], 1)

    def second_without_drawing(self) -> None:
        """All that comes before the first step."""
        stacked([[(self._read(self.files[NUM]), 0.5)]], self.sampler.base.device)

    def denoiser(self) -> dict[str, float]:
        """Of rows with their prompts and without, as guidance has it; best of several."""
        unet, product = self.theirs.unet, torch.randn(1024, 1024)
        sides = HOW.width // self.theirs.vae_scale_factor, HOW.height // self.theirs.vae_scale_factor

        def gflops(num_rows: int) -> float:
            x, text = torch.randn(num_rows, unet.config.in_channels, *sides), torch.randn(num_rows, 77, unet.config.cross_attention_dim)
            with FlopCounterMode(display=False) as counted:
                unet(x, 500, text)
            return counted.get_total_flops() / 1e9 / min(_seconds(lambda: unet(x, 500, text)) for _ in range(3))

        with torch.no_grad():
            return {
                "denoiser_lone_gflops_a_s": gflops(2),
                "denoiser_pass_gflops_a_s": gflops(2 * self.num_rows),
                "product_gflops_a_s": 2 * 1024**3 / 1e9 / min(_seconds(lambda: product @ product) for _ in range(3)),
            }

    def commands(self) -> dict[str, float]:
        """Lone ones are alike: one stands for 16."""
        grid, lone = _seconds(lambda: self._command(self.files[:NUM])), _seconds(lambda: self._command(self.files[:1], "--unpadded"))
        return {"command_grid16_over_16_commands": NUM * lone / grid, "command_grid16_s": grid, "command_lone_s": lone}

    def _command(self, files: Sequence[Path], *options: str) -> None:
        adapters = [option for path in files for option in ("--adapter", str(path))]
        how = [
            "--base",
            str(BASE_MODEL),
            "--prompt",
            PROMPT,
            "--size",
            f"{HOW.width}x{HOW.height}",
            "--steps",
            str(HOW.num_inference_steps),
        ]
        with tempfile.TemporaryDirectory() as out:
            made = [Path(sys.executable).with_name("lorafleet"), "generate", *adapters, *how, "--out", out, *options]
            subprocess.run(made, check=True, capture_output=True)

    def _draw(self, adapters: list[Adapter], num_rows: int) -> None:
        rows = [Picture(prompt=PROMPT, seed=number, uses=[(each, 0.5)]) for number, each in enumerate(adapters)]
        self.sampler.draw(rows, HOW, num_rows=num_rows)

    def _read(self, path: Path) -> Adapter:
        uri = path.as_uri()
        kept = KeptAdapters()
        found, _ = files.look([uri], self.base, self.sampler.layers, kept=kept)
        digest = found[uri].digest
        return kept.get(digest, lambda: files.read(uri, self.base, self.sampler.layers, digest))

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


def _seconds(way: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _rss_mib() -> float:
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    sys.exit(main())
