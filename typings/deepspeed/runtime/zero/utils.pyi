from torch import Tensor
from typing_extensions import TypeIs

class _PartitionTensor(Tensor):  # this rank's part, padded so that all parts are of one size
    ds_numel: int

class _PartitionedTensor(Tensor):  # what ZeRO 3 makes of a parameter
    ds_tensor: _PartitionTensor

def is_zero_param(parameter: Tensor) -> TypeIs[_PartitionedTensor]: ...
