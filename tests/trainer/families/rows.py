"""The families that the tests of this folder go through, by name."""

from tests.trainer.families import chroma, flux, flux2, krea2, qwen_image, sd3, zimage
from tests.trainer.families.published_unets import UNETS
from tests.trainer.families.real import Real
from tests.trainer.families.row import Row

ROWS: dict[str, Row] = {row.family: row for row in (flux.ROW, chroma.ROW, flux2.ROW, sd3.ROW, zimage.ROW, qwen_image.ROW, krea2.ROW)}
REAL: dict[str, Real] = {name: row.real for name, row in ROWS.items() if row.real is not None}
MEASURED = {**UNETS, **REAL}  # whose memory is counted at the published shapes
VARIANTS = [(family, variant) for family, row in ROWS.items() for variant in row.variants]
