"""The guards of Qwen-Image."""

GUARDS = (
    (
        "qwen_image: what is no text is not attended to",
        "trainer/families/qwen_image.py",
        'encoder_hidden_states_mask=conditioning["present"] > 0,',
        'encoder_hidden_states_mask=conditioning["present"] >= 0,',
        "tests/trainer/families/test_training.py",
    ),
    (
        "qwen_image: its autoencoder is sized by its own list",
        "service/planning/base_shapes.py",
        '"levels": family.autoencoder.levels}',
        '"levels": "block_out_channels"}',
        "tests/trainer/families/test_qwen_image.py",
    ),
)
