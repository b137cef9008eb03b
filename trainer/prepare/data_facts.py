"""What is told of a style's data set: in the run's log once it is prepared, and on its model card. Pure.

What training does without being asked, such as cutting and leaving out, is counted here, so that nobody has to guess it.
"""

from collections.abc import Iterator

from trainer.data.buckets import share_cut
from trainer.data.files import Some
from trainer.data.readers import DataSet
from trainer.prepare.style import PreparedStyle


def for_log(style: PreparedStyle) -> dict[str, object]:
    data_set, shares = style.data_set, _shares(style)
    facts: dict[str, object] = {
        "pictures": len(data_set.pictures),
        "held_out": len(style.held_out),
        "skipped": str(_skipped(style)),
        "without_caption": str(data_set.uncaptioned),
        "masks": _masks(style) if style.spec.dataset.masks != "none" else "",
        "passed_over": {why: f"{some.count}: {some}" for why, some in data_set.passed_over.items()},
        "profiles_ignored": str(_ignored_profiles(style)),
        "cropped_share": {"mean": round(sum(shares.values()) / len(shares), 3), "over_half": str(_over_half(style))},
        "resolution": style.resolution if len(style.resolutions) == 1 else list(style.resolutions),
        "regularization": "" if style.prior is None else _regularization(style, style.prior),
        "buckets": len(style.members),
        "base_digest": style.base.digest,
        "dataset_digest": data_set.digest,
    }
    return {name: value for name, value in facts.items() if value not in ("", {})}


def for_card(style: PreparedStyle) -> list[str]:
    """Rows of the card's table."""
    return [f"| {fact} | {value.replace('|', chr(92) + '|')} |" for fact, value in _rows(style)]


def _rows(style: PreparedStyle) -> Iterator[tuple[str, str]]:
    data_set = style.data_set
    yield "data set", f"{len(data_set.pictures)} pictures, {len(style.held_out)} held out, {len(data_set.corrupt)} skipped"
    if data_set.corrupt:
        yield "skipped", str(_skipped(style))
    if data_set.uncaptioned:
        yield "pictures without a caption", f"{data_set.uncaptioned.count}: {data_set.uncaptioned}"
    if data_set.passed_over:
        yield "passed over", "; ".join(f"{some.count} {why}: {some}" for why, some in data_set.passed_over.items())
    if style.prior is not None:
        yield "regularisation set", _regularization(style, style.prior)
    if len(style.resolutions) > 1:
        yield "resolutions", _resolutions(style)
    if style.spec.dataset.masks != "none":
        yield "masks", _masks(style)
    if profiles := _ignored_profiles(style):
        yield "colour profiles that are broken, ignored", f"{profiles.count}: {profiles}"
    yield "cropping", _cropping(style)
    if style.cut_captions is not None:
        yield (
            "captions cut",
            str(style.cut_captions) if style.cut_captions else f"none has more than {style.cut_captions.max_tokens} tokens",
        )


def _masks(style: PreparedStyle) -> str:
    pictures = style.data_set.pictures
    return f"of {sum(picture.mask is not None for picture in pictures)} of {len(pictures)} pictures ({style.spec.dataset.masks})"


def _regularization(style: PreparedStyle, prior: DataSet) -> str:
    asked = style.spec.dataset.regularization
    told = f"{len(prior.pictures)} pictures, as many in each pass as of the data set, weight {asked.weight if asked else 0:g}"
    return told + (f"; {len(prior.corrupt)} skipped: {_named(prior)}" if prior.corrupt else "")


def _resolutions(style: PreparedStyle) -> str:
    """A picture counts at each that it is trained at."""
    num_crops = sum(not crop.is_prior for crop in style.crops)
    return f"{', '.join(map(str, style.resolutions))}: {len(style.data_set.pictures)} pictures at {num_crops} sizes"


def _cropping(style: PreparedStyle) -> str:
    shares = _shares(style)
    path, most = max(shares.items(), key=lambda item: item[1])
    return f"takes {sum(shares.values()) / len(shares):.0%} of a picture on average, and at most {most:.0%}" + (
        f" ({Some([path])})" if most >= 0.005 else ""
    )


def _shares(style: PreparedStyle) -> dict[str, float]:
    """Of each picture the largest share of its area that a bucket cuts away."""
    shares: dict[str, float] = {}
    for crop in (crop for crop in style.crops if not crop.is_prior):
        share = share_cut(crop.picture.width, crop.picture.height, crop.bucket)
        shares[crop.picture.path] = max(share, shares.get(crop.picture.path, 0.0))
    return shares


def _over_half(style: PreparedStyle) -> Some:
    return Some(f"{path} ({share:.0%})" for path, share in sorted(_shares(style).items(), key=lambda item: -item[1]) if share > 0.5)


def _skipped(style: PreparedStyle) -> Some:
    return _named(style.data_set)


def _named(data_set: DataSet) -> Some:
    return Some(f"{each.path} {each.why}" for each in data_set.corrupt)


def _ignored_profiles(style: PreparedStyle) -> Some:
    return Some(each.path for each in style.data_set.pictures if each.has_broken_profile)
