"""`make bench-invariance`: in which batches a row's numbers do not depend on what else is in the batch, bit by bit.

What trainer/adapters/bank.py relies on, measured on this machine: the base UNet forward and backward for batches of 1
to 64 rows, against the same rows in a batch of 16 and in other places; and the batched products of adapters for 1 to 32
matrices; and whole rows of each family, padded as a pack's are (bench/invariance_families.py). Writes
bench/results/invariance.json: metric -> 1 (same bits) or 0. `--parts families` measures one part, and keeps the others' figures.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from bench import invariance_families, pack_view, results_file
from examples.demo import BASE_MODEL
from trainer.families import family
from trainer.families.protocol import Loading

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 32, 48, 64)
SLOTS = (1, 2, 3, 5, 8, 16)
PARTS = ("rows", "products", "families")
PRODUCTS = ((256, 64, 16, 64), (64, 128, 16, 128), (16, 256, 8, 256), (256, 576, 16, 64), (256, 64, 1, 64))  # tokens, in, rank, out


def main(arguments: Sequence[str] | None = None) -> int:
    parts = _options(arguments).parts
    metrics: dict[str, float] = {f"{part}_threads": torch.get_num_threads() for part in parts}
    if "rows" in parts:
        metrics |= {f"same_bits_in_a_batch_of_{rows}_rows": float(same) for rows, same in unet_rows().items()}
    if "products" in parts:
        metrics |= {f"same_bits_in_a_product_of_{slots}_matrices": float(same) for slots, same in products().items()}
    if "families" in parts:
        metrics |= invariance_families.metrics()
    results_file.write("invariance", pack_view.laid_over_earlier(metrics, results_file.RESULTS / "invariance.json"))
    return 0


def unet_rows() -> dict[int, bool]:
    """Whether rows of a batch of so many have the bits that they have in a batch of 16, forward and backward."""
    unet = family("sd1").load("unet", BASE_MODEL, Loading(max_tokens=77))
    draw = torch.Generator().manual_seed(0)
    noisy = torch.randn(max(ROWS), 4, 16, 16, generator=draw)
    timesteps = torch.randint(0, 1000, (max(ROWS),), generator=draw)
    text = torch.randn(max(ROWS), 77, unet.config.cross_attention_dim, generator=draw)  # pyright: ignore

    def computed(rows: Sequence[int]) -> tuple[Tensor, ...]:
        x, c = noisy[rows].requires_grad_(), text[rows].requires_grad_()
        predicted = unet(x, timesteps[rows], c).sample
        return predicted.detach(), *torch.autograd.grad(predicted.pow(2).mean(dim=(1, 2, 3)).sum(), (x, c))

    known = computed(range(16))
    return {rows: _same(computed, known, torch.randperm(max(rows, 16), generator=draw)[:rows].tolist()) for rows in ROWS}


def _same(computed, known: Sequence[Tensor], rows: Sequence[int]) -> bool:
    found = computed(rows)
    pairs = [(place, row) for place, row in enumerate(rows) if row < 16]
    return all(torch.equal(mine[place], theirs[row]) for mine, theirs in zip(found, known, strict=True) for place, row in pairs)


def products() -> dict[int, bool]:
    """Whether so many matrices, multiplied together, have the bits that they have among 32."""
    same: dict[int, bool] = dict.fromkeys(SLOTS, True)
    for tokens, inputs, rank, outputs in PRODUCTS:
        x, a, b = torch.randn(32, tokens, inputs), torch.randn(32, rank, inputs), torch.randn(32, outputs, rank)
        known = _product(x, a, b)
        for slots in SLOTS:
            found = _product(*(each[3 : 3 + slots] for each in (x, a, b)))
            same[slots] &= all(torch.equal(mine, theirs[3 : 3 + slots]) for mine, theirs in zip(found, known, strict=True))
    return same


def _product(*parts: Tensor) -> tuple[Tensor, ...]:
    x, a, b = (part.clone().requires_grad_() for part in parts)
    out = torch.bmm(torch.bmm(x, a.mT), b.mT)
    out.sin().sum().backward()
    return out.detach(), *(part.grad for part in (x, a, b) if part.grad is not None)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure in which batches a row's bits do not depend on its neighbours.")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help=f"{', '.join(PARTS)}; unset: all")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
