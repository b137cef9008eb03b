"""What the commands on adapter files share."""

from lorafleet.catalog import FAMILIES
from lorafleet.errors import InvalidInput


def checked_family(family: str | None) -> str | None:
    if family is not None and family not in FAMILIES.names():
        raise InvalidInput(f"--family: there is no {family!r}; there is {', '.join(FAMILIES.names())}")
    return family
