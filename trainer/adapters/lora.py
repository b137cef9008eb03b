"""LoRA (Hu et al. 2021) by PEFT: put into the denoiser and, if asked for, the text encoder; keyed in every draw.

Parameters have one canonical name wherever they go (checkpoint, export): `unet.<module>.lora_A.weight`.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from lorafleet.spec import AdapterSpec
from trainer.families.protocol import Family
from trainer.keyed import Key, Purpose

TEXT_ENCODER_MODULES = ("q_proj", "k_proj", "v_proj", "out_proj")
_ADAPTER = "default"  # PEFT's name of the adapter inside its modules


class Trainable(nn.Module):
    """What the engine trains: the denoiser with its adapter, and the text encoder where it has one too."""

    def __init__(self, family: Family, unet: nn.Module, text_encoder: nn.Module | None, *, bf16: bool) -> None:
        super().__init__()
        self.family = family
        self.bf16 = bf16
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """`text` is the conditioning, or the tokens where the text encoder trains too."""
        # In here and not around the engine: DeepSpeed turns off an autocast that it finds around itself.
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.bf16):
            if self.text_encoder is not None:
                text = self.family.encode_tokens(self.text_encoder, text)
            return self.family.predict(self.unet, noisy, timesteps, text)


def lora_config(spec: AdapterSpec, target_modules: Sequence[str]) -> LoraConfig:
    return LoraConfig(
        r=spec.rank,
        lora_alpha=alpha(spec),  # pyright: ignore[reportArgumentType]  (PEFT takes floats)
        lora_dropout=spec.dropout,
        target_modules=list(target_modules),
    )


def alpha(spec: AdapterSpec) -> float:
    return spec.alpha if spec.alpha is not None else float(spec.rank)


def inject(unet: nn.Module, text_encoder: nn.Module | None, spec: AdapterSpec, key: Key) -> None:
    """Adds the adapter with keyed initial weights: A as Kaiming-uniform (PEFT's own rule), B zero, so step 0 is the base."""
    inject_adapter_in_model(lora_config(spec, spec.target_modules), unet, adapter_name=_ADAPTER)
    if text_encoder is not None:
        inject_adapter_in_model(lora_config(spec, TEXT_ENCODER_MODULES), text_encoder, adapter_name=_ADAPTER)
    parts: dict[str, nn.Module] = {"unet": unet} | ({"text_encoder": text_encoder} if text_encoder is not None else {})
    for part, module in parts.items():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # PEFT makes it of the base's precision
                _initialise(canonical_name(f"{part}.{name}"), parameter, key)
    if spec.dropout:
        found = (getattr(child, "lora_dropout", None) for module in parts.values() for child in module.modules())
        for number, dropouts in enumerate(each for each in found if isinstance(each, nn.ModuleDict)):
            dropouts[_ADAPTER] = KeyedDropout(spec.dropout, layer=number)


def canonical_name(parameter: str) -> str:
    """`unet.…to_q.lora_A.default.weight` -> `unet.…to_q.lora_A.weight`."""
    return parameter.replace(f".{_ADAPTER}.", ".")


def load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies weights by canonical name into the adapter. Raises KeyError for a missing one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[canonical_name(name)])


class KeyedDropout(nn.Module):
    """Dropout on the adapter's input whose mask depends on (seed, style, step, sample, layer) alone.

    The loop sets `seeds`, one integer for each row of the batch, before each training pass; without them it does nothing.
    """

    seeds: Sequence[int] = ()

    def __init__(self, rate: float, *, layer: int) -> None:
        super().__init__()
        self.rate = rate
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        if not self.seeds:
            return x
        rows = [torch.rand(x.shape[1:], generator=torch.Generator().manual_seed((seed + self.layer) % 2**63)) for seed in self.seeds]
        return x * (torch.stack(rows).to(x.device) >= self.rate) / (1 - self.rate)


def set_dropout_seeds(model: nn.Module, seeds: Sequence[int]) -> None:
    for module in model.modules():
        if isinstance(module, KeyedDropout):
            module.seeds = seeds


def _initialise(name: str, parameter: nn.Parameter, key: Key) -> None:
    with torch.no_grad():
        if ".lora_B." in name:
            parameter.zero_()
            return
        bound = 1 / math.sqrt(parameter[0].numel())  # kaiming_uniform with a = sqrt(5)
        draw = key.generator(Purpose.INIT, name).uniform(-bound, bound, tuple(parameter.shape))
        parameter.copy_(torch.from_numpy(draw))
