"""`lorafleet inspect-adapter`: what an adapter file is, as a table or JSON. Works offline, on files of others as well."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorafleet.commands import Format, Output

if TYPE_CHECKING:
    from lorafleet import tables
    from lorafleet.tables import Cell

MOST_SHOWN = 12  # of metadata and kinds of layers; JSON has all
_LONGEST = 200
TELLING = (  # of metadata, shown first
    *("modelspec.title", "ss_output_name", "modelspec.architecture", "ss_base_model_version", "ss_sd_model_name"),
    *("modelspec.trigger_phrase", "ss_network_module", "ss_network_args", "ss_num_train_images", "ss_steps", "ss_resolution"),
    *("ss_learning_rate", "ss_optimizer", "lorafleet.as_lora_of", "lorafleet.as_lora_error"),
)


def inspect_adapter(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file, or PEFT's folder.", show_default=False)],
    family: Annotated[
        str | None, typer.Option("--family", help="Model family, where the file does not tell, such as flux or chroma.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what an adapter file is: format, family, method, ranks, scales, norms, and which programs load it. Also one of a new token."""
    from lorafleet.commands.printing import print_plain
    from trainer.adapters.files import embeddings, sources
    from trainer.adapters.files.inspection import inspected
    from trainer.adapters.files.reading import read
    from trainer.commands.options import checked_family

    asked, given = checked_family(family), sources.of_path(file)
    token = embeddings.inspected(given, _size_bytes(file))
    found = token or inspected(read(given, asked), _size_bytes(file))
    if output is not Format.TABLE:
        print_plain(found, output)
        return
    _print(found, _of_token if token else _of_adapter, *([] if token else [_norms(found)]))


def _size_bytes(file: Path) -> int:
    return sum(path.stat().st_size for path in file.rglob("*") if path.is_file()) if file.is_dir() else file.stat().st_size


_Details = Callable[[Mapping[str, Any]], list[tuple[str, "Cell"]]]


def _print(found: Mapping[str, Any], details: _Details, *more: "tables.Table") -> None:
    from lorafleet import tables
    from lorafleet.terminal import say, stdout_console

    console = stdout_console()
    console.print(tables.details(details(found)))
    for table in (*more, _readers(found), _metadata(found)):
        say("")
        console.print(table)


def _of_token(found: Mapping[str, Any]) -> list[tuple[str, "Cell"]]:
    norms = [
        f"{each['name']} ({each['width']} wide): {', '.join(f'{norm:.4g}' for norm in each['norms'])}" for each in found["text_encoders"]
    ]
    return [
        ("format", found["format"]),
        ("family", " or ".join(found["families"]) or "not known: its vectors are as wide as no published base's"),
        ("token", found["token"] or "as the file is called"),
        ("vectors", str(found["num_vectors"])),
        ("precision", ", ".join(found["dtypes"])),
        ("size", f"{found['size_bytes'] / 2**20:.2f} MiB"),
        ("norms", "; ".join(norms)),
    ]


def _of_adapter(found: Mapping[str, Any]) -> list[tuple[str, "Cell"]]:
    families = " or ".join(found["families"]) + ("" if len(found["families"]) == 1 else "; say which with --family")
    return [
        ("format", found["format"]),
        ("family", families),
        ("method", ", ".join(found["methods"])),
        ("rank", _counted(found["ranks"])),
        ("alpha", _counted(found["alphas"])),
        ("scale", _counted(found["scales"])),
        ("modules", f"{found['num_modules']:,}, {found['num_parameters']:,} numbers"),
        ("targets", _counted(found["targets"])),
        ("precision", ", ".join(found["dtypes"])),
        ("size", f"{found['size_bytes'] / 2**20:.2f} MiB"),
        ("norm", f"{found['norm']:.4g}"),
    ]


def _counted(values: list[dict[str, Any]]) -> str:
    """A lone value, or each with how many modules have it."""
    words = [f"{each['value']:g}" if isinstance(each["value"], float) else str(each["value"]) for each in values[:MOST_SHOWN]]
    if len(values) > 1:
        words = [f"{word} ({each['num_modules']})" for word, each in zip(words, values, strict=False)]
    return ", ".join(words) + (f" and {len(values) - MOST_SHOWN} more" if len(values) > MOST_SHOWN else "")


def _norms(found: Mapping[str, Any]) -> "tables.Table":
    from lorafleet import tables

    columns = (tables.name("PART"), tables.name("BLOCK"), tables.number("MODULES", leaves=1), tables.number("NORM", leaves=2))
    rows: list[tuple[str, str, str, str]] = []
    for part in found["parts"]:
        rows.append((part["part"], "all", str(part["num_modules"]), f"{part['norm']:.4g}"))
        rows += [("", block["block"], str(block["num_modules"]), f"{block['norm']:.4g}") for block in part["blocks"]]
    return tables.Table(columns, rows)


def _readers(found: Mapping[str, Any]) -> "tables.Table":
    from lorafleet import tables

    rows = [(each["program"], each["loads"], each["why"]) for each in found["readers"]]
    return tables.Table((tables.name("PROGRAM"), tables.state("LOADS"), tables.prose("WHY")), rows)


def _metadata(found: Mapping[str, Any]) -> "tables.Table":
    from lorafleet import tables

    entries = {key: value for key, value in found["metadata"].items() if value not in ("", "None")}
    shown = [*(key for key in TELLING if key in entries), *(key for key in entries if key not in TELLING)][:MOST_SHOWN]
    rows = [(key, entries[key] if len(entries[key]) <= _LONGEST else f"{entries[key][:_LONGEST]}…") for key in shown]
    if len(found["metadata"]) > len(shown):
        rows.append(("…", f"{len(found['metadata']) - len(shown)} more with -o json"))
    return tables.Table((tables.name("METADATA"), tables.message("VALUE")), rows or [("(none)", "")])
