"""The guards of adapter files: what is read, what is written, and what a job may go on from."""

GUARDS = (
    (
        "adapter files: numbers that are none are refused",
        "trainer/adapters/files/sources.py",
        "if not bool(values.isfinite().all())",
        "if False",
        "tests/trainer/adapters/files/test_reading.py",
    ),
    (
        "adapter files: names of two formats are refused",
        "trainer/adapters/files/reading.py",
        "if len(formats) > 1:",
        "if len(formats) > 2:",
        "tests/trainer/adapters/files/test_reading.py",
    ),
    (
        "adapter files: a scale goes into the weights only if it can be taken out again",
        "trainer/adapters/files/writing.py",
        " and torch.equal(scaled / module.scaling, stored)",
        "",
        "tests/trainer/adapters/files/test_writing.py",
    ),
    (
        "start: an adapter that is gone on from needs a grant",
        "service/jobs/jobs.py",
        "*parts, *data, *start, *merged]",
        "*parts, *data, *merged]",
        "tests/service/jobs/test_creation.py",
    ),
    (
        "start: another rank is refused",
        "trainer/adapters/start.py",
        "if module.rank != adapter.rank and",
        "if False and",
        "tests/trainer/pack/test_start.py",
    ),
    (
        "start: a checkpoint wins",
        "trainer/pack/run.py",
        "given = None if saved is not None else ",
        "given = ",
        "tests/trainer/pack/test_start.py",
    ),
    (
        "plain LoRA: its error is what it leaves out of the updates",
        "trainer/adapters/plain_lora.py",
        "left_out, whole = left_out + found.left_out**2, whole",
        "left_out, whole = left_out, whole",
        "tests/trainer/adapters/test_plain_lora.py",
    ),
    (
        "plain LoRA: of a T-LoRA it is the mean over times",
        "trainer/adapters/plain_lora.py",
        "LowRank(scale * b * kept, a)",
        "LowRank(scale * b, a)",
        "tests/trainer/adapters/test_plain_lora.py",
    ),
    (
        "plain LoRA: of quantised weights there is none that is made of them",
        "lorafleet/spec_output_rules.py",
        "or facts.adds or",
        "or True or",
        "tests/lorafleet/test_output_rules.py",
    ),
    (
        "adapter files: ComfyUI's names go by the base's layers",
        "trainer/adapters/formats/others.py",
        "spec.family.name), num_layers=num_layers)",
        "spec.family.name))",
        "tests/trainer/test_artifact_files.py",
    ),
)
