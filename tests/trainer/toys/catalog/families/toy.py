"""A toy family: a painter that hears words, with no tokenizer and no schedule."""

from lorafleet.catalog.family import Family, Part, PartKind

FACTS = Family(
    name="toy",
    title="Toy",
    pipeline="ToyPipeline",
    parts=(
        Part(name="coder", kind=PartKind.AUTOENCODER, classes=("ToyCoder",)),
        Part(name="reader", kind=PartKind.TEXT_ENCODER, classes=("ToyReader",), kohya_prefix="lora_reader", target_modules=("read",)),
        Part(name="painter", kind=PartKind.DENOISER, classes=("ToyPainter",), kohya_prefix="lora_painter", target_modules=("mix", "hear")),
    ),
    values_per_pixel=10,
    first_layer="conv_in",
    architecture="toy",
    kohya_version="toy",
)
