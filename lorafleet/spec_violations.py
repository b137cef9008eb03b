"""What pydantic finds wrong with a spec, as our messages say it: where, and what to do. Knows no field by name."""

import difflib
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lorafleet.errors import Violation
from lorafleet.field_paths import field_path
from lorafleet.spec_rules import Location

_WITHOUT_INPUT = {"extra_forbidden": "unknown field", "missing": "is required"}


def told(error: ValidationError) -> str:
    """The first problems by their places, without what stands there: for what is not its reader's own text."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    parts = [f"{path_of(each['loc'])[:100]}: {_WITHOUT_INPUT.get(each['type'], 'is not as it must be')}" for each in found[:5]]
    return "; ".join(parts) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


def is_consequence(details: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """True for a list that is called too short only because its items are bad."""
    if details["type"] != "too_short":
        return False
    location = details["loc"]
    return any(other["loc"][: len(location)] == location != other["loc"] for other in found)


def violation(details: ErrorDetails, model: type[BaseModel]) -> Violation:
    return Violation(field=path_of(details["loc"]), message=_message(details, model))


def path_of(location: Location) -> str:
    return field_path(location) or "spec"


def _message(details: ErrorDetails, model: type[BaseModel]) -> str:
    match details["type"]:
        case "extra_forbidden":
            name = str(details["loc"][-1])
            close = difflib.get_close_matches(name, _known_fields(model, details["loc"][:-1]), n=1)
            return "unknown field" + (f"; close: {close[0]}" if close else "")
        case "missing":
            return "is required"
        case _:
            message = details["msg"]
            shown = details["input"]
            if isinstance(shown, str | int | float | bool) and len(repr(shown)) < 80 and repr(shown) not in message:
                message += f" (got {shown!r})"
            return message


def _known_fields(model: type[BaseModel], location: Location) -> list[str]:
    """Names of the fields that the part of the `model` at `location` has."""
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)
