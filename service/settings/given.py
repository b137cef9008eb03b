"""Holds what a command was given: where the value of each option comes from, and all that is wrong with them. Pure."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from lorafleet.errors import InvalidInput, LorafleetError
from lorafleet.redacting import BLANK, without_passwords

T = TypeVar("T")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_MAX_SHOWN = 200  # letters of a value


class OptionSource(StrEnum):
    """Where a value comes from; an earlier one counts before a later one."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class GivenOption:
    """One option. `value` is as it was given, before it was read as what the option takes."""

    flag: str
    source: OptionSource = OptionSource.DEFAULT
    named: str = ""  # the variable, or the file
    value: Any = field(default=None, repr=False)
    is_secret: bool = False

    @property
    def origin(self) -> str:
        return f"{self.source} {self.named}" if self.named else str(self.source)

    @property
    def shown(self) -> str:
        """The value as it may be shown; of one that holds a password only a URL, whose password can be found."""
        text = without_passwords(str(self.value))
        return BLANK if self.is_secret and "://" not in text else text[:_MAX_SHOWN] + ("…" if len(text) > _MAX_SHOWN else "")


@dataclass(kw_only=True)
class GivenOptions:
    """The options of one call of a command."""

    options: dict[str, GivenOption] = field(default_factory=dict)  # by flag
    _problems: list[str] = field(default_factory=list)
    _bad: set[str] = field(default_factory=set)  # flags whose value counts as not given from here on

    def is_bad(self, flag: str) -> bool:
        return flag in self._bad

    def refuse(self, flag: str, message: str) -> None:
        """This option alone is wrong."""
        self._note(flag, f"{flag}: {message}")
        self._bad.add(flag)

    def tell(self, what: str, message: str) -> None:
        """Something that is no option is wrong."""
        self._problems.append(f"{what}: {message}")

    def checked(self, flag: str, check: Callable[[], T], instead: T) -> T:
        """What the check makes of one option; `instead` when it raises, so that the checks of others go on."""
        try:
            return instead if self.is_bad(flag) else check()
        except LorafleetError as error:
            self._note(flag, error.message)
            self._bad.add(flag)
            return instead

    def misfits(self, faults: Iterable[LorafleetError]) -> None:
        """Options that do not go together. A fault that names an option which is bad by itself may be no more than its consequence."""
        for fault in faults:
            flags = _FLAG.findall(fault.message)
            if not self._bad & set(flags):
                self._note(flags[0] if flags else "", fault.message)

    def done(self) -> None:
        """Raises InvalidInput with everything that is wrong."""
        if not self._problems:
            return
        count = f"{len(self._problems)} problem{'s' if len(self._problems) != 1 else ''} in the options"
        raise InvalidInput("\n".join([count, *(f"  {each}" for each in self._problems)]))

    def _note(self, flag: str, message: str) -> None:
        """The flag stands in the message, perhaps with others; each is told with the variable or file that gave it."""
        option = self.options.get(flag)
        if flag not in message:
            message = f"{flag}: {message}"
        if option and option.source is not OptionSource.DEFAULT and not _shows(message, option):
            message += f" (got {option.shown!r})"
        self._problems.append(_FLAG.sub(self._with_origin, message))

    def _with_origin(self, found: re.Match[str]) -> str:
        option = self.options.get(found[0])
        return f"{found[0]} ({option.origin})" if option and option.named else found[0]


def _shows(message: str, option: GivenOption) -> bool:
    return isinstance(option.value, bool) or option.shown in message or without_passwords(str(option.value)) in message
