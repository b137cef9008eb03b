"""What is decided about a style before any worker starts: base, pictures, buckets, held-out split. No torch in here.

Everything that bad input can break is broken here, in the driver, before GPUs are held.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lorafleet.catalog import Family
from lorafleet.contract.run_manifest import Style
from lorafleet.errors import InvalidSpec, RunFailed
from lorafleet.spec import DatasetSpec, Spec
from lorafleet.spec_cautions import cautions
from trainer.data import readers
from trainer.data.buckets import Bucket, buckets_for, visible
from trainer.data.files import Some
from trainer.data.masks import Mask, named_as_masks
from trainer.data.readers import DataSet, Picture
from trainer.keyed import Key, Purpose
from trainer.prepare import base_model, new_tokens, spec_on_base, tiling
from trainer.prepare.base_model import BaseModel
from trainer.prepare.crops import Crop, crops_of, prior_crops
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
    resolutions: tuple[int, ...]  # pixels, from the smallest on
    crops: tuple[Crop, ...]  # what is trained on and held out; of one resolution, those of the data set's pictures in their order
    held_out: tuple[int, ...]  # indices of pictures, never trained on
    prior: DataSet | None = None  # of pictures that keep what the base knows
    cut_captions: CutCaptions | None = None  # known once they are encoded

    @cached_property
    def key(self) -> Key:
        """Keys every draw: seed and data, so the result is the same wherever the style trains and whatever the job is called."""
        return Key(seed=self.spec.training.seed, style=self.data_set.digest)

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """The caption of each crop: of the data set with the trigger phrase before it, of the regularisation set without."""
        return tuple(self._caption(crop.picture, is_prior=crop.is_prior) for crop in self.crops)

    def _caption(self, picture: Picture, *, is_prior: bool) -> str:
        dataset = self.spec.dataset
        if not is_prior:
            return f"{dataset.trigger_phrase.strip()} {picture.caption}".strip()
        return picture.caption or (dataset.regularization.caption.strip() if dataset.regularization else "")

    @property
    def trained_captions(self) -> list[str]:
        """Of the data set's pictures that are trained on."""
        held_out = set(self.held_out)
        return [self._caption(each, is_prior=False) for index, each in enumerate(self.data_set.pictures) if index not in held_out]

    @property
    def said(self) -> list[str]:
        """The captions of all pictures, in their order."""
        prior = () if self.prior is None else self.prior.pictures
        return [
            *(self._caption(each, is_prior=False) for each in self.data_set.pictures),
            *(self._caption(each, is_prior=True) for each in prior),
        ]

    @cached_property
    def held_out_crops(self) -> tuple[int, ...]:
        held_out = {self.data_set.pictures[index].path for index in self.held_out}
        return tuple(index for index, crop in enumerate(self.crops) if not crop.is_prior and crop.picture.path in held_out)

    @cached_property
    def members(self) -> Mapping[Bucket, Sequence[int]]:
        """The crops of each bucket that are trained on."""
        held_out = set(self.held_out_crops)
        return self._by_bucket(index for index, crop in enumerate(self.crops) if not crop.is_prior and index not in held_out)

    @cached_property
    def prior_members(self) -> Mapping[Bucket, Sequence[int]]:
        """Those of the regularisation set; of the same buckets, or of none."""
        return self._by_bucket(index for index, crop in enumerate(self.crops) if crop.is_prior)

    def _by_bucket(self, indices: Iterable[int]) -> Mapping[Bucket, Sequence[int]]:
        members: dict[Bucket, list[int]] = {}
        for index in indices:
            members.setdefault(self.crops[index].bucket, []).append(index)
        return members

    @property
    def resolution(self) -> int:
        """The largest: sample pictures are drawn at it."""
        return max(self.resolutions)

    @property
    def family(self) -> Family:
        return self.spec.family

    @property
    def masked(self) -> Mapping[int, Mask]:
        """The masks of the crops whose picture has one."""
        return {index: crop.picture.mask for index, crop in enumerate(self.crops) if crop.picture.mask is not None}

    @property
    def samples_latents(self) -> bool:
        return self.spec.objective.latents == "sampled"

    @property
    def cautions(self) -> tuple[str, ...]:
        """What whoever trains it should know: of its base, and of its spec."""
        of_base = (f"base_model.uri: {self.base.uri}: {caution}" for caution in self.base.facts.cautions)
        of_tokens = new_tokens.cautions(self.spec, self.trained_captions)
        return (*of_base, *cautions(self.spec), *of_tokens, *self._cautions_of_data())

    def _cautions_of_data(self) -> Iterator[str]:
        taken = Some(named_as_masks([picture.path for picture in self.data_set.pictures]))
        if taken and self.spec.dataset.masks == "none":
            yield f'dataset.masks: {taken.count} pictures are called as masks are, and trained on: {taken}; set "files", or move them away'

    @property
    def latents_digest(self) -> str:
        """Names the cached latents: the autoencoder, the pictures and the sizes they are brought to, how large ones are encoded, and
        whether their deviations are kept.
        """
        return self._latents_digest([crop for crop in self.crops if not crop.is_prior])

    @property
    def prior_latents_digest(self) -> str:
        """The same of the regularisation set, whose latents styles may share."""
        return self._latents_digest([crop for crop in self.crops if crop.is_prior])

    def _latents_digest(self, crops: Sequence[Crop]) -> str:
        pictures = [(crop.picture.sha256, crop.bucket.width, crop.bucket.height) for crop in crops]
        how = [*tiling.name_of(crop.bucket for crop in crops), *(["deviations"] if self.samples_latents else [])]
        return _digest("latents-3", self.base.part_digest(f"{self.family.autoencoder.name}/"), pictures, *how)

    def masks_digest(self, sizes: Mapping[int, tuple[int, int]]) -> str:
        """Names the cached masks: their files, what of the pictures is left, and the `sizes` that they are brought to, by picture."""
        buckets = [crop.bucket for crop in self.crops]
        masks = [(mask.sha256, buckets[index].width, buckets[index].height, *sizes[index]) for index, mask in self.masked.items()]
        return _digest("masks-1", self.spec.dataset.masks, masks)

    @property
    def texts_digest(self) -> str:
        """Names the cached text embeddings: every text encoder as far as it is used, and what a large one computes in, every tokenizer and
        the captions.
        """
        parts = [self.base.part_digest(f"{part.name}/") for part in (*self.family.text_encoders, *self.family.tokenizers)]
        skipped = [self.base.facts.num_skipped_layers] if self.base.facts.num_skipped_layers else []
        large = [self.spec.text_precision.name] if any(part.is_large for part in self.family.text_encoders) else []
        counted = [[(each.token, each.num_vectors) for each in tokens]] if (tokens := self.spec.textual_inversion.tokens) else []
        return _digest("texts-3", parts, self.said, *skipped, *large, *counted)


def prepare(style: Style, cache: Folder) -> PreparedStyle:
    """Checks a style against its base and its data. Raises RunFailed with what is wrong, where, and what to do."""
    spec = style.spec
    with naming(f"output.uri: {style.output_uri}"):
        _check_output(style)
    with naming(f"base_model.uri: {spec.base_model.uri}"):
        base = base_model.inspect(spec.base_model, cache)
    spec = _on(base, spec)
    resolutions = sorted(spec.dataset.resolutions) or [spec.dataset.resolution or base.resolution]
    field = "dataset.resolutions" if spec.dataset.resolutions else "dataset.resolution"
    violations = [
        *spec_on_base.check_adapter(base, spec.adapter),
        *spec_on_base.check_files(base, spec),
        *new_tokens.check_room(spec, base.facts.max_tokens),
        *(violation for resolution in resolutions for violation in spec_on_base.check_resolution(base, resolution, field)),
    ]
    if violations:
        raise RunFailed("\n".join(str(violation) for violation in violations), reason="INVALID_SPEC")
    with naming(f"dataset.uri: {spec.dataset.uri}"):
        data_set = readers.read(spec.dataset)
        _check_can_be_sent(data_set)
    prior = _prior(spec)
    key = Key(seed=spec.training.seed, style=data_set.digest)
    held_out = split(key, len(data_set.pictures), spec.dataset.validation_fraction)
    known = [resolution for resolution in resolutions if resolution is not None]
    crops = crops_of(data_set.pictures, [_choices(each, base, bucketing=spec.dataset.aspect_ratio_bucketing) for each in known])
    _check_masks(crops)
    if prior is not None:
        validated = {data_set.pictures[index].path for index in held_out}
        crops += prior_crops(prior.pictures, [crop for crop in crops if crop.picture.path not in validated])
    prepared = PreparedStyle(
        job=style.job,
        spec=spec,
        output_uri=style.output_uri,
        base=base,
        data_set=data_set,
        resolutions=tuple(known),
        crops=tuple(crops),
        held_out=held_out,
        prior=prior,
    )
    new_tokens.check_are_used(spec, prepared.trained_captions)
    return prepared


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


def _prior(spec: Spec) -> DataSet | None:
    """The regularisation set, read as the data set is but for its captions."""
    if (asked := spec.dataset.regularization) is None:
        return None
    as_read: dict[str, Any] = {"trigger_phrase": asked.caption, "on_missing_caption": "trigger"} if asked.caption.strip() else {}
    of_dataset = spec.dataset
    given = DatasetSpec(
        uri=asked.uri,
        caption_column=asked.caption_column,
        on_corrupt=of_dataset.on_corrupt,
        max_corrupt_fraction=of_dataset.max_corrupt_fraction,
        **as_read,
    )
    with naming(f"dataset.regularization.uri: {asked.uri}"):
        found = readers.read(given, field="dataset.regularization")
        _check_can_be_sent(found)
    return found


def _choices(resolution: int, base: BaseModel, *, bucketing: bool) -> list[Bucket]:
    most = base.facts.max_side or math.inf
    choices = buckets_for(resolution, step=base.resolution_step) if bucketing else [Bucket(resolution, resolution)]
    return [each for each in choices if max(each.width, each.height) <= most]


def _check_masks(crops: Sequence[Crop]) -> None:
    """What counts of a picture must not all be cut away."""
    cut = Some(
        f"{picture.path} ({picture.width} x {picture.height}, to {bucket.width} x {bucket.height})"
        for picture, bucket in ((crop.picture, crop.bucket) for crop in crops)
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
