"""What every section of a training spec is: strict, frozen, and without fields that nobody knows."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from lorafleet.spec_words import check_uri

ScheduleName = Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"]


class SpecPart(BaseModel):
    """Strict: `rank: "8"` is a mistake, not an 8. Unknown fields are mistakes too."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("uri", "vae_uri", check_fields=False)
    @classmethod
    def _uri(cls, uri: str | None) -> str | None:
        return None if uri is None else check_uri(uri)
