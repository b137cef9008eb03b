"""What an adapter file is, by the names and shapes of its tensors: format, family, method and rank. Says what is wrong with it. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from lorafleet.adapter_files import detection, keys, layers
from lorafleet.catalog import FAMILIES
from lorafleet.catalog.method import Shape
from lorafleet.errors import InvalidInput

MAX_TOLD = 3  # names in a message


@dataclass(frozen=True, kw_only=True)
class Description:
    """`families`: those that the file may be of, the likeliest alone where that can be told."""

    format: str
    families: tuple[str, ...]
    method: str  # of most layers
    rank: int  # the largest


@dataclass
class _Layer:
    place: str
    name: str
    method: str = ""
    shapes: dict[str, Shape] = field(default_factory=dict[str, Shape])  # by role


def described(shapes: Mapping[str, Shape], metadata: Mapping[str, str], family: str = "") -> Description:
    """`family`: that it is said to be of. Raises InvalidInput, with the names of what is wrong."""
    parsed = {name: keys.parse(name) for name in shapes}
    if unknown := sorted(name for name, key in parsed.items() if key is None):
        why = next((what for end, what in keys.NOT_READ.items() if unknown[0].endswith(end)), "no name of an adapter's tensors")
        raise InvalidInput(f"{_some(unknown)}: {why}", reason="UNKNOWN_KEYS")
    found = {name: key for name, key in parsed.items() if key is not None}
    formats = sorted({key.format for key in found.values()})
    if len(formats) != 1:
        raise InvalidInput(f"it has names of several formats: {', '.join(formats)}" if formats else "it holds no tensors")
    whole = list(_layers(found, shapes))
    for layer in whole:
        _check(layer)
    ranks = [layers.rank(layer.method, layer.shapes) for layer in whole]
    methods = Counter("dora" if layer.method == "lora" and "magnitude" in layer.shapes else layer.method for layer in whole)
    families = _families(formats[0], whole, metadata, family)
    return Description(format=formats[0], families=families, method=methods.most_common(1)[0][0], rank=max(ranks))


def _layers(found: Mapping[str, keys.Key], shapes: Mapping[str, Shape]) -> Sequence[_Layer]:
    known: dict[tuple[str, str], _Layer] = {}
    for name, key in found.items():
        layer = known.setdefault((key.place, key.module), _Layer(key.place, key.module))
        layer.shapes[key.role] = shapes[name]
        if key.method and layer.method not in ("", key.method):
            raise InvalidInput(f"{key.module} has tensors of {layer.method} and of {key.method}")
        layer.method = key.method or layer.method
    return list(known.values())


def _check(layer: _Layer) -> None:
    if missing := layers.missing(layer.method, layer.shapes):
        raise InvalidInput(f"{layer.name} is half an adapter: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if empty := [role for role, shape in layer.shapes.items() if not prod(shape)]:
        raise InvalidInput(f"{layer.name} has rank 0: {empty[0]} is {list(layer.shapes[empty[0]])}")
    if layer.method == "lora" and layers.differs(layer.shapes):
        raise InvalidInput(f"{layer.name} has A and B that do not fit, {list(layer.shapes['A'])} and {list(layer.shapes['B'])}")
    if odd := [role for role, shape in layer.shapes.items() if role != "alpha" and not shape]:
        raise InvalidInput(f"{layer.name}: {odd[0]} is a single number")


def _families(format: str, whole: Sequence[_Layer], metadata: Mapping[str, str], family: str) -> tuple[str, ...]:
    found = [detection.Found(layer.place, layer.name, _inputs(layer)) for layer in whole]
    fitting = detection.fits(format, found, FAMILIES.names())
    if not fitting:
        raise InvalidInput(f"it has modules of no known family, such as {detection.unknown(format, found)} ({format})")
    chosen = [fit for fit in fitting if fit.family == family] if family else detection.likeliest(fitting, found, metadata)
    if not chosen:
        raise InvalidInput(f"it is no adapter of {family}: its modules are those of {' or '.join(fit.family for fit in fitting)}")
    return tuple(fit.family for fit in chosen)


def _inputs(layer: _Layer) -> int:
    role = next((role for role in ("A", "w1_b") if role in layer.shapes), None)
    return 0 if role is None else prod(layer.shapes[role][1:2])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_TOLD} more" if len(names) > MAX_TOLD else ""
    return ", ".join(name[:200] for name in names[:MAX_TOLD]) + more
