"""The adapter as files that load everywhere: diffusers' layout and kohya's. From named fp32 tensors, without the model.

Files may be of half precision. DoRA's magnitudes stay fp32: training moves them by less than half precision can tell apart.

Names: `unet.<module>.lora_A.weight` (canonical, which is also PEFT's in diffusers files) becomes kohya's
`lora_unet_<module, dots as underscores>.lora_down.weight`.
"""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from lorafleet import __version__
from lorafleet.spec import AdapterSpec, Spec
from trainer.adapters.layout import TEXT_ENCODER_MODULES, alpha, scaling
from trainer.adapters.safetensors_file import file_bytes, webui_hashes

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_MAGNITUDES = ("lora_magnitude_vector", "dora_scale")


def usable_precision(weights: Mapping[str, Tensor], spec: AdapterSpec, asked: str) -> str:
    """`asked`, or fp32 where the adapter has a number beyond fp16's range: it would become infinite."""
    folded = max((float(tensor.abs().max()) for tensor in weights.values() if tensor.numel()), default=0.0) * max(1.0, scaling(spec))
    largest = max(folded, scaling(spec) * spec.rank)
    return "fp32" if asked == "fp16" and largest > torch.finfo(torch.float16).max else asked


def diffusers_file(weights: Mapping[str, Tensor], spec: AdapterSpec, precision: str = "fp32") -> bytes:
    """The LoRA as diffusers' save_lora_weights writes it, with lora_adapter_metadata.

    The scaling is folded into B and alpha written as rank: older diffusers ignore the metadata and assume just that.
    """
    scale = scaling(spec)
    folded = {name: tensor * scale if ".lora_B." in name else _as_peft_has_it(name, weights) for name, tensor in weights.items()}
    metadata: dict[str, object] = {}
    for part, modules in (("unet", spec.target_modules), ("text_encoder", TEXT_ENCODER_MODULES)):
        if any(name.startswith(f"{part}.") for name in weights):
            metadata |= {f"{part}.{key}": value for key, value in _peft_config(spec, list(modules)).items()}
    described = {"format": "pt", "lora_adapter_metadata": json.dumps(metadata, indent=2, sort_keys=True)}
    return file_bytes(_stored(folded, precision), described)


def _as_peft_has_it(name: str, weights: Mapping[str, Tensor]) -> Tensor:
    """PEFT keeps the magnitudes of a convolution as (1, out, 1, 1)."""
    module, _, role = name.rpartition(".")
    is_convolution = role == "lora_magnitude_vector" and weights[f"{module}.lora_A.weight"].ndim == 4
    return weights[name].reshape(1, -1, 1, 1) if is_convolution else weights[name]


def kohya_file(weights: Mapping[str, Tensor], spec: Spec, facts: Mapping[str, str], precision: str = "fp32") -> bytes:
    """The LoRA in kohya's layout with ss_* and modelspec.* metadata; `facts` are added to it (base, data set, losses).

    No date: the same result is always the same bytes.
    """
    tensors: dict[str, Tensor] = {}
    # Readers scale by alpha / rank: for rsLoRA alpha is written as what gives its own scaling.
    exact = torch.tensor(scaling(spec.adapter) * spec.adapter.rank)
    rounded = exact.to(_DTYPES[precision])
    for name, tensor in weights.items():
        module, _, role = name.removesuffix(".weight").rpartition(".")
        key = kohya_module(module)
        if role == "lora_magnitude_vector":
            tensors[f"{key}.dora_scale"] = tensor.reshape(-1, *[1] * (weights[f"{module}.lora_A.weight"].ndim - 1))
            continue
        # What rounding takes from alpha is given to B.
        tensors[f"{key}.{'lora_down' if role == 'lora_A' else 'lora_up'}.weight"] = (
            tensor * (exact / rounded) if role == "lora_B" else tensor
        )
        tensors[f"{key}.alpha"] = rounded.clone()
    tensors = _stored(tensors, precision)
    metadata = {"format": "pt", **_kohya_metadata(spec, tensors), **facts}
    return file_bytes(tensors, metadata | webui_hashes(tensors, metadata))


def kohya_module(module: str) -> str:
    """`unet.mid_block.attentions.0.….to_q` -> `lora_unet_mid_block_attentions_0_…_to_q`; `lora_te_…` for the text encoder."""
    part, _, path = module.partition(".")
    if part == "text_encoder" and not path.startswith("text_model."):
        path = f"text_model.{path}"  # kohya's names are of the transformers that had this level
    return f"{'lora_unet' if part == 'unet' else 'lora_te'}_{path.replace('.', '_')}"


def _peft_config(spec: AdapterSpec, target_modules: list[str]) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "r": spec.rank,
        "lora_alpha": spec.rank,
        "target_modules": target_modules,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": spec.method == "dora",
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def _kohya_metadata(spec: Spec, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    training = spec.training
    values: dict[str, object] = {
        # DoRA is LyCORIS' in this layout, with a magnitude for each output.
        "ss_network_module": "lycoris.kohya" if spec.adapter.method == "dora" else "networks.lora",
        "ss_network_args": _network_args(spec.adapter),
        "ss_network_dim": spec.adapter.rank,
        "ss_network_alpha": alpha(spec.adapter),
        "ss_network_dropout": spec.adapter.dropout,
        "ss_learning_rate": training.learning_rate,
        "ss_lr_scheduler": training.lr_scheduler,
        "ss_lr_warmup_steps": training.lr_warmup_steps,
        "ss_optimizer": training.optimizer,
        "ss_max_train_steps": training.max_steps,
        "ss_batch_size_per_device": training.micro_batch_size,
        "ss_gradient_accumulation_steps": training.gradient_accumulation_steps,
        "ss_max_grad_norm": training.max_grad_norm,
        "ss_mixed_precision": {"fp32": "no"}.get(training.precision, training.precision),
        "ss_seed": training.seed,
        "ss_clip_skip": None,
        "ss_min_snr_gamma": training.min_snr_gamma,
        "ss_caption_dropout_rate": training.caption_dropout,
        "ss_noise_offset": training.noise_offset,
        "ss_training_comment": f"lorafleet {__version__}",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.implementation": "diffusers",
        "modelspec.trigger_phrase": spec.dataset.trigger_phrase,
        "modelspec.hash_sha256": f"0x{_tensor_digest(tensors)}",
    }
    return {key: str(value) for key, value in values.items()}


def _tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    # ModelSpec hashes the tensors' bytes alone, so that metadata may change without a new hash.
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _network_args(spec: AdapterSpec) -> str:
    """A DoRA's are LyCORIS'; that an rsLoRA was one is only told, since alpha holds its scaling."""
    match spec.method:
        case "dora":
            return json.dumps({"algo": "lora", "dora_wd": "True", "wd_on_output": "True"})
        case "rslora":
            return json.dumps({"rs_lora": "True"})
        case _:
            return "{}"


def _stored(tensors: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        dtype = torch.float32 if name.endswith(_MAGNITUDES) else _DTYPES[precision]
        found[name] = tensor.detach().to("cpu", dtype).contiguous()
    return found
