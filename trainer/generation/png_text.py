"""Pictures as PNG files that tell how they were drawn: `parameters` as A1111 writes them, and `lorafleet`, JSON."""

import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from trainer.generation.grid import a1111_text

KEY = "lorafleet"


def encoded(picture: Image.Image, parameters: Mapping[str, Any]) -> bytes:
    said = PngInfo()
    said.add_itxt("parameters", a1111_text(parameters))
    said.add_itxt(KEY, json.dumps(parameters, ensure_ascii=False, sort_keys=True))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=said)
    return buffer.getvalue()


def parameters_in(data: bytes) -> Any:
    """What a whole picture says of itself; None: it is not whole, or says nothing."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            picture.load()
            return json.loads(picture.info.get(KEY, "null"))
    except (OSError, ValueError, SyntaxError):
        return None


def picture_in(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        return picture.convert("RGB")
