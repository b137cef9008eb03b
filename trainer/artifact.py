"""The artifact: files first, manifest.json with every SHA-256 last, and only if there is none yet. Then it exists.

The driver asks here too, so torch is imported only to write one.
"""

import hashlib
import json
import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from lorafleet import __version__, adapter_readers
from lorafleet.catalog import METHODS
from lorafleet.contract.layout import MANIFEST, JobLayout, adapter_file, plain_lora_file, step_folder
from lorafleet.errors import RunFailed
from lorafleet.spec import FORMATS, AdapterSpec, Spec
from lorafleet.v1.training_service_pb2 import Artifact
from trainer import artifact_plain, artifact_tokens, untrusted
from trainer.artifact_addition import NOTHING as NOTHING_ADDED
from trainer.artifact_addition import Addition
from trainer.artifact_facts import facts, output_name
from trainer.prepare import data_facts
from trainer.prepare.style import PreparedStyle
from trainer.storage import Folder
from trainer.untrusted import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.adapters.plain_lora import PlainLora
    from trainer.checkpoint import Progress

MODEL_CARD = "README.md"
NOTHING: Mapping[str, str] = MappingProxyType({})

log = logging.getLogger("lorafleet.artifact")


def existing(style: PreparedStyle) -> Artifact | None:
    """The artifact that an earlier attempt of this very job has committed; None when there is none.

    Raises RunFailed OUTPUT_TAKEN when the folder holds another job's.
    """
    return existing_in(Folder(JobLayout(style.output_uri).adapter, within=style.output_uri), style.job)


def existing_in(folder: Folder, job: str) -> Artifact | None:
    """The same of a folder, and of other work than jobs."""
    manifest = folder.get_or_none(MANIFEST, most_bytes=untrusted.MAX_CONFIG_BYTES)
    if manifest is None:
        return None
    with untrusted.taken(f"{folder.uri}/{MANIFEST}"):
        known = untrusted.json_object(manifest)
        if known.get("job") != job:
            raise Refused("already is the artifact of another job")
        return _as_reported(folder.uri, manifest, _sizes(known))


def _sizes(manifest: Mapping[str, JsonValue]) -> list[int]:
    """Bytes of each file. Raises Refused: whoever may write to the folder may have written it."""
    files = manifest.get("files")
    sizes = [file.get("size_bytes") for file in files.values() if isinstance(file, dict)] if isinstance(files, dict) else []
    if not isinstance(files, dict) or len(sizes) != len(files) or not untrusted.are_counts(sizes, most=2**53):
        raise Refused("does not say how long its files are")
    return sizes


def commit(
    style: PreparedStyle,
    weights: "Mapping[str, Tensor]",
    progress: "Progress",
    samples: int | None,
    plain: "PlainLora | None" = None,
) -> Artifact:
    """Writes every file, then the manifest. `samples` is the step whose sample pictures the card shows; None: there are none."""
    if (found := existing(style)) is not None:
        return found  # an earlier attempt's: its manifest must stay true
    folder = Folder(JobLayout(style.output_uri).adapter, within=style.output_uri)
    with _artifact_files(style, weights, progress, samples, plain) as (files, merged):
        _put(folder, files)
        digests = {name: _digest(data) for name, data in files.items()}
    facts: dict[str, Any] = {
        "steps": progress.step,
        "base_digest": style.base.digest,
        "family": style.spec.family.name,
        "dataset_digest": style.data_set.digest,
        **artifact_tokens.for_manifest(style.spec),
        **artifact_plain.for_manifest(style.spec, plain),
        **merged.facts,
    }
    return commit_files(folder, style.job, facts, digests)


def commit_files(folder: Folder, job: str, facts: Mapping[str, Any], files: Mapping[str, tuple[str, int]]) -> Artifact:
    """Writes the manifest of files that are there, each with its SHA-256 and size; or finds the one that an earlier attempt has written."""
    manifest: dict[str, Any] = {
        "format": "lorafleet-artifact-1",
        "job": job,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "files": {name: {"sha256": sha256, "size_bytes": size_bytes} for name, (sha256, size_bytes) in files.items()},
    }
    data = json.dumps(manifest, indent=2).encode()
    if not folder.put_if_absent(MANIFEST, data):
        if (found := existing_in(folder, job)) is not None:
            return found
        raise RunFailed(f"{folder.uri}: the manifest came and went; try again", reason="OUTPUT_TAKEN", retryable=True)
    return _as_reported(folder.uri, data, [size_bytes for _, size_bytes in files.values()])


def _as_reported(uri: str, manifest: bytes, sizes: Sequence[int]) -> Artifact:
    return Artifact(uri=uri, manifest_sha256=hashlib.sha256(manifest).hexdigest(), size_bytes=sum(sizes))


def _put(folder: Folder, files: Mapping[str, bytes | Path]) -> None:
    """Those of a base in their order: what makes a folder one comes last, so that half of one is none."""
    bases = {name: data for name, data in files.items() if isinstance(data, Path)}
    folder.write_all({name: data for name, data in files.items() if name not in bases})
    for name, data in bases.items():
        folder.put(name, data)


def _digest(data: bytes | Path) -> tuple[str, int]:
    """(SHA-256, size in bytes)."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest(), len(data)
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), data.stat().st_size


@contextmanager
def _artifact_files(
    style: PreparedStyle, weights: "Mapping[str, Tensor]", progress: "Progress", samples: int | None, plain: "PlainLora | None"
) -> Generator[tuple[Mapping[str, bytes | Path], Addition]]:
    """All files of the artifact, and what its last step added. Within it they are there, those that lie on disk too."""
    from trainer.adapters import beginnings, tokens
    from trainer.adapters.formats.embeddings import embedding_files
    from trainer.adapters.formats.tensors import usable_precision

    output, written = style.spec.output, beginnings.plain(style.spec.adapter)
    weights, vectors = tokens.apart(weights)
    precision = usable_precision(weights, written, output.precision)
    if precision != output.precision:
        log.warning("[%s] the files are %s: %s cannot hold the adapter's numbers", style.job, precision, output.precision)
    spec = style.spec.model_copy(update={"adapter": written})
    files = _adapter_files(style, spec, weights, progress, precision)
    with _merged(style, spec, weights, progress, files, precision) as merged:
        files |= embedding_files(vectors, style.spec, style.base.facts.label.architecture, output.precision)
        files |= {} if plain is None else _plain_files(style, plain, progress)
        pictures = _sample_pictures(style, samples)
        files |= pictures
        files[MODEL_CARD] = model_card(style, progress, sorted(pictures), precision, plain, merged.rows).encode(errors="replace")
        yield {**files, **merged.files}, merged


def _merged(
    style: PreparedStyle, spec: Spec, weights: "Mapping[str, Tensor]", progress: "Progress", files: Mapping[str, bytes], precision: str
) -> AbstractContextManager[Addition]:
    """What the spec has made of the adapter in the end; `files`: the adapter's own."""
    if (merge := style.spec.output.merge) is None:
        return nullcontext(NOTHING_ADDED)
    from trainer import artifact_merge

    alone = spec.model_copy(update={"output": spec.output.model_copy(update={"formats": ("kohya",)})})
    (own,) = _adapter_files(style, alone, weights, progress, "fp32").values()
    name = min((name for name in files if name.endswith(".safetensors")), key=len)  # kohya's has the plain name
    return artifact_merge.made(style, merge, own, name, files[name], precision)


def _adapter_files(
    style: PreparedStyle,
    spec: Spec,
    weights: "Mapping[str, Tensor]",
    progress: "Progress",
    precision: str,
    said: "Mapping[str, str]" = NOTHING,
) -> dict[str, bytes]:
    """`spec`: the style's, with the adapter that these weights are of; `said`: more of their metadata."""
    from trainer.adapters.formats.diffusers import diffusers_file
    from trainer.adapters.formats.kohya import kohya_file
    from trainer.adapters.formats.others import comfyui_file, peft_files

    asked, files = spec.output.formats, dict[str, bytes]()
    names = {each: adapter_file(each, spec.output.name) for each in asked}
    if {"diffusers", "peft"}.intersection(asked):
        diffusers = diffusers_file(weights, spec, precision, more=said)
        files |= {names["diffusers"]: diffusers} if "diffusers" in asked else {}
        files |= {f"{names['peft']}/{name}": data for name, data in peft_files(diffusers, spec).items()} if "peft" in asked else {}
    if {"kohya", "comfyui"}.intersection(asked):
        kohya = kohya_file(weights, spec, {**facts(style, progress), **said}, precision, layers=style.base.kohya_layers)
        files |= {names["kohya"]: kohya} if "kohya" in asked else {}
        files |= {names["comfyui"]: comfyui_file(kohya, spec, style.base.denoiser_modules)} if "comfyui" in asked else {}
    return files


def _plain_files(style: PreparedStyle, plain: "PlainLora", progress: "Progress") -> dict[str, bytes]:
    """Of kohya's and diffusers' format: one of them loads wherever a LoRA does."""
    from trainer.adapters.formats.tensors import usable_precision

    output = style.spec.output.model_copy(update={"formats": FORMATS})
    spec = style.spec.model_copy(update={"adapter": plain.adapter, "output": output})
    precision = usable_precision(plain.weights, plain.adapter, output.precision)
    files = _adapter_files(style, spec, plain.weights, progress, precision, artifact_plain.for_metadata(style.spec, plain))
    return {plain_lora_file(each, output.name): files[adapter_file(each, output.name)] for each in FORMATS}


def _sample_pictures(style: PreparedStyle, samples: int | None) -> dict[str, bytes]:
    if samples is None:
        return {}
    folder = Folder(JobLayout(style.output_uri).samples(samples), within=style.output_uri)
    names = [entry.path for entry in folder.list()]
    return {f"samples/{name}": data for name, data in folder.read_all(names).items()}


def model_card(
    style: PreparedStyle,
    progress: "Progress",
    pictures: list[str],
    precision: str,
    plain: "PlainLora | None" = None,
    more: Sequence[str] = (),
) -> str:
    """README.md of the artifact: what it is, how to use it, what it was made from. Hugging Face's front matter."""
    spec = style.spec
    held_out = dict(progress.held_out_losses)
    lines = [
        "---",
        "library_name: diffusers",
        f"tags: [text-to-image, {_tags(spec)}, diffusers, lorafleet]",
        *([f"instance_prompt: {json.dumps(spec.dataset.trigger_phrase)}"] if spec.dataset.trigger_phrase else []),
        "---",
        "",
        f"# {output_name(style)}",
        "",
        f"{'New tokens' if spec.textual_inversion.alone else 'LoRA'} of {style.job}.",
        "",
        *(f"![{prompt}]({path})" for prompt, path in zip(spec.validation.prompts, pictures, strict=False)),
        "",
        "| fact | value |",
        "|---|---|",
        f"| trigger phrase | {spec.dataset.trigger_phrase or '(none)'} |",
        f"| steps | {progress.step} of {spec.global_batch_size} pictures{_and_as_many(spec)} |",
        f"| base | {spec.family.title} |",
        *([] if spec.textual_inversion.alone else [_of_adapter(spec)]),
        *artifact_plain.row(spec, plain),
        *more,
        *artifact_tokens.row(spec),
        *([f"| weights | moving average, decay {spec.training.ema_decay:g} |"] if spec.gives_average else []),
        f"| files | {precision}{_wider(spec.adapter)} |",
        f"| final training loss | {progress.losses[-1][1]:.5f} |" if progress.losses else "| final training loss | (none) |",
        *(f"| held-out loss after {step} steps | {loss:.5f} |" for step, loss in sorted(held_out.items())),
        *data_facts.for_card(style),
        f"| data set digest | `{style.data_set.digest}` |",
        f"| base digest | `{style.base.digest}` |",
        f"| made by | lorafleet {__version__}, torch {version('torch')}, diffusers {version('diffusers')}, peft {version('peft')} |",
        "",
        *(f"> {caution}\n" for caution in style.cautions),
        *_usage(style),
        f'Sample pictures: prompt i was drawn with `torch.Generator("cpu").manual_seed({spec.validation.seed} + i)`, '
        f"guidance scale {spec.validation.guidance_scale}, {spec.validation.num_inference_steps} steps ({step_folder(progress.step)}).",
        "",
        "## Spec",
        "",
        "```json",
        spec.model_dump_json(indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)


def _wider(adapter: AdapterSpec) -> str:
    from trainer.adapters import beginnings

    rank = beginnings.plain(adapter).rank
    return "" if rank == adapter.rank else f", LoRA of rank {rank}: what the adapter began with ({adapter.initialization}) is subtracted"


def _tags(spec: Spec) -> str:
    kinds = ["textual_inversion"] if spec.textual_inversion.tokens else []
    return ", ".join(kinds if spec.textual_inversion.alone else ["lora", *kinds])


def _of_adapter(spec: Spec) -> str:
    return f"| adapter | {spec.adapter.method}, rank {spec.adapter.rank}, text encoder: {spec.adapter.text_encoder} |"


def _and_as_many(spec: Spec) -> str:
    more = spec.pictures_per_step - spec.global_batch_size
    return f" and {more} of the regularisation set" if more else ""


def _usage(style: PreparedStyle) -> list[str]:
    """How to load the files, with programs that are right about them and no others."""
    spec, told = style.spec, adapter_readers.of_spec(style.spec)
    lines: list[str] = []
    wrong = {name for name, each in told if each.program.startswith("diffusers") and each.loads == adapter_readers.WRONG}
    is_read = spec.family.diffusers_reads_kohya and METHODS.get(spec.adapter.method).loaded_by_diffusers is None
    wrong |= set() if is_read else {"kohya"}
    right = [name for name in spec.output.formats if name in ("diffusers", "kohya") and name not in wrong]
    if right or spec.textual_inversion.tokens:
        pipeline, without = spec.family.pipeline, "".join(f", {part}=None" for part in sorted(style.base.absent))
        file = adapter_file("diffusers" if "diffusers" in right else "kohya", spec.output.name)
        lines += [
            "```python",
            f"from diffusers import {pipeline}",
            "",
            f'pipeline = {pipeline}.from_pretrained("path/to/base"{without})',
            *([f'pipeline.load_lora_weights("path/to/this/folder", weight_name="{file}")'] if right else []),
            *artifact_tokens.loading(spec),
            "```",
            "",
        ]
    lines += artifact_tokens.in_webuis(spec)
    if told:
        lines += ["Programs apply a DoRA differently:", "", "| program | file | as trained | why not |", "|---|---|---|---|"]
        lines += [f"| {each.program} | `{adapter_file(name, spec.output.name)}` | {each.loads} | {each.why} |" for name, each in told]
        lines.append("")
    return lines
