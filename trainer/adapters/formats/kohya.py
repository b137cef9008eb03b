"""The adapter in kohya's layout, which webuis and ComfyUI read, with ss_* and modelspec.* metadata. Without the model.

A module is the prefix of its part and its path with dots as underscores: `unet.….to_q` is `lora_unet_…_to_q`.
"""

import hashlib
import json
from collections.abc import Mapping
from math import prod
from types import MappingProxyType

import torch
from torch import Tensor

from lorafleet import __version__
from lorafleet.catalog import LOSSES, PRECISIONS
from lorafleet.catalog.family import Family
from lorafleet.catalog.method import Fusing, is_target
from lorafleet.catalog.part import Layers
from lorafleet.spec import AdapterSpec, ObjectiveSpec, OptimizationSpec, Spec
from lorafleet.spec_sections import HUBER_DELTA, HUBER_SCHEDULE
from trainer.adapters.formats.fused import fused, with_one_alpha
from trainer.adapters.formats.safetensors_file import file_bytes, webui_hashes
from trainer.adapters.formats.tensors import by_module, file_of, stored
from trainer.adapters.layout import alpha
from trainer.adapters.methods import METHODS
from trainer.adapters.methods.protocol import Weights

NO_OTHERS: Mapping[str, str] = MappingProxyType({})
AS_OURS = Layers()
_LOSS_TYPES = {"squared": "l2"}  # kohya's words; of others ours are the same
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # kohya's words for what passes compute in


def kohya_file(
    weights: Mapping[str, Tensor], spec: Spec, facts: Mapping[str, str], precision: str = "fp32", *, layers: Layers = AS_OURS
) -> bytes:
    """`weights`: by canonical name; `facts`: more metadata (base, data set, losses); `layers`: those of the denoiser that are others in
    these files. No date: the same result is the same bytes."""
    family, method, file = spec.family, METHODS.get(spec.adapter.method), file_of(spec.adapter, precision)
    adapter = by_module(weights, spec.adapter)
    apart = _apart(family, layers) if method.facts.fusing is Fusing.APART else set[str]()
    named = {
        f"{_lycoris_module(module) if module in apart else kohya_module(family, module, layers.names)}.{end}": tensor
        for module, layer in with_one_alpha(fused(adapter, spec.adapter, family, layers), spec.adapter).items()
        for end, tensor in method.for_kohya(layer.tensors, file._replace(rank=layer.rank, scaling=layer.scaling)).items()
    }
    tensors = stored(named, precision)
    metadata = {"format": "pt", **_kohya_metadata(spec, tensors, _of_convolutions(adapter, spec.adapter)), **facts}
    return file_bytes(tensors, metadata | webui_hashes(tensors, metadata))


def kohya_module(family: Family, module: str, modules: Mapping[str, str] = NO_OTHERS) -> str:
    """`unet.mid_block.attentions.0.….to_q` -> `lora_unet_mid_block_attentions_0_…_to_q`; `lora_te_…` for the text encoder."""
    part, _, path = module.partition(".")
    if part.startswith("text_encoder") and not path.startswith("text_model."):
        path = f"text_model.{path}"  # kohya's names are of the transformers that had this level
    if part == family.denoiser.name:
        path = modules.get(path, path)
    return f"{family.part(part).kohya_prefix}_{path.replace('.', '_')}"


def _apart(family: Family, layers: Layers) -> set[str]:
    """Modules that are no layer of their own in the model that kohya's names are of, or have their outputs in another order there."""
    swapped = family.kohya_swapped(layers.num_outputs)
    several = {module for modules in layers.fused().values() for module in modules}
    return {f"{family.denoiser.name}.{module}" for module in layers.num_outputs if module in several or is_target(module, swapped)}


def _lycoris_module(module: str) -> str:
    """As LyCORIS names a module of diffusers' transformers, and ComfyUI finds it: `lycoris_transformer_blocks_0_attn_to_q`."""
    return f"lycoris_{module.partition('.')[2].replace('.', '_')}"


def _of_convolutions(adapter: Mapping[str, Weights], spec: AdapterSpec) -> dict[str, str]:
    """Of `ss_network_args` what says that convolutions larger than 1 x 1 are trained, where they are of one rank and alpha: kohya's scripts
    and LyCORIS take those of 1 x 1 for linear layers. OFT's tensors do not tell what layer they are of."""
    trained = [spec.at(path) for path, tensors in adapter.items() if any(prod(each.shape[2:]) > 1 for each in tensors.values())]
    found = {(layer.rank, alpha(layer)) for layer in trained if METHODS.get(spec.method).facts.has_alpha}
    return {key: value for rank, its in found for key, value in (("conv_dim", str(rank)), ("conv_alpha", f"{its:g}")) if len(found) == 1}


def _kohya_metadata(spec: Spec, tensors: Mapping[str, Tensor], convolutions: Mapping[str, str]) -> dict[str, str]:
    training, objective = spec.training, spec.objective
    network, arguments = METHODS.get(spec.adapter.method).kohya_network(spec.adapter)
    values: dict[str, object] = {
        "ss_network_module": network,
        "ss_network_args": json.dumps({**arguments, **convolutions, **_raised(training)}),
        "ss_network_dim": spec.adapter.rank,
        "ss_network_alpha": alpha(spec.adapter),
        "ss_network_dropout": spec.adapter.dropout,
        "ss_learning_rate": training.learning_rate,
        **_schedule(training),
        "ss_optimizer": training.optimizer,
        "ss_max_train_steps": training.max_steps,
        "ss_batch_size_per_device": training.micro_batch_size,
        "ss_gradient_accumulation_steps": training.gradient_accumulation_steps,
        "ss_max_grad_norm": training.max_grad_norm,
        "ss_mixed_precision": _MIXED[PRECISIONS.get(training.precision).computes],
        "ss_seed": training.seed,
        "ss_clip_skip": spec.base_model.clip_skip,
        "ss_min_snr_gamma": training.min_snr_gamma,
        "ss_caption_dropout_rate": training.caption_dropout,
        "ss_noise_offset": training.noise_offset,
        "ss_multires_noise_discount": objective.pyramid_noise_discount,
        "ss_ip_noise_gamma": objective.input_perturbation,
        "ss_debiased_estimation": objective.weighting == "debiased",
        **({} if spec.dataset.masks == "none" else {"ss_masked_loss": True}),
        "ss_loss_type": _LOSS_TYPES.get(objective.loss, objective.loss),
        **(_huber(objective) if LOSSES.get(objective.loss).has_scale else {}),
        "ss_training_comment": f"lorafleet {__version__}",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "diffusers",
        "modelspec.trigger_phrase": spec.dataset.trigger_phrase,
        "modelspec.hash_sha256": f"0x{_tensor_digest(tensors)}",
    }
    return {key: str(value) for key, value in values.items()}


def _schedule(training: OptimizationSpec) -> dict[str, object]:
    """kohya's "constant" knows no warm-up: with one it has another name."""
    is_warmed = training.lr_scheduler == "constant" and training.lr_warmup_steps > 0
    return {
        "ss_lr_scheduler": "constant_with_warmup" if is_warmed else training.lr_scheduler,
        "ss_lr_warmup_steps": training.lr_warmup_steps,
        **({} if training.lr_cycles is None else {"ss_lr_scheduler_num_cycles": training.lr_cycles}),
        **({} if training.lr_power is None else {"ss_lr_scheduler_power": training.lr_power}),
    }


def _raised(training: OptimizationSpec) -> dict[str, str]:
    return {} if training.lora_plus_ratio is None else {"loraplus_lr_ratio": str(training.lora_plus_ratio)}


def _huber(objective: ObjectiveSpec) -> dict[str, object]:
    delta = HUBER_DELTA if objective.huber_delta is None else objective.huber_delta
    return {"ss_huber_c": delta, "ss_huber_schedule": objective.huber_schedule or HUBER_SCHEDULE}


def _tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    # ModelSpec hashes the tensors' bytes alone, so that metadata may change without a new hash.
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
