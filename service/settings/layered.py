"""Reads a command's options: flags before the environment, before a file, before defaults. What is wrong in any of them is told at once.

typer knows these layers (its `default_map` is the file) but raises at the first value that is wrong, and shows none.
"""

import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from lorafleet.commands.options import grouped
from lorafleet.errors import LorafleetError
from service.settings import options_file
from service.settings.given import GivenOption, GivenOptions, OptionSource
from service.settings.serve_options import NAMES, SECRETS

CONFIG = "config"
_SOURCES = {"COMMANDLINE": OptionSource.FLAG, "ENVIRONMENT": OptionSource.ENVIRONMENT, "DEFAULT_MAP": OptionSource.FILE}
_given: ContextVar[GivenOptions | None] = ContextVar("given", default=None)


def given() -> GivenOptions:
    """What the command line that is being run gave; nothing when there is none."""
    return _given.get() or GivenOptions()


def layered(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer takes it. It must end its own checks with `given().done()`, which tells what was wrong before them too."""
    flat = grouped(command)
    flat.command_class = LayeredCommand  # pyright: ignore[reportFunctionMemberAccess] (lorafleet.commands.extensions reads it)
    return flat


class LayeredCommand(TyperCommand):
    """Goes on after an option that is wrong, with its default in its place."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # completion
            return super().parse_args(ctx, args)
        found = GivenOptions()
        _given.set(found)
        flags = self._flags(ctx, args, found)
        options = [option for option in self.get_params(ctx) if option.name != CONFIG and option.param_type_name == "option"]
        arguments = [each for each in self.params if each.param_type_name == "argument"]  # which only the command line has
        [config] = (option for option in self.params if option.name == CONFIG)
        for each in (*(option for option in options if option.is_eager), *arguments):  # --help first
            each.handle_parse_result(ctx, flags, [])
        _read(ctx, config, flags, found, None)
        ctx.default_map = _of_file(ctx.params[CONFIG], options, found)
        for option in (option for option in options if not option.is_eager):
            _read(ctx, option, flags, found, ctx.params[CONFIG])
        return []

    def _flags(self, ctx: Any, args: list[str], found: GivenOptions) -> dict[str, Any]:
        """What the command line says, as text. One that lacks its value, or has one too many, is told and left out."""
        ctx.ignore_unknown_options = True
        left = list(args)
        while True:
            try:
                flags, extra, _ = self.make_parser(ctx).parse_args(args=list(left))
            except Exception as error:
                flag = getattr(error, "option_name", None)
                at = next((i for i in reversed(range(len(left))) if flag and left[i].partition("=")[0] == flag), None)
                if at is None:
                    raise
                found.refuse(str(flag), "requires a value" if left[at] == flag else "takes no value")
                del left[at]
            else:
                _tell_unknown(extra, [flag for option in self.params for flag in option.opts], found)
                return flags


def _tell_unknown(extra: Sequence[str], flags: Sequence[str], found: GivenOptions) -> None:
    """What no option takes: of an unknown one, its value is among it."""
    unknown = [each.partition("=")[0] for each in extra if each.startswith("-")]
    for flag in unknown:
        found.tell(flag, f"unknown option{options_file.close(flag, flags)}")
    for text in () if unknown else extra:
        found.tell(repr(text), "is not the value of an option")


def _of_file(path: Path | None, options: Sequence[Any], found: GivenOptions) -> dict[str, Any]:
    """What the file says of this command's options, by their parameters' names. One file is for several commands."""
    if path is None:
        return {}
    said = found.checked(f"--{CONFIG}", lambda: options_file.read(path), {})
    said = options_file.known(said, NAMES, lambda key, message: found.tell(f"{key} (file {path})", message))
    by_name: dict[str, Any] = {option.opts[0].removeprefix("--"): option for option in options}
    return {by_name[name].name: _wrapped(by_name[name], value) for name, value in said.items() if name in by_name}


def _wrapped(option: Any, value: Any) -> Any:
    return [value] if option.multiple and isinstance(value, str) else value


def _read(ctx: Any, option: Any, flags: dict[str, Any], found: GivenOptions, path: Path | None) -> None:
    """Puts the option's value into the context. A wrong one is told, and its default goes there."""
    value, layer = option.consume_value(ctx, flags)
    this = _given_option(option, value, _SOURCES.get(layer.name, OptionSource.DEFAULT), path)
    found.options[this.flag] = this
    why = "" if this.source is not OptionSource.FILE else _misfit(option, value)
    try:
        if not why and not found.is_bad(this.flag):
            option.handle_parse_result(ctx, flags, [])
            taken = ctx.params.get(option.name)
            why = _not_finite(taken) or options_file.misread(value, taken)
    except LorafleetError as error:
        why = error.message
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        why = str(getattr(error, "message", "")).removeprefix("Value error, ")  # pydantic's words
    if why:
        found.refuse(this.flag, why)
    if found.is_bad(this.flag) and option.expose_value:
        ctx.params[option.name] = option.process_value(ctx, option.default)  # get_default would be the file's


def _given_option(option: Any, value: Any, source: OptionSource, path: Path | None) -> GivenOption:
    named = {OptionSource.ENVIRONMENT: str(option.envvar), OptionSource.FILE: str(path)}.get(source, "")
    return GivenOption(flag=option.opts[0], source=source, named=named, value=value, is_secret=option.name in SECRETS)


def _misfit(option: Any, value: Any) -> str:
    return options_file.misfit(value, is_switch=option.is_flag, is_repeatable=option.multiple)


def _not_finite(value: Any) -> str:
    return "must be a finite number" if isinstance(value, float) and not math.isfinite(value) else ""
