"""What a worker has ready before it knows what to train: the stack imported, and used once. Knows nothing of runs and styles."""

import torch


def warm_up(device: torch.device) -> None:
    """Imports what training needs, whatever the base. Import this once the device is chosen."""
    import accelerate  # noqa: F401
    import deepspeed  # noqa: F401

    import trainer.frozen_base
    import trainer.pack.run  # noqa: F401
    from trainer.families import FAMILIES

    FAMILIES.all()
    _ = torch.ones(4, 4, device=device) @ torch.ones(4, 4, device=device)  # loads the libraries of its kernels
