"""Adapter files of others and ours are read for what they are; what is wrong with one is said, with its name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from lorafleet.catalog import FAMILIES, file_names
from tests.trainer.adapters.files import made
from tests.trainer.families.published_unets import UNETS
from tests.trainer.families.real_adapter import layers_of
from tests.trainer.families.rows import ROWS
from tests.trainer.sdxl.kohya_names import kohya_name
from trainer.adapters.files.reading import read_path
from trainer.adapters.files.sources import Unreadable
from trainer.adapters.formats.diffusers import diffusers_file

PATH = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = f"lora_unet_{PATH.replace('.', '_')}"
UP_DOWN = {"lora_down.weight": torch.ones(2, 8), "lora_up.weight": torch.ones(8, 2), "alpha": torch.tensor(1.0)}


def flat(name: str = FLAT, **other: Tensor) -> dict[str, Tensor]:
    return {f"{name}.{end}": tensor.clone() for end, tensor in {**UP_DOWN, **other}.items()}


# Names


@pytest.mark.parametrize("family", ROWS)
def test_kohyas_names_of_the_published_models_are_read(family: str):
    names, published = file_names.of(family), ROWS[family].published
    assert names is not None
    assert published is not None
    for name, ours in published().items():
        assert names.from_kohya[name.removeprefix("lora_unet_")] == tuple(module.removeprefix("transformer.") for module in ours), name


@pytest.mark.parametrize("family", UNETS)
def test_names_of_the_published_unets_are_read_however_they_are_written(family: str):
    names, real = file_names.of(family), UNETS[family]
    assert names is not None
    for module in layers_of(real.denoiser()):
        theirs = kohya_name(f"unet.{module}", real.config).removeprefix("lora_unet_")
        assert names.from_kohya[theirs] == names.from_kohya[module.replace(".", "_")] == (module,)
        assert names.original[module].replace(".", "_") == theirs
        assert names.from_original[names.original[module]] == (module,)


# Formats


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("family", made.FAMILY_NAMES)
def test_what_the_trainer_writes_is_read_as_it_was_trained(family: str, method: str):
    trained = made.weights(family, method)
    for write in (made.kohya, made.diffusers):
        found = made.read(write(family, trained, method=method, alpha=2.0), family)
        assert made.same(made.named(found), trained)
        assert {module.scaling for module in found.modules} == {1.0}
        assert found.methods == (method,)
        assert {module.rank for module in found.modules} == {made.RANK}


@pytest.mark.parametrize("family", made.FAMILY_NAMES)
def test_kohyas_file_tells_its_family_and_its_alpha(family: str):
    found = made.read(made.kohya(family, made.weights(family), alpha=3.0))
    assert (found.format, found.families) == ("kohya", (family,))
    assert {module.scaling for module in found.modules} == {1.5}


def test_sdxl_is_told_by_its_names_alone():
    file = flat("lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q") | flat("lora_te2_text_model_encoder_layers_0_mlp_fc1")
    found = made.read(save(file))
    assert found.families == ("sdxl",)
    assert [module.paths for module in found.modules] == [
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1",),
        ("unet.down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q",),
    ]


@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (1024, "sd2"), (2048, "sdxl")])
def test_unets_with_the_same_names_are_told_apart_by_the_text_that_they_see(width: int, family: str):
    name = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    found = made.read(save({f"{name}.lora_A.weight": torch.ones(2, width), f"{name}.lora_B.weight": torch.ones(640, 2)}))
    assert found.families == (family,)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"unet.{PATH}.lora.down.weight", f"unet.{PATH}.lora.up.weight"),
        (f"unet.{PATH}.lora_linear_layer.down.weight", f"unet.{PATH}.lora_linear_layer.up.weight"),
        (
            f"unet.{PATH.replace('.to_q', '.processor.to_q_lora')}.down.weight",
            f"unet.{PATH.replace('.to_q', '.processor.to_q_lora')}.up.weight",
        ),
        (f"base_model.model.{PATH}.lora_A.default.weight", f"base_model.model.{PATH}.lora_B.default.weight"),
        (f"{PATH}.lora_A.weight", f"{PATH}.lora_B.weight"),
        (
            "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.lora_A.weight",
            "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.lora_B.weight",
        ),
    ],
)
def test_names_of_older_and_other_writers_are_read(down: str, up: str):
    found = made.read(save({down: torch.ones(2, 8), up: torch.ones(8, 2)}), "sd1")
    assert [(module.paths, module.rank, module.alpha) for module in found.modules] == [((f"unet.{PATH}",), 2, 2.0)]


def test_pefts_folder_says_what_each_module_is_scaled_by(tmp_path: Path):
    names = {path: f"base_model.model.down_blocks.0.attentions.{path}.transformer_blocks.0.attn1.to_q" for path in "01"}
    file = {f"{name}.lora_A.weight": torch.ones(4, 8) for name in names.values()} | {
        f"{name}.lora_B.weight": torch.ones(8, 4) for name in names.values()
    }
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "alpha_pattern": {"attentions.1.transformer_blocks.0.attn1.to_q": 2},
    }
    (tmp_path / "adapter_model.safetensors").write_bytes(save(file))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        found = read_path(path, "sd1")
        assert [module.scaling for module in found.modules] == [8 / 2, 2 / 2]


@pytest.mark.parametrize(
    ("method", "tensors", "rank"),
    [
        (
            "loha",
            {f"hada_{side}": torch.ones(8, 3) if side.endswith("a") else torch.ones(3, 8) for side in ("w1_a", "w1_b", "w2_a", "w2_b")},
            3,
        ),
        ("lokr", {"lokr_w1": torch.ones(2, 2), "lokr_w2_a": torch.ones(4, 3), "lokr_w2_b": torch.ones(3, 4)}, 3),
        ("oft", {"oft_blocks": torch.zeros(2, 4, 4)}, 4),
    ],
)
def test_lycoris_methods_are_read_as_such(method: str, tensors: dict[str, Tensor], rank: int):
    found = made.read(save({**{f"{FLAT}.{end}": tensor for end, tensor in tensors.items()}, f"{FLAT}.alpha": torch.tensor(1.5)}), "sd1")
    (module,) = found.modules
    assert (module.method, module.rank, module.alpha) == (method, rank, 1.5)
    assert len(module.tensors) == len(tensors)


def test_a_magnitude_for_each_input_is_not_taken_for_one_of_outputs():
    of_outputs = made.read(save(flat(dora_scale=torch.ones(8, 1))), "sd1").modules[0]
    of_inputs = made.read(save(flat(dora_scale=torch.ones(1, 8))), "sd1").modules[0]
    assert (of_outputs.tensors["magnitude"].shape, of_inputs.tensors["magnitude"].shape) == ((8,), (1, 8))


def test_a_layer_that_was_trained_as_one_is_cut_into_ours():
    a, b = torch.randn(3, 8), torch.randn(24, 3)
    file = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": a, "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": b}
    found = made.read(save(file), "flux")
    assert [module.path.rpartition(".")[2] for module in found.modules] == ["to_k", "to_q", "to_v"]
    for module, at in zip(found.modules, (8, 0, 16), strict=True):
        assert torch.equal(module.tensors["A"], a)
        assert torch.equal(module.tensors["B"], b[at : at + 8])


# What is wrong


def damaged(file: dict[str, Tensor], change: Callable[[bytes], bytes]) -> bytes:
    return change(save(file))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (save(flat() | {"emb_params": torch.ones(2)}), "emb_params: no name of an adapter's tensors"),
        (save(flat() | {f"{FLAT}2.oft_diag": torch.ones(2)}), "oft_diag: the older OFT"),
        (save({name: tensor for name, tensor in flat().items() if "up" not in name}), "half an adapter: B is missing"),
        (save({f"{FLAT}.alpha": torch.tensor(1.0)}), "half an adapter"),
        (save(flat(**{"lora_up.weight": torch.full((8, 2), torch.nan)})), "lora_up.weight has numbers that are not finite"),
        (save(flat(**{"lora_down.weight": torch.ones(0, 8), "lora_up.weight": torch.ones(8, 0)})), "has rank 0"),
        (save(flat(**{"lora_up.weight": torch.ones(8, 3)})), "A's outputs are not B's inputs"),
        (save(flat() | {f"unet.{PATH}.lora_A.weight": torch.ones(2, 8)}), "names of several formats"),
        (save(flat(hada_w1_a=torch.ones(8, 2))), "has tensors of"),
        (save(flat(f"{FLAT}_nowhere")), f"modules of no known family, such as {FLAT.removeprefix('lora_unet_')}_nowhere"),
        (damaged(flat(), lambda data: data[:-8]), "cut short"),
        (damaged(flat(), lambda data: data[:20]), "header is not whole"),
        (b"PK\x03\x04" + bytes(100), "is pickled, and nothing is unpickled"),
        (b"\x80\x02" + b"\xff" * 100, "is pickled, and nothing is unpickled"),
        (save({f"{FLAT}.lora_down.weight": torch.ones(2, 8, dtype=torch.int8)}), "adapters are read in fp32, fp16 and bf16"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(data: bytes, said: str):
    with pytest.raises(Unreadable, match=r"lora\.safetensors") as error:
        made.read(data)
    assert said in str(error.value)


def test_a_file_of_another_family_than_it_is_said_to_be_of_is_told():
    with pytest.raises(Unreadable, match=r"no adapter of flux: its modules are those of .*sd1"):
        made.read(save(flat()), "flux")


def test_half_a_folder_of_pefts_and_pickled_weights_are_refused(tmp_path: Path):
    with pytest.raises(Unreadable, match=r"has no adapter_config\.json and adapter_model\.safetensors"):
        read_path(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(Unreadable, match="half an adapter of PEFT"):
        read_path(tmp_path)
    (tmp_path / "lora.ckpt").write_bytes(b"")
    with pytest.raises(Unreadable, match="pickled"):
        read_path(tmp_path / "lora.ckpt")


def test_a_family_whose_modules_are_not_known_stands_in_nobodys_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORAFLEET_EXTENSIONS", "tests.trainer.toys")
    assert "toy" in FAMILIES.names()
    assert made.read(save(flat())).families == ("sd1", "sd2", "sdxl")


@pytest.mark.parametrize("place", [1, 2], ids=["without attention", "after it"])
def test_a_unet_is_read_whichever_of_its_blocks_have_attention(tmp_path: Path, place: int):
    """What enlarges is the last thing in its block. Levels of one residual layer, as the demo's base of SDXL's kind has them."""
    kernels = {"lora_down.weight": torch.ones(2, 8, 3, 3), "lora_up.weight": torch.ones(8, 2, 1, 1)}
    names = [f"lora_unet_output_blocks_{rest}" for rest in (f"1_{place}_conv", "0_0_in_layers_2", "4_0_in_layers_2")]
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({name: tensor for each in names for name, tensor in flat(each, **kernels).items()}))
    modules = {module.paths[0] for module in read_path(path, "sdxl").modules}
    assert modules == {"unet.up_blocks.0.upsamplers.0.conv", "unet.up_blocks.0.resnets.0.conv1", "unet.up_blocks.2.resnets.0.conv1"}


def test_our_own_file_of_diffusers_says_of_which_family_it_is(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(diffusers_file(made.weights("sdxl"), made.asked("sdxl")))
    assert read_path(path).families == ("sdxl",)
