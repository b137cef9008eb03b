"""What the kohya file says of its training, in the metadata that people's tools show: name, tags, base, sizes. Pure; no torch.

No dates: the same result is always the same bytes.
"""

import json
from collections import Counter
from typing import TYPE_CHECKING

from lorafleet import objectives
from trainer.prepare.style import PreparedStyle

if TYPE_CHECKING:
    from trainer.checkpoint import Progress

MAX_TAGS = 2000
MAX_TAG = 200


def output_name(style: PreparedStyle) -> str:
    """What people call the LoRA: the name of its files, else its job's."""
    return style.spec.output.name or style.job.rpartition("/")[2]


def facts(style: PreparedStyle, progress: "Progress") -> dict[str, str]:
    """Metadata by key. `ss_*` are kohya's, `modelspec.*` Stability's, `lorafleet.*` our own."""
    held_out = dict(progress.held_out_losses)
    return {
        "ss_output_name": output_name(style),
        "modelspec.title": output_name(style),
        **_of_base(style),
        **_of_pictures(style),
        "ss_steps": str(progress.step),
        **({"lorafleet.ema_decay": str(style.spec.training.ema_decay)} if style.spec.gives_average else {}),
        **({"lorafleet.held_out_loss_base": str(held_out[0])} if 0 in held_out else {}),
        **({"lorafleet.held_out_loss": str(held_out[progress.step])} if progress.step in held_out else {}),
    }


def _of_base(style: PreparedStyle) -> dict[str, str]:
    base, is_v, label = style.base, style.base.facts.prediction_type == "v_prediction", style.base.facts.label
    # A folder has no checkpoint file: the hashes are of its denoiser.
    folder = f"{style.family.denoiser.name}/"
    denoiser = next(path for path in sorted(base.files) if path.startswith(folder) and path.endswith(".safetensors"))
    return {
        "ss_base_model_version": label.kohya_version,
        "ss_v2": str(label.kohya_version.startswith("sd_v2")),
        "ss_v_parameterization": str(is_v),
        "ss_zero_terminal_snr": str(base.facts.zero_terminal_snr),
        **({"v_pred": "True"} if is_v else {}),
        **label.more,
        "ss_sd_model_name": base.uri.rpartition("/")[2],
        "ss_sd_model_hash": base.webui_hash,
        "ss_new_sd_model_hash": base.single_file.sha256 if base.single_file else base.files[denoiser],
        "lorafleet.base_digest": base.digest,
        "modelspec.architecture": f"{label.architecture}/lora",
        **_prediction_type(style),
    }


def _prediction_type(style: PreparedStyle) -> dict[str, str]:
    """ModelSpec has words for diffusion's kinds alone; of other objectives kohya's trainer leaves the key out."""
    if style.family.objective != objectives.DIFFUSION:
        return {}
    return {"modelspec.prediction_type": "v" if style.base.facts.prediction_type == "v_prediction" else "epsilon"}


def _of_pictures(style: PreparedStyle) -> dict[str, str]:
    held_out = set(style.held_out)
    trained = [picture.caption for index, picture in enumerate(style.data_set.pictures) if index not in held_out]
    folder, side = style.data_set.uri.rpartition("/")[2], style.resolution
    return {
        "ss_dataset_hash": style.data_set.digest,
        "ss_num_train_images": str(len(trained)),
        **_of_prior(style),
        "ss_dataset_dirs": _json({folder: {"n_repeats": 1, "img_count": len(trained)}}),
        "ss_tag_frequency": _json({folder: tags(trained, style.spec.dataset.trigger_phrase)}),
        "ss_resolution": f"({side}, {side})",
        "ss_enable_bucket": str(style.spec.dataset.aspect_ratio_bucketing),
        "modelspec.resolution": f"{side}x{side}",
    }


def _of_prior(style: PreparedStyle) -> dict[str, str]:
    """In kohya's words; a style without a regularisation set has none."""
    asked = style.spec.dataset.regularization
    if asked is None or style.prior is None:
        return {}
    return {"ss_num_reg_images": str(len(style.prior.pictures)), "ss_prior_loss_weight": str(asked.weight)}


def tags(captions: list[str], trigger: str) -> dict[str, int]:
    """How many captions have each comma-separated tag, the most frequent first; long captions and rare tags have an end."""
    counts: Counter[str] = Counter()
    if trigger.strip():
        counts[trigger.strip()[:MAX_TAG]] = len(captions)
    for caption in captions:
        counts.update(tag.strip()[:MAX_TAG] for tag in caption.split(",") if tag.strip())
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_TAGS])


def _json(value: object) -> str:
    return json.dumps(value)  # in ASCII: half a surrogate pair in a caption is no UTF-8
