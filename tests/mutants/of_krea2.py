"""The guards of Krea 2."""

GUARDS = (
    (
        "krea2: adapters can tell whose token is whose while layers are fused",
        "trainer/families/krea2.py",
        "return by_rows(super().load(part, base, how))",
        "return super().load(part, base, how)",
        "tests/trainer/families/test_rows.py",
    ),
    (
        "krea2: what is no text is not attended to",
        "trainer/families/krea2.py",
        'encoder_attention_mask=conditioning["present"] > 0,',
        'encoder_attention_mask=conditioning["present"] >= 0,',
        "tests/trainer/families/test_krea2.py",
    ),
    (
        "krea2: what is behind a prompt is placed right behind it",
        "trainer/families/krea2.py",
        "(there.cumsum(dim=1) - 1).clamp(min=0)",
        "torch.ones_like(there).cumsum(dim=1)",
        "tests/trainer/families/test_krea2.py",
    ),
    (
        "krea2: a base that reads other layers is refused",
        "trainer/families/krea2.py",
        "if index.get(name, published) not in (published, None):",
        "if False:",
        "tests/trainer/families/test_krea2.py",
    ),
    (
        "a base's index may hold settings that are lists of numbers",
        "trainer/prepare/base_config.py",
        "return bool(value) and all(type(each) in (int, float) for each in value)",
        "return False",
        "tests/trainer/prepare/test_base_model.py",
    ),
)
