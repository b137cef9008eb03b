"""The rules of a spec over several fields: what does not go together, and what to do. Pure."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from lorafleet import objectives, spec_output_rules
from lorafleet.catalog import FAMILIES, LOSSES, METHODS, OPTIMIZERS, PRECISIONS
from lorafleet.catalog.method import PRINCIPAL
from lorafleet.spec_sections import LR_END
from lorafleet.spec_words import is_part_name

RESTARTS, POLYNOMIAL = "cosine_with_restarts", "polynomial"
Location = tuple[int | str, ...]  # ("training", "max_steps"), as pydantic writes it


class Rule(NamedTuple):
    """A rule over several fields; what breaks it is reported at the first of them."""

    fields: tuple[tuple[str, str], ...]  # (section, name)
    complaint: Callable[..., str | None]


def _warmup_fits(warmup: int, max_steps: int) -> str | None:
    return f"{warmup} warm-up steps do not fit into {max_steps} max_steps" if warmup > max_steps else None


def _schedule_goes_by_it(value: float | None, scheduler: str, *, whose: str) -> str | None:
    if value is None or scheduler == whose:
        return None
    return f'is nothing that "{scheduler}" goes by; set training.lr_scheduler to "{whose}", or leave it out'


def _cycles_fit(cycles: int | None, scheduler: str, warmup: int, max_steps: int) -> str | None:
    steps = max_steps - warmup
    if cycles is None or scheduler != RESTARTS or not 0 <= steps < cycles:
        return None
    return f"{cycles} cycles do not fit into the {steps} steps after the warm-up"


def _rate_falls_to_its_end(end: float | None, scheduler: str, rate: float) -> str | None:
    if scheduler != POLYNOMIAL or (LR_END if end is None else end) < rate:
        return None
    return f"{LR_END if end is None else end:g} is not below training.learning_rate, {rate:g}, which is to fall to it"


def _method_has_two_sides(ratio: float | None, method: str) -> str | None:
    if ratio is None or METHODS.get(method).raised_roles:
        return None
    return f'"{method}" has no two sides whose rates could differ: leave it out'


def _rates_may_differ(ratio: float | None, optimizer: str) -> str | None:
    if ratio is None or not OPTIMIZERS.get(optimizer).has_one_rate:
        return None
    return f'"{optimizer}" finds one rate for the whole adapter: leave it out'


def _rates_are_of_whole_tensors(ratio: float | None, zero_stage: int) -> str | None:
    if ratio is None or not zero_stage:
        return None
    return f"gives tensors rates of their own, and cluster.zero_stage {zero_stage} cuts them; use zero_stage 0"


def _averages_once(decay: float | None, optimizer: str) -> str | None:
    if decay is None or not OPTIMIZERS.get(optimizer).averages:
        return None
    return f'"{optimizer}" averages what it trains by itself: leave it out'


def _average_is_whole(decay: float | None, zero_stage: int) -> str | None:
    if decay is None or not zero_stage:
        return None
    return f"is kept of whole adapters, to draw with them and judge them, and cluster.zero_stage {zero_stage} cuts them; use zero_stage 0"


def _average_is_kept(weights: str | None, decay: float | None) -> str | None:
    return '"ema" needs training.ema_decay, which keeps the average' if weights == "ema" and decay is None else None


def _offload_needs_zero(offload: str, zero_stage: int) -> str | None:
    return '"cpu" needs cluster.zero_stage 1, 2 or 3' if offload == "cpu" and zero_stage == 0 else None


def _optimizer_can_be_cut(optimizer: str, zero_stage: int) -> str | None:
    if zero_stage == 0 or OPTIMIZERS.get(optimizer).is_elementwise:
        return None
    return f'"{optimizer}" needs whole tensors, which cluster.zero_stage {zero_stage} cuts; use zero_stage 0'


def _optimizer_has_its_device(optimizer: str, gpus_per_worker: float) -> str | None:
    is_missing = OPTIMIZERS.get(optimizer).needs_gpu and not gpus_per_worker
    return f'"{optimizer}" needs a GPU, and cluster.gpus_per_worker is 0' if is_missing else None


def _optimizer_is_adam(value: float, optimizer: str, *, usual: float) -> str | None:
    return f'is nothing that "{optimizer}" goes by: leave it out' if value != usual and not OPTIMIZERS.get(optimizer).is_adam else None


def _averages_at_full_rate(scheduler: str, optimizer: str) -> str | None:
    if scheduler == "constant" or not OPTIMIZERS.get(optimizer).averages:
        return None
    return f'"{scheduler}" lets the rate fall, in whose place "{optimizer}" averages; use "constant"'


def _noises_as_diffusion_does(value: float | None, family: str | None) -> str | None:
    if not value or family is None or FAMILIES.get(family).objective == objectives.DIFFUSION:
        return None
    return f"is of diffusion's noise schedules; {family} is trained by {FAMILIES.get(family).objective} matching: leave it out"


def _coarse_noise_is_one(discount: float, offset: float) -> str | None:
    return "changes the coarse noise, as training.noise_offset does: choose one" if discount and offset else None


def _weights_are_one(weighting: str, min_snr_gamma: float | None) -> str | None:
    if weighting == "none" or min_snr_gamma is None:
        return None
    return f'"{weighting}" and training.min_snr_gamma are two weightings: choose one'


def _times_are_a_range(least: float, most: float) -> str | None:
    return f"no time lies between {least:g} and max_time, {most:g}" if least >= most else None


def _is_logit_normals(value: float | None, density: str | None) -> str | None:
    return None if value is None or density == "logit_normal" else 'belongs to objective.time_density "logit_normal": set that, too'


def _resolutions_are_given_once(resolutions: Sequence[int], resolution: int | None) -> str | None:
    if not resolutions:
        return None
    if resolution is not None:
        return f"stands beside dataset.resolution, {resolution}: leave that out, or put it among these"
    twice = sorted({each for each in resolutions if list(resolutions).count(each) > 1})
    return f"has {twice[0]} twice" if twice else None


def _prior_is_another_set(regularization: Mapping[str, Any] | None, uri: str) -> str | None:
    given = (regularization or {}).get("uri")
    if not isinstance(given, str) or given.rstrip("/") != uri.rstrip("/"):
        return None
    return "is the data set itself; it is to hold other pictures of the same kind of thing"


def _is_of_masks(value: float | bool, masks: str) -> str | None:
    return "is of masks, and dataset.masks is none: set that, too, or leave it out" if value and masks == "none" else None


def _loss_has_scale(value: float | str | None, loss: str) -> str | None:
    if value is None or LOSSES.get(loss).has_scale:
        return None
    return f'is nothing that the loss "{loss}" goes by; set objective.loss, or leave it out'


def _reads_trained_text(text_encoder: bool, family: str | None) -> str | None:
    if not text_encoder or family is None:
        return None
    encoders = FAMILIES.get(family).text_encoders
    if any(part.target_modules for part in encoders):
        return None
    return f"no reader loads adapters on {' or '.join(part.classes[0] for part in encoders)}, the text encoder of {family}; leave it out"


def _quantised_is_whole(precision: str, zero_stage: int) -> str | None:
    is_cut = PRECISIONS.get(precision).quantised_bytes is not None and zero_stage == 3
    return f'"{precision}" cannot be cut over workers as cluster.zero_stage 3 does; use stage 0 to 2' if is_cut else None


def _fp16_is_whole(precision: str, zero_stage: int) -> str | None:
    if PRECISIONS.get(precision).computes != "fp16" or not zero_stage:
        return None
    return f'"{precision}" needs whole gradients, to skip steps that overflow, and cluster.zero_stage {zero_stage} cuts them; use bf16'


def _fp16_holds_the_family(precision: str, family: str | None) -> str | None:
    if PRECISIONS.get(precision).computes != "fp16" or family is None or not FAMILIES.get(family).overflows_fp16:
        return None
    return f"activations of {family} are beyond the range of {precision}; use bf16"


def _large_text_is_there(text: str | None, family: str | None) -> str | None:
    if text is None or family is None or any(part.is_large for part in FAMILIES.get(family).text_encoders):
        return None
    return f"no text encoder of {family} is as large as its denoiser: leave it out"


def _large_text_is_no_fp16(text: str | None) -> str | None:
    is_fp16 = text is not None and PRECISIONS.get(text).computes == "fp16"
    return f"T5 and Qwen overflow in {text}; use bf16, int8 or nf4" if is_fp16 else None


def _method_needs_weights(method: str, precision: str) -> str | None:
    is_blind = PRECISIONS.get(precision).quantised_bytes is not None and METHODS.get(method).reads_weights
    return f'"{method}" reads the weights themselves, which training.precision {precision} has not; use bf16, or lora' if is_blind else None


def _method_takes_a_factor(factor: int | None, method: str) -> str | None:
    return f'is nothing that "{method}" goes by: leave it out' if factor is not None and METHODS.get(method).factored is None else None


def method_has_alpha(alpha: float | None, method: str) -> str | None:
    return f'is nothing that "{method}" goes by: leave it out' if alpha is not None and not METHODS.get(method).has_alpha else None


def method_has_the_rank(rank: int, method: str) -> str | None:
    least = METHODS.get(method).least_rank
    return f'{rank} is too small for "{method}", of which it is at least {least}' if rank < least else None


def _least_rank_is_one(min_rank: int | None, rank: int, method: str) -> str | None:
    if min_rank is None:
        return None
    if not METHODS.get(method).ranks_by_noise:
        return f'is nothing that "{method}" goes by: leave it out'
    return f"{min_rank} is more than adapter.rank, {rank}" if min_rank > rank else None


def method_begins_so(initialization: str, method: str, rank: int) -> str | None:
    known = METHODS.get(method).initializations
    if initialization not in known:
        return f'is none of "{method}", which begins with {" or ".join(known)}'
    halves = initialization == "orthogonal" and initialization not in METHODS.get(method).subtracted
    return f'"orthogonal" halves the rank, and adapter.rank, {rank}, is odd' if halves and rank % 2 else None


def _weights_are_there_to_begin_with(initialization: str, precision: str) -> str | None:
    if initialization not in PRINCIPAL or PRECISIONS.get(precision).quantised_bytes is None:
        return None
    return f'"{initialization}" is found in the weights themselves, which training.precision {precision} has not; use bf16, or kaiming'


def _beginning_is_whole(initialization: str, method: str, zero_stage: int) -> str | None:
    if not zero_stage or initialization not in METHODS.get(method).subtracted:
        return None
    return f'"{initialization}" is subtracted from whole adapters, and cluster.zero_stage {zero_stage} cuts them; use zero_stage 0'


def _begins_once(initialization: str, method: str, start: Mapping[str, Any] | None) -> str | None:
    if start is None or initialization not in METHODS.get(method).subtracted:
        return None
    return f'"{initialization}" is a beginning, and so is adapter.start: choose one'


def _family_has_the_preset(targets: str | None, family: str | None) -> str | None:
    if targets is None or family is None or (why := FAMILIES.get(family).no_preset(targets)) is None:
        return None
    return f'"{targets}": {why}'


def _targets_are_named_once(targets: str | None, target_modules: Sequence[str], family: str | None) -> str | None:
    """A spec that was filled in names both, alike."""
    if targets is None or not target_modules or (family is not None and tuple(target_modules) == FAMILIES.get(family).preset(targets)):
        return None
    return f'"{targets}" and adapter.target_modules both say which layers: choose one'


def _text_has_no_noise(text_encoder: bool, method: str) -> str | None:
    if not text_encoder or not METHODS.get(method).ranks_by_noise:
        return None
    return f'"{method}" goes by the noise in a picture, of which a text encoder hears nothing: leave it out'


def _trigger_is_there(choice: str, trigger_phrase: str) -> str | None:
    return '"trigger" needs dataset.trigger_phrase' if choice == "trigger" and not trigger_phrase.strip() else None


def _early_stopping_evaluates(patience: int, every_steps: int) -> str | None:
    return "needs validation.every_steps: without it no held-out loss is taken on the way" if patience and not every_steps else None


def _early_stopping_has_pictures(patience: int, fraction: float) -> str | None:
    return (
        "needs dataset.validation_fraction over 0: without held-out pictures there is no held-out loss"
        if patience and not fraction
        else None
    )


def _clip_skip_has_layers(clip_skip: int | None, family: str | None) -> str | None:
    if clip_skip is None or family is None:
        return None
    return FAMILIES.get(family).no_clip_skip


def _blocks_are_recomputed(chosen: bool, family: str | None) -> str | None:
    return FAMILIES.get(family).no_recomputation if chosen and family is not None else None


def _base_is_not_pickled(uri: str) -> str | None:
    return "is a pickled file, and nothing is unpickled; save it as .safetensors" if uri.endswith((".ckpt", ".pt", ".pth")) else None


def _start_is_not_pickled(start: Mapping[str, Any] | None) -> str | None:
    is_pickled = str((start or {}).get("uri", "")).endswith((".ckpt", ".pt", ".pth", ".bin"))
    return "its uri is a pickled file, and nothing is unpickled; save it as .safetensors" if is_pickled else None


def _start_can_be_resized(start: Mapping[str, Any] | None, method: str) -> str | None:
    if not (start or {}).get("resize") or set(METHODS.get(method).names) == {"A", "B"}:
        return None
    return f'resize makes the nearest LoRA, which "{method}" is not: leave it out'


def _parts_are_the_familys(parts: Mapping[str, str], family: str | None) -> str | None:
    known = {part.name for each in ([FAMILIES.get(family)] if family else FAMILIES.all()) for part in each.parts}
    if not (strange := sorted(filter(is_part_name, parts.keys() - known))):
        return None
    return f"{strange[0]} is no part of {family or 'any family'}; there is {', '.join(sorted(known))}"


def _vae_is_given_once(vae_uri: str | None, parts: Mapping[str, str]) -> str | None:
    return "is given twice: also as base_model.parts.vae" if vae_uri is not None and "vae" in parts else None


RULES = (
    Rule((("base_model", "uri"),), _base_is_not_pickled),
    Rule((("base_model", "parts"), ("base_model", "family")), _parts_are_the_familys),
    Rule((("adapter", "start"),), _start_is_not_pickled),
    Rule((("adapter", "start"), ("adapter", "method")), _start_can_be_resized),
    Rule((("base_model", "vae_uri"), ("base_model", "parts")), _vae_is_given_once),
    Rule((("training", "precision"), ("cluster", "zero_stage")), _quantised_is_whole),
    Rule((("training", "precision"), ("cluster", "zero_stage")), _fp16_is_whole),
    Rule((("training", "precision"), ("base_model", "family")), _fp16_holds_the_family),
    Rule((("training", "text_precision"),), _large_text_is_no_fp16),
    Rule((("training", "text_precision"), ("base_model", "family")), _large_text_is_there),
    Rule((("adapter", "method"), ("training", "precision")), _method_needs_weights),
    Rule((("adapter", "rank"), ("adapter", "method")), method_has_the_rank),
    Rule((("adapter", "alpha"), ("adapter", "method")), method_has_alpha),
    Rule((("adapter", "factor"), ("adapter", "method")), _method_takes_a_factor),
    Rule((("adapter", "min_rank"), ("adapter", "rank"), ("adapter", "method")), _least_rank_is_one),
    Rule((("adapter", "targets"), ("base_model", "family")), _family_has_the_preset),
    Rule((("adapter", "targets"), ("adapter", "target_modules"), ("base_model", "family")), _targets_are_named_once),
    Rule((("adapter", "text_encoder"), ("adapter", "method")), _text_has_no_noise),
    Rule((("adapter", "initialization"), ("adapter", "method"), ("adapter", "rank")), method_begins_so),
    Rule((("adapter", "initialization"), ("training", "precision")), _weights_are_there_to_begin_with),
    Rule((("adapter", "initialization"), ("adapter", "method"), ("cluster", "zero_stage")), _beginning_is_whole),
    Rule((("adapter", "initialization"), ("adapter", "method"), ("adapter", "start")), _begins_once),
    Rule((("output", "formats"), ("adapter", "method"), ("base_model", "family")), spec_output_rules.formats_hold_the_method),
    Rule((("output", "plain_lora_rank"), ("adapter", "method"), ("textual_inversion", "alone")), spec_output_rules.plain_is_another),
    Rule((("output", "plain_lora_rank"), ("adapter", "method"), ("training", "precision")), spec_output_rules.plain_has_weights),
    Rule((("output", "plain_lora_rank"), ("cluster", "zero_stage")), spec_output_rules.plain_has_layers),
    Rule((("training", "gradient_checkpointing"), ("base_model", "family")), _blocks_are_recomputed),
    Rule((("training", "noise_offset"), ("base_model", "family")), _noises_as_diffusion_does),
    Rule((("objective", "pyramid_noise_discount"), ("base_model", "family")), _noises_as_diffusion_does),
    Rule((("objective", "pyramid_noise_discount"), ("training", "noise_offset")), _coarse_noise_is_one),
    Rule((("objective", "weighting"), ("training", "min_snr_gamma")), _weights_are_one),
    Rule((("objective", "min_time"), ("objective", "max_time")), _times_are_a_range),
    Rule((("objective", "time_mean"), ("objective", "time_density")), _is_logit_normals),
    Rule((("objective", "time_deviation"), ("objective", "time_density")), _is_logit_normals),
    Rule((("dataset", "resolutions"), ("dataset", "resolution")), _resolutions_are_given_once),
    Rule((("dataset", "regularization"), ("dataset", "uri")), _prior_is_another_set),
    Rule((("objective", "mask_floor"), ("dataset", "masks")), _is_of_masks),
    Rule((("objective", "mask_normalized"), ("dataset", "masks")), _is_of_masks),
    Rule((("objective", "huber_delta"), ("objective", "loss")), _loss_has_scale),
    Rule((("objective", "huber_schedule"), ("objective", "loss")), _loss_has_scale),
    Rule((("adapter", "text_encoder"), ("base_model", "family")), _reads_trained_text),
    Rule((("training", "lr_warmup_steps"), ("training", "max_steps")), _warmup_fits),
    Rule((("training", "lr_cycles"), ("training", "lr_scheduler")), partial(_schedule_goes_by_it, whose=RESTARTS)),
    Rule(
        (("training", "lr_cycles"), ("training", "lr_scheduler"), ("training", "lr_warmup_steps"), ("training", "max_steps")), _cycles_fit
    ),
    Rule((("training", "lr_power"), ("training", "lr_scheduler")), partial(_schedule_goes_by_it, whose=POLYNOMIAL)),
    Rule((("training", "lr_end"), ("training", "lr_scheduler")), partial(_schedule_goes_by_it, whose=POLYNOMIAL)),
    Rule((("training", "lr_end"), ("training", "lr_scheduler"), ("training", "learning_rate")), _rate_falls_to_its_end),
    Rule((("training", "optimizer"), ("cluster", "zero_stage")), _optimizer_can_be_cut),
    Rule((("training", "optimizer"), ("cluster", "gpus_per_worker")), _optimizer_has_its_device),
    Rule((("training", "adam_beta1"), ("training", "optimizer")), partial(_optimizer_is_adam, usual=0.9)),
    Rule((("training", "adam_beta2"), ("training", "optimizer")), partial(_optimizer_is_adam, usual=0.999)),
    Rule((("training", "adam_epsilon"), ("training", "optimizer")), partial(_optimizer_is_adam, usual=1e-8)),
    Rule((("training", "lr_scheduler"), ("training", "optimizer")), _averages_at_full_rate),
    Rule((("training", "lora_plus_ratio"), ("adapter", "method")), _method_has_two_sides),
    Rule((("training", "lora_plus_ratio"), ("training", "optimizer")), _rates_may_differ),
    Rule((("training", "lora_plus_ratio"), ("cluster", "zero_stage")), _rates_are_of_whole_tensors),
    Rule((("training", "ema_decay"), ("training", "optimizer")), _averages_once),
    Rule((("training", "ema_decay"), ("cluster", "zero_stage")), _average_is_whole),
    Rule((("output", "weights"), ("training", "ema_decay")), _average_is_kept),
    Rule((("cluster", "offload"), ("cluster", "zero_stage")), _offload_needs_zero),
    Rule((("dataset", "on_missing_caption"), ("dataset", "trigger_phrase")), _trigger_is_there),
    Rule((("base_model", "clip_skip"), ("base_model", "family")), _clip_skip_has_layers),
    Rule((("validation", "early_stopping_patience"), ("validation", "every_steps")), _early_stopping_evaluates),
    Rule((("validation", "early_stopping_patience"), ("dataset", "validation_fraction")), _early_stopping_has_pictures),
)
