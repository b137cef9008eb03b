"""The section of a training spec that says which pictures are learned from, and how they are taken."""

from typing import Annotated, Literal

from pydantic import Field

from lorafleet.spec_part import SpecPart
from lorafleet.spec_words import Text


class RegularizationSpec(SpecPart):
    """Pictures of the same kind of thing, which keep what the base knows of it (Ruiz et al. 2022, section 4.2)."""

    uri: Annotated[
        str, Field(description="Folder of the pictures, as dataset.uri; every forward pass has as many of them as of the data set.")
    ]
    weight: Annotated[float, Field(gt=0, le=100, description="Of their mean loss beside that of the data set's; 1 as a rule.")]
    caption_column: Annotated[Text, Field(min_length=1, max_length=200, description="Metadata column that holds the caption.")] = "text"
    caption: Annotated[
        Text, Field(max_length=1000, description="The caption of pictures that have none of their own, such as a photo of a dog.")
    ] = ""


class DatasetSpec(SpecPart):
    """The pictures and captions to learn from."""

    uri: Annotated[
        str,
        Field(
            description="Folder of the pictures, s3:// or file://, with metadata.jsonl, metadata.csv or a .txt or .caption file for each."
        ),
    ]
    caption_column: Annotated[Text, Field(min_length=1, max_length=200, description="Metadata column that holds the caption.")] = "text"
    trigger_phrase: Annotated[Text, Field(max_length=1000, description="Text put before every caption.")] = ""
    validation_fraction: Annotated[float, Field(ge=0, le=0.5, description="Share of the pictures held out for the held-out loss.")] = 0.1
    resolution: Annotated[int, Field(ge=32, le=4096)] | None = Field(
        default=None,
        description="Training pictures have about resolution squared pixels; unset: the base model's own resolution.",
    )
    aspect_ratio_bucketing: Annotated[bool, Field(description="Group pictures by aspect ratio; false: crop each to a square.")] = True
    on_corrupt: Annotated[Literal["skip", "fail"], Field(description="What to do with a picture that cannot be read.")] = "skip"
    max_corrupt_fraction: Annotated[
        float, Field(ge=0, le=1, description="With on_corrupt: skip, the job fails if more than this share cannot be read.")
    ] = 0.1
    on_missing_caption: Annotated[
        Literal["fail", "skip", "trigger"],  # left out where it is the default: an older trainer refuses what it does not know
        Field(exclude_if=lambda choice: choice == "fail", description="Pictures without a caption; trigger: trigger_phrase is theirs."),
    ] = "fail"
    # Left out where they are the defaults: a trainer that does not know them refuses the spec.
    resolutions: Annotated[
        tuple[Annotated[int, Field(ge=32, le=4096)], ...],
        Field(
            max_length=8,
            strict=False,
            exclude_if=lambda resolutions: not resolutions,
            description="In place of resolution: every picture is trained at each of these that it need not be enlarged for, and at the "
            "smallest in any case.",
        ),
    ] = ()
    regularization: RegularizationSpec | None = Field(
        default=None,
        exclude_if=lambda regularization: regularization is None,
        description="Pictures that keep what the base knows; unset: none.",
    )
    masks: Annotated[
        Literal["none", "alpha", "files"],  # left out where it is the default: an older trainer refuses what it does not know
        Field(
            exclude_if=lambda masks: masks == "none",
            description="What of each picture counts: alpha: where it is opaque; files: where its mask is white, NAME.mask.png or "
            "NAME-masklabel.png beside it, or masks/NAME.png.",
        ),
    ] = "none"

    @property
    def uris(self) -> list[tuple[str, str]]:
        """(field, URI) of the folders that are read."""
        prior = [] if self.regularization is None else [("regularization.uri", self.regularization.uri)]
        return [("uri", self.uri), *prior]
