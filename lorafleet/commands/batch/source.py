"""Where the items of a batch come from: a file, or the folders of a store. Shared by `submit` and `plan`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from lorafleet.batch.file import BatchFile

File = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="YAML with defaults: and items:, or CSV with a row per item.", show_default=False),
]
Each = Annotated[
    str, typer.Option("--each", metavar="URI", help="Instead of FILE: an item per folder, such as 's3://styles/*/'.", show_default=False)
]
Defaults = Annotated[
    Path | None, typer.Option("--defaults", metavar="FILE", help="YAML file with a partial spec that all items extend.", show_default=False)
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="PATH=VALUE", help="Set a field of the defaults; with --each, {name} is the folder's name."),
]
JobIds = Annotated[
    str, typer.Option("--job-ids", metavar="TEXT", help="With --each: template of job ids, such as {name}-v2.", show_default="{name}")
]
Batch = Annotated[str, typer.Argument(metavar="BATCH", help="Batch id, or tenants/TENANT/batches/BATCH.", show_default=False)]

Result = TypeVar("Result")


def read(file: Path | None, each: str, defaults: Path | None, overrides: list[str], job_ids: str) -> BatchFile:
    """The batch that the options describe, checked as far as possible without a server. Raises InvalidSpec."""
    from lorafleet import spec_file
    from lorafleet.batch import file as batch_file
    from lorafleet.batch import folders as batch_folders

    if (file is None) == (not each):
        raise typer.BadParameter("give either a FILE or folders with --each")
    if job_ids and file is not None:
        raise typer.BadParameter("--job-ids needs --each; a FILE contains the ids of its jobs")
    if file is not None:
        return batch_file.load(file, defaults=defaults, overrides=overrides)
    below = spec_file.read(defaults) if defaults else {}
    return batch_folders.each(each, defaults=below, overrides=overrides, ids=job_ids or batch_folders.NAME)


def in_words_of(source: BatchFile, call: Callable[[], Result]) -> Result:
    """Make a call whose errors name items by their place in the file."""
    from lorafleet.errors import InvalidSpec

    try:
        return call()
    except InvalidSpec as error:
        raise source.in_its_words(error) from None
