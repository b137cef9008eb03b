"""manifest.json: the commit of an artifact. Names every file with its size and SHA-256; written last, so that whoever finds it
finds a whole artifact. The trainer writes it, `lorafleet download` reads it. Knows no store.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lorafleet.contract.layout import MANIFEST
from lorafleet.errors import InvalidInput

MAX_BYTES = 64 * 2**20  # of manifest.json itself


def _check_path(path: str) -> str:
    """A relative path that stays in its folder on every system: it comes from a store that others can write to."""
    if not path or re.search(r"[\x00-\x1f\x7f\\:]|//", path) or path == MANIFEST:
        raise ValueError("a name in it is not a safe file name")
    if path.startswith("/") or path.endswith("/") or any(part in {".", ".."} for part in path.split("/")):
        raise ValueError("a name in it leaves the artifact's folder")
    return path


SafePath = Annotated[str, AfterValidator(_check_path)]


class ArtifactFile(BaseModel):
    """What one file must be."""

    model_config = ConfigDict(frozen=True)

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ArtifactManifest(BaseModel):
    """The files of an artifact. Fields that a newer trainer adds are passed over."""

    model_config = ConfigDict(frozen=True)

    format: Literal["lorafleet-artifact-1"]
    files: dict[SafePath, ArtifactFile]  # by path, relative to the folder of manifest.json

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


def parse(text: bytes) -> ArtifactManifest:
    """The manifest in the bytes of manifest.json. Raises InvalidInput when it is none, or names a file it must not."""
    try:
        manifest = ArtifactManifest.model_validate_json(text)
    except ValidationError as error:
        raise InvalidInput(f"{MANIFEST} cannot be used: {error.errors()[0]['msg']}", reason="INVALID_MANIFEST") from None
    if len({path.casefold() for path in manifest.files}) < len(manifest.files):
        raise InvalidInput(f"{MANIFEST} names two files that differ in case alone: some systems keep only one", reason="INVALID_MANIFEST")
    return manifest
