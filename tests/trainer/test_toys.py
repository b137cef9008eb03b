"""A new idea is one file: an extension's family, method, optimizer, objective and loss train, resume, draw and export by themselves."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorafleet.catalog import FAMILIES, LOSSES, METHODS, OPTIMIZERS
from lorafleet.contract.layout import JobLayout, adapter_file
from lorafleet.contract.run_manifest import Style
from lorafleet.errors import InvalidSpec
from tests.trainer import shapes
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group
from trainer.pack import samples

pytestmark = pytest.mark.timeout(300)
proof = pytest.mark.proof

CONFIGS: dict[str, dict[str, Any]] = {
    "coder": {"block_out_channels": [4, 4, 4]},
    "reader": {"hidden_size": 16, "max_position_embeddings": 24, "vocab_size": 256},
    "painter": {"block_out_channels": [16], "cross_attention_dim": 16, "sample_size": 16},
}
ALL_NEW: dict[str, dict[str, Any]] = {
    "adapter": {"method": "toy_gain", "rank": 1, "target_modules": ["mix", "hear", "conv_out"]},
    "training": {"optimizer": "toy_momentum", "learning_rate": 0.1, "lr_scheduler": "constant", "max_steps": 6},
    "objective": {"loss": "toy_huber"},
    "output": {"precision": "fp32"},
}
PROMPTS = {"prompts": ["an emoji of an owl", ""], "num_inference_steps": 4}


@pytest.fixture(scope="module", autouse=True)
def extension() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LORAFLEET_EXTENSIONS", "tests.trainer.toys")
        yield


def write_base(folder: Path) -> Path:
    """A toy base: an index, and for each part its config and its weights."""
    from tests.trainer.toys.families.toy import CLASSES

    torch.manual_seed(0)
    facts = FAMILIES.get("toy")
    for part in facts.parts:
        (folder / part.name).mkdir(parents=True)
        (folder / part.config).write_text(json.dumps(CONFIGS[part.name]))
        save_file(CLASSES[part.name]().state_dict(), folder / part.name / f"{part.weights_name}.safetensors", {"format": "pt"})
    index = {"_class_name": facts.pipeline, **{part.name: [part.library, part.classes[0]] for part in facts.parts}}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


class Toys(Packs):
    """Packs on the toy base, unless a style says otherwise."""

    def __init__(self, folder: Path, group: Group) -> None:
        super().__init__(folder, group)
        self.base, self.pictures_uri = write_base(folder / "base"), f"file://{shapes.write(folder / 'shapes')}"

    def style(self, name: str, **parts: dict[str, Any]) -> Style:
        places = {"base_model": {"uri": f"file://{self.base}", "family": "toy"}, "dataset": {"uri": self.pictures_uri}}
        merged = {key: {**ALL_NEW.get(key, {}), **places.get(key, {}), **parts.get(key, {})} for key in {*ALL_NEW, *places, *parts}}
        return super().style(name, **merged)

    def old(self, name: str, **parts: dict[str, Any]) -> Style:
        """On a base that comes with lorafleet, by its own method and optimizer, unless `parts` say otherwise."""
        return super().style(name, dataset={"uri": self.pictures_uri}, **parts)

    def exported(self, style: Style, file_format: str) -> Path:
        return Path(JobLayout(style.output_uri).adapter.removeprefix("file://")) / adapter_file(file_format, style.spec.output.name)  # pyright: ignore[reportArgumentType]

    def held_out(self, style: Style) -> tuple[float, float]:
        """The held-out loss of the base, and of what was made."""
        with safe_open(self.exported(style, "kohya"), "pt") as file:
            told = file.metadata()
        return float(told["lorafleet.held_out_loss_base"]), float(told["lorafleet.held_out_loss"])


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Toys:
    return Toys(tmp_path_factory.mktemp("toys"), group)


def test_the_catalog_has_them_only_where_the_extension_is_named(monkeypatch: pytest.MonkeyPatch):
    names = {"toy": FAMILIES, "toy_gain": METHODS, "toy_momentum": OPTIMIZERS, "toy_huber": LOSSES}
    assert all(name in registry.names() for name, registry in names.items())
    monkeypatch.delenv("LORAFLEET_EXTENSIONS")
    assert not any(name in registry.names() for name, registry in names.items())


@pytest.mark.parametrize(
    ("part", "field", "known"),
    [
        ("base_model", "family", "sd1"),
        ("adapter", "method", "rslora"),
        ("training", "optimizer", "adamw"),
        ("objective", "loss", "squared"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_there_are(toys: Toys, part: str, field: str, known: str):
    with pytest.raises(InvalidSpec) as caught:
        toys.old("unknown", **{part: {field: "toy_unheard_of"}})
    (violation,) = [each for each in caught.value.violations if each.field == f"{part}.{field}"]
    assert known in violation.message
    assert "toy" in violation.message.replace("toy_unheard_of", "")


def test_a_denoiser_without_blocks_is_not_asked_to_recompute_them(toys: Toys):
    with pytest.raises(InvalidSpec, match="the denoiser of toy has no blocks that can be computed anew; leave it out"):
        toys.style("no-blocks", training={"gradient_checkpointing": True})


def test_all_of_them_learn(toys: Toys):
    style = toys.style("learns", training={"max_steps": 60, "micro_batch_size": 4, "learning_rate": 0.3})
    assert toys.train(style).endings == {style.job: "succeeded"}
    before, after = toys.held_out(style)
    assert after < 0.95 * before
    saved = toys.saved("learns")
    ends = {name.rpartition(".")[2] for name in saved.weights}
    assert ends == {"gain_in", "gain_out"}
    assert set(saved.moments) == {f"momentum.{name}" for name in saved.weights}


def test_a_killed_run_resumes_bit_for_bit(toys: Toys):
    parts: dict[str, dict[str, Any]] = {"training": {"caption_dropout": 0.3}, "adapter": {"text_encoder": True}}
    toys.train(toys.style("whole", **parts))
    with pytest.raises(Killed):
        toys.train(toys.style("killed", **parts), recorder=dies_at(job_of("killed"), 5))
    assert toys.train(toys.style("killed", **parts)).resumed_from == {job_of("killed"): 3}
    assert_same_bits(toys.saved("whole"), toys.saved("killed"))
    assert {name.partition(".")[0] for name in toys.adapter("whole")} == {"painter", "reader"}


@pytest.mark.parametrize("file_format", ["diffusers", "kohya"])
def test_what_is_exported_draws_what_was_drawn(toys: Toys, file_format: str):
    """The base with the file's gains in its weights, in its own pipeline."""
    from tests.trainer.toys.families.toy import CLASSES, FAMILY
    from trainer.families.protocol import Loading

    name = f"drawn-{file_format}"
    style = toys.style(name, validation=PROMPTS, adapter={"text_encoder": True})
    toys.train(style)
    found = load_file(toys.exported(style, file_format))
    parts = {part: FAMILY.load(part, toys.base, Loading(24)) for part in CLASSES}
    layers = {"painter": ("mix", "hear", "conv_out"), "reader": ("read",)}
    for part, layer in ((part, layer) for part, inner in layers.items() for layer in inner):
        key = f"{part}.{layer}" if file_format == "diffusers" else f"lora_{part}_{layer}"
        weight = parts[part].get_submodule(layer).weight
        shape = [1] * (weight.ndim - 2)
        weight.mul_(found.pop(f"{key}.gain_out").view(-1, 1, *shape) * found.pop(f"{key}.gain_in").view(1, -1, *shape))
    assert not found
    validation = style.spec.validation
    drawn = samples.draw_samples(FAMILY.pipeline(parts, toys.base, ""), validation, 64, lambda: False, FAMILY.drawing(parts, validation))
    assert drawn == toys.pictures(name, 6)
    assert drawn != toys.pictures(name, 0)


def company(toys: Toys, prefix: str) -> list[Style]:
    """Old and new methods and optimizers on the new family."""
    return [
        toys.style(f"{prefix}-new"),
        toys.style(f"{prefix}-another", training={"seed": 1, "micro_batch_size": 3, "max_steps": 4}),
        toys.style(f"{prefix}-lora", adapter={"method": "lora", "rank": 2}),
        toys.style(f"{prefix}-adamw", training={"optimizer": "adamw", "learning_rate": 1e-2}),
    ]


def test_they_train_in_company_as_alone(toys: Toys):
    assert set(toys.train(*company(toys, "together")).endings.values()) == {"succeeded"}
    for style in company(toys, "apart"):
        toys.train(style, batch_invariant=True)
    for kind in ("new", "another", "lora", "adamw"):
        assert_same_bits(toys.saved(f"together-{kind}"), toys.saved(f"apart-{kind}"))


def test_a_rows_state_is_the_optimizers_own(toys: Toys):
    """One step of the toy optimizer from rest is a plain step down the clipped gradient, which momentum then is."""
    toys.train(toys.style("first", training={"max_steps": 1, "max_grad_norm": 1e-3}))
    saved = toys.saved("first")
    momentum = torch.cat([saved.moments[f"momentum.{name}"].flatten() for name in sorted(saved.weights)])
    moved = torch.cat([saved.weights[name].flatten() - 1 for name in sorted(saved.weights)])
    assert float(momentum.norm()) == pytest.approx(1e-3, rel=1e-2)
    assert torch.allclose(moved, -0.1 * momentum, atol=1e-7)


def test_a_held_out_picture_has_another_noise_at_each_time_also_between_0_and_1(toys: Toys, monkeypatch: pytest.MonkeyPatch):
    from tests.trainer.toys.objectives.straight import Straight

    right, noises = Straight.noisy, list[torch.Tensor]()

    def noisy(objective: Straight, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        noises.extend(noise)
        return right(objective, latents, noise, times)

    monkeypatch.setattr(Straight, "noisy", noisy)
    with pytest.raises(Killed):
        toys.train(toys.style("listens"), recorder=dies_at(job_of("listens"), 0))  # the base has been evaluated by then
    assert len(noises) == 8
    assert len({noise.numpy().tobytes() for noise in noises}) == 8


@pytest.mark.parametrize("new", ["method", "optimizer", "loss"])
def test_each_of_them_works_on_what_was_there(toys: Toys, new: str):
    parts: dict[str, dict[str, dict[str, Any]]] = {
        "method": {"adapter": {"method": "toy_gain", "target_modules": ["to_q", "to_v", "conv1"]}},
        "optimizer": {"training": {"optimizer": "toy_momentum", "learning_rate": 1e-2}},
        "loss": {"objective": {"loss": "toy_huber"}},
    }
    short = {**parts[new], "training": {**parts[new].get("training", {}), "max_steps": 2}}
    style = toys.old(f"old-{new}", **short)
    assert toys.train(style).endings == {style.job: "succeeded"}
    assert toys.exported(style, "diffusers").exists()


@proof
@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_an_elementwise_optimizer_trains_alike_where_its_state_is_cut(toys: Toys, zero_stage: int):
    toys.train(toys.style(f"whole-{zero_stage}"))
    cut: dict[str, dict[str, Any]] = {"cluster": {"zero_stage": zero_stage}}
    with pytest.raises(Killed):
        toys.train(toys.style(f"cut-{zero_stage}", **cut), recorder=dies_at(job_of(f"cut-{zero_stage}"), 5))
    assert toys.train(toys.style(f"cut-{zero_stage}", **cut)).resumed_from == {job_of(f"cut-{zero_stage}"): 3}
    assert toys.losses(f"cut-{zero_stage}") == pytest.approx(toys.losses(f"whole-{zero_stage}"), rel=1e-5)
