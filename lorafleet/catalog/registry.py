"""Finds what the catalog has of a kind: each entry is one module, named as specs name it, whose `FACTS` describe it.

Packages named in `LORAFLEET_EXTENSIONS` (comma-separated; in service and trainer alike) add entries of their own:
`PACKAGE.catalog.methods.NAME` stands beside `lorafleet.catalog.methods.NAME`, and `PACKAGE.methods.NAME` implements it.
"""

import importlib
import os
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

T = TypeVar("T")

EXTENSIONS_ENV = "LORAFLEET_EXTENSIONS"


class Registry(Generic[T]):
    """The entries of one kind."""

    def __init__(self, kind: str, package: str, attribute: str, *, extension: str, facts: "Registry[Any] | None" = None) -> None:
        """`kind`: for people. `package`: holds the entries that come with lorafleet, `extension` names an extension's package of them.
        `facts`: whose entries these implement; other modules beside them are none.
        """
        self.kind, self._package, self._attribute, self._extension = kind, package, attribute, extension
        self._facts = facts

    def names(self) -> tuple[str, ...]:
        """All entries' names, sorted; nothing is imported but their packages."""
        return tuple(sorted(self._modules()))

    def get(self, name: str) -> T:
        """Raises LookupError that names what there is."""
        modules = self._modules()
        if name not in modules:
            raise LookupError(f"no {self.kind} {name!r} in this version; there is {', '.join(self.names())}")
        return getattr(importlib.import_module(modules[name]), self._attribute)

    def all(self) -> tuple[T, ...]:
        """All entries, in the order of their names."""
        return tuple(map(self.get, self.names()))

    def _modules(self) -> Mapping[str, str]:
        """Module by name; an extension's stands in for one of ours."""
        found = _modules_in((self._package, *(f"{each}.{self._extension}" for each in extensions())))
        if self._facts is None:
            return found
        return {name: found[name] for name in self._facts.names() if name in found}


def extensions() -> list[str]:
    """The packages that add entries."""
    return [name.strip() for name in os.environ.get(EXTENSIONS_ENV, "").split(",") if name.strip()]


@cache  # asked for each spec, of which batches have thousands
def _modules_in(packages: tuple[str, ...]) -> Mapping[str, str]:
    return {
        module.name: f"{package}.{module.name}"
        for package in packages
        if _is_there(package)
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
        if not module.name.startswith("_")
    }


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
