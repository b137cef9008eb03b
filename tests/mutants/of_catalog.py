"""The guards of the catalog: what a spec may name, and what it may not put together."""

GUARDS = (
    (
        "catalog: a name that it has not is refused",
        "lorafleet/spec_names.py",
        "if name not in names:",
        "if False:",
        "tests/lorafleet/test_spec_catalog.py",
    ),
    (
        "catalog: an optimizer that needs whole tensors is not cut",
        "lorafleet/spec_rules.py",
        "if zero_stage == 0 or OPTIMIZERS.get(optimizer).is_elementwise:",
        "if True:",
        "tests/lorafleet/test_spec_catalog.py",
    ),
    (
        "catalog: cached texts are of every text encoder",
        "trainer/prepare/style.py",
        "for part in (*self.family.text_encoders, *self.family.tokenizers)]",
        "for part in (*self.family.text_encoders[:1], *self.family.tokenizers)]",
        "tests/trainer/prepare/test_sdxl_base.py",
    ),
    (
        "catalog: cached texts are of every tokenizer",
        "trainer/prepare/style.py",
        "for part in (*self.family.text_encoders, *self.family.tokenizers)]",
        "for part in (*self.family.text_encoders, *self.family.tokenizers[:1])]",
        "tests/trainer/prepare/test_sdxl_base.py",
    ),
    (
        "catalog: cached latents are of the autoencoder",
        "trainer/prepare/style.py",
        'self.base.part_digest(f"{self.family.autoencoder.name}/"), pictures, *',
        '"", pictures, *',
        "tests/trainer/prepare/test_sdxl_base.py",
    ),
    (
        "catalog: a refiner is no base",
        "lorafleet/catalog/families/sdxl.py",
        "if whole == pooled + NUM_REFINER_IDS * width:",
        "if False:",
        "tests/trainer/prepare/test_sdxl_base.py",
    ),
    (
        "catalog: the text that a UNet takes is that of both encoders",
        "lorafleet/catalog/families/sdxl.py",
        "if all(text is not None for text in texts) and not parts.attends_to(",
        "if False and not parts.attends_to(",
        "tests/trainer/prepare/test_sdxl_base.py",
    ),
    (
        "catalog: adapters on text encoders are counted",
        "service/control/memory.py",
        "ends = family.targets(ask.target_modules, text_encoders=ask.text_encoder)",
        "ends = family.targets(ask.target_modules, text_encoders=False)",
        "tests/service/control/test_memory.py",
    ),
)
