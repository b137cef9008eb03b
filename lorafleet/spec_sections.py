"""The sections of a training spec: their fields, defaults, and the rules on a single one."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lorafleet.spec_merge import MergeSpec
from lorafleet.spec_names import FamilyName, LossName, OptimizerName, PrecisionName
from lorafleet.spec_part import ScheduleName, SpecPart
from lorafleet.spec_words import AdapterId, OutputName, PartName, Text, check_uri

DEFAULT_PROFILE = "default"
DEFAULT_OUTPUT_PRECISION = "fp16"
MAX_PROMPT = 2000
FormatName = Literal["diffusers", "kohya", "peft", "comfyui"]
FORMATS: tuple[FormatName, ...] = ("diffusers", "kohya")  # that are written where none are named
HUBER_DELTA = 0.1
HUBER_SCHEDULE = "snr"
LR_END = 1e-7  # of the polynomial schedule, as transformers and diffusers have it


class BaseModelSpec(SpecPart):
    """The frozen base model: a folder in diffusers' layout, or a checkpoint in one file; in safetensors, whole or in shards."""

    uri: Annotated[
        str, Field(description="Folder of the model, s3://bucket/prefix or file:///folder; or its one file, which ends in .safetensors.")
    ]
    # Left out where they are the default: a trainer that does not know them refuses the spec.
    family: FamilyName | None = Field(
        default=None,
        exclude_if=lambda family: family is None,
        description="Model family, such as sd1 (Stable Diffusion 1.x), sd2 (2.x) or sdxl; unset: told from the base.",
    )
    clip_skip: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None,
        exclude_if=lambda clip_skip: clip_skip is None,
        description="The text encoder's layer to go by, from its end: 1 is the last, 2 the one before. Only for sd1. Unset: the last.",
    )
    vae_uri: str | None = Field(
        default=None,
        exclude_if=lambda uri: uri is None,
        description="Folder of another autoencoder, to be used instead of the base's own; the same as parts.vae.",
    )
    parts: Annotated[
        dict[PartName, Annotated[str, AfterValidator(check_uri)]],
        Field(
            max_length=16,
            exclude_if=lambda parts: not parts,
            description="Folders of parts that are not the base's own, by the part's name, such as vae, text_encoder_2 or scheduler.",
        ),
    ] = {}  # noqa: RUF012 - pydantic copies it for each spec

    @property
    def part_uris(self) -> dict[str, str]:
        """Where parts are that are not the base's own, by name."""
        return self.parts if self.vae_uri is None else {**self.parts, "vae": self.vae_uri}

    @property
    def part_fields(self) -> list[tuple[str, str]]:
        """(field, URI) of each of these."""
        vae = [] if self.vae_uri is None else [("vae_uri", self.vae_uri)]
        return [*vae, *((f"parts.{name}", uri) for name, uri in sorted(self.parts.items()))]


class OptimizationSpec(SpecPart):
    """How the adapter is trained."""

    max_steps: Annotated[int, Field(ge=1, le=10_000_000, description="Number of optimizer steps.")] = 1000
    micro_batch_size: Annotated[int, Field(ge=1, le=1024, description="Pictures per worker in one forward pass.")] = 1
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=1024, description="Forward passes per optimizer step.")] = 1
    learning_rate: Annotated[float, Field(gt=0, le=10, description="Peak learning rate.")] = 1e-4
    lr_scheduler: Annotated[
        ScheduleName,
        Field(description="How the rate falls after the warm-up: docs/training.md has each one's equation."),
    ] = "cosine"
    lr_warmup_steps: Annotated[int, Field(ge=0, description="Steps over which the rate rises from 0 to its peak.")] = 0
    # Left out where they are unset: a trainer that does not know them refuses the spec.
    lr_cycles: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None,
        exclude_if=lambda cycles: cycles is None,
        description="How often cosine_with_restarts falls from the peak to 0; unset: 1.",
    )
    lr_power: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None,
        exclude_if=lambda power: power is None,
        description="Exponent of polynomial: over 1 the rate falls fast at first; unset: 1.",
    )
    lr_end: Annotated[float, Field(ge=0, le=10)] | None = Field(
        default=None, exclude_if=lambda rate: rate is None, description="The rate that polynomial falls to; unset: 1e-7."
    )
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000)] | None = Field(
        default=None,
        exclude_if=lambda ratio: ratio is None,
        description="The rate of B over that of A (LoRA+, Hayou et al. 2024, who advise 16); learning_rate is A's. Unset: 1.",
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        exclude_if=lambda decay: decay is None,
        description="Keeps a moving average of the adapter beside it, of which a step leaves this share, such as 0.999; unset: none.",
    )
    optimizer: Annotated[
        OptimizerName,
        Field(
            description="Optimizer: AdamW, Lion, Adafactor, CAME, Prodigy (whose learning_rate is a factor, as a rule 1), schedule-free "
            "AdamW; AdamW and Lion also with 8-bit state."
        ),
    ] = "adamw"
    adam_beta1: Annotated[float, Field(ge=0, lt=1, description="Decay of the gradient's mean in optimizers of Adam's kind.")] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1, description="Decay of the gradient's square in optimizers of Adam's kind.")] = 0.999
    adam_epsilon: Annotated[float, Field(gt=0, description="Their term against division by zero.")] = 1e-8
    weight_decay: Annotated[float, Field(ge=0, description="Decoupled weight decay.")] = 1e-2
    max_grad_norm: Annotated[float, Field(ge=0, description="Gradients are clipped to this norm; 0: never.")] = 1.0
    precision: Annotated[
        PrecisionName,
        Field(
            description="Precision of the base model; the adapter itself is always fp32. fp16 scales each "
            "style's loss and skips steps that overflow. int8 and nf4 quantise the denoiser's blocks, and compute in bf16."
        ),
    ] = "fp32"
    # Left out where they are the default: a trainer that does not know them refuses the spec.
    text_precision: PrecisionName | None = Field(
        default=None,
        exclude_if=lambda precision: precision is None,
        description="Precision of text encoders as large as the denoiser (T5, Qwen): bf16, or int8 or nf4, which quantise their blocks; "
        "unset: bf16, beside a base in fp32 that.",
    )
    gradient_checkpointing: Annotated[
        bool,
        Field(
            exclude_if=lambda chosen: not chosen,
            description="Compute the denoiser's blocks anew in the backward pass instead of keeping what they computed: the same numbers "
            "in much less memory, a third slower.",
        ),
    ] = False
    compile: Annotated[
        Literal["none", "blocks", "graph"],
        Field(
            exclude_if=lambda chosen: chosen == "none",
            description="On GPUs: blocks compiles the denoiser's blocks (torch.compile); graph records a whole pass of each shape, and "
            "replays it as one launch (CUDA graphs). On a CPU neither does anything.",
        ),
    ] = "none"
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Every random draw of the training derives from it.")] = 0
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Min-SNR weighting of the loss (Hang et al. 2023); unset: none."
    )
    caption_dropout: Annotated[float, Field(ge=0, le=1, description="Share of captions replaced by the empty caption.")] = 0.0
    noise_offset: Annotated[float, Field(ge=0, le=1, description="Strength of offset noise; 0: none.")] = 0.0


class ObjectiveSpec(SpecPart):
    """At which times the adapter learns, and how its errors count."""

    time_density: Literal["uniform", "logit_normal", "cubic"] | None = Field(
        default=None,
        description="How times are spread between the picture and noise: evenly, most in the middle (Esser et al. 2024), most near noise "
        "(Mou et al. 2023); unset: the family's own.",
    )
    time_mean: Annotated[float, Field(ge=-10, le=10)] | None = Field(
        default=None, description="Mean of logit_normal times: over 0 draws more noise; unset: 0."
    )
    time_deviation: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None, description="Deviation of logit_normal times; unset: 1."
    )
    time_shift: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None,
        description="Moves times towards noise: a share t of noise becomes s t / (1 + (s - 1) t); unset: as the base's scheduler says.",
    )
    min_time: Annotated[float, Field(ge=0, lt=1, description="Least time, as a share of the way from picture to noise.")] = 0.0
    max_time: Annotated[float, Field(gt=0, le=1, description="Greatest time, as a share of the way from picture to noise.")] = 1.0
    weighting: Annotated[
        Literal["none", "snr", "debiased"],
        Field(
            description="How errors at different times count: alike, as errors of the noise (Ho et al. 2020), or between those of noise "
            "and of the picture (Yu et al. 2024). Min-SNR is training.min_snr_gamma."
        ),
    ] = "none"
    latents: Annotated[
        Literal["mode", "sampled"],  # left out where it is the default: an older trainer refuses what it does not know
        Field(
            exclude_if=lambda latents: latents == "mode",
            description="mode: a picture's latents are always the same, the likeliest; sampled: drawn from the autoencoder's posterior in "
            "each step, which takes twice the cache (Rombach et al. 2022).",
        ),
    ] = "mode"
    loss: Annotated[
        LossName, Field(description="squared: squared errors; huber: pseudo-Huber, which broken pictures pull less (Khrapov et al. 2024).")
    ] = "squared"
    huber_delta: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None, description="The error from which on huber takes it for an outlier; unset: 0.1."
    )
    huber_schedule: Literal["constant", "exponential", "snr"] | None = Field(
        default=None,
        description="huber_delta always, or falling to it from 1 as noise grows: with time, or with noise over signal; unset: snr.",
    )
    # Left out where they are the defaults: a trainer that does not know them refuses the spec.
    mask_floor: Annotated[
        float,
        Field(ge=0, lt=1, exclude_if=lambda floor: not floor, description="With dataset.masks: how much what lies outside of them counts."),
    ] = 0.0
    mask_normalized: Annotated[
        bool,
        Field(
            exclude_if=lambda chosen: not chosen,
            description="With dataset.masks: a picture's loss is the mean over what counts of it; false: over all of it, so that small "
            "masks teach less.",
        ),
    ] = False
    pyramid_noise_discount: Annotated[
        float, Field(ge=0, lt=1, description="Noise on coarser and coarser grids, each weaker by this factor (Whitaker 2023); 0: none.")
    ] = 0.0
    input_perturbation: Annotated[
        float, Field(ge=0, le=1, description="Strength of noise that is added but not to be told (Ning et al. 2023); 0: none.")
    ] = 0.0


class ClusterSpec(SpecPart):
    """The workers a run asks for."""

    num_workers: Annotated[int, Field(ge=1, le=1024, description="Number of workers.")] = 1
    cpus_per_worker: Annotated[float, Field(gt=0, le=1024, description="CPU cores per worker.")] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0, le=16, description="GPUs per worker; 0: train on the CPU.")] = 0.0
    memory_gib_per_worker: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Memory reserved per worker, in GiB; unset: none is reserved."
    )
    zero_stage: Annotated[int, Field(ge=0, le=3, description="DeepSpeed's ZeRO stage; only stage 0 trains in packs.")] = 0
    offload: Annotated[
        Literal["none", "cpu"],
        Field(description="Where ZeRO keeps optimizer state (and parameters, at stage 3); cpu needs zero_stage 1 to 3."),
    ] = "none"
    # Left out where it is the default: a trainer that does not know it refuses the spec.
    profile: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
            exclude_if=lambda profile: profile == DEFAULT_PROFILE,
            description="Name of a pod profile configured by the operators: node pools, devices, priorities.",
        ),
    ] = DEFAULT_PROFILE


class ValidationSpec(SpecPart):
    """Sample pictures drawn at step 0, every `every_steps` and at the end."""

    prompts: Annotated[
        tuple[Annotated[Text, Field(max_length=MAX_PROMPT)], ...],
        Field(max_length=64, strict=False, description="One picture is drawn for each prompt."),
    ] = ()
    every_steps: Annotated[
        int,
        Field(ge=0, description="Draw pictures and evaluate the held-out loss every N steps, besides step 0 and the last; 0: only there."),
    ] = 0
    guidance_scale: Annotated[float, Field(ge=0, le=50, description="Scale of classifier-free guidance.")] = 5.0
    num_inference_steps: Annotated[int, Field(ge=1, le=1000, description="Denoising steps per picture.")] = 25
    seed: Annotated[int, Field(ge=0, lt=2**32, description="The picture of prompt i is drawn with seed + i.")] = 0
    early_stopping_patience: Annotated[
        int, Field(ge=0, le=1_000_000, description="End early after this many held-out losses in a row without a new lowest; 0: never.")
    ] = 0


class SchedulingSpec(SpecPart):
    """When a job runs, and with which others."""

    priority: Annotated[
        int, Field(ge=-100, le=100, description="Higher starts first; below 0 is the class low, 50 and above the class high.")
    ] = 0
    sharing: Annotated[
        Literal["anyone", "tenant", "nobody"],
        Field(description="Which jobs may share its run and warm workers: anyone's, the tenant's, or nobody's."),
    ] = "tenant"
    preemptible: Annotated[
        bool, Field(description="May be preempted by a job of a higher class: it then saves a checkpoint, is queued, and resumes.")
    ] = True
    max_run_time_s: Annotated[float, Field(ge=60)] | None = Field(
        default=None, description="Seconds of run time, over all attempts, after which it saves a checkpoint and fails; unset: no limit."
    )


class CheckpointingSpec(SpecPart):
    """When resumable state is saved; the last step always is."""

    every_steps: Annotated[int, Field(ge=1, description="Save a checkpoint every N steps.")] = 500
    keep: Annotated[int, Field(ge=1, description="Number of newest checkpoints to keep.")] = 2


class OutputSpec(SpecPart):
    """Where the artifact goes, and in which formats."""

    uri: str | None = Field(default=None, description="Folder for everything the job writes; unset: the service's own layout.")
    formats: Annotated[
        tuple[FormatName, ...],
        Field(
            min_length=1,
            strict=False,
            exclude_if=lambda formats: not formats,
            description="File formats of the adapter; unset: diffusers and kohya, where they hold its method.",
        ),
    ] = ()
    # Left out where they are the defaults: a trainer that does not know them refuses the spec.
    name: OutputName | None = Field(
        default=None,
        exclude_if=lambda name: name is None,
        description="Names the files, without their ending, and the LoRA in them; unset: the job's id.",
    )
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"],
        Field(
            exclude_if=lambda precision: precision == DEFAULT_OUTPUT_PRECISION,
            description="Precision of the numbers in the files; DoRA's magnitudes are always fp32, as are values beyond fp16's range.",
        ),
    ] = DEFAULT_OUTPUT_PRECISION
    weights: Literal["trained", "ema"] | None = Field(
        default=None,
        exclude_if=lambda weights: weights is None,
        description="The adapter that is drawn with, judged by its held-out loss and written: as it was trained, or its moving average; "
        "unset: the average where training.ema_decay keeps one.",
    )
    adapter: AdapterId | None = Field(
        default=None,
        exclude_if=lambda adapter: adapter is None,
        description="Adapter of the registry that the artifact becomes a version of; unset: the job's id.",
    )
    merge: MergeSpec | None = Field(
        default=None,
        exclude_if=lambda merge: merge is None,
        description="What is made of the adapter as the job's last step, beside it: one with other adapters, or a base that has it.",
    )
    plain_lora_rank: Annotated[int, Field(ge=1, le=512)] | None = Field(
        default=None,
        exclude_if=lambda rank: rank is None,
        description="Of a method that some programs misread or do not load (dora, loha, lokr, oft, tlora): also write the nearest plain "
        "LoRA of this rank, as plain-lora/, and tell its error.",
    )

    @property
    def merged_with(self) -> tuple[str, ...]:
        """Where the adapters lie that the trained one is combined with."""
        return () if self.merge is None else self.merge.uris
