import torch
from torch import Tensor

class DeepSpeedZeroOptimizer_Stage3:
    optimizer: torch.optim.Optimizer
    fp32_partitioned_groups_flat: list[Tensor]
