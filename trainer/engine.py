"""accelerate + DeepSpeed: the optimizer's engine at the spec's ZeRO stage, precision and offload.

Gives the adapter's state back whole, as named fp32 tensors, whatever the stage and the number of workers:
a checkpoint taken under one resumes under any other.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lorafleet.spec import ClusterSpec, Spec
from trainer.group import Group

_MOMENTS = ("exp_avg", "exp_avg_sq")


def deepspeed_config(spec: Spec, *, world_size: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a spec. Pure.

    Its bf16 mode stays off at every precision: the adapter is held and stepped in fp32, and bf16 is autocast over a bf16 base.
    """
    training, cluster = spec.training, spec.cluster
    zero: dict[str, Any] = {"stage": cluster.zero_stage}
    if cluster.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu"}
        if cluster.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    if cluster.zero_stage == 3:
        # The default keeps parameters under 100k elements whole; then a tiny adapter would not be partitioned at all.
        zero["stage3_param_persistence_threshold"] = 0
    return {
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "train_batch_size": training.micro_batch_size * training.gradient_accumulation_steps * world_size,
        "gradient_clipping": training.max_grad_norm,
        "zero_optimization": zero,
        # torch's AdamW, so that the update is the same function on every device and at every stage.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**12,
    }


def select_accelerator(cluster: ClusterSpec) -> torch.device:
    """The device to train on: a GPU only where the spec asks for one. Must run before DeepSpeed is imported, which decides once."""
    if cluster.gpus_per_worker:
        return torch.device("cuda", torch.cuda.current_device())
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray hides no GPU from a worker that asked for none
    return torch.device("cpu")


class Engine:
    """One model under DeepSpeed. Every method is collective: all ranks call it, in the same order."""

    def __init__(self, model: nn.Module, spec: Spec, group: Group, device: torch.device) -> None:
        self.parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        training = spec.training
        optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=training.learning_rate,
            betas=(training.adam_beta1, training.adam_beta2),
            eps=training.adam_epsilon,
            weight_decay=training.weight_decay,
        )
        self.device = device
        self.deepspeed = _initialize(model.to(device), optimizer, deepspeed_config(spec, world_size=group.world_size))

    @property
    def zero_stage(self) -> int:
        return self.deepspeed.zero_optimization_stage()

    def __call__(self, *inputs: Any) -> Tensor:
        return self.deepspeed(*inputs)

    def backward(self, loss: Tensor) -> None:
        """Accumulates gradients; DeepSpeed divides by the accumulation steps and averages over ranks."""
        self.deepspeed.backward(loss)

    def step(self, *, learning_rate: float) -> None:
        """Counts a micro-batch; the last of an accumulation updates the adapter."""
        for param_group in self._inner_optimizer.param_groups:
            param_group["lr"] = learning_rate
        self.deepspeed.step()

    def weights(self) -> dict[str, Tensor]:
        """The adapter's fp32 weights by name, whole, on the CPU."""
        return {name: self._full(parameter, None) for name, parameter in self.parameters.items()}

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments, named `exp_avg.<parameter>` and `exp_avg_sq.<parameter>`, whole, on the CPU."""
        return {f"{key}.{name}": self._full(parameter, key) for key in _MOMENTS for name, parameter in self.parameters.items()}

    def load_moments(self, moments: Mapping[str, Tensor], *, steps_done: int) -> None:
        """Puts AdamW where it was after `steps_done` steps. The weights are loaded into the model before the engine is made."""
        inner = self._inner_optimizer
        if self.zero_stage == 3:  # it hands its flat partitions to the inner optimizer one by one, in each step
            stepped = list(self.deepspeed.optimizer.fp32_partitioned_groups_flat)
        else:
            stepped = [parameter for param_group in inner.param_groups for parameter in param_group["params"]]
        for parameter in stepped:
            empty = {key: torch.zeros_like(parameter) for key in _MOMENTS}
            inner.state[parameter] = {"step": torch.tensor(float(steps_done)), **empty}
        if 0 < self.zero_stage < 3:
            # ZeRO-1 and 2 link the moments to their parameters after the first step; there is no public call for before it.
            self.deepspeed.optimizer._lazy_init_hp_params_optimizer_state()
        for key in _MOMENTS:
            for name, parameter in self.parameters.items():
                self._set_full(parameter, key, moments[f"{key}.{name}"])

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.deepspeed.optimizer, "optimizer", self.deepspeed.optimizer)

    @property
    def _is_partitioned(self) -> bool:
        """False where the optimizer steps the parameters themselves: stage 0 in fp32."""
        return self.deepspeed.optimizer is not self._inner_optimizer

    def _full(self, parameter: nn.Parameter, key: str | None) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self._is_partitioned:
            full = safe_get_full_fp32_param(parameter) if key is None else safe_get_full_optimizer_state(parameter, key)
        else:
            full = parameter if key is None else self._inner_optimizer.state[parameter][key]
        if full is None:
            raise RuntimeError("DeepSpeed does not know the parameter; it must be one that the engine trains")
        return full.detach().float().cpu().clone()

    def _set_full(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if self.zero_stage == 3:
            # DeepSpeed's own full setter fails on a parameter that does not divide by the number of workers.
            size = parameter.ds_tensor.ds_numel  # pyright: ignore[reportAttributeAccessIssue]
            padded = nn.functional.pad(value.flatten(), (0, size * dist.get_world_size() - value.numel()))
            safe_set_local_optimizer_state(parameter, padded.narrow(0, size * dist.get_rank(), size).to(self.device), key)
        elif self._is_partitioned:
            safe_set_full_optimizer_state(parameter, value.to(self.device), key)
        else:
            self._inner_optimizer.state[parameter][key].copy_(value)


def _initialize(model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    # `Accelerator(cpu=True)` would silently train with DDP instead; without this variable so would `Accelerator()`.
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    from accelerate import Accelerator, DeepSpeedPlugin
    from accelerate.state import AcceleratorState
    from deepspeed import DeepSpeedEngine
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    _without_shared_memory_op()
    AcceleratorState._reset_state(reset_partial_state=True)  # a warm process may have had another engine
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config))
    engine, _ = accelerator.prepare(model, optimizer)
    unset_hf_deepspeed_config()  # else transformers partitions, for no engine, every model that is loaded after a ZeRO-3 one
    if not isinstance(engine, DeepSpeedEngine):
        raise RuntimeError(f"accelerate made a {type(engine).__name__}, not a DeepSpeedEngine")
    return engine


def _without_shared_memory_op() -> None:
    """Keeps DeepSpeed from compiling its shared-memory all-reduce when it starts on a CPU.

    Only its inference engine uses it; compiling takes minutes on a small machine, and an image without a compiler could not.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
