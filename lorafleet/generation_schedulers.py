"""How pictures may be drawn: schedulers by the short names that people know, for what a base's denoiser was trained for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lorafleet import objectives


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """`scheduler`: diffusers' class, with its own settings over the base's; `title`: what A1111 calls it."""

    scheduler: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


_KARRAS = {"use_karras_sigmas": True}
_OF_DIFFUSION = {
    "ddim": Sampling(scheduler="DDIMScheduler", title="DDIM"),
    "ddpm": Sampling(scheduler="DDPMScheduler", title="DDPM"),
    "pndm": Sampling(scheduler="PNDMScheduler", title="PLMS", settings={"skip_prk_steps": True}),
    "euler": Sampling(scheduler="EulerDiscreteScheduler", title="Euler"),
    "euler_karras": Sampling(scheduler="EulerDiscreteScheduler", title="Euler Karras", settings=_KARRAS),
    "euler_ancestral": Sampling(scheduler="EulerAncestralDiscreteScheduler", title="Euler a"),
    "heun": Sampling(scheduler="HeunDiscreteScheduler", title="Heun"),
    "dpmpp_2m": Sampling(scheduler="DPMSolverMultistepScheduler", title="DPM++ 2M"),
    "dpmpp_2m_karras": Sampling(scheduler="DPMSolverMultistepScheduler", title="DPM++ 2M Karras", settings=_KARRAS),
    "unipc": Sampling(scheduler="UniPCMultistepScheduler", title="UniPC"),
}
_OF_FLOW = {"euler": Sampling(scheduler="FlowMatchEulerDiscreteScheduler", title="Euler")}
SCHEDULERS: Mapping[str, Mapping[str, Sampling]] = {objectives.DIFFUSION: _OF_DIFFUSION, objectives.FLOW: _OF_FLOW}


def of(objective: str) -> Mapping[str, Sampling]:
    """By name those of a family with this objective."""
    return SCHEDULERS.get(objective, {})


def names() -> tuple[str, ...]:
    return tuple(sorted({name for known in SCHEDULERS.values() for name in known}))


def title_of(scheduler: str) -> str:
    """What A1111 calls a class of diffusers, with its own settings; else its own name."""
    known = (each for names in SCHEDULERS.values() for each in names.values() if each.scheduler == scheduler)
    return next((each.title for each in known), scheduler)
