"""Ray Train without the processes that a run of ours has no use for. A controller imports this: it must stay light.

Each actor of Ray Train's takes some three seconds of a core to start, before the workers come up, and one to three hundredths of one
while they train. A run goes without

- the cleaner of placement groups, which outlives a controller: Ray drops a driver's placement groups when the driver ends, as ours
  does with its run;
- the manager of Ray Data's data sets: a run has none;
- the coordinator that asks the autoscaler for the workers' resources ahead: their placement group asks for the same.
"""

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy

_UNUSED = (DatasetsCallback, PlacementGroupCleanerCallback)


class FewProcessesTrainer(TorchTrainer):
    """A TorchTrainer whose run is its controller, its workers and the actor at which they meet."""

    def _create_default_callbacks(self) -> list[Any]:
        return [each for each in super()._create_default_callbacks() if not isinstance(each, _UNUSED)]

    def _initialize_and_run_controller(self, **controller: Any) -> Any:
        lean = controller | {"scaling_policy": FixedSize(self.scaling_config)}
        return super()._initialize_and_run_controller(**lean)  # pyright: ignore[reportUnknownMemberType]


class FixedSize(FixedScalingPolicy):
    """As many workers as were asked for; no autoscaler is told of them."""

    def _send_resource_request(self) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass

    def _cancel_resource_request(self) -> None:
        pass
