"""A base's shapes come from the headers of its files; one that cannot be read is no reason to fail."""

import json
from pathlib import Path

from service.base_shapes import READ_AGAIN_S, ShapeCache, read_shapes
from service.clock import FakeClock
from service.storage import Store

DEMO = Path(__file__).parents[2] / "examples" / "models" / "emoji-sd"


def write_safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    """The header alone: nobody reads further."""
    header = {"__metadata__": {"format": "pt"}, **{name: {"dtype": "F32", "shape": shape} for name, shape in shapes.items()}}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def write_base(folder: Path) -> str:
    """A base whose denoiser has 2 layers and 1,440 + 12 + 64 parameters."""
    shapes = {"conv_in.weight": [40, 4, 3, 3], "conv_in.bias": [12], "mid.attn1.to_q.weight": [8, 8]}
    write_safetensors(folder / "unet" / "diffusion_pytorch_model.safetensors", shapes)
    write_safetensors(folder / "vae" / "diffusion_pytorch_model.safetensors", {"a.weight": [3, 5]})
    (folder / "unet" / "config.json").write_text('{"sample_size": 16}')
    (folder / "vae" / "config.json").write_text('{"block_out_channels": [1, 2, 4]}')
    return f"file://{folder}"


async def test_the_headers_tell_layers_and_sizes(tmp_path: Path):
    shapes = await read_shapes(Store(), write_base(tmp_path))
    assert shapes.layers == {"conv_in": (40, 4, 3, 3), "mid.attn1.to_q": (8, 8)}
    assert (shapes.num_params, shapes.num_other_params) == (1440 + 12 + 64, 15)
    assert (shapes.width, shapes.latent_side, shapes.pixels_per_latent) == (40, 16, 4)


async def test_the_demos_base_is_read_as_it_lies():
    shapes = await read_shapes(Store(), f"file://{DEMO}")
    assert shapes.width == 64
    assert shapes.latent_side * shapes.pixels_per_latent == 64
    assert 8_000_000 < shapes.num_params < 10_000_000
    assert shapes.num_other_params > 0


async def test_a_base_that_cannot_be_read_is_unknown_and_asked_for_again_later(tmp_path: Path):
    clock = FakeClock()
    cache = ShapeCache(Store(), clock)
    uri = f"file://{tmp_path}"
    await cache.read([(uri, "")])
    assert cache.known(uri) is None

    write_base(tmp_path)
    await cache.read([(uri, "")])
    assert cache.known(uri) is None, "not with every step of a loop"
    clock.advance(READ_AGAIN_S)
    await cache.read([(uri, "")])
    assert cache.known(uri) is not None


async def test_bad_files_are_no_reason_to_raise(tmp_path: Path):
    uri = write_base(tmp_path)
    for name, text in (("unet/config.json", "[]"), ("unet/config.json", "{"), ("unet/diffusion_pytorch_model.safetensors", "x" * 50)):
        (tmp_path / name).write_text(text)
        cache = ShapeCache(Store(), FakeClock())
        await cache.read([(uri, "")])
        assert cache.known(uri) is None
        write_base(tmp_path)


async def test_what_is_known_is_not_read_again(tmp_path: Path):
    cache = ShapeCache(Store(), FakeClock())
    uri = write_base(tmp_path)
    await cache.read([(uri, "")])
    (tmp_path / "unet" / "config.json").unlink()
    await cache.read([(uri, "")])
    assert cache.known(uri) is not None
