"""Options in groups: a command's parameter that is a dataclass becomes an option for each of its fields."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer takes it: flat. Each group's fields carry their own `typer.Option`, and its default."""
    whole = inspect.signature(command, eval_str=True)
    annotations: dict[str, Any] = {name: parameter.annotation for name, parameter in whole.parameters.items()}
    groups: dict[str, Any] = {name: annotation for name, annotation in annotations.items() if dataclasses.is_dataclass(annotation)}
    fields = {name: [field.name for field in dataclasses.fields(group)] for name, group in groups.items()}

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        made = {name: groups[name](**{field: values.pop(field) for field in names}) for name, names in fields.items()}
        command(**made, **values)

    parameters: list[inspect.Parameter] = []
    for name, parameter in whole.parameters.items():
        ours = inspect.signature(groups[name], eval_str=True).parameters.values() if name in groups else [parameter]
        parameters += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in ours]
    flat.__signature__ = whole.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue] (functions have it)
    flat.__annotations__ = {each.name: each.annotation for each in parameters}
    return flat
