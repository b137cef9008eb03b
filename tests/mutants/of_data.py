"""The guards of what is made of a data set on its way into a step: latents, masks, the pictures that keep what a base knows."""

GUARDS = (
    (
        "data: sampled latents are drawn by keys",
        "trainer/objectives/draws.py",
        "return mode + deviation * _normals(key, examples)(Purpose.LATENTS, tuple(mode.shape[1:]))",
        "return mode + deviation * mode.new_empty(mode.shape).normal_()",
        "tests/trainer/objectives/test_sampled_latents.py",
    ),
    (
        "data: a mask is as large as its picture",
        "trainer/data/readers.py",
        "if (decoded.width, decoded.height) != (picture.width, picture.height):",
        "if False:",
        "tests/trainer/data/test_masks.py",
    ),
    (
        "data: a mask that is empty is no mask",
        "trainer/data/masks.py",
        "    if box is None:",
        "    if False:",
        "tests/trainer/data/test_masks.py",
    ),
    (
        "data: masks are cropped as their pictures are",
        "trainer/prepare/fitted_masks.py",
        ", box=visible(whole.width, whole.height, bucket))",
        ")",
        "tests/trainer/prepare/test_fitted_masks.py",
    ),
    (
        "data: masks that are not normalised teach by their share",
        "trainer/objectives/masking.py",
        "return 1.0 if self.is_normalised else",
        "return 1.0 if True else",
        "tests/trainer/objectives/test_masking.py",
    ),
    (
        "data: a style without masks keeps its bits beside one with masks",
        "trainer/pack/batch.py",
        "masks = self.masks[only] if is_masked and self.masks is not None else None",
        "masks = self.masks[only] if self.masks is not None else None",
        "tests/trainer/pack/test_masks.py",
    ),
    (
        "data: pictures of the regularisation set count their weight",
        "trainer/pack/member.py",
        "prior.weight if self.style.crops[each.sample].is_prior else 1.0",
        "1.0",
        "tests/trainer/pack/test_prior.py",
    ),
    (
        "data: no picture is enlarged for a larger resolution",
        "trainer/prepare/crops.py",
        "if number == 0 or (picture.width",
        "if True or (picture.width",
        "tests/trainer/prepare/test_crops.py",
    ),
    (
        "data: a regularisation set needs its grant",
        "service/jobs/jobs.py",
        'data = [Use(f"dataset.{field}", uri) for field, uri in spec.dataset.uris]',
        'data = [Use("dataset.uri", spec.dataset.uri)]',
        "tests/service/jobs/test_creation.py",
    ),
    (
        "data: a mask is no picture, though metadata may name it",
        "trainer/data/readers.py",
        "there.unreadable.keys() | (masked.masks if masked is not None else frozenset[str]())",
        "there.unreadable.keys()",
        "tests/trainer/data/test_masks.py",
    ),
)
