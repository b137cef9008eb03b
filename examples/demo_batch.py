"""`make demo-batch`: serve, submit 16 styles as one batch, watch them train as packs, and draw one row for each.

    python -m examples.demo_batch [--store file|minio]

Everything goes through the command line, as a user would: `lorafleet batch submit`, `download`, `report`. Writes
build/demo-batch/sheet.png, report.json and report.md, and leaves no process behind. Exit code: 0 when every style
succeeded, 130 after Ctrl-C, else 1.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from examples import demo, demo_store
from examples.demo import BASE_MODEL, PICTURES, SPEC, console
from examples.demo_store import Store
from examples.processes import InUse, ServerDied, Servers, fresh_folder
from examples.restyle import restyle
from examples.serving import serve
from lorafleet import spec_file
from lorafleet.contract.layout import join
from lorafleet.errors import LorafleetError

BUILD = demo.EXAMPLES.parent / "build" / "demo-batch"
BATCH = "styles"

# Chosen by eye from all that restyle.py can do: no two alike in ground and line, none on a ground so dark that the base
# loses its motifs. Neighbours differ most, so that the sheet's rows do.
STYLES = (
    *("poster-mint", "woodcut", "sunset", "duotone-plum-sky"),
    *("comic", "turned-240", "sepia", "poster-lilac"),
    *("pixels", "duotone-forest-lime", "stamp", "poster-coral"),
    *("turned-120", "duotone-navy-rose", "ink", "duotone-crimson-sand"),
)

# Over examples/emoji-style.yaml. A step costs what its pictures cost, 16 styles x 4; half the time goes into drawing.
EVERY = 4  # a style has every so many-th of the 256 pictures: 64, and its neighbours have others
SETTINGS = (
    "training.max_steps=150",
    "training.micro_batch_size=4",
    "cluster.zero_stage=0",  # ZeRO shards one style over workers: such a job trains alone
    "checkpointing.every_steps=75",
    "validation.num_inference_steps=15",
    "validation.prompts=[an emoji of red apple, an emoji of panda face, an emoji of house building,"
    " an emoji of owl, an emoji of whale, an emoji of sunflower]",
    "labels.project=demo-batch",
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        with Servers(log_dir=fresh_folder(BUILD)) as servers:
            return run(options.store, servers)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has ended")
        return 130
    except (LorafleetError, InUse, ServerDied, TimeoutError) as error:
        console.print(f"the demo failed: {error}", style="red", markup=False)
        return 1


def run(store_kind: str, servers: Servers) -> int:
    """The story of one batch."""
    started_s = time.monotonic()
    num_pictures = draw_styles(BUILD / "pictures")
    console.print(f"1. [bold]restyle[/] {num_pictures} pictures as {len(STYLES)} styles")
    store = open_store(store_kind, servers)

    address = serve(servers, BUILD, "--artifacts", store.artifacts_uri, environment=store.environment)
    console.print(f"2. [bold]serve[/] on {address}: SQLite, a local Ray, {store.artifacts_uri}")

    file = BUILD / "styles.yaml"
    file.write_text(yaml.safe_dump(batch(store), sort_keys=False))
    all_succeeded = lorafleet(3, "batch", "submit", str(file), "--wait", server=address) == 0
    if lorafleet(4, "batch", "report", BATCH, str(BUILD), server=address) != 0:
        return 1
    fetched = lorafleet(5, "batch", "download", BATCH, str(BUILD / "adapters"), server=address) == 0

    console.print(ending(json.loads((BUILD / "report.json").read_text()), time.monotonic() - started_s))
    console.print(f"sheet: {_short(BUILD / 'sheet.png')}, report: {_short(BUILD / 'report.json')}, log: {_short(BUILD / 'server.log')}")
    return 0 if all_succeeded and fetched else 1


def draw_styles(folder: Path) -> int:
    """One small data set for each style; returns the number of pictures."""
    return sum(restyle(style, PICTURES, folder / style, which=slice(index % EVERY, None, EVERY)) for index, style in enumerate(STYLES))


def open_store(kind: str, servers: Servers) -> Store:
    if kind == "minio":
        return demo_store.minio_store(BASE_MODEL, BUILD / "pictures", BUILD, servers)
    return demo_store.file_store(BASE_MODEL, BUILD / "pictures", BUILD)


def batch(store: Store) -> dict[str, Any]:
    """What `lorafleet batch submit` reads: what all styles have in common, and one item for each."""
    defaults = spec_file.read(SPEC)
    for setting in (f"base_model.uri={store.base_model_uri}", *SETTINGS):
        defaults = spec_file.set_field(defaults, setting)
    del defaults["dataset"]["uri"]
    return {"batch_id": BATCH, "defaults": defaults, "items": [_item(store, style) for style in STYLES]}


def _item(store: Store, style: str) -> dict[str, Any]:
    return {"job_id": style, "dataset": {"uri": join(store.dataset_uri, style)}, "labels": {"style": style}}


def lorafleet(number: int, *arguments: str, server: str) -> int:
    """Run a command of the command line, shown as a user would type it; returns its exit code."""
    console.print(f"{number}. [bold]lorafleet {' '.join(_typed(argument) for argument in arguments)}[/]")
    return subprocess.run([sys.executable, "-m", "lorafleet.cli", *arguments, "--server", server], check=False).returncode


def ending(report: Mapping[str, Any], seconds: float) -> str:
    """The last line: what was trained, in how many packs, how fast."""
    packs = f"{report['packs']} pack" + ("" if report["packs"] == 1 else "s")
    return (
        f"[bold]{len(report['styles'])} styles[/] in {packs}, {report['wall_seconds']:.0f} s:"
        f" {report['styles_per_hour']:.0f} an hour; {seconds:.0f} s with everything around it"
    )


def _typed(argument: str) -> str:
    path = Path(argument)
    return str(_short(path)) if path.is_absolute() else argument


def _short(path: Path) -> Path:
    root = demo.EXAMPLES.parent
    return path.relative_to(root) if path.is_relative_to(root) else path


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train 16 styles as one batch, and draw a row for each.")
    parser.add_argument("--store", choices=("file", "minio"), default="file", help="where everything is kept")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
