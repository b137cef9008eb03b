"""What is decided about a style before any worker starts: base, pictures, buckets, held-out split. No torch in here.

Everything that bad input can break is broken here, in the driver, before GPUs are held.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lorafleet.catalog import Family
from lorafleet.contract.run_manifest import Style
from lorafleet.errors import InvalidSpec, RunFailed
from lorafleet.spec import Spec
from lorafleet.spec_cautions import cautions
from trainer.data import readers
from trainer.data.buckets import Bucket, assign, buckets_for, visible
from trainer.data.files import Some
from trainer.data.masks import Mask
from trainer.data.readers import DataSet
from trainer.keyed import Key, Purpose
from trainer.prepare import base_model, spec_on_base, tiling
from trainer.prepare.base_model import BaseModel
from trainer.storage import Folder
from trainer.style_isolation import naming

MAX_HELD_OUT = 64


@dataclass(frozen=True, kw_only=True)
class CutCaptions:
    """The captions that are longer than the text encoder takes."""

    max_tokens: int
    num_tokens: Mapping[str, int]  # picture -> how many its caption has

    def __bool__(self) -> bool:
        return bool(self.num_tokens)

    def __str__(self) -> str:
        named = Some(f"{path} ({length})" for path, length in sorted(self.num_tokens.items(), key=lambda item: -item[1]))
        return f"{len(self.num_tokens)} have more than the {self.max_tokens} tokens that the text encoder takes: {named}"


@dataclass(frozen=True, kw_only=True)
class PreparedStyle:
    """A style that can train: everything that its worker needs to know, small enough to be sent along."""

    job: str
    spec: Spec  # with the family of its base, also where it was submitted without
    output_uri: str
    base: BaseModel
    data_set: DataSet
    resolution: int  # pixels
    buckets: tuple[Bucket, ...]  # of each picture
    held_out: tuple[int, ...]  # indices of pictures, never trained on
    cut_captions: CutCaptions | None = None  # known once they are encoded

    @cached_property
    def key(self) -> Key:
        """Keys every draw: seed and data, so the result is the same wherever the style trains and whatever the job is called."""
        return Key(seed=self.spec.training.seed, style=self.data_set.digest)

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """The caption of each picture with the trigger phrase before it."""
        trigger = self.spec.dataset.trigger_phrase.strip()
        return tuple(f"{trigger} {picture.caption}".strip() for picture in self.data_set.pictures)

    @cached_property
    def members(self) -> Mapping[Bucket, Sequence[int]]:
        """Training pictures of each bucket."""
        held_out = set(self.held_out)
        members: dict[Bucket, list[int]] = {}
        for index, bucket in enumerate(self.buckets):
            if index not in held_out:
                members.setdefault(bucket, []).append(index)
        return members

    @property
    def family(self) -> Family:
        return self.spec.family

    @property
    def masked(self) -> Mapping[int, Mask]:
        """The masks of the pictures that have one."""
        return {index: picture.mask for index, picture in enumerate(self.data_set.pictures) if picture.mask is not None}

    @property
    def samples_latents(self) -> bool:
        return self.spec.objective.latents == "sampled"

    @property
    def cautions(self) -> tuple[str, ...]:
        """What whoever trains it should know: of its base, and of its spec."""
        of_base = (f"base_model.uri: {self.base.uri}: {caution}" for caution in self.base.facts.cautions)
        return (*of_base, *cautions(self.spec))

    @property
    def latents_digest(self) -> str:
        """Names the cached latents: the autoencoder, the pictures and the sizes they are brought to, how large ones are encoded, and
        whether their deviations are kept.
        """
        pictures = [
            (picture.sha256, bucket.width, bucket.height) for picture, bucket in zip(self.data_set.pictures, self.buckets, strict=True)
        ]
        how = [*tiling.name_of(self.buckets), *(["deviations"] if self.samples_latents else [])]
        return _digest("latents-3", self.base.part_digest(f"{self.family.autoencoder.name}/"), pictures, *how)

    def masks_digest(self, sizes: Mapping[int, tuple[int, int]]) -> str:
        """Names the cached masks: their files, what of the pictures is left, and the `sizes` that they are brought to, by picture."""
        masks = [(mask.sha256, self.buckets[index].width, self.buckets[index].height, *sizes[index]) for index, mask in self.masked.items()]
        return _digest("masks-1", self.spec.dataset.masks, masks)

    @property
    def texts_digest(self) -> str:
        """Names the cached text embeddings: every text encoder as far as it is used, and what a large one computes in, every tokenizer and
        the captions.
        """
        parts = [self.base.part_digest(f"{part.name}/") for part in (*self.family.text_encoders, *self.family.tokenizers)]
        skipped = [self.base.facts.num_skipped_layers] if self.base.facts.num_skipped_layers else []
        large = [self.spec.text_precision.name] if any(part.is_large for part in self.family.text_encoders) else []
        return _digest("texts-3", parts, self.captions, *skipped, *large)


def prepare(style: Style, cache: Folder) -> PreparedStyle:
    """Checks a style against its base and its data. Raises RunFailed with what is wrong, where, and what to do."""
    spec = style.spec
    with naming(f"output.uri: {style.output_uri}"):
        _check_output(style)
    with naming(f"base_model.uri: {spec.base_model.uri}"):
        base = base_model.inspect(spec.base_model, cache)
    spec = _on(base, spec)
    resolution = spec.dataset.resolution or base.resolution
    violations = [
        *spec_on_base.check_adapter(base, spec.adapter),
        *spec_on_base.check_files(base, spec),
        *spec_on_base.check_resolution(base, resolution),
    ]
    if violations or resolution is None:
        raise RunFailed("\n".join(str(violation) for violation in violations), reason="INVALID_SPEC")
    with naming(f"dataset.uri: {spec.dataset.uri}"):
        data_set = readers.read(spec.dataset)
        _check_can_be_sent(data_set)
    buckets = tuple(_buckets(data_set, resolution, base, bucketing=spec.dataset.aspect_ratio_bucketing))
    _check_masks(data_set, buckets)
    key = Key(seed=spec.training.seed, style=data_set.digest)
    return PreparedStyle(
        job=style.job,
        spec=spec,
        output_uri=style.output_uri,
        base=base,
        data_set=data_set,
        resolution=resolution,
        buckets=buckets,
        held_out=split(key, len(data_set.pictures), spec.dataset.validation_fraction),
    )


def _on(base: BaseModel, spec: Spec) -> Spec:
    """What a spec that names no family asks for on this base."""
    try:
        return spec if spec.base_model.family else spec.on(base.family)
    except InvalidSpec as error:
        raise RunFailed("\n".join(map(str, error.violations)), reason="INVALID_SPEC") from None


def split(key: Key, num_pictures: int, fraction: float) -> tuple[int, ...]:
    """Indices of the held-out pictures: keyed, at least one when a fraction is asked for, never all, at most MAX_HELD_OUT."""
    if fraction == 0 or num_pictures < 2:
        return ()
    count = min(MAX_HELD_OUT, max(1, round(fraction * num_pictures)))
    return tuple(sorted(int(index) for index in key.generator(Purpose.HELD_OUT).permutation(num_pictures)[:count]))


def _check_can_be_sent(data_set: DataSet) -> None:
    """Names and captions are sent to workers, digested and written to files: half a character can be none of this."""
    for picture in data_set.pictures:
        with naming(picture.path):
            f"{picture.path}{picture.caption}".encode()


def _buckets(data_set: DataSet, resolution: int, base: BaseModel, *, bucketing: bool) -> list[Bucket]:
    most = base.facts.max_side or math.inf
    choices = buckets_for(resolution, step=base.resolution_step) if bucketing else [Bucket(resolution, resolution)]
    choices = [each for each in choices if max(each.width, each.height) <= most]
    return [assign(picture.width, picture.height, choices) for picture in data_set.pictures]


def _check_masks(data_set: DataSet, buckets: Sequence[Bucket]) -> None:
    """What counts of a picture must not all be cut away."""
    cut = Some(
        f"{picture.path} ({picture.width} x {picture.height}, to {bucket.width} x {bucket.height})"
        for picture, bucket in zip(data_set.pictures, buckets, strict=True)
        if picture.mask is not None and not _meet(picture.mask.box, visible(picture.width, picture.height, bucket))
    )
    if cut:
        message = f"{cut.count} pictures have all that their masks let count cut away where they are cropped: {cut}"
        raise RunFailed(f"dataset.masks: {message}; crop them by hand, or leave them out", reason="MASKS_MISSING")


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes, each left, top, right, bottom, have an area in common."""
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(one[3], other[3])


def _check_output(style: Style) -> None:
    probe = Folder(style.output_uri)
    probe.put(".write-probe", b"")
    probe.delete([".write-probe"])


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
