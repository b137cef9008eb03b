"""What a worker has ready before it knows what to train: the stack imported, and used once. Knows nothing of runs and styles."""

from importlib import import_module

import torch


def warm_up(device: torch.device) -> None:
    """Imports what training needs, whatever the base. Import this once the device is chosen."""
    for name in ("accelerate", "deepspeed", "trainer.frozen_base", "trainer.pack.run"):
        import_module(name)
    from trainer.families import FAMILIES

    FAMILIES.all()
    _ = torch.ones(4, 4, device=device) @ torch.ones(4, 4, device=device)  # loads the libraries of its kernels
