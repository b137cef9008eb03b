"""Where the items of a batch come from: a file, or the folders of a store. Shared by `submit` and `plan`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from lorafleet.batch_file import BatchFile

File = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="YAML with defaults: and items:, or CSV with a row for each item.", show_default=False),
]
Each = Annotated[
    str, typer.Option("--each", metavar="URI", help="Instead of FILE: an item for each folder, as in 's3://styles/*/'.", show_default=False)
]
Defaults = Annotated[
    Path | None, typer.Option("--defaults", metavar="FILE", help="A partial spec in YAML, below all items.", show_default=False)
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="PATH=VALUE", help="Set a field of the defaults; with --each, {name} is the folder's name."),
]
JobIds = Annotated[
    str, typer.Option("--job-ids", metavar="TEXT", help="With --each: what ids are made from, as in {name}-v2.", show_default="{name}")
]
Batch = Annotated[str, typer.Argument(metavar="BATCH", help="Batch id, or tenants/TENANT/batches/BATCH.", show_default=False)]

Result = TypeVar("Result")


def read(file: Path | None, each: str, defaults: Path | None, overrides: list[str], job_ids: str) -> BatchFile:
    """The batch that the options name, checked as far as can be here. Raises InvalidSpec."""
    from lorafleet import batch_file, batch_folders, spec_file

    if (file is None) == (not each):
        raise typer.BadParameter("name a FILE, or folders with --each, and not both")
    if job_ids and file is not None:
        raise typer.BadParameter("a FILE holds the ids of its jobs; --job-ids is for --each")
    if file is not None:
        return batch_file.load(file, defaults=defaults, overrides=overrides)
    below = spec_file.read(defaults) if defaults else {}
    return batch_folders.each(each, defaults=below, overrides=overrides, ids=job_ids or batch_folders.NAME)


def in_words_of(source: BatchFile, call: Callable[[], Result]) -> Result:
    """A call whose refusal names the items by their places in the file."""
    from lorafleet.errors import InvalidSpec

    try:
        return call()
    except InvalidSpec as error:
        raise source.in_its_words(error) from None
