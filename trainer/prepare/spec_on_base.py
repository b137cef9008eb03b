"""Whether what a spec asks for can be trained on its base: layers for its adapter, sides for its pictures. Pure."""

import difflib
from collections.abc import Iterator, Sequence

from lorafleet.catalog import FAMILIES, METHODS
from lorafleet.catalog.method import Fusing, is_target
from lorafleet.errors import Violation
from lorafleet.spec import AdapterSpec, Spec
from lorafleet.spec_overrides import claiming
from lorafleet.spec_words import is_module_name
from trainer.prepare.base_model import BaseModel

MAX_RESOLUTION = 4096  # as in dataset.resolution


def check_adapter(base: BaseModel, adapter: AdapterSpec) -> list[Violation]:
    """Whether the layers that the adapter is to sit on are there."""
    found = check_target_modules(base, adapter.target_modules) + (_check_text_encoders(base) if adapter.text_encoder else [])
    return found or list(_check_overrides(base, adapter))  # an override of layers that are not there has nothing to add


def _check_overrides(base: BaseModel, adapter: AdapterSpec) -> Iterator[Violation]:
    """Each is of some layer that is adapted, and no layer has two patterns'."""
    claimed: set[int] = set()
    rivals: dict[int, tuple[int, str]] = {}  # of a pattern the first that claims a layer of its, and which
    for path in _adapted(base, adapter):
        numbers = claiming(adapter.overrides, path)
        patterns = [number for number in numbers if adapter.overrides[number].pattern is not None]
        claimed.update(numbers)
        for other in patterns[1:]:
            rivals.setdefault(other, (patterns[0], path))
    for number, each in enumerate(adapter.overrides):
        name = "part" if each.part is not None else "pattern"
        field = f"adapter.overrides[{number}].{name}"
        if number not in claimed:
            yield Violation(field=field, message=f'"{getattr(each, name)}" matches no layer of this {base.family} base that has an adapter')
        elif number in rivals:
            first, path = rivals[number]
            where = path if is_module_name(path) else "a layer"
            message = f'"{each.pattern}" matches {where}, as adapter.overrides[{first}] "{adapter.overrides[first].pattern}" does'
            yield Violation(field=field, message=f"{message}; write more of the path")


def _adapted(base: BaseModel, adapter: AdapterSpec) -> Iterator[str]:
    """The layers that have an adapter, by canonical path."""
    targets = FAMILIES.get(base.family).targets(adapter.target_modules, text_encoders=adapter.text_encoder)
    return (f"{part}.{module}" for part, ends in targets.items() for module in base.trainable.get(part, ()) if is_target(module, ends))


def check_files(base: BaseModel, spec: Spec) -> list[Violation]:
    """Whether the adapter can be written in the formats that are asked for: kohya's and ComfyUI's may have several of its layers as one."""
    fusing = METHODS.get(spec.adapter.method).fusing
    known = ("comfyui",) if fusing is Fusing.APART else ("kohya", "comfyui")
    formats = [name for name in known if name in spec.output.formats]
    if not formats:
        return []
    leave = f"leave {' and '.join(formats)} out of output.formats"
    for modules in base.kohya_layers.fused().values():
        trained = [module for module in modules if is_target(module, spec.adapter.target_modules)]
        if trained and (found := _why_not_one(base, spec.adapter, modules, trained, leave)):
            return [found]
    return _check_swapped(base, spec, leave) if fusing in (Fusing.NEVER, Fusing.APART) else []


def _why_not_one(base: BaseModel, adapter: AdapterSpec, modules: Sequence[str], trained: Sequence[str], leave: str) -> Violation | None:
    """Why the adapters of these layers cannot be one adapter of all of them."""
    method = METHODS.get(adapter.method)
    told = f"kohya's files of {base.family} have {', '.join(modules)} as one layer"
    if method.fusing in (Fusing.NEVER, Fusing.APART) or (method.fusing is Fusing.WHOLE and len(trained) < len(modules)):
        whole = method.fusing is Fusing.WHOLE
        do = f"with {adapter.method} train all of them, or" if whole else f"{adapter.method} cannot be one adapter of theirs:"
        return Violation(field="adapter.target_modules", message=f"{told}; {do} {leave}")
    denoiser = FAMILIES.get(base.family).denoiser.name
    own = [adapter.at(f"{denoiser}.{module}") for module in trained]
    if "B" not in method.names and len({method.scaling(each.alpha or each.rank, each.rank) for each in own}) > 1:
        message = f"{told}; with {adapter.method} give them the same alpha and rank, or {leave}"
        return Violation(field="adapter.overrides", message=message)
    return None


def _check_swapped(base: BaseModel, spec: Spec, leave: str) -> list[Violation]:
    """Layers whose outputs lie in another order in kohya's files, for a method whose tensors cannot follow them."""
    swapped = spec.family.kohya_swapped(base.kohya_layers.num_outputs)
    trained = [module for module in base.denoiser_modules if is_target(module, swapped) and is_target(module, spec.adapter.target_modules)]
    if not trained:
        return []
    told = f"kohya's files of {base.family} have the outputs of {trained[0]} in another order, which {spec.adapter.method} cannot have"
    return [Violation(field="adapter.target_modules", message=f"{told}; leave it out, or {leave}")]


def check_target_modules(base: BaseModel, target_modules: Sequence[str]) -> list[Violation]:
    """Every name must be the end of the path of a linear or convolution layer, as PEFT matches them."""
    modules = base.denoiser_modules
    violations: list[Violation] = []
    containers = {module[:end] for module in modules for end, letter in enumerate(module) if letter == "."}
    for index, name in enumerate(target_modules):
        if caught := [module for module in containers if is_target(module, [name])]:
            message = f'"{name}" also matches {_some_module(caught)}, which is not a layer; write more of its path'
            violations.append(Violation(field=f"adapter.target_modules[{index}]", message=message))
        elif not any(is_target(module, [name]) for module in modules):
            violations.append(Violation(field=f"adapter.target_modules[{index}]", message=_without_match(base, name)))
    return violations


def _without_match(base: BaseModel, name: str) -> str:
    """Which part lacks it, which has it, and what is close."""
    denoiser = FAMILIES.get(base.family).denoiser.name
    told = f'"{name}" matches no linear or convolution layer of {denoiser} in this {base.family} base'
    if others := [
        part for part, modules in base.trainable.items() if part != denoiser and any(is_target(each, [name]) for each in modules)
    ]:
        return f"{told}; {' and '.join(others)} {'has' if len(others) == 1 else 'have'} one: adapter.text_encoder trains those"
    named = list(filter(is_module_name, base.denoiser_modules))
    endings = {module.rpartition(".")[2] for module in named} | {_two_parts(module) for module in named}
    close = difflib.get_close_matches(name, endings, n=1)
    return told + (f"; close: {close[0]}" if close else "")


def _check_text_encoders(base: BaseModel) -> list[Violation]:
    return [
        Violation(field="adapter.text_encoder", message=f"{part.name} of this {base.family} base has no layer whose name ends with {name}")
        for part in FAMILIES.get(base.family).text_encoders
        for name in part.target_modules
        if not any(is_target(module, [name]) for module in base.trainable[part.name])
    ]


def check_resolution(base: BaseModel, resolution: int | None, field: str = "dataset.resolution") -> list[Violation]:
    """The denoiser halves the latents several times: sides must divide."""
    if resolution is None:
        config = FAMILIES.get(base.family).denoiser.config
        message = f"is needed: {base.uri}/{config} has no sample_size, so the base does not say what it was trained at"
    elif resolution > MAX_RESOLUTION:
        message = f"is needed: the base's own resolution is {resolution} pixels by its configs; at most {MAX_RESOLUTION} can be trained"
    elif base.facts.max_side is not None and resolution > base.facts.max_side:
        message = f"{resolution} pixels are more than this base takes along a side; at most {base.facts.max_side}"
    elif resolution % base.resolution_step:
        nearest = max(1, round(resolution / base.resolution_step)) * base.resolution_step
        message = f"{resolution} is not a multiple of {base.resolution_step}, which this base needs; nearest: {nearest}"
    else:
        return []
    return [Violation(field=field, message=message)]


def _some_module(names: Sequence[str]) -> str:
    """One that can be told: names are the base's own words, and of a module's letters alone."""
    return min(filter(is_module_name, names), default="a part of the base")


def _two_parts(module: str) -> str:
    return ".".join(module.split(".")[-2:])
