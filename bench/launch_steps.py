"""One training step on the meta device, counted: ours, with all that is around the model, and a PEFT loop's. For `bench.launches`.

The base is a published denoiser without its weights, the cached latents and texts are zeros: only shapes matter.
"""

import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from peft import LoraConfig
from torch import Tensor, nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from bench.launch_counts import DEVICE, Counts, counted
from lorafleet import objectives, spec
from lorafleet.catalog import PRECISIONS, parts
from lorafleet.catalog.part import PartKind
from lorafleet.catalog.single_file import configs
from tests.trainer.families.real import Real
from trainer.adapters import model as pack_model
from trainer.data.buckets import Bucket
from trainer.data.readers import DataSet, Picture
from trainer.engine import select_accelerator
from trainer.families import family
from trainer.families.protocol import Family
from trainer.group import Group
from trainer.objectives.flow import NUM_TIMES
from trainer.pack.run import PackRun
from trainer.prepare import latent_cache
from trainer.prepare.crops import Crop
from trainer.prepare.latent_cache import Encoded
from trainer.prepare.style import PreparedStyle
from trainer.storage import Folder

RANK = 16
PIXELS_PER_LATENT = 8
_PICTURES = ("0.png", "1.png", "2.png")
MOST_STEPS = 1000  # so that nothing is due in the steps that are counted
_ADDED_ATTENTION = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")  # of transformers that see text beside the picture


@dataclass(frozen=True)
class Base:
    """A denoiser of a family, and the scheduler of its published base."""

    family: Family
    real: Real
    denoiser: nn.Module
    scheduler: Any

    @classmethod
    def of(cls, name: str, real: Real) -> "Base":
        found = family(name)
        (scheduler,) = found.facts.of_kind(PartKind.SCHEDULER)
        is_flow = found.facts.objective == objectives.FLOW
        training: Any = FlowMatchEulerDiscreteScheduler if is_flow else DDPMScheduler
        return cls(found, real, real.denoiser(), training.from_config(configs(name)[scheduler.name]))

    @property
    def parts(self) -> Mapping[str, Any]:
        return {self.family.facts.denoiser.name: self.denoiser, "scheduler": self.scheduler}

    @property
    def targets(self) -> list[str]:
        names = [name for name, _ in self.denoiser.named_modules()]
        return [target for target in (*parts.ATTENTION, *_ADDED_ATTENTION) if any(name.endswith(f".{target}") for name in names)]

    @property
    def is_flow(self) -> bool:
        return self.family.facts.objective == objectives.FLOW


TINY = Real(
    built=UNet2DConditionModel,
    config={
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "sample_size": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
    },
    latents=(4, 8, 8),
    conditioning={"text": (7, 32)},
)


@contextmanager
def on_meta() -> Generator[Group]:
    """A group of one whose engine takes the meta device for its own."""
    select_accelerator(spec.ClusterSpec())
    from deepspeed.accelerator import set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    accelerator: Any = CPU_Accelerator()
    accelerator.device_name = lambda *_: str(DEVICE)
    accelerator.current_device_name = lambda: str(DEVICE)
    set_accelerator(accelerator)
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)  # gloo has no such tensors
    with patch.object(pack_model, "autocast", lambda *_: nullcontext()):  # which fp32 has not, and this device does not know
        yield Group.current()
    dist.destroy_process_group()


def ours(base: Base, group: Group, num_styles: int, optimizer: str = "adamw") -> Counts:
    """A pack's second step: one pass, a row of each style."""
    with tempfile.TemporaryDirectory(prefix="lorafleet-launches-") as name:
        styles = [_style(base, Path(name), number, optimizer) for number in range(num_styles)]
        frozen: Any = SimpleNamespace(
            family=base.family, device=DEVICE, precision=PRECISIONS.get("fp32"), parts=base.parts, for_encoding=lambda *_: base.parts
        )
        with patch.object(latent_cache, "encode", lambda *_: _encoded(base.real)):
            run = PackRun(styles, frozen, Folder(f"file://{name}/cache"), group, None, batch_invariant=num_styles > 1)
        with counted():
            run._train_step()  # pyright: ignore[reportPrivateUsage]  the first one makes the optimizer's state
        with counted() as counts:
            run._train_step()  # pyright: ignore[reportPrivateUsage]
        for member in run.members:
            member.close_metrics()
        run.pack.strip()
    return counts


def peft(base: Base) -> Counts:
    """A bare loop's second step: one picture from cached latents and texts, AdamW over many tensors at once, as torch chooses on a GPU."""
    denoiser: Any = base.real.denoiser()
    with DEVICE:
        denoiser.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=base.targets))
    trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, foreach=True)
    latents, texts = torch.zeros(1, *base.real.latents), {name: torch.zeros(1, *shape) for name, shape in base.real.conditioning.items()}
    there = {base.family.facts.denoiser.name: denoiser}

    def step() -> float:
        clean, text = latents.to(DEVICE), {name: rows.to(DEVICE) for name, rows in texts.items()}
        noise = torch.randn_like(clean)
        noisy, times, target = _noised(base, clean, noise)
        loss = F.mse_loss(base.family.predict(there, noisy, times, text).float(), target.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach().item()

    with patch.object(torch.nn.utils.clip_grad, "_has_foreach_support", lambda *_: True):  # as a GPU has
        with counted():
            step()
        with counted() as counts:
            step()
    return counts


def _noised(base: Base, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if base.is_flow:
        sigmas = torch.sigmoid(torch.randn(len(clean), device=DEVICE)).reshape(-1, 1, 1, 1)
        return (1 - sigmas) * clean + sigmas * noise, sigmas.flatten() * NUM_TIMES, noise - clean
    times = torch.randint(0, base.scheduler.config.num_train_timesteps, (len(clean),), device=DEVICE)
    base.scheduler.alphas_cumprod = base.scheduler.alphas_cumprod.to(DEVICE)
    return base.scheduler.add_noise(clean, noise, times), times, noise


def _style(base: Base, folder: Path, number: int, optimizer: str) -> PreparedStyle:
    pictures = [
        Picture(path=name, caption=name, width=600, height=500, size_bytes=1, sha256=f"{number}/{name}", has_broken_profile=False)
        for name in _PICTURES
    ]
    _, height, width = base.real.latents
    bucket = Bucket(PIXELS_PER_LATENT * width, PIXELS_PER_LATENT * height)
    fields = {
        "base_model": {"uri": "file:///base", "family": base.family.facts.name},
        "dataset": {"uri": "file:///pictures", "validation_fraction": 0.0},
        "adapter": {"rank": RANK, "target_modules": base.targets},
        "training": {"max_steps": MOST_STEPS, "micro_batch_size": 1, "lr_scheduler": "constant", "optimizer": optimizer, "seed": number},
        "checkpointing": {"every_steps": MOST_STEPS},
    }
    there: Any = SimpleNamespace(uri="file:///base")
    return PreparedStyle(
        job=f"tenants/bench/jobs/{number}",
        spec=spec.parse(fields),
        output_uri=f"file://{folder}/{number}",
        base=there,
        data_set=DataSet(uri="file:///pictures", pictures=tuple(pictures), corrupt=()),
        resolutions=(bucket.width,),
        crops=tuple(Crop(picture=picture, bucket=bucket) for picture in pictures),
        held_out=(),
    )


def _encoded(real: Real) -> Encoded:
    latents = dict.fromkeys(range(len(_PICTURES)), torch.zeros(real.latents))
    texts = {name: torch.zeros(shape) for name, shape in real.conditioning.items() if name != "time_ids"}  # these follow from sizes
    known: dict[str, Any] = {field.name: {} for field in fields(Encoded)}
    return Encoded(**{**known, "latents": latents, "texts": dict.fromkeys(("", *_PICTURES), texts), "max_tokens": 0})
