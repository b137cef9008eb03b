"""What a step of its own adds to an artifact: files, what its manifest says of them, and rows of its model card. Pure; no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Addition:
    """`files`: by their paths in the artifact, in the order in which they are written."""

    files: Mapping[str, bytes | Path] = field(default_factory=dict[str, bytes | Path])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rows: Sequence[str] = ()


NOTHING = Addition()
