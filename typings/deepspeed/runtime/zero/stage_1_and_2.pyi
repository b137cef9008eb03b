import torch

class DeepSpeedZeroOptimizer:
    optimizer: torch.optim.Optimizer

    def _lazy_init_hp_params_optimizer_state(self) -> None: ...
