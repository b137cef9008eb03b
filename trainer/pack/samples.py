"""Sample pictures of a style: one for each prompt of its spec, drawn by the base's own pipeline with the style's adapter."""

import io
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lorafleet.catalog.part import PartKind
from lorafleet.spec import ValidationSpec
from trainer.autocast import autocast
from trainer.pack.member import Member
from trainer.pack.state import PackState

PROMPTS_AT_ONCE = 4  # with guidance 8 rows: more are hardly faster on a CPU, and one at a time takes twice as long


class Samples:
    """Draws a pack's sample pictures. Keeps its pipeline, and what prompts show before the first step."""

    def __init__(self) -> None:
        self._pipeline: Any = None
        self._first: dict[tuple[object, ...], list[bytes]] = {}

    def forget_pipeline(self) -> None:
        """The parts that it draws with are about to change."""
        self._pipeline = None

    def draw(self, pack: PackState, member: Member) -> None:
        """Writes the member's pictures of this step. Collective."""
        lock_step = pack.engine.zero_stage == 3  # its forward is collective: all draw, rank 0 keeps
        if pack.group.rank == 0 or lock_step:
            pictures = self._first.get(_first_key(member))
            if pictures is None:
                # A stop must not wait for 64 pictures; under lock-step no rank may leave before the others.
                pictures = self._drawn(pack, member, lambda: not lock_step and pack.must_stop(member))
                if member.step == 0 and len(pictures) == len(member.spec.validation.prompts):
                    self._first[_first_key(member)] = pictures
            if pack.base.encodes_first:  # its text encoders are in memory while they are at work, and no longer
                self.forget_pipeline()
            if pack.group.rank == 0:
                named = {f"{index:03d}.png": each for index, each in enumerate(pictures)}
                member.folder(member.layout.samples(member.step)).write_all(named)
        pack.group.barrier()

    def _drawn(self, pack: PackState, member: Member, must_stop: Callable[[], bool]) -> list[bytes]:
        if self._pipeline is None:
            self._pipeline = pack.model.tell_tokens(pack.base.pipeline(member.spec.text_precision).to(pack.device))
        with (
            torch.no_grad(),
            self._in_its_precision(pack),
            pack.model.serving(pack.alone(member)),
        ):
            drawing = pack.base.family.drawing(pack.base.parts, member.spec.validation)
            return draw_samples(self._pipeline, member.spec.validation, member.style.resolution, must_stop, drawing)

    @contextmanager
    def _in_its_precision(self, pack: PackState) -> Generator[None]:
        """In fp16 the denoiser alone: text encoders and autoencoders, SDXL's among them, overflow in it."""
        with ExitStack() as stack:
            if pack.model.computes == "fp16":
                for part in (pack.base.family.facts.autoencoder, *pack.base.family.facts.text_encoders):
                    model: Any = getattr(self._pipeline, part.name, None)
                    method = "decode" if part.kind is PartKind.AUTOENCODER else "forward"
                    if model is not None:
                        stack.enter_context(_as_it_is_held(model, method))
            stack.enter_context(autocast(pack.device.type, pack.model.computes))
            yield


@contextmanager
def _as_it_is_held(model: Any, method: str) -> Generator[None]:
    """Its method computes in what the model is held in, whatever is around it."""
    compute = getattr(model, method)

    def computed(*inputs: Any, **named: Any) -> Any:
        with autocast(model.device.type, "fp32"):
            own = [each.to(model.dtype) if isinstance(each, Tensor) and each.is_floating_point() else each for each in inputs]
            return compute(*own, **named)

    setattr(model, method, computed)
    try:
        yield
    finally:
        delattr(model, method)


def _first_key(member: Member) -> tuple[object, ...]:
    """Before the first step an adapter changes nothing (DoRA: but for rounding), so styles with the same prompts share pictures. New
    tokens are each style's own.
    """
    whose = member.job if member.kind.num_vectors else ""
    return member.step, member.spec.validation.model_dump_json(), member.style.resolution, member.kind.method, whose


def draw_samples(
    pipeline: Any, spec: ValidationSpec, resolution: int, must_stop: Callable[[], bool], drawing: Mapping[str, Any]
) -> list[bytes]:
    """One PNG for each prompt. Prompt i is drawn by a CPU generator seeded with seed + i, so anyone can draw it again:

    `pipeline(prompt, generator=torch.Generator("cpu").manual_seed(seed + i), num_inference_steps=…, **drawing)`.
    """
    pictures: list[bytes] = []
    for start in range(0, len(spec.prompts), PROMPTS_AT_ONCE):
        if must_stop():
            break
        indices = range(start, min(start + PROMPTS_AT_ONCE, len(spec.prompts)))
        pictures += [png(picture) for picture in _pictures(pipeline, spec, indices, resolution, drawing)]
    return pictures


def _pictures(
    pipeline: Any, spec: ValidationSpec, indices: Sequence[int], resolution: int, drawing: Mapping[str, Any]
) -> list[Image.Image]:
    return pipeline(
        prompt=[spec.prompts[index] for index in indices],  # by name: the first of some pipelines' arguments is another
        width=resolution,
        height=resolution,
        generator=[torch.Generator("cpu").manual_seed(spec.seed + index) for index in indices],
        num_inference_steps=spec.num_inference_steps,
        **drawing,
    ).images


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
