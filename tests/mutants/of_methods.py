"""The guards of adapter methods: same bits at every slot, scales and norms that readers agree on, ranks by noise, files named apart."""

GUARDS = (
    (
        "lokr: a small matrix fills whole cache lines, so that its gradient is the same at every slot",
        "trainer/adapters/layers.py",
        "    if not missing:\n",
        "    if True:\n",
        "tests/trainer/adapters/test_bits.py",
    ),
    (
        "lycoris files: the scaling is in a tensor, and alpha is the rank",
        "trainer/adapters/methods/lycoris_files.py",
        "factor = file.scaling * file.rank / alpha.float()",
        "factor = torch.ones(())",
        "tests/trainer/adapters/test_lycoris_files.py",
    ),
    (
        "lokr: layers that are one in the file are named apart",
        "trainer/adapters/formats/kohya.py",
        "if module in apart else",
        "if False else",
        "tests/trainer/adapters/test_lycoris_files.py",
    ),
    (
        "oft: no reader holds it to a norm below its own",
        "trainer/adapters/methods/oft.py",
        "torch.tensor(2.0 ** max(0, int(log2(norm)) + 2) if norm else 1.0)",
        "torch.tensor(0.0)",
        "tests/trainer/adapters/test_oft.py",
    ),
    (
        "oft: what dropout took is not turned",
        "trainer/adapters/methods/oft.py",
        "if slots.is_dropped:",
        "if False:",
        "tests/trainer/adapters/test_oft.py",
    ),
    (
        "tlora: each row of a pass has its own noise",
        "trainer/adapters/bank.py",
        "self.noise = shares if len(shares) == 1 else self.paired(shares[self.rows(len(shares))])",
        "self.noise = shares[:1]",
        "tests/trainer/adapters/test_tlora.py",
    ),
    (
        "tlora: nothing is left on a denoiser that others use",
        "trainer/adapters/model.py",
        "            handle.remove()",
        "            pass",
        "tests/trainer/adapters/test_tlora.py",
    ),
    (
        "method formats: what diffusers does not load is refused",
        "lorafleet/spec_output_rules.py",
        'if "diffusers" not in formats or METHODS.get(method).diffusers_loads(family):',
        "if True:",
        "tests/lorafleet/test_method_rules.py",
    ),
    (
        "presets: PEFT is told whole names where a preset has stars",
        "trainer/adapters/formats/diffusers.py",
        'if not any("*" in name for name in modules):',
        "if True:",
        "tests/trainer/families/test_presets.py",
    ),
)
