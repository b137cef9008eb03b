"""What an adapter that is gone on from gives a style's row: a file of anyone's, checked against the spec before anything trains.

Resizing makes the nearest LoRA of the spec's rank and scale; a smaller one gets what it lacks as training begins it, which adds nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import isclose, prod

import torch
from torch import Tensor

from lorafleet.catalog import METHODS
from lorafleet.contract import artifact_manifest
from lorafleet.contract.layout import DIFFUSERS_ENDING, MANIFEST
from lorafleet.errors import InvalidInput, RunFailed
from lorafleet.spec import AdapterSpec
from lorafleet.spec_adapter import StartSpec
from trainer.adapters.files import reading
from trainer.adapters.files.contents import AdapterFile, Module
from trainer.adapters.files.sources import CONFIG, WEIGHTS, Source, in_parts
from trainer.adapters.files.updates import as_lora
from trainer.adapters.layout import Layer, Layout, Piece, scaling
from trainer.storage import Folder

MAX_BYTES = 8 * 2**30

log = logging.getLogger("lorafleet.pack")


def named(
    start: StartSpec, family: str, adapter: AdapterSpec, where: Layout, layers: Mapping[str, Layer], *, job: str
) -> dict[str, Tensor]:
    """Its tensors by canonical name, in fp32, for the pieces of `where`; modules that it has not are left out. Raises RunFailed."""
    try:
        if start.uri is None:
            raise InvalidInput(
                "only the service knows where the artifact of a job or a version lies, and fills it in: give adapter.start.uri"
            )
        file = reading.read(sources(start.uri, start.digest), family)
        if start.resize:
            file = _resized(file, adapter, layers, job)
        return _fitted(file, adapter, where)
    except InvalidInput as why:
        named = f"uri: {start.uri}" if start.uri is not None else f"{'job' if start.job is not None else 'adapter'}: {start.named}"
        raise RunFailed(f"adapter.start.{named}: {why}", reason="START_NOT_USABLE") from None


def sources(uri: str, digest: str | None = None) -> list[Source]:
    """A file; PEFT's folder; or a job's artifact, of which kohya's file has alpha, and so is taken first. `digest`: what it must have."""
    if uri.endswith(".safetensors"):
        parent, _, name = uri.rpartition("/")
        data = Folder(parent).get_or_none(name, most_bytes=MAX_BYTES)
        if data is None:
            raise InvalidInput("there is no such file")
        if digest is not None:
            _check_digest(name, data, digest)
        return [Source(name, data)]
    folder = Folder(uri)
    names = [entry.path for entry in folder.list()]
    if not names:
        raise InvalidInput("there is no such folder, or it is empty")
    chosen = _chosen(names)
    found = {name: folder.get_or_none(name, most_bytes=MAX_BYTES) or b"" for name in chosen}
    if digest is not None:
        _check_digests(folder, found, digest)
    peft = {name.removeprefix(_place(chosen)): data for name, data in found.items()}
    return in_parts(peft) if WEIGHTS in peft else [Source(name, data) for name, data in found.items()]


def _check_digests(folder: Folder, found: Mapping[str, bytes], digest: str) -> None:
    """The artifact's manifest is what it was, and these files are those of the manifest."""
    manifest = folder.get_or_none(MANIFEST, most_bytes=artifact_manifest.MAX_BYTES) or b""
    _check_digest(MANIFEST, manifest, digest)
    files = artifact_manifest.parse(manifest).files
    for name, data in found.items():
        _check_digest(name, data, files[name].sha256 if name in files else "")


def _check_digest(name: str, data: bytes, digest: str) -> None:
    if sha256(data).hexdigest() != digest:
        raise InvalidInput(f"{name} is not what it was when adapter.start was written: its SHA-256 is another")


def _chosen(names: Sequence[str]) -> list[str]:
    plain = [name for name in names if "/" not in name and name.endswith(".safetensors") and name != WEIGHTS]
    known = [name for name in plain if name.endswith((DIFFUSERS_ENDING, "-comfyui.safetensors"))]
    if lone := [name for name in plain if name not in known] or known:
        if len(lone) > 1 and lone != known:
            raise InvalidInput(f"holds several adapters, {', '.join(sorted(lone)[:5])}: name one")
        return [min(lone, key=lambda name: not name.endswith(DIFFUSERS_ENDING))]
    if weights := [name for name in names if name.rpartition("/")[2] == WEIGHTS]:
        place = min(weights, key=lambda name: name.count("/")).removesuffix(WEIGHTS)
        return [name for name in names if name.startswith(place) and name.rpartition("/")[2] in (WEIGHTS, CONFIG)]
    raise InvalidInput("holds no .safetensors file of an adapter, and no folder of PEFT's")


def _place(names: Sequence[str]) -> str:
    """The folder of PEFT's among these: that of the denoiser, which lies highest."""
    weights = [name for name in names if name.rpartition("/")[2] == WEIGHTS]
    return min(weights, key=lambda name: name.count("/")).removesuffix(WEIGHTS) if weights else ""


def _fitted(file: AdapterFile, adapter: AdapterSpec, where: Layout) -> dict[str, Tensor]:
    """Raises InvalidInput that says what does not fit, and what to do."""
    pieces: dict[str, list[Piece]] = {}
    for piece in where.pieces:
        pieces.setdefault(piece.module, []).append(piece)
    found: dict[str, Tensor] = {}
    for module in file.modules:
        _check(module, adapter.at(module.paths[0]), pieces)
        for piece in pieces[module.paths[0]]:
            found[piece.name] = _shaped(module, piece)
    log.info("%d of %d modules go on from the adapter given, the others begin anew", len(file.modules), len(pieces))
    return found


def _check(module: Module, adapter: AdapterSpec, pieces: Mapping[str, Sequence[Piece]]) -> None:
    first, resize = module.paths[0], "or set adapter.start.resize"
    if len(module.paths) > 1:
        raise InvalidInput(f"has {module.method} on {', '.join(module.paths)} as one layer, which are several here")
    if module.method != ("lora" if set(METHODS.get(adapter.method).names) == {"A", "B"} else adapter.method):
        raise InvalidInput(f"is {module.method} on {first}, and adapter.method is {adapter.method}: write the file's, {resize}")
    if first not in pieces:
        raise InvalidInput(
            f"has {first}, which is not trained here: name it in adapter.target_modules, or text_encoder, if the base has it"
        )
    if module.rank != adapter.rank and module.method in ("lora", "dora", "loha"):
        raise InvalidInput(f"has rank {module.rank} on {first}, and adapter.rank is {adapter.rank}: write the file's, {resize}")
    wanted = scaling(adapter)
    if METHODS.get(adapter.method).has_alpha and not isclose(module.scaling, wanted, rel_tol=1e-6):
        alpha = adapter.rank * module.scaling if adapter.method != "rslora" else adapter.rank**0.5 * module.scaling
        raise InvalidInput(f"is scaled by {module.scaling:g} on {first}, by {wanted:g} here: set adapter.alpha to {alpha:g}, {resize}")


def _shaped(module: Module, piece: Piece) -> Tensor:
    tensor = module.tensors.get(piece.role)
    if tensor is None or tensor.numel() != prod(piece.shape) or tensor.shape[0] != piece.shape[0]:
        there = "missing" if tensor is None else list(tensor.shape)
        raise InvalidInput(f"has another {piece.role} on {module.paths[0]} than this base needs, {there}, not {list(piece.shape)}")
    return tensor.float().reshape(piece.shape)


def _resized(file: AdapterFile, adapter: AdapterSpec, layers: Mapping[str, Layer], job: str) -> AdapterFile:
    """As LoRA of the spec's rank and scale."""
    wide = [module for module in file.modules if module.method != "lora" or module.rank > adapter.rank]
    error = 0.0
    modules = {module.paths: module for module in file.modules}
    if wide:
        frozen = {path: layers[path].weight.detach() for module in wide for path in module.paths if path in layers}
        nearest = as_lora(AdapterFile(format=file.format, families=file.families, modules=tuple(wide)), adapter.rank, frozen)
        modules |= {module.paths: module for module in nearest.adapter.modules}
        error = nearest.error
        log.info(
            "[%s] of the wider modules' updates %.3g %% are left out, at most %.3g %% (%s)",
            job,
            100 * error,
            100 * nearest.worst[0],
            nearest.worst[1],
        )
    fitted = tuple(_padded(module, adapter.at(module.paths[0])) for module in modules.values())
    return AdapterFile(format=file.format, families=file.families, modules=fitted, metadata=file.metadata)


def _padded(module: Module, adapter: AdapterSpec) -> Module:
    """With the spec's scale, and with B's columns for ranks that it had not: they are zero, and A's rows are for training to draw."""
    a, b = module.tensors["A"].float(), module.tensors["B"].float() * (module.scaling / scaling(adapter))
    more = adapter.rank - module.rank
    wide = b.new_zeros(b.shape[0], more, *b.shape[2:])
    return Module(
        paths=module.paths,
        method="lora",
        tensors={"A": torch.cat([a, a.new_full((more, *a.shape[1:]), torch.nan)]), "B": torch.cat([b, wide], dim=1)},
        rank=adapter.rank,
        alpha=scaling(adapter) * adapter.rank,
    )
