"""`make bench-formats`: every family's, method's and format's file in the programs that load it.

Tiny bases get an adapter with numbers drawn here, on every kind of layer that may have one. Its files are loaded with diffusers, PEFT's
folder with PEFT, and what the pipelines then draw is compared with what the base draws with the adapter in its weights, as its method
merges it. Files are also merged by the arithmetic that LyCORIS publishes (trainer/adapters/files/updates.py). Writes
bench/results/formats.json and docs/formats.md; ends with an error where lorafleet/adapter_readers.py says otherwise.
"""

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from peft import PeftModel
from torch import Tensor, nn

from bench import formats_document, results_file
from examples.demo import BASE_MODEL
from lorafleet import adapter_readers, spec
from lorafleet.catalog import FAMILIES, METHODS, file_names
from lorafleet.catalog.method import is_target
from lorafleet.catalog.part import Layers
from lorafleet.errors import InvalidSpec
from lorafleet.spec import Spec
from tests.trainer.families.row import load_file
from tests.trainer.families.rows import ROWS
from tests.trainer.sd import bases
from tests.trainer.sdxl import test_files as sdxl_files
from tests.trainer.sdxl import tiny_base
from trainer.adapters.files import reading
from trainer.adapters.files.contents import FORMATS
from trainer.adapters.files.fused import NotHeld
from trainer.adapters.files.sources import WEIGHTS, Source, in_parts
from trainer.adapters.files.updates import update
from trainer.adapters.formats.diffusers import diffusers_file
from trainer.adapters.formats.kohya import kohya_file
from trainer.adapters.formats.others import comfyui_file, peft_files
from trainer.adapters.formats.tensors import by_module
from trainer.adapters.layout import scaling, weight_shape
from trainer.adapters.methods import METHODS as IMPLEMENTED

RANK, ALPHA, SIDE, STEPS = 2, 3.0, 64, 2
SAME = 1e-3  # latents at most so far apart
MERGED = 1e-6  # weights, of the largest of them
UNTOLD = {("sd3", "oft")}  # the last block's text is modulated in another order there, which OFT's tensors do not tell: see the document
PROMPT = "red round thing 3"
UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "conv1", "conv_shortcut", "time_emb_proj")
Drawn = Callable[[Any], Tensor]
log = logging.getLogger("bench.formats")


@dataclass(frozen=True)
class Tried:
    """One family's base, and how its pipeline draws and loads."""

    family: str
    base: Path
    pipeline: Any
    targets: tuple[str, ...]
    draw: Drawn
    load_kohya: Callable[[Any, Path], None]


def tried(family: str, folder: Path) -> Tried:
    match family:
        case "sd1":
            return Tried(family, BASE_MODEL, StableDiffusionPipeline, UNET_TARGETS, _draws({"prompt": PROMPT}), load_file)
        case "sd2":
            return Tried(
                family, bases.write_sd2(folder / "sd2"), StableDiffusionPipeline, UNET_TARGETS, _draws({"prompt": PROMPT}), load_file
            )
        case "sdxl":
            base, targets = tiny_base.write(folder / "sdxl"), tuple(sdxl_files.EVERY_KIND)
            return Tried(family, base, StableDiffusionXLPipeline, targets, _draws({"prompt": PROMPT}), load_file)
        case _:
            row = ROWS[family]

            def draw(pipeline: Any) -> Tensor:
                return _draws({**row.prompts(pipeline, PROMPT), "guidance_scale": row.guidance_scale, **row.drawing})(pipeline)

            base = row.write(folder / family, row.variants[0])
            return Tried(family, base, row.pipeline, tuple(row.target_modules), draw, row.load_kohya or load_file)


def _draws(arguments: Mapping[str, Any]) -> Drawn:
    def draw(pipeline: Any) -> Tensor:
        images = pipeline(
            **arguments,
            width=SIDE,
            height=SIDE,
            num_inference_steps=STEPS,
            output_type="latent",
            generator=torch.Generator("cpu").manual_seed(11),
        ).images
        return torch.as_tensor(images[0]).float()

    return draw


def fresh(of: Tried) -> Any:
    pipeline = of.pipeline.from_pretrained(of.base, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def asked(of: Tried, method: str, format: str) -> Spec:
    """Raises InvalidSpec where the format is refused."""
    alpha = {"alpha": ALPHA} if METHODS.get(method).has_alpha else {}
    adapter = {"method": method, "rank": RANK, **alpha, "target_modules": list(of.targets)}
    output = {"precision": "fp32", "formats": [format]}
    base = {"uri": "file:///base", "family": of.family}
    return spec.parse({"base_model": base, "dataset": {"uri": "file:///data"}, "adapter": adapter, "output": output})


def layers_of(denoiser: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    return {name: layer for name, layer in denoiser.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}


def drawn_weights(of: Tried, denoiser: nn.Module, method: str) -> dict[str, Tensor]:
    """By the trainer's names. Small: what is compared must not grow in the steps of a sampler."""
    facts, draws = METHODS.get(method), torch.Generator().manual_seed(5)
    part = FAMILIES.get(of.family).denoiser.name
    found: dict[str, Tensor] = {}
    for name, layer in layers_of(denoiser).items():
        if not is_target(name, of.targets):
            continue
        for role, shape in facts.tensors(RANK, weight_shape(layer)).items():
            noise = torch.randn(shape, generator=draws)
            norm = layer.weight.detach().flatten(1).norm(dim=1)
            found[f"{part}.{name}.{facts.names[role]}"] = (
                norm * (1 + 0.1 * noise) if role == "magnitude" else 0.3 * noise / prod(shape[1:]) ** 0.25
            )
    return found


def merged(of: Tried, wanted: Spec, weights: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """A pipeline whose base has the adapter in its weights, and these by our names."""
    pipeline, method = fresh(of), IMPLEMENTED.get(wanted.adapter.method)
    found: dict[str, Tensor] = {}
    for path, tensors in by_module(weights, wanted.adapter).items():
        part, _, module = path.partition(".")
        layer = getattr(pipeline, part).get_submodule(module)
        layer.weight.data = found[path] = method.merged(layer.weight.detach(), tensors, scaling(wanted.adapter)).detach()
    return pipeline, found


def files(wanted: Spec, weights: Mapping[str, Tensor], denoiser: nn.Module) -> dict[str, bytes]:
    """Of the one format that is wanted; "" names a lone file."""
    layers, (format,) = layers_of(denoiser), wanted.output.formats
    rename = wanted.family.kohya_modules
    renamed = Layers(rename(list(layers)) if rename else {}, {name: layer.weight.shape[0] for name, layer in layers.items()})
    match format:
        case "kohya":
            return {"": kohya_file(weights, wanted, {}, "fp32", layers=renamed)}
        case "comfyui":
            return {"": comfyui_file(kohya_file(weights, wanted, {}, "fp32", layers=renamed), wanted, layers)}
        case "peft":
            return peft_files(diffusers_file(weights, wanted, "fp32"), wanted)
        case _:
            return {"": diffusers_file(weights, wanted, "fp32")}


def loaded(of: Tried, wanted: Spec, written: Mapping[str, bytes], folder: Path) -> Any:
    """A pipeline with the file loaded by the program that is its format's. Raises what that raises."""
    pipeline, (format,) = fresh(of), wanted.output.formats
    place = folder / format
    for name, data in written.items():
        path = place / (name or "lora.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if format == "peft":
        part = wanted.family.denoiser.name
        setattr(pipeline, part, PeftModel.from_pretrained(getattr(pipeline, part), place).base_model.model)
    else:
        (of.load_kohya if format == "kohya" else load_file)(pipeline, place / "lora.safetensors")
    return pipeline


def merge_difference(written: Mapping[str, bytes], wanted: Spec, weights: Mapping[str, Tensor], denoiser: nn.Module) -> float:
    """Of weights merged by the published arithmetic from those that the method merges, as a share of the largest weight."""
    adapter = reading.read(in_parts(written) if WEIGHTS in written else [Source("lora.safetensors", written[""])], wanted.family.name)
    layers = layers_of(denoiser)
    worst = 0.0
    for module in adapter.modules:
        frozen = [layers[path.partition(".")[2]].weight.detach() for path in module.paths]
        ours = torch.cat([weights[path].flatten(1) for path in module.paths])
        whole = torch.cat([each.flatten(1) for each in frozen]) if len(frozen) > 1 else frozen[0]
        theirs = whole.flatten(1) + update(module, whole)
        worst = max(worst, float((theirs - ours).abs().max() / ours.abs().max()))
    return worst


def measure(of: Tried, folder: Path, methods: Sequence[str]) -> Iterator[tuple[str, float]]:
    """(key, value) for each method and format of the family."""
    plain = fresh(of)
    before = of.draw(plain)
    denoiser = getattr(plain, FAMILIES.get(of.family).denoiser.name)
    for method in methods:
        weights = drawn_weights(of, denoiser, method)
        expected: tuple[Tensor, dict[str, Tensor]] | None = None
        for format in FORMATS:
            key = f"{of.family}_{method}_{format}"
            try:
                wanted = asked(of, method, format)
                written = files(wanted, weights, denoiser)
            except (InvalidSpec, NotHeld, NotImplementedError) as why:
                log.info("%s: refused: %s", key, why)
                yield f"{key}_written", 0
                continue
            if expected is None:
                pipeline, in_weights = merged(of, wanted, weights)
                expected = of.draw(pipeline), in_weights
                yield f"{of.family}_{method}_effect", float((expected[0] - before).abs().max())
            yield f"{key}_written", 1
            yield f"{key}_merge_max_diff", merge_difference(written, wanted, expected[1], denoiser)
            yield from _loading(of, wanted, written, folder / method, key, expected[0])


def _loading(
    of: Tried, wanted: Spec, written: Mapping[str, bytes], folder: Path, key: str, expected: Tensor
) -> Iterator[tuple[str, float]]:
    program = "peft" if wanted.output.formats == ("peft",) else "diffusers"
    try:
        found = of.draw(loaded(of, wanted, written, folder))
    except Exception as why:
        log.info("%s: %s does not load it: %s", key, program, str(why)[:300])
        yield f"{key}_{program}_loads", 0
        return
    difference = float((found - expected).abs().max())
    yield f"{key}_{program}_loads", int(difference <= SAME)
    yield f"{key}_{program}_max_diff", difference


def contradictions(figures: Mapping[str, float]) -> list[str]:
    """What was measured and is said otherwise."""
    found: list[str] = []
    for family in FAMILIES.all():
        for method in METHODS.names():
            for format in FORMATS:
                key, program = f"{family.name}_{method}_{format}", "peft" if format == "peft" else "diffusers"
                if f"{key}_{program}_loads" not in figures:
                    continue
                verdicts = adapter_readers.of_file(family, format, (method,))
                said = next(each for each in verdicts if each.program.lower().startswith(program))
                if (said.loads == adapter_readers.YES) != bool(figures[f"{key}_{program}_loads"]):
                    found.append(f"{key}: {program} {said.loads} ({said.why}), measured {figures[f'{key}_{program}_loads']}")
                if figures.get(f"{key}_merge_max_diff", 0.0) > MERGED and (family.name, method) not in UNTOLD:
                    found.append(f"{key}: merged by published arithmetic {figures[f'{key}_merge_max_diff']:.2g} apart")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", default=",".join(name for name in FAMILIES.names() if file_names.of(name) is not None))
    parser.add_argument("--methods", default=",".join(METHODS.names()))
    parser.add_argument("--check", action="store_true", help="measure nothing: compare what was measured with what is said")
    arguments = parser.parse_args()
    chosen, methods = [] if arguments.check else arguments.families.split(","), arguments.methods.split(",")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    warnings.filterwarnings("ignore")
    path = results_file.RESULTS / "formats.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    again = tuple(f"{family}_{method}_" for family in chosen for method in methods)
    figures = {key: value for key, value in known.items() if key.startswith(FAMILIES.names()) and not key.startswith(again)}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for family in chosen:
            figures |= dict(measure(tried(family, Path(folder)), Path(folder) / "files" / family, methods))
    results_file.write("formats", dict(sorted(figures.items())))
    formats_document.write()
    if wrong := contradictions(figures):
        sys.exit("\n".join(["lorafleet/adapter_readers.py says otherwise:", *wrong]))


if __name__ == "__main__":
    main()
