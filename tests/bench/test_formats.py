"""What is said of programs and adapter files is what `make bench-formats` measured, and docs/formats.md is made of that."""

import json

from bench.formats_document import DOCUMENT, FORMATS, RESULTS, document
from lorafleet import adapter_readers
from lorafleet.catalog import FAMILIES, METHODS

FIGURES = {key: value for key, value in json.loads(RESULTS.read_text()).items() if isinstance(value, int | float)}


def test_the_document_is_made_of_the_figures():
    assert DOCUMENT.read_text() == document(FIGURES)


def test_programs_are_said_to_load_what_they_were_measured_to_load():
    compared = 0
    for family in FAMILIES.all():
        for method in METHODS.names():
            for file_format in FORMATS:
                program = "peft" if file_format == "peft" else "diffusers"
                if (measured := FIGURES.get(f"{family.name}_{method}_{file_format}_{program}_loads")) is None:
                    continue
                said = adapter_readers.of_file(family, file_format, (method,))
                verdict = next(each for each in said if each.program.lower().startswith(program))
                assert (verdict.loads == adapter_readers.YES) == bool(measured), (family.name, method, file_format)
                assert (verdict.loads == adapter_readers.YES) == (not verdict.why)
                compared += 1
    assert compared > 100


def test_files_that_are_written_draw_and_merge_as_trained():
    for key, value in FIGURES.items():
        if key.endswith("_merge_max_diff") and not key.startswith("sd3_oft"):
            assert value <= 1e-6, key
        if key.endswith(("_lora_diffusers_diffusers_max_diff", "_dora_diffusers_diffusers_max_diff", "_peft_peft_max_diff")):
            assert value <= 1e-3, key
