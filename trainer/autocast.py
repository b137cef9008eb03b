"""What a precision computes in, as torch has it: the type of its passes, and autocast to it."""

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device_type: str, computes: str) -> torch.autocast:
    """Passes in what a precision computes in; over fp32 there is none."""
    return torch.autocast(device_type, torch.bfloat16 if computes == "fp32" else DTYPES[computes], enabled=computes != "fp32")
