"""A caption as the question of a chat, for families whose text is read by a language model that was trained to answer."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Chat:
    """What stands around the caption.

    The trainer has it of its own: a base's file may hold any program in its template's place, and none of them is run.
    """

    before: str
    behind: str

    def asked(self, captions: Sequence[str]) -> list[str]:
        return [f"{self.before}{caption}{self.behind}" for caption in captions]

    @property
    def template(self) -> str:
        """The same as a tokenizer's template in jinja, for the pipelines that go by one; lines end inside the expression, or are lost."""
        return f"{{{{ {self.before!r} + messages[0]['content'] + {self.behind!r} }}}}"
