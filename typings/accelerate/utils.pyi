import torch
from torch import Tensor, nn

def set_module_tensor_to_device(
    module: nn.Module, tensor_name: str, device: int | str | torch.device, value: Tensor | None = None, dtype: torch.dtype | None = None
) -> None: ...
