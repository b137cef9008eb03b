"""The demo's base model, whose files are large: what the memory model counts with is read from it as it lies."""

from tests.service.planning.test_base_shapes import DEMO, shapes_at


async def test_the_demos_base_is_read_as_it_lies():
    shapes = await shapes_at(f"file://{DEMO}")
    assert shapes.width == 64
    assert (shapes.latent_side or 0) * shapes.pixels_per_latent == 64
    assert 8_000_000 < shapes.num_params < 10_000_000
    assert shapes.num_other_params > 0
