"""What an adapter file holds, whatever its format: tensors by our names of modules and by role, each with its rank and its scaling."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from lorafleet.catalog import file_names
from lorafleet.catalog.file_names import DenoiserNames

FORMATS = ("kohya", "diffusers", "peft", "comfyui")


@dataclass(frozen=True, kw_only=True)
class Module:
    """The adapter of one layer of the file. `paths`: our modules, part and path, whose outputs are its, one after another: several where
    the file's model has them as one layer, and the method cannot be cut."""

    paths: tuple[str, ...]
    method: str
    tensors: Mapping[str, Tensor]  # by role, as they lie in the file
    rank: int
    alpha: float  # what it is scaled by is alpha / rank; of OFT its constraint

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    @property
    def part(self) -> str:
        return self.paths[0].partition(".")[0]

    @property
    def path(self) -> str:
        """Of its first module, without the part."""
        return self.paths[0].partition(".")[2]

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        return replace(self, tensors=tensors)


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """`families`: those that it may be of, the likeliest first."""

    format: str
    families: tuple[str, ...]
    modules: tuple[Module, ...]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    num_layers: int = file_names.LAYERS  # of each level of a UNet

    @property
    def family(self) -> str:
        return self.families[0]

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(sorted({module.method for module in self.modules}))

    @property
    def dtypes(self) -> tuple[str, ...]:
        found = {str(tensor.dtype).removeprefix("torch.") for module in self.modules for tensor in module.tensors.values()}
        return tuple(sorted(found))

    def names(self, family: str | None = None) -> DenoiserNames:
        """Of the modules of its denoiser."""
        attends = file_names.attending([module.path for module in self.modules])
        found = file_names.of(family or self.family, self.num_layers, attends)
        if found is None:
            raise LookupError(f"no names of {family or self.family}'s modules are known")
        return found
