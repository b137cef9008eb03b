"""A style goes on from an adapter of anyone's; one that does not fit is refused before the first step, and nobody else is."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorafleet.contract.layout import JobLayout
from lorafleet.errors import RunFailed
from tests.lorafleet.test_objective_rules import complaints
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group

pytestmark = pytest.mark.timeout(300)

proof = pytest.mark.proof

STILL: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-10, "weight_decay": 0.0}
FORMATS = {
    "diffusers": "first-pytorch_lora_weights.safetensors",
    "kohya": "first.safetensors",
    "peft": "first-peft",
    "comfyui": "first-comfyui.safetensors",
}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("starts"), group)


@pytest.fixture(scope="module")
def first(packs: Packs) -> str:
    """URI of the artifact of a trained job."""
    style = packs.style(
        "first", training={"learning_rate": 1e-2, "max_steps": 3}, output={"precision": "fp32", "formats": list(FORMATS), "name": "first"}
    )
    packs.train(style)
    return JobLayout(style.output_uri).adapter


def going_on(packs: Packs, name: str, uri: str, **adapter: Any) -> dict[str, Tensor]:
    """What the adapter is after a step that does not change it."""
    start = {"uri": uri, **adapter.pop("start", {})}
    ended = packs.train(packs.style(name, adapter={"start": start, **adapter}, training=STILL)).endings[job_of(name)]
    if isinstance(ended, RunFailed):
        raise ended
    return dict(packs.saved(name).weights)


def updates(weights: dict[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
    modules = {name.rpartition(".lora_")[0] for name in weights}
    return {module: scale * weights[f"{module}.lora_B.weight"] @ weights[f"{module}.lora_A.weight"] for module in modules}


def are_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], atol: float = 1e-7) -> bool:
    return ours.keys() == theirs.keys() and all(torch.allclose(ours[name], theirs[name], atol=atol) for name in ours)


@pytest.mark.parametrize("format", ["", "peft", *(pytest.param(each, marks=proof) for each in FORMATS if each != "peft")])
def test_it_begins_as_the_adapter_is_whatever_its_format(packs: Packs, first: str, format: str):
    found = going_on(packs, f"from-{format or 'job'}", f"{first}/{FORMATS[format]}" if format else first)
    assert are_close(found, dict(packs.saved("first").weights))


@proof
def test_a_resumed_job_goes_on_from_its_own_checkpoint_and_asks_for_no_start(packs: Packs, first: str, tmp_path: Path):
    path = tmp_path / "start.safetensors"
    path.write_bytes((Path(first.removeprefix("file://")) / FORMATS["kohya"]).read_bytes())
    fields: dict[str, Any] = {"adapter": {"start": {"uri": f"file://{path}"}}}
    packs.train(packs.style("whole", **fields))
    with pytest.raises(Killed):
        packs.train(packs.style("killed", **fields), recorder=dies_at(job_of("killed"), 5))
    path.unlink()
    assert packs.train(packs.style("killed", **fields)).resumed_from == {job_of("killed"): 3}
    assert_same_bits(packs.saved("whole"), packs.saved("killed"))


def test_one_that_does_not_fit_fails_alone(packs: Packs, first: str):
    wrong = packs.style("wrong", adapter={"rank": 4, "start": {"uri": first}}, training=STILL)
    good = packs.style("good", adapter={"start": {"uri": first}}, training=STILL)
    ended = packs.train(wrong, good, packs.style("plain", training=STILL)).endings
    assert ended[job_of("good")] == ended[job_of("plain")] == "succeeded"
    failed = ended[job_of("wrong")]
    assert isinstance(failed, RunFailed)
    assert failed.reason == "START_NOT_USABLE"
    assert "has rank 2 on unet." in failed.message
    assert "adapter.rank is 4: write the file's, or set adapter.start.resize" in failed.message
    assert are_close(dict(packs.saved("good").weights), dict(packs.saved("first").weights))


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"alpha": 1.0}, "is scaled by 1 on unet.*, by 0.5 here: set adapter.alpha to 2, or set adapter.start.resize"),
        pytest.param({"method": "dora"}, "is lora on .*, and adapter.method is dora", marks=proof),
        ({"target_modules": ["to_q"]}, r"has unet\..*to_v, which is not trained here: name it in adapter.target_modules"),
    ],
)
def test_what_differs_is_named(packs: Packs, first: str, adapter: dict[str, Any], said: str):
    with pytest.raises(RunFailed, match=said):
        going_on(packs, "differs" + "".join(adapter), first, **adapter)


@proof
def test_a_file_of_another_base_is_told_by_its_sizes(packs: Packs, first: str, tmp_path: Path):
    file = load_file(Path(first.removeprefix("file://")) / FORMATS["kohya"])
    name = next(name for name in file if name.endswith("lora_down.weight"))
    save_file({**file, name: torch.ones(2, 5)}, tmp_path / "other.safetensors")
    with pytest.raises(RunFailed, match=r"has another A on unet.* than this base needs, \[2, 5\], not \[2, "):
        going_on(packs, "other-base", f"file://{tmp_path}/other.safetensors")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("none.safetensors", None, "there is no such file"),
        ("none", None, "no such folder, or it is empty"),
        ("half.safetensors", b"12345678", "cut short"),
        ("two/a.safetensors", b"", "holds several adapters, a.safetensors, b.safetensors: name one"),
    ],
)
def test_what_is_no_adapter_is_refused_by_name(packs: Packs, tmp_path: Path, name: str, data: bytes | None, said: str):
    if data is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    uri = f"file://{tmp_path}/{name}"
    if name.startswith("two"):
        (tmp_path / "two" / "b.safetensors").write_bytes(b"")
        uri = f"file://{tmp_path}/two"
    with pytest.raises(RunFailed, match=said) as caught:
        going_on(packs, f"bad-{Path(name).stem}-{len(said)}", uri)
    assert caught.value.message.startswith(f"adapter.start.uri: {uri}: ")


# Resized


def test_a_larger_rank_adds_what_training_begins_with_and_changes_nothing(packs: Packs, first: str):
    found = going_on(packs, "larger", first, rank=4, start={"resize": True})
    assert are_close(updates(found), updates(dict(packs.saved("first").weights)))
    for name, tensor in found.items():
        assert tensor.isfinite().all()
        if "lora_A" in name:
            assert tensor[2:].abs().max() > 0
            assert torch.linalg.matrix_rank(tensor) == 4


def test_a_smaller_rank_is_the_nearest_and_says_how_near(packs: Packs, first: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "lorafleet.pack"):
        found = updates(going_on(packs, "smaller", first, rank=1, start={"resize": True}))
    whole = updates(dict(packs.saved("first").weights))
    missed = torch.stack([torch.linalg.svdvals(update.double())[1:].pow(2).sum() for update in whole.values()]).sum().sqrt()
    error = float(torch.cat([(whole[name] - found[name]).flatten() for name in whole]).double().norm())
    assert error == pytest.approx(float(missed), rel=1e-3)
    share = float(missed / torch.cat([update.flatten() for update in whole.values()]).double().norm())
    assert f"{100 * share:.3g} % are left out" in caplog.text


@proof
def test_another_scale_goes_into_the_weights(packs: Packs, first: str):
    for method, scale in (("lora", 0.5), ("rslora", 2**-0.5)):
        found = going_on(packs, f"scaled-{method}", first, method=method, alpha=1.0, start={"resize": True})
        assert are_close(updates(found, scale), updates(dict(packs.saved("first").weights)), atol=1e-6)


@proof
def test_lycoris_goes_on_as_what_it_is_or_as_the_nearest_lora(packs: Packs):
    adapter: dict[str, Any] = {"method": "loha", "rank": 2}
    style = packs.style("loha", adapter=adapter, training={"learning_rate": 1e-2, "max_steps": 3}, output={"precision": "fp32"})
    packs.train(style)
    uri, trained = JobLayout(style.output_uri).adapter, dict(packs.saved("loha").weights)
    assert are_close(going_on(packs, "loha-again", uri, **adapter), trained)
    nearest = updates(going_on(packs, "loha-as-lora", uri, rank=4, start={"resize": True}))
    for module, update in nearest.items():
        first, second = (trained[f"{module}.hada_{each}_a"] @ trained[f"{module}.hada_{each}_b"] for each in ("w1", "w2"))
        assert torch.allclose(update, first * second, atol=1e-6)


# In specs


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"start": {"uri": "file:///a/lora.ckpt"}}, "pickled"),
        ({"start": {"uri": "file:///a", "resize": True}, "method": "loha"}, "resize makes the nearest LoRA"),
        ({"start": {"uri": "file:///a", "resize": True}, "method": "dora"}, "resize makes the nearest LoRA"),
    ],
)
def test_a_start_that_cannot_be_is_refused_in_the_spec(adapter: dict[str, Any], said: str):
    found = complaints(adapter=adapter)
    assert list(found) == ["adapter.start"]
    assert said in found["adapter.start"]


def test_a_spec_without_one_is_stored_as_before(packs: Packs):
    assert "start" not in json.loads(packs.style("plain").spec.model_dump_json())["adapter"]
