"""accelerate + DeepSpeed: the optimizer's engine at the spec's ZeRO stage, precision and offload.

Gives an adapter's state back whole, as named fp32 tensors, whatever the stage and the number of workers: a checkpoint
taken under one resumes under any other. More than one style train under one engine at ZeRO stage 0 only, where every
worker holds whole rows; the stages that partition are for packs of one.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lorafleet.spec import ClusterSpec, Spec
from trainer.adapters.bank import ActiveSlots, Bank
from trainer.adapters.model import PackModel
from trainer.families.protocol import Conditioning
from trainer.group import Group
from trainer.optimizers.protocol import StyleUpdate
from trainer.optimizers.stacked import StackedOptimizer

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine  # imported once its accelerator is chosen


def deepspeed_config(spec: Spec, *, world_size: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a spec. Pure.

    Its bf16 mode stays off at every precision: the adapter is held and stepped in fp32, and bf16 is autocast over a bf16 base.
    Batch sizes and accumulation are the loop's, which tells the engine which backward pass is a step's last: they differ
    between styles. So is clipping at stage 0, where a style is a row.
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
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": world_size,
        "gradient_clipping": training.max_grad_norm if cluster.zero_stage else 0.0,
        "zero_optimization": zero,
        # ours, so that the update is the same function on every device and at every stage.
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
    """One pack model under DeepSpeed. Every method is collective: all ranks call it, in the same order."""

    def __init__(self, model: PackModel, spec: Spec, group: Group, device: torch.device) -> None:
        """`spec` is of any style of the pack: what is read from it, all have in common."""
        model.to(device)
        self.device = device
        self.banks = [bank for bank in model.banks if isinstance(bank, Bank)]
        self.optimizer = StackedOptimizer(self.banks, clips=spec.cluster.zero_stage == 0)
        self.deepspeed = _initialize(model, self.optimizer, deepspeed_config(spec, world_size=group.world_size))
        if spec.cluster.zero_stage == 0:
            _spare_work(self.deepspeed, self.optimizer, world_size=group.world_size)

    @property
    def zero_stage(self) -> int:
        return self.deepspeed.zero_optimization_stage()

    def __call__(
        self, active: Sequence[ActiveSlots], noisy: Tensor, times: Tensor, conditioning: Conditioning, captions: Sequence[str]
    ) -> Tensor:
        """A forward pass: see PackModel.forward."""
        return self.deepspeed(active, noisy, times, conditioning, captions)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulates gradients, averaged over ranks; `last` is true for the step's last pass."""
        self.deepspeed.set_gradient_accumulation_boundary(last)
        self.deepspeed.backward(loss)

    def step(self, updates: Sequence[Sequence[StyleUpdate]]) -> list[Tensor]:
        """Updates all adapters after the last backward pass; `updates` are of each bank's styles, in the order of their slots.

        Returns whether each style's gradient was finite, (styles,) of each bank, on the device. Under ZeRO 1 to 3 only its weights tell,
        later.
        """
        for group in self.optimizer.param_groups:
            group["updates"] = updates[group["bank"]]
        self.deepspeed.step()
        return [group["finite"] for group in sorted(self.optimizer.param_groups, key=lambda group: group["bank"])]

    def weights(self, bank: int, slot: int) -> Tensor:
        """A style's fp32 weights, (size,), on the CPU."""
        return self._full(bank, None)[slot]

    @contextmanager
    def judged(self, bank: int, slot: int, update: StyleUpdate) -> Generator[None]:
        """Meanwhile a style's weights are those that it is to be judged by, where an average of what it trains is."""
        averaged = self.optimizer.evaluated(bank, slot, update)
        if averaged is None:
            yield
            return
        row = self.banks[bank].flat.detach()[slot]  # whole: what averages is not sharded, and stage 3 leaves no row here
        trained = row.clone()
        row.copy_(averaged)
        try:
            yield
        finally:
            row.copy_(trained)

    def moments(self, bank: int, slot: int) -> dict[str, Tensor]:
        """The optimizer's state of a style, on the CPU; what it keeps of each number is (size,)."""
        return {key: self._full(bank, key)[slot] for key in self._state_keys(bank)}

    def load_moments(self, bank: int, slot: int, moments: Mapping[str, Tensor]) -> None:
        """Puts the optimizer's state of a style where it was."""
        flat = self.banks[bank].flat
        for key in self._state_keys(bank):
            if self._is_partitioned:
                self._set_full(flat, key, moments[key].to(self.device))
            else:
                self.optimizer.state_of(flat, bank)[key][slot] = moments[key].to(self.device)

    def _state_keys(self, bank: int) -> list[str]:
        return list(self.optimizer.kept(self.banks[bank].flat, bank))

    def free(self, bank: int, slot: int) -> None:
        """Frees a slot: the style of the last slot moves into it. Only at stage 0, which packs of more than one have."""
        place = self.banks[bank]
        place.num_styles -= 1
        place.tokens[slot] = place.tokens[place.num_styles]
        with torch.no_grad():
            began = () if place.began is None else (place.began,)
            for tensor in (place.flat, *self.optimizer.state_of(place.flat, bank).values(), place.scaling, *began):
                tensor[slot] = tensor[place.num_styles].clone()
                tensor[place.num_styles] = 0.0

    @property
    def _inner_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.deepspeed.optimizer
        return optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer.optimizer

    @property
    def _is_partitioned(self) -> bool:
        """False where the optimizer steps the parameters themselves: stage 0 in fp32."""
        return self.deepspeed.optimizer is not self._inner_optimizer

    def _full(self, bank: int, key: str | None) -> Tensor:
        """A bank's parameter, or what the optimizer keeps of it under a key, whole, of the type that it is kept in."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        parameter = self.banks[bank].flat
        if not self._is_partitioned:
            full = parameter if key is None else self.optimizer.state_of(parameter, bank)[key]
        else:
            full = safe_get_full_fp32_param(parameter) if key is None else safe_get_full_optimizer_state(parameter, key)
        if full is None:
            raise RuntimeError("DeepSpeed does not know the parameter; it must be one that the engine trains")
        return full.detach().cpu().clone()

    def _set_full(self, parameter: nn.Parameter, key: str, row: Tensor) -> None:
        """Sets a moment of a parameter of one row, at the stages that partition."""
        from deepspeed.runtime.zero.utils import is_zero_param
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        self._make_moments()
        if is_zero_param(parameter):  # at stage 3
            # DeepSpeed's own full setter fails on a parameter that does not divide by the number of workers.
            size = parameter.ds_tensor.ds_numel
            padded = nn.functional.pad(row, (0, size * dist.get_world_size() - len(row)))
            safe_set_local_optimizer_state(parameter, padded.narrow(0, size * dist.get_rank(), size), key)
        else:
            safe_set_full_optimizer_state(parameter, row[None], key)

    def _make_moments(self) -> None:
        """Moments that DeepSpeed's setters find: it makes them in its first step, and links them to their parameters then."""
        from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
        from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

        optimizer, inner = self.deepspeed.optimizer, self._inner_optimizer
        if isinstance(optimizer, DeepSpeedZeroOptimizer_Stage3):  # it hands its flat partitions to the inner one by one, in each step
            stepped = list(optimizer.fp32_partitioned_groups_flat)
        else:
            stepped = [parameter for param_group in inner.param_groups for parameter in param_group["params"]]
        made = [parameter for parameter in stepped if not inner.state[parameter]]
        for parameter in made:
            self.optimizer.state_of(parameter, bank=0)  # these stages train one style
        if made and isinstance(optimizer, DeepSpeedZeroOptimizer):  # stages 1 and 2
            optimizer._lazy_init_hp_params_optimizer_state()  # pyright: ignore[reportPrivateUsage]  there is no public call for it


def _initialize(model: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> "DeepSpeedEngine":
    # `Accelerator(cpu=True)` would silently train with DDP instead; without this variable so would `Accelerator()`.
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    from accelerate import Accelerator, DeepSpeedPlugin
    from accelerate.state import AcceleratorState
    from deepspeed import DeepSpeedEngine
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    _without_shared_memory_op()
    AcceleratorState._reset_state(reset_partial_state=True)  # pyright: ignore[reportPrivateUsage]  a warm process may have had another engine
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config))
    engine, _ = accelerator.prepare(model, optimizer)
    unset_hf_deepspeed_config()  # else transformers partitions, for no engine, every model that is loaded after a ZeRO-3 one
    if not isinstance(engine, DeepSpeedEngine):
        raise RuntimeError(f"accelerate made a {type(engine).__name__}, not a DeepSpeedEngine")
    return engine


def _spare_work(deepspeed: Any, optimizer: torch.optim.Optimizer, *, world_size: int) -> None:
    """What DeepSpeed would do in each step at stage 0, and need not."""
    deepspeed.zero_grad = optimizer.zero_grad  # its own walks through all modules of the frozen parts, which have no gradients
    if world_size == 1:
        deepspeed.enable_backward_allreduce = False  # it would copy the gradients, and wait, to average them with nobody's


def _without_shared_memory_op() -> None:
    """Keeps DeepSpeed from compiling its shared-memory all-reduce when it starts on a CPU.

    Only its inference engine uses it; compiling takes minutes on a small machine, and an image without a compiler could not.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
