"""`make bench-launches`: what a training step asks of a device, beside a PEFT loop: operations, reads by the host, copies to the device.

On a GPU small batches wait for launches and for the host. Both can be counted without one (`bench.launch_counts`): one whole step of
ours, `PackRun._train_step` on its DeepSpeed engine, from draws to reports, for one style and for packs, on the published shapes of
SD1.5, SDXL and FLUX.1 dev; beside it a step of a loop over diffusers' model with PEFT's adapter on the same layers. In fp32: the meta
device has no autocast. Writes bench/results/launches.json; `--tiny` only prints, of a tiny model, what a test holds.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence

from bench import pack_view, results_file
from bench.launch_counts import Counts
from bench.launch_steps import TINY, Base, on_meta, ours, peft
from lorafleet.catalog import OPTIMIZERS
from tests.trainer.families.rows import MEASURED
from trainer.group import Group

SHAPES = {"sd15": ("sd1", MEASURED["sd1"]), "sdxl": ("sdxl", MEASURED["sdxl"]), "flux": ("flux", MEASURED["flux"])}
PACKS = (1, 4, 16)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    with on_meta() as group:
        tiny = Base.of("sd1", TINY)
        if options.tiny:
            print(json.dumps(counted(tiny, group, "tiny")))
            return 0
        found = reads_of_libraries(tiny, group)
        for shape in options.shapes:
            found |= counted(Base.of(*SHAPES[shape]), group, shape)
            print(f"{shape} is counted", flush=True)
    results_file.write("launches", pack_view.laid_over_earlier(found, results_file.RESULTS / "launches.json"))
    return 0


def counted(base: Base, group: Group, shape: str) -> dict[str, float]:
    return summary(peft(base), {num_styles: ours(base, group, num_styles) for num_styles in PACKS}, shape)


def summary(theirs: Counts, packs: Mapping[int, Counts], shape: str) -> dict[str, float]:
    """`packs`: by the number of styles, each a step of one pass."""
    ops = {"peft": theirs.ops.total(), **{_named(size): counts.ops.total() for size, counts in packs.items()}}
    dispatched = {"peft": ops["peft"] + theirs.views.total()}
    dispatched |= {_named(size): counts.ops.total() + counts.views.total() for size, counts in packs.items()}
    return {
        f"host_reads_per_step_{shape}": max(counts.reads.total() for counts in packs.values()),
        f"copies_per_step_over_passes_{shape}": max(counts.copies.total() for counts in packs.values()),
        **_over_peft("ops", ops, shape),
        **_over_peft("dispatched", dispatched, shape),
        **{f"ops_{name}_{shape}": number for name, number in ops.items()},
        f"host_reads_peft_{shape}": theirs.reads.total(),
    }


def reads_of_libraries(tiny: Base, group: Group) -> dict[str, float]:
    """Reads by the host in a step of one style, by the optimizers that libraries bring."""
    names = [name for name in OPTIMIZERS.names() if name != "adamw"]
    return {f"host_reads_per_step_of_{name}": ours(tiny, group, 1, name).reads.total() for name in names}


def _over_peft(what: str, numbers: Mapping[str, int], shape: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for size in PACKS:
        per_style = "" if size == 1 else "_per_style"
        found[f"{what}_{_named(size)}{per_style}_over_peft_{shape}"] = numbers[_named(size)] / size / numbers["peft"]
    return found


def _named(num_styles: int) -> str:
    return "lone" if num_styles == 1 else f"pack{num_styles}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Count what a training step asks of a device.")
    parser.add_argument("--shapes", type=lambda text: text.split(","), default=list(SHAPES), help="sd15, sdxl, flux; unset: all")
    parser.add_argument("--tiny", action="store_true", help="only a tiny model's, printed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
