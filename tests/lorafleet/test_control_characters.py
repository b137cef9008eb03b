"""What a terminal would obey, or not show, is written out; letters of every script stay as they are."""

import json
import unicodedata

import pytest
import yaml

from lorafleet import output
from lorafleet.control_characters import is_harmless, one_line, uncoloured, visible

SEEN_ALTHOUGH_FORMAT = (
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"  # signs of Arabic and Kaithi
)
JOINERS = "\u200c\u200d"
HOSTILE = "a\x1b]0;title\x07b\x9b2Jc\u202edexif\u2066\u200b\x00\x7f\udc9b\r!"


def test_no_letter_that_a_terminal_obeys_or_hides_is_left() -> None:
    for point in range(0x110000):
        letter = chr(point)
        is_unseen = unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        if is_unseen and letter not in "\n\t" + JOINERS + SEEN_ALTHOUGH_FORMAT:
            assert not is_harmless(letter), hex(point)
            assert visible(letter).isascii()


@pytest.mark.parametrize("text", ["Ölbild", "日本語", "שלום עולם", "नमस्ते", "می‌خواهم", "👩‍🚀 ❤️", "a\tb\nc", "[/b] :smile: 100%", "C:\\new"])
def test_words_stay_as_they_are(text: str) -> None:
    assert visible(text) == text


def test_what_was_there_can_be_read() -> None:
    assert visible("x\x1b[2J\u202e\udc9b") == "x\\x1b[2J\\u202e\\udc9b"
    assert visible("end\r\nbegin\rover") == "end\nbegin\\rover"


def test_one_line_begins_no_other() -> None:
    assert one_line("cannot be read\n2026 INFO  all\tis well\x85") == "cannot be read 2026 INFO all is well"


def test_json_and_yaml_mean_what_they_meant_and_do_nothing_to_a_terminal() -> None:
    value = {"message": HOSTILE.replace("\udc9b", ""), "Ö": "日本語"}
    for text, read in ((output.as_json(value), json.loads), (output.as_yaml(value), yaml.safe_load)):
        assert is_harmless(text)
        assert read(text) == value
    assert "日本語" in output.as_yaml({"a": "日本語"})


def test_colours_go_and_nothing_else_does() -> None:
    assert uncoloured("\x1b[36mray::train()\x1b[39m failed\x1b[1;31m!\x1b[0m \x1b[2J") == "ray::train() failed! \x1b[2J"
