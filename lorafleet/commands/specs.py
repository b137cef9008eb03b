"""`lorafleet validate` and `schema`: what can be said of a spec without a server."""

from pathlib import Path
from typing import Annotated

import typer

from lorafleet.commands import Format, Output

File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with a spec.", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Set a field, such as training.max_steps=50; repeatable.")
]


def validate(file: File, overrides: Overrides = [], output: Output = Format.TABLE) -> None:  # noqa: B006 - typer only reads it
    """Check a spec locally, without a server; -o yaml prints it with all defaults filled in."""
    from lorafleet import output as text
    from lorafleet import spec_file

    fields = spec_file.load(file, overrides).model_dump(mode="json", exclude_none=True)
    if output is Format.TABLE:
        typer.secho(f"{file} is a good spec", fg="green")
    else:
        typer.echo(text.as_json(fields) if output is Format.JSON else text.as_yaml(fields))


def schema() -> None:
    """Print the JSON Schema of specs, for editors."""
    from lorafleet import output as text
    from lorafleet.spec import json_schema

    typer.echo(text.as_json(json_schema()))
