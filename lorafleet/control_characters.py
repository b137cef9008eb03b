"""Writes out the control characters of text that a tenant, a run or a file's name brought, so that no terminal obeys them. Pure.

Written out are control characters (C0, C1), whatever turns or hides letters (bidi, zero width), and halves of surrogate pairs.
The joiners of scripts and emoji (U+200C, U+200D) stay, since words are spelt with them.
"""

import json
import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


def visible(text: str) -> str:
    r"""The text with `\x1b` for an escape and so on. Lines and tabs stay."""
    return _UNSEEN.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same in one line: whoever wrote it begins none of ours."""
    return visible(" ".join(text.split()))


def visible_json(text: str) -> str:
    """JSON that means the same: its own escapes stand for what a terminal would obey."""
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def uncoloured(text: str) -> str:
    """Without the colour codes that a worker's libraries put into what they say; of anything else nothing is lost."""
    return _COLOUR.sub("", text)


def is_harmless(text: str) -> bool:
    """Whether it may be shown as it is."""
    return _UNSEEN.search(text) is None


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
