"""The guards of Z-Image, and of files that not every program reads."""

GUARDS = (
    (
        "zimage: what is no text is not attended to",
        "trainer/families/_zimage_rows.py",
        "seen = torch.arange(text.shape[1], device=text.device) < padded[:, None]",
        "seen = torch.arange(text.shape[1], device=text.device) < 10_000 * padded[:, None]",
        "tests/trainer/families/test_zimage.py",
    ),
    (
        "zimage: a base's template is not run",
        "trainer/families/zimage.py",
        "found.chat_template = CHAT.template",
        "pass",
        "tests/trainer/families/test_zimage.py",
    ),
    (
        "sd3: only the last block has its halves exchanged",
        "lorafleet/catalog/mmdit.py",
        "transformer_blocks.{max(numbers)}.norm1_context.linear",
        "norm1_context.linear",
        "tests/trainer/families/test_sd3.py",
    ),
    (
        "the card recommends no file that its program does not read",
        "trainer/artifact.py",
        'wrong |= set() if is_read else {"kohya"}',
        "",
        "tests/trainer/families/test_sd3.py",
    ),
)
