"""Weights of a base's folder, in diffusers' layout, by our names of modules."""

from collections.abc import Collection
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from lorafleet.errors import InvalidInput

_WEIGHT, _LEVEL = ".weight", "text_model."


def weights_of(base: Path, modules: Collection[str]) -> dict[str, Tensor]:
    """Of these modules. Raises InvalidInput where the folder lacks some."""
    wanted, found = set(modules), dict[str, Tensor]()
    for part in sorted({path.partition(".")[0] for path in wanted}):
        for path in weight_files(base, part):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118  no mapping
                    if (module := one_of(wanted, part, name)) is not None:
                        found[module] = file.get_tensor(name)
    if missing := sorted(wanted - found.keys()):
        raise InvalidInput(f"--base: {base} has no weights of {missing[0]}; name a folder in diffusers' layout")
    return found


def one_of(wanted: Collection[str], part: str, tensor: str) -> str | None:
    """The one of these modules whose weight a tensor is."""
    return next((module for module in modules_of(part, tensor) if module in wanted), None)


def weight_files(base: Path, part: str) -> list[Path]:
    return sorted((base / part).glob("*.safetensors"))


def modules_of(part: str, tensor: str) -> tuple[str, ...]:
    """What we may call the module whose weight this is, the likeliest first: older folders of text encoders have a level more or less."""
    if not tensor.endswith(_WEIGHT):
        return ()
    path = tensor.removesuffix(_WEIGHT)
    return tuple(f"{part}.{each}" for each in (path, path.removeprefix(_LEVEL), f"{_LEVEL}{path}"))
