"""The section of a training spec that says which adapter is trained, on which layers, and what it begins with."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from lorafleet import spec_overrides as overrides
from lorafleet.catalog.method import INITIALIZATION
from lorafleet.spec_names import MethodName
from lorafleet.spec_overrides import MAX_OVERRIDES, OverrideSpec
from lorafleet.spec_part import SpecPart
from lorafleet.spec_words import JobReference, ModuleName, VersionReference


class StartSpec(SpecPart):
    """An adapter to go on from: of kohya, diffusers, PEFT, ComfyUI or LyCORIS, of another job, or of the registry."""

    uri: str | None = Field(
        default=None,
        description="Its .safetensors file, PEFT's folder, or a job's artifact; s3:// or file://. Family, method and modules must fit.",
    )
    resize: Annotated[
        bool,
        Field(
            description="Take another method, rank or scale as well: the nearest LoRA of adapter.rank, by singular values, with its error "
            "in the log. Without it these must be the spec's."
        ),
    ] = False
    # Left out where they are unset: a trainer that does not know them refuses the spec.
    job: JobReference | None = Field(
        default=None,
        exclude_if=lambda job: job is None,
        description="In place of uri a job of the same tenant that has succeeded: its id, or tenants/TENANT/jobs/JOB. The service fills in "
        "its artifact as uri, with its digest.",
    )
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None,
        exclude_if=lambda digest: digest is None,
        description="SHA-256 that what lies at uri must have: of the file, or of an artifact's manifest.json.",
    )

    adapter: VersionReference | None = Field(
        default=None,
        exclude_if=lambda adapter: adapter is None,
        description="In place of uri a version of an adapter of the same tenant: ADAPTER@ALIAS, ADAPTER/versions/NUMBER, or its name. "
        "The service fills in its artifact as uri, with its digest, and the version that the alias stands for as the job is accepted.",
    )

    @model_validator(mode="after")
    def _is_in_one_place(self) -> Self:
        if self.uri is None and self.named is None:
            raise PydanticCustomError("start", "needs uri, job or adapter: they say what to go on from")
        if self.job is not None and self.adapter is not None:
            raise PydanticCustomError("start", "has job and adapter, which both say what to go on from: choose one")
        if self.uri is None and self.digest is not None:
            raise PydanticCustomError("start", "has a digest of what lies at uri, and no uri: leave it out")
        if self.uri is not None and self.named is not None and self.digest is None:
            both = "job" if self.job is not None else "adapter"
            raise PydanticCustomError("start", "has uri and {both}, which both say what to go on from: choose one", {"both": both})
        return self

    @property
    def named(self) -> str | None:
        """The job or the version, which the service finds."""
        return self.job if self.job is not None else self.adapter

    @property
    def tenant(self) -> str | None:
        """Of the job or the version, where it is named."""
        return self.named.split("/")[1] if self.named is not None and self.named.startswith("tenants/") else None

    @property
    def job_id(self) -> str:
        return (self.job or "").rpartition("/")[2]

    def version_name(self, tenant: str) -> str:
        """The whole name of the version, which is this tenant's where no other is named."""
        reference = (self.adapter or "").removeprefix("adapters/")
        return reference if reference.startswith("tenants/") else f"tenants/{tenant}/adapters/{reference}"


class AdapterSpec(SpecPart):
    """The adapter to train, by one of the methods of the catalog (docs/training.md)."""

    method: Annotated[MethodName, Field(description="Kind of adapter.")] = "lora"
    rank: Annotated[
        int,
        Field(
            ge=1,
            le=512,
            description="Rank of the low-rank update; of oft the size of the blocks of outputs that are turned, or the nearest "
            "below that a layer's outputs divide into.",
        ),
    ] = 16
    alpha: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="The update is scaled by alpha / rank (rslora: by alpha / sqrt(rank)); unset: rank."
    )
    dropout: Annotated[float, Field(ge=0, lt=1, description="Dropout on the adapter's input.")] = 0.0
    target_modules: Annotated[
        tuple[ModuleName, ...],
        Field(
            min_length=1,
            max_length=64,
            strict=False,
            exclude_if=lambda targets: not targets,
            description="Suffixes of module names, where * is any one step of a path; each must match a linear or convolution layer of the "
            "denoiser. Unset: the family's own, or those of targets.",
        ),
    ] = ()
    # Left out where they are the defaults: a trainer that does not know them refuses the spec.
    targets: Literal["attention", "attention-mlp", "all-linear", "style", "content"] | None = Field(
        default=None,
        exclude_if=lambda targets: targets is None,
        description="The family's own names of target_modules, in their place: attention, with the feed-forward layers too, all linear "
        "layers of its blocks, or the blocks that are known to hold a picture's style or content (sdxl).",
    )
    factor: Annotated[int, Field(ge=2, le=4096)] | None = Field(
        default=None,
        exclude_if=lambda factor: factor is None,
        description="Of lokr: the smaller of the two that each side of a layer is the product of, or what is nearest below; unset: "
        "both as near to each other as they can be.",
    )
    initialization: Annotated[
        Literal["kaiming", "gaussian", "orthogonal", "pissa", "pissa_niter_16"],
        Field(
            exclude_if=lambda chosen: chosen == INITIALIZATION,
            description="What A and B of lora, rslora, dora and tlora begin with, by PEFT's names: B zero and A Kaiming-uniform or normal, "
            "or both orthogonal to each other (of an even rank); of lora also pissa, the "
            "largest singular values of the frozen weights, or pissa_niter_16, nearly so and fast for large layers.",
        ),
    ] = INITIALIZATION
    min_rank: Annotated[int, Field(ge=1, le=512)] | None = Field(
        default=None,
        exclude_if=lambda rank: rank is None,
        description="Of tlora: the rank of what is nothing but noise; with less noise it grows to rank. Unset: 1.",
    )
    text_encoder: Annotated[bool, Field(description="Also train an adapter on the attention of the text encoders.")] = False
    # Left out where it is the default: a trainer that does not know it refuses the spec.
    start: StartSpec | None = Field(
        default=None,
        exclude_if=lambda start: start is None,
        description="An adapter to go on from. A job that is resumed goes on from its own checkpoint.",
    )
    # Left out where there are none: a trainer that does not know them refuses the spec.
    overrides: Annotated[
        tuple[OverrideSpec, ...],
        Field(
            max_length=MAX_OVERRIDES,
            strict=False,
            exclude_if=lambda overrides: not overrides,
            description="What some layers have of their own: rank, alpha, dropout, learning rate and schedule, by part or by pattern.",
        ),
    ] = ()

    def at(self, path: str) -> "AdapterSpec":
        """The adapter as it is on one layer, by its canonical path (`unet.mid_block.…`), or on a part."""
        own = overrides.values_at(self.overrides, path, ("rank", "alpha", "dropout"))
        return self.model_copy(update=own) if own else self

    @property
    def drops(self) -> bool:
        """Whether any layer has dropout."""
        return self.dropout > 0 or any(each.dropout for each in self.overrides)
