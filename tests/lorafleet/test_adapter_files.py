"""What an adapter file is, is told by names and shapes alone; and numbers that are not finite are found."""

import struct
from math import inf, nan

import pytest

from lorafleet.adapter_files.described import described
from lorafleet.adapter_files.finite import all_finite
from lorafleet.errors import InvalidInput
from tests.service.registry.files import OURS, Q, kohya_tensors, peft_tensors


def shapes(tensors: dict) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in tensors.items()}


def test_kohyas_diffusers_and_pefts_files_are_told_apart():
    for tensors, format in (
        (kohya_tensors(8), "kohya"),
        ({f"{OURS}.lora_A.weight": [8, 768], f"{OURS}.lora_B.weight": [320, 8]}, "diffusers"),
        (peft_tensors(8), "peft"),
    ):
        found = described(shapes(tensors), {})
        assert (found.format, found.families, found.method, found.rank) == (format, ("sd1",), "lora", 8)


@pytest.mark.parametrize(
    ("tensors", "method", "rank"),
    [
        ({"lora_down.weight": (4, 768), "lora_up.weight": (320, 4), "dora_scale": (320, 1)}, "dora", 4),
        ({"hada_w1_a": (320, 4), "hada_w1_b": (4, 768), "hada_w2_a": (320, 4), "hada_w2_b": (4, 768)}, "loha", 4),
        ({"lokr_w1": (16, 24), "lokr_w2_a": (20, 4), "lokr_w2_b": (4, 32)}, "lokr", 4),
        ({"oft_blocks": (40, 8, 8)}, "oft", 8),
    ],
)
def test_methods_are_told_by_their_tensors(tensors: dict[str, tuple[int, ...]], method: str, rank: int):
    found = described({f"{Q}.{role}": shape for role, shape in tensors.items()}, {"ss_base_model_version": "sd_v1"})
    assert (found.method, found.rank) == (method, rank)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({f"{Q}.weight": (3,), "what": (1,)}, f"{Q}.weight, what: no name of an adapter's tensors"),
        ({f"{Q}.diff": (3,)}, "whole weights"),
        ({f"{Q}.lora_down.weight": (0, 768), f"{Q}.lora_up.weight": (320, 0)}, "rank 0"),
        ({f"{Q}.lora_down.weight": (5, 768)}, "do not fit"),
        ({f"{Q}.lora_up.weight": None}, "half an adapter: B is missing"),
        ({f"{Q}.lora_mid.weight": (4,)}, "do not fit"),
        ({f"{Q}.hada_w1_a": (3, 3)}, "tensors of lora and of loha"),
        ({f"{OURS}.lora_A.weight": (4, 768)}, "several formats"),
    ],
)
def test_what_is_wrong_is_told_by_name(changes: dict[str, tuple[int, ...] | None], told: str):
    tensors = {name: shape for name, shape in {**shapes(kohya_tensors()), **changes}.items() if shape is not None}
    with pytest.raises(InvalidInput) as refused:
        described(tensors, {})
    assert told in refused.value.message


def test_a_file_of_another_family_and_of_none_are_refused():
    with pytest.raises(InvalidInput, match="no adapter of flux: its modules are those of sd1"):
        described(shapes(kohya_tensors()), {}, "flux")
    odd = {name.replace("attn2", "attn9"): shape for name, shape in shapes(kohya_tensors()).items()}
    with pytest.raises(InvalidInput, match=r"no known family, such as .*attn9"):
        described(odd, {})


@pytest.mark.parametrize(("dtype", "code"), [("F16", "e"), ("F32", "f"), ("F64", "d")])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(dtype: str, code: str):
    for num in (1, 7, 70_000):
        good = [-1.0, 0.0, 65504.0, -65504.0, 6e-8][:num] + [1.5] * max(0, num - 5)
        assert all_finite(dtype, memoryview(struct.pack(f"<{num}{code}", *good)))
        for bad in (nan, inf, -inf):
            for place in (0, num // 2, num - 1):
                data = struct.pack(f"<{num}{code}", *good[:place], bad, *good[place + 1 :])
                assert not all_finite(dtype, memoryview(data))


def test_bfloat16_is_looked_at_too():
    assert all_finite("BF16", memoryview(bytes.fromhex("7f7f ff7f 7f7f 807f".replace("ff7f", "7fff").replace("807f", "0080"))))
    for bad in ("807f", "80ff", "c07f", "ffff"):
        assert not all_finite("BF16", memoryview(bytes.fromhex("0000" + bad + "803f")))
