"""The colours of a picture: any of Pillow's modes to eight bits, and any colour profile to sRGB on white. Knows no files."""

import io
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms

from trainer.data.png import MAX_PROFILE_BYTES

_TOPS = (255, 2**16 - 1, 2**32 - 1)  # what white is in a picture of whole numbers
_FROM_16_BITS = ((np.arange(2**16, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
_PLAIN = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB"}
_AS_THEY_ARE = ("L", "LA", "RGB", "RGBA", "CMYK", "LAB")
_cms: Any = ImageCms  # Pillow's own types get lost where it looks whether it has lcms
_SRGB = ImageCms.ImageCmsProfile(_cms.createProfile("sRGB"))


def eight_bits(picture: Image.Image) -> Image.Image:
    """The same picture in L, LA, RGB, RGBA, CMYK or LAB: modes that can be scaled."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_numbers(picture)
    if picture.mode == "P":
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    if "transparency" in picture.info and picture.mode in ("1", "L", "RGB"):
        return picture.convert("RGBA" if picture.mode == "RGB" else "LA")
    return picture if picture.mode in _AS_THEY_ARE else picture.convert(_PLAIN.get(picture.mode, "RGB"))


def _from_numbers(picture: Image.Image) -> Image.Image:
    """Grey in more than eight bits. Pillow's own conversion cuts everything above 255 off: a sky of 16 bits is white."""
    values = np.asarray(picture)
    grey = Image.fromarray(_FROM_16_BITS[values] if picture.mode.startswith("I;16") else _scaled(values))
    transparent = picture.info.get("transparency")
    if not isinstance(transparent, int | float):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))


def _scaled(values: np.ndarray) -> np.ndarray:
    """Files do not say what white is: it is the smallest usual value that no pixel is above."""
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    highest = float(finite.max(initial=0.0))
    tops = (1, *_TOPS) if values.dtype.kind == "f" else _TOPS
    top = next((top for top in tops if highest <= top), highest)
    return np.rint(finite.clip(0, top) * (255 / top)).astype(np.uint8)


def to_srgb(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, bool]:
    """The picture in sRGB on white; True where its profile could not be applied, and was ignored."""
    alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
    colours = picture.convert(picture.mode.removesuffix("A")) if alpha else picture
    in_srgb, is_broken = _apply(colours, profile) if profile is not None else (None, False)
    rgb = in_srgb or _without_profile(colours)
    if alpha is None:
        return rgb, is_broken
    ground = Image.new("RGB", rgb.size, "white")
    ground.paste(rgb, mask=alpha)
    return ground, is_broken


def _apply(colours: Image.Image, profile: bytes) -> tuple[Image.Image | None, bool]:
    try:
        if len(profile) > MAX_PROFILE_BYTES:
            return None, True
        source = _cms.ImageCmsProfile(io.BytesIO(profile))
        space = getattr(source.profile, "xcolor_space", "").strip()
        match space, colours.mode:
            case ("RGB", "L" | "RGB"):
                colours = colours.convert("RGB")
            case ("GRAY", "L") | ("CMYK", "CMYK") | ("Lab", "LAB"):
                pass
            case _:
                return None, True
        return _transformed(colours, source), False
    except Exception:  # lcms and Pillow raise several kinds for broken profiles; the pixels may still be good
        return None, True


def _transformed(colours: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    transform = ImageCms.buildTransform(
        source, _SRGB, colours.mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    )
    return cast(Image.Image, ImageCms.applyTransform(colours, transform))  # it is None only in place


def _without_profile(colours: Image.Image) -> Image.Image:
    if colours.mode == "LAB":
        return _transformed(colours, ImageCms.ImageCmsProfile(_cms.createProfile("LAB")))
    return colours.convert("RGB")
