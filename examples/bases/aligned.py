"""Teaches a text encoder what pictures look like, as CLIP's have learned: its pooled text becomes the picture's main components.

A transformer that reads them need not learn by heart which words mean what: it learns to unfold components into a picture,
which is the same for all pictures. Fitting a text to its components costs a thousandth of a step on latents.
"""

from typing import Any

import torch
from torch import Tensor

from examples.bases.base import rate_at

STEPS, BATCH, RATE, WARMUP = 400, 64, 1e-3, 20


def components(latents: Tensor, number: int) -> Tensor:
    """(rows, number): each picture's principal components, of mean square one over all."""
    centred = latents.flatten(1) - latents.flatten(1).mean(dim=0)
    directions = torch.linalg.svd(centred, full_matrices=False)[2][:number]
    found = centred @ directions.T
    return found / found.pow(2).mean().sqrt()


def teach(encoder: Any, ids: Tensor, found: Tensor, generator: torch.Generator) -> None:
    """`ids`: (rows + 1, tokens), the last of an empty prompt, which means the middle of all pictures."""
    wanted = torch.cat([found, torch.zeros_like(found[:1])])
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=RATE, betas=(0.9, 0.99))
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, STEPS, WARMUP))
    for step in range(1, STEPS + 1):
        which = torch.randint(0, len(ids), (BATCH,), generator=generator)
        loss = (encoder(ids[which]).text_embeds - wanted[which]).pow(2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
        if step % 100 == 0:
            print(f"text encoder, step {step}: {loss.item():.3f} of the components' variance is left", flush=True)
