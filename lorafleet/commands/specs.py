"""`lorafleet validate` and `schema`: what can be said of a spec without a server."""

from pathlib import Path
from typing import Annotated

import typer

from lorafleet.commands import Format, Output
from lorafleet.terminal import say, say_json

File = Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with a spec.", show_default=False)]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Set a field, such as training.max_steps=50; repeatable.")
]


def validate(file: File, overrides: Overrides = [], output: Output = Format.TABLE) -> None:  # noqa: B006 - typer only reads it
    """Check a spec locally, without a server; -o yaml prints it with all defaults filled in."""
    from lorafleet import adapter_readers, spec_file
    from lorafleet.commands.printing import print_plain
    from lorafleet.spec_cautions import cautions

    spec = spec_file.load(file, overrides)
    print_plain(spec.model_dump(mode="json", exclude_none=True), output)
    if output is Format.TABLE:
        say(f"{file} is a good spec", colour="green")
        for hint in (*cautions(spec), *adapter_readers.hints(spec)):
            say(hint)


def schema() -> None:
    """Print the JSON Schema of specs, for editors."""
    from lorafleet.spec import json_schema

    say_json(json_schema())
