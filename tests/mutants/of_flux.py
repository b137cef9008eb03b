"""The guards of FLUX.1's kin, and of files whose model has several of our layers as one."""

FILES = "tests/trainer/families/test_published_names.py"
FLUX = "tests/trainer/families/test_flux.py"
GUARDS = (
    (
        "flux: a fused layer's outputs lie where those of its own modules do, whichever have adapters",
        "trainer/adapters/methods/lora.py",
        "torch.zeros(layer, 0) if isinstance(layer, int)",
        "torch.zeros(0, 0) if isinstance(layer, int)",
        FILES,
    ),
    (
        "flux: a fused layer keeps the scale of its modules' adapters",
        "trainer/adapters/formats/fused.py",
        "sum(layer.rank for layer in layers_there)",
        "layers_there[0].rank",
        FILES,
    ),
    (
        "flux: the last modulation's halves are exchanged in files",
        "trainer/adapters/formats/fused.py",
        "if path in found and is_target(module, swapped):",
        "if False:",
        FILES,
    ),
    (
        "flux: a method that cannot be fused is told before the first step",
        "trainer/prepare/spec_on_base.py",
        "if method.fusing in (Fusing.NEVER, Fusing.APART) or (method.fusing is Fusing.WHOLE and len(trained) < len(modules)):",
        "if False:",
        FLUX,
    ),
    (
        "flux: schnell is told no strength of guidance",
        "trainer/families/flux.py",
        "if transformer.config.guidance_embeds else None",
        "if True else None",
        FLUX,
    ),
    (
        "flux: schnell reads 256 tokens",
        "lorafleet/catalog/families/flux.py",
        "SCHNELL_TOKENS if _is_schnell(configs) else DEV_TOKENS",
        "DEV_TOKENS",
        FLUX,
    ),
    (
        "flux: a distilled base trains with a warning",
        "trainer/prepare/pack.py",
        "for caution in ready.cautions:",
        "for caution in ():",
        "tests/trainer/families/test_cautions.py",
    ),
    (
        "flux2: a base's chat template is not run",
        "trainer/families/flux2.py",
        "if self.facts.part(part).kind is PartKind.TOKENIZER:",
        "if False:",
        "tests/trainer/families/test_flux2.py",
    ),
    (
        "flux2: dev is no klein",
        "lorafleet/catalog/families/flux2.py",
        'if {**_TRANSFORMER, **config}["guidance_embeds"] is not False:',
        "if False:",
        "tests/trainer/families/test_bases.py",
    ),
    (
        "chroma: padding is masked",
        "trainer/families/chroma.py",
        'conditioning["seen"] > 0',
        'conditioning["seen"] >= 0',
        "tests/trainer/families/test_training.py",
    ),
    (
        "flow: what is of noise schedules is refused of flow matching",
        "lorafleet/spec_rules.py",
        "if not value or family is None or FAMILIES.get(family).objective == objectives.DIFFUSION:",
        "if True:",
        "tests/trainer/families/test_bases.py",
    ),
)
