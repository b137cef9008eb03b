"""Fields of a spec whose value is a name of the catalog: a model family, an adapter method, an optimizer, a loss, a precision.

What there is may grow with `LORAFLEET_EXTENSIONS`, so it is asked for when a value is checked, and when the schema is made.
"""

from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from lorafleet.catalog import FAMILIES, LOSSES, METHODS, OPTIMIZERS, PRECISIONS
from lorafleet.catalog.registry import Registry


class _NameIn:
    """The type of a name in that registry; what is wrong with another is said as of one of a `Literal`."""

    def __init__(self, registry: Registry[Any]) -> None:
        self._registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": list(self._registry.names())}

    def _check(self, name: str) -> str:
        names = self._registry.names()
        if name not in names:
            raise PydanticCustomError("catalog", "Input should be {expected}", {"expected": _either(names)})
        return name


def _either(names: tuple[str, ...]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


FamilyName = Annotated[str, _NameIn(FAMILIES)]
PrecisionName = Annotated[str, _NameIn(PRECISIONS)]
MethodName = Annotated[str, _NameIn(METHODS)]
LossName = Annotated[str, _NameIn(LOSSES)]
OptimizerName = Annotated[str, _NameIn(OPTIMIZERS)]
