from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainingSpec(_message.Message):
    __slots__ = ("base_model", "dataset", "adapter", "training", "cluster", "validation", "checkpointing", "output", "labels", "scheduling", "objective", "textual_inversion")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTING_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULING_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    TEXTUAL_INVERSION_FIELD_NUMBER: _ClassVar[int]
    base_model: BaseModelSpec
    dataset: DatasetSpec
    adapter: AdapterSpec
    training: OptimizationSpec
    cluster: ClusterSpec
    validation: ValidationSpec
    checkpointing: CheckpointingSpec
    output: OutputSpec
    labels: _containers.ScalarMap[str, str]
    scheduling: SchedulingSpec
    objective: ObjectiveSpec
    textual_inversion: TextualInversionSpec
    def __init__(self, base_model: _Optional[_Union[BaseModelSpec, _Mapping]] = ..., dataset: _Optional[_Union[DatasetSpec, _Mapping]] = ..., adapter: _Optional[_Union[AdapterSpec, _Mapping]] = ..., training: _Optional[_Union[OptimizationSpec, _Mapping]] = ..., cluster: _Optional[_Union[ClusterSpec, _Mapping]] = ..., validation: _Optional[_Union[ValidationSpec, _Mapping]] = ..., checkpointing: _Optional[_Union[CheckpointingSpec, _Mapping]] = ..., output: _Optional[_Union[OutputSpec, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., scheduling: _Optional[_Union[SchedulingSpec, _Mapping]] = ..., objective: _Optional[_Union[ObjectiveSpec, _Mapping]] = ..., textual_inversion: _Optional[_Union[TextualInversionSpec, _Mapping]] = ...) -> None: ...

class BaseModelSpec(_message.Message):
    __slots__ = ("uri", "family", "clip_skip", "vae_uri", "parts")
    class PartsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    URI_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    CLIP_SKIP_FIELD_NUMBER: _ClassVar[int]
    VAE_URI_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    uri: str
    family: str
    clip_skip: int
    vae_uri: str
    parts: _containers.ScalarMap[str, str]
    def __init__(self, uri: _Optional[str] = ..., family: _Optional[str] = ..., clip_skip: _Optional[int] = ..., vae_uri: _Optional[str] = ..., parts: _Optional[_Mapping[str, str]] = ...) -> None: ...

class DatasetSpec(_message.Message):
    __slots__ = ("uri", "caption_column", "trigger_phrase", "validation_fraction", "resolution", "aspect_ratio_bucketing", "on_corrupt", "max_corrupt_fraction", "on_missing_caption", "masks", "resolutions", "regularization")
    URI_FIELD_NUMBER: _ClassVar[int]
    CAPTION_COLUMN_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_PHRASE_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FRACTION_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    ASPECT_RATIO_BUCKETING_FIELD_NUMBER: _ClassVar[int]
    ON_CORRUPT_FIELD_NUMBER: _ClassVar[int]
    MAX_CORRUPT_FRACTION_FIELD_NUMBER: _ClassVar[int]
    ON_MISSING_CAPTION_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    RESOLUTIONS_FIELD_NUMBER: _ClassVar[int]
    REGULARIZATION_FIELD_NUMBER: _ClassVar[int]
    uri: str
    caption_column: str
    trigger_phrase: str
    validation_fraction: float
    resolution: int
    aspect_ratio_bucketing: bool
    on_corrupt: str
    max_corrupt_fraction: float
    on_missing_caption: str
    masks: str
    resolutions: _containers.RepeatedScalarFieldContainer[int]
    regularization: RegularizationSpec
    def __init__(self, uri: _Optional[str] = ..., caption_column: _Optional[str] = ..., trigger_phrase: _Optional[str] = ..., validation_fraction: _Optional[float] = ..., resolution: _Optional[int] = ..., aspect_ratio_bucketing: _Optional[bool] = ..., on_corrupt: _Optional[str] = ..., max_corrupt_fraction: _Optional[float] = ..., on_missing_caption: _Optional[str] = ..., masks: _Optional[str] = ..., resolutions: _Optional[_Iterable[int]] = ..., regularization: _Optional[_Union[RegularizationSpec, _Mapping]] = ...) -> None: ...

class RegularizationSpec(_message.Message):
    __slots__ = ("uri", "weight", "caption_column", "caption")
    URI_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    CAPTION_COLUMN_FIELD_NUMBER: _ClassVar[int]
    CAPTION_FIELD_NUMBER: _ClassVar[int]
    uri: str
    weight: float
    caption_column: str
    caption: str
    def __init__(self, uri: _Optional[str] = ..., weight: _Optional[float] = ..., caption_column: _Optional[str] = ..., caption: _Optional[str] = ...) -> None: ...

class AdapterSpec(_message.Message):
    __slots__ = ("method", "rank", "alpha", "dropout", "target_modules", "text_encoder", "factor", "min_rank", "initialization", "targets", "start", "overrides")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    TARGET_MODULES_FIELD_NUMBER: _ClassVar[int]
    TEXT_ENCODER_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    MIN_RANK_FIELD_NUMBER: _ClassVar[int]
    INITIALIZATION_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    method: str
    rank: int
    alpha: float
    dropout: float
    target_modules: _containers.RepeatedScalarFieldContainer[str]
    text_encoder: bool
    factor: int
    min_rank: int
    initialization: str
    targets: str
    start: StartSpec
    overrides: _containers.RepeatedCompositeFieldContainer[OverrideSpec]
    def __init__(self, method: _Optional[str] = ..., rank: _Optional[int] = ..., alpha: _Optional[float] = ..., dropout: _Optional[float] = ..., target_modules: _Optional[_Iterable[str]] = ..., text_encoder: _Optional[bool] = ..., factor: _Optional[int] = ..., min_rank: _Optional[int] = ..., initialization: _Optional[str] = ..., targets: _Optional[str] = ..., start: _Optional[_Union[StartSpec, _Mapping]] = ..., overrides: _Optional[_Iterable[_Union[OverrideSpec, _Mapping]]] = ...) -> None: ...

class StartSpec(_message.Message):
    __slots__ = ("uri", "resize", "job", "digest", "adapter")
    URI_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    uri: str
    resize: bool
    job: str
    digest: str
    adapter: str
    def __init__(self, uri: _Optional[str] = ..., resize: _Optional[bool] = ..., job: _Optional[str] = ..., digest: _Optional[str] = ..., adapter: _Optional[str] = ...) -> None: ...

class OverrideSpec(_message.Message):
    __slots__ = ("part", "pattern", "rank", "alpha", "dropout", "learning_rate", "lr_scheduler", "lr_warmup_steps", "lr_cycles", "lr_power", "lr_end")
    PART_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    LR_SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    LR_WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    LR_CYCLES_FIELD_NUMBER: _ClassVar[int]
    LR_POWER_FIELD_NUMBER: _ClassVar[int]
    LR_END_FIELD_NUMBER: _ClassVar[int]
    part: str
    pattern: str
    rank: int
    alpha: float
    dropout: float
    learning_rate: float
    lr_scheduler: str
    lr_warmup_steps: int
    lr_cycles: int
    lr_power: float
    lr_end: float
    def __init__(self, part: _Optional[str] = ..., pattern: _Optional[str] = ..., rank: _Optional[int] = ..., alpha: _Optional[float] = ..., dropout: _Optional[float] = ..., learning_rate: _Optional[float] = ..., lr_scheduler: _Optional[str] = ..., lr_warmup_steps: _Optional[int] = ..., lr_cycles: _Optional[int] = ..., lr_power: _Optional[float] = ..., lr_end: _Optional[float] = ...) -> None: ...

class TextualInversionSpec(_message.Message):
    __slots__ = ("tokens", "learning_rate", "train_fraction", "keep_deviation", "alone")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FRACTION_FIELD_NUMBER: _ClassVar[int]
    KEEP_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    ALONE_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[TokenSpec]
    learning_rate: float
    train_fraction: float
    keep_deviation: bool
    alone: bool
    def __init__(self, tokens: _Optional[_Iterable[_Union[TokenSpec, _Mapping]]] = ..., learning_rate: _Optional[float] = ..., train_fraction: _Optional[float] = ..., keep_deviation: _Optional[bool] = ..., alone: _Optional[bool] = ...) -> None: ...

class TokenSpec(_message.Message):
    __slots__ = ("token", "num_vectors", "initial_text")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NUM_VECTORS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_TEXT_FIELD_NUMBER: _ClassVar[int]
    token: str
    num_vectors: int
    initial_text: str
    def __init__(self, token: _Optional[str] = ..., num_vectors: _Optional[int] = ..., initial_text: _Optional[str] = ...) -> None: ...

class OptimizationSpec(_message.Message):
    __slots__ = ("max_steps", "micro_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler", "lr_warmup_steps", "optimizer", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm", "precision", "seed", "min_snr_gamma", "caption_dropout", "noise_offset", "gradient_checkpointing", "text_precision", "lr_cycles", "lr_power", "lr_end", "ema_decay", "lora_plus_ratio", "compile")
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_ACCUMULATION_STEPS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    LR_SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    LR_WARMUP_STEPS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    ADAM_BETA1_FIELD_NUMBER: _ClassVar[int]
    ADAM_BETA2_FIELD_NUMBER: _ClassVar[int]
    ADAM_EPSILON_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    MAX_GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MIN_SNR_GAMMA_FIELD_NUMBER: _ClassVar[int]
    CAPTION_DROPOUT_FIELD_NUMBER: _ClassVar[int]
    NOISE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_CHECKPOINTING_FIELD_NUMBER: _ClassVar[int]
    TEXT_PRECISION_FIELD_NUMBER: _ClassVar[int]
    LR_CYCLES_FIELD_NUMBER: _ClassVar[int]
    LR_POWER_FIELD_NUMBER: _ClassVar[int]
    LR_END_FIELD_NUMBER: _ClassVar[int]
    EMA_DECAY_FIELD_NUMBER: _ClassVar[int]
    LORA_PLUS_RATIO_FIELD_NUMBER: _ClassVar[int]
    COMPILE_FIELD_NUMBER: _ClassVar[int]
    max_steps: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    lr_scheduler: str
    lr_warmup_steps: int
    optimizer: str
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    weight_decay: float
    max_grad_norm: float
    precision: str
    seed: int
    min_snr_gamma: float
    caption_dropout: float
    noise_offset: float
    gradient_checkpointing: bool
    text_precision: str
    lr_cycles: int
    lr_power: float
    lr_end: float
    ema_decay: float
    lora_plus_ratio: float
    compile: str
    def __init__(self, max_steps: _Optional[int] = ..., micro_batch_size: _Optional[int] = ..., gradient_accumulation_steps: _Optional[int] = ..., learning_rate: _Optional[float] = ..., lr_scheduler: _Optional[str] = ..., lr_warmup_steps: _Optional[int] = ..., optimizer: _Optional[str] = ..., adam_beta1: _Optional[float] = ..., adam_beta2: _Optional[float] = ..., adam_epsilon: _Optional[float] = ..., weight_decay: _Optional[float] = ..., max_grad_norm: _Optional[float] = ..., precision: _Optional[str] = ..., seed: _Optional[int] = ..., min_snr_gamma: _Optional[float] = ..., caption_dropout: _Optional[float] = ..., noise_offset: _Optional[float] = ..., gradient_checkpointing: _Optional[bool] = ..., text_precision: _Optional[str] = ..., lr_cycles: _Optional[int] = ..., lr_power: _Optional[float] = ..., lr_end: _Optional[float] = ..., ema_decay: _Optional[float] = ..., lora_plus_ratio: _Optional[float] = ..., compile: _Optional[str] = ...) -> None: ...

class ObjectiveSpec(_message.Message):
    __slots__ = ("time_density", "time_mean", "time_deviation", "time_shift", "min_time", "max_time", "weighting", "loss", "huber_delta", "huber_schedule", "pyramid_noise_discount", "input_perturbation", "latents", "mask_floor", "mask_normalized")
    TIME_DENSITY_FIELD_NUMBER: _ClassVar[int]
    TIME_MEAN_FIELD_NUMBER: _ClassVar[int]
    TIME_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    TIME_SHIFT_FIELD_NUMBER: _ClassVar[int]
    MIN_TIME_FIELD_NUMBER: _ClassVar[int]
    MAX_TIME_FIELD_NUMBER: _ClassVar[int]
    WEIGHTING_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    HUBER_DELTA_FIELD_NUMBER: _ClassVar[int]
    HUBER_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    PYRAMID_NOISE_DISCOUNT_FIELD_NUMBER: _ClassVar[int]
    INPUT_PERTURBATION_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    MASK_FLOOR_FIELD_NUMBER: _ClassVar[int]
    MASK_NORMALIZED_FIELD_NUMBER: _ClassVar[int]
    time_density: str
    time_mean: float
    time_deviation: float
    time_shift: float
    min_time: float
    max_time: float
    weighting: str
    loss: str
    huber_delta: float
    huber_schedule: str
    pyramid_noise_discount: float
    input_perturbation: float
    latents: str
    mask_floor: float
    mask_normalized: bool
    def __init__(self, time_density: _Optional[str] = ..., time_mean: _Optional[float] = ..., time_deviation: _Optional[float] = ..., time_shift: _Optional[float] = ..., min_time: _Optional[float] = ..., max_time: _Optional[float] = ..., weighting: _Optional[str] = ..., loss: _Optional[str] = ..., huber_delta: _Optional[float] = ..., huber_schedule: _Optional[str] = ..., pyramid_noise_discount: _Optional[float] = ..., input_perturbation: _Optional[float] = ..., latents: _Optional[str] = ..., mask_floor: _Optional[float] = ..., mask_normalized: _Optional[bool] = ...) -> None: ...

class ClusterSpec(_message.Message):
    __slots__ = ("num_workers", "cpus_per_worker", "gpus_per_worker", "memory_gib_per_worker", "zero_stage", "offload", "profile")
    NUM_WORKERS_FIELD_NUMBER: _ClassVar[int]
    CPUS_PER_WORKER_FIELD_NUMBER: _ClassVar[int]
    GPUS_PER_WORKER_FIELD_NUMBER: _ClassVar[int]
    MEMORY_GIB_PER_WORKER_FIELD_NUMBER: _ClassVar[int]
    ZERO_STAGE_FIELD_NUMBER: _ClassVar[int]
    OFFLOAD_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    memory_gib_per_worker: float
    zero_stage: int
    offload: str
    profile: str
    def __init__(self, num_workers: _Optional[int] = ..., cpus_per_worker: _Optional[float] = ..., gpus_per_worker: _Optional[float] = ..., memory_gib_per_worker: _Optional[float] = ..., zero_stage: _Optional[int] = ..., offload: _Optional[str] = ..., profile: _Optional[str] = ...) -> None: ...

class ValidationSpec(_message.Message):
    __slots__ = ("prompts", "every_steps", "guidance_scale", "num_inference_steps", "seed", "early_stopping_patience")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    NUM_INFERENCE_STEPS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_PATIENCE_FIELD_NUMBER: _ClassVar[int]
    prompts: _containers.RepeatedScalarFieldContainer[str]
    every_steps: int
    guidance_scale: float
    num_inference_steps: int
    seed: int
    early_stopping_patience: int
    def __init__(self, prompts: _Optional[_Iterable[str]] = ..., every_steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., num_inference_steps: _Optional[int] = ..., seed: _Optional[int] = ..., early_stopping_patience: _Optional[int] = ...) -> None: ...

class CheckpointingSpec(_message.Message):
    __slots__ = ("every_steps", "keep")
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    every_steps: int
    keep: int
    def __init__(self, every_steps: _Optional[int] = ..., keep: _Optional[int] = ...) -> None: ...

class OutputSpec(_message.Message):
    __slots__ = ("uri", "formats", "name", "precision", "weights", "adapter", "plain_lora_rank", "merge")
    URI_FIELD_NUMBER: _ClassVar[int]
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    PLAIN_LORA_RANK_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    uri: str
    formats: _containers.RepeatedScalarFieldContainer[str]
    name: str
    precision: str
    weights: str
    adapter: str
    plain_lora_rank: int
    merge: MergeSpec
    def __init__(self, uri: _Optional[str] = ..., formats: _Optional[_Iterable[str]] = ..., name: _Optional[str] = ..., precision: _Optional[str] = ..., weights: _Optional[str] = ..., adapter: _Optional[str] = ..., plain_lora_rank: _Optional[int] = ..., merge: _Optional[_Union[MergeSpec, _Mapping]] = ...) -> None: ...

class MergeSpec(_message.Message):
    __slots__ = ("adapters", "fuse", "weight", "kind", "rank", "energy", "density", "majority", "seed")
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    FUSE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ENERGY_FIELD_NUMBER: _ClassVar[int]
    DENSITY_FIELD_NUMBER: _ClassVar[int]
    MAJORITY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    adapters: _containers.RepeatedCompositeFieldContainer[MergedWithSpec]
    fuse: bool
    weight: float
    kind: str
    rank: int
    energy: float
    density: float
    majority: str
    seed: int
    def __init__(self, adapters: _Optional[_Iterable[_Union[MergedWithSpec, _Mapping]]] = ..., fuse: _Optional[bool] = ..., weight: _Optional[float] = ..., kind: _Optional[str] = ..., rank: _Optional[int] = ..., energy: _Optional[float] = ..., density: _Optional[float] = ..., majority: _Optional[str] = ..., seed: _Optional[int] = ...) -> None: ...

class MergedWithSpec(_message.Message):
    __slots__ = ("uri", "weight")
    URI_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    uri: str
    weight: float
    def __init__(self, uri: _Optional[str] = ..., weight: _Optional[float] = ...) -> None: ...

class SchedulingSpec(_message.Message):
    __slots__ = ("priority", "sharing", "preemptible", "max_run_time_s")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIBLE_FIELD_NUMBER: _ClassVar[int]
    MAX_RUN_TIME_S_FIELD_NUMBER: _ClassVar[int]
    priority: int
    sharing: str
    preemptible: bool
    max_run_time_s: float
    def __init__(self, priority: _Optional[int] = ..., sharing: _Optional[str] = ..., preemptible: _Optional[bool] = ..., max_run_time_s: _Optional[float] = ...) -> None: ...
