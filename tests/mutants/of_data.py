"""The guards of what is made of a data set on its way into a step: latents, masks, the pictures that keep what a base knows."""

GUARDS = (
    (
        "data: sampled latents are drawn by keys",
        "trainer/objectives/draws.py",
        "return mode + deviation * _normals(key, examples)(Purpose.LATENTS, tuple(mode.shape[1:]))",
        "return mode + deviation * mode.new_empty(mode.shape).normal_()",
        "tests/trainer/objectives/test_sampled_latents.py",
    ),
)
