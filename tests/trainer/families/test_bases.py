"""A base of any family is found whole, or refused before anything is loaded with what is wrong and where."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafleet.catalog import FAMILIES
from lorafleet.errors import InvalidSpec, RunFailed
from tests.trainer.families.rows import ROWS, VARIANTS
from tests.trainer.families.styles import RESOLUTION, Families
from tests.trainer.prepare.test_base_model import edit

pytestmark = pytest.mark.timeout(300)
Of = Callable[[str], Families]

PARTS = [(family, part.name) for family in ROWS for part in FAMILIES.get(family).parts if not part.is_optional]
MISFITS = [(family, name) for family, row in ROWS.items() for name in row.misfits]


def refusal(packs: Families, base: Path, family: str | None = None, resolution: int = RESOLUTION) -> RunFailed:
    given = {"base_model": {"family": family or packs.row.family}, "dataset": {"resolution": resolution}}
    with pytest.raises(RunFailed) as caught:
        packs.ready(packs.style_on(base, "refused", **given))
    assert not caught.value.retryable
    return caught.value


def copy_of(packs: Families, folder: Path) -> Path:
    return Path(shutil.copytree(packs.bases[packs.row.variants[0]], folder / "base"))


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_it_says_what_it_needs_to_be_trained(families: Of, family: str, variant: str):
    packs = families(family)
    found = packs.ready(packs.style("found", variant)).base
    assert (found.family, found.resolution_step, found.vae_factor) == (family, packs.row.step, packs.row.pixels_per_latent)
    assert found.facts.label.architecture == packs.row.architectures.get(variant, found.facts.label.architecture)
    assert bool(found.facts.cautions) == (variant in packs.row.distilled)


@pytest.mark.parametrize(("family", "part"), PARTS)
def test_a_part_that_is_missing_is_named(families: Of, tmp_path: Path, family: str, part: str):
    base = copy_of(families(family), tmp_path)
    shutil.rmtree(base / part)
    error = refusal(families(family), base)
    assert error.reason == "BASE_MODEL_INCOMPLETE"
    assert f"{part}/" in error.message


@pytest.mark.parametrize("family", ROWS)
def test_a_base_of_another_family_is_refused_by_name(families: Of, family: str):
    packs = families(family)
    error = refusal(packs, packs.bases[packs.row.variants[0]], "sdxl")
    assert error.reason == "BASE_MODEL_OTHER_FAMILY"
    assert family in error.message


@pytest.mark.parametrize("family", ROWS)
def test_a_base_that_only_calls_itself_so_is_refused(families: Of, tmp_path: Path, family: str):
    """An SD 1.5 with the other's name in its index."""
    from examples.demo import BASE_MODEL

    base = Path(shutil.copytree(BASE_MODEL, tmp_path / "liar"))
    edit(base / "model_index.json", _class_name=FAMILIES.get(family).pipeline)
    assert refusal(families(family), base).reason.startswith("BASE_MODEL_")


@pytest.mark.parametrize(("family", "misfit"), MISFITS)
def test_parts_that_do_not_fit_are_refused_before_anything_is_loaded(families: Of, tmp_path: Path, family: str, misfit: str):
    packs = families(family)
    base = copy_of(packs, tmp_path)
    file, changes, told = packs.row.misfits[misfit]
    edit(base / file, **changes)
    error = refusal(packs, base)
    assert error.reason == "BASE_MODEL_UNSUPPORTED"
    assert told in error.message


@pytest.mark.parametrize("family", ROWS)
def test_a_side_that_cannot_be_cut_into_tokens_is_refused_with_the_nearest(families: Of, family: str):
    packs = families(family)
    error = refusal(packs, packs.bases[packs.row.variants[0]], resolution=RESOLUTION + packs.row.step // 2 - 1)
    assert error.reason == "INVALID_SPEC"
    assert f"is not a multiple of {packs.row.step}" in error.message
    assert str(RESOLUTION) in error.message


@pytest.mark.parametrize("family", [name for name, row in ROWS.items() if not row.has_text_adapters])
def test_adapters_on_a_text_encoder_that_no_reader_takes_are_refused(families: Of, family: str):
    with pytest.raises(InvalidSpec, match=r"adapter\.text_encoder.*no reader loads adapters on"):
        families(family).style("text", adapter={"text_encoder": True})


@pytest.mark.parametrize("family", ROWS)
@pytest.mark.parametrize(("section", "field"), [("training", "noise_offset"), ("objective", "pyramid_noise_discount")])
def test_what_is_of_noise_schedules_alone_is_refused(families: Of, family: str, section: str, field: str):
    with pytest.raises(InvalidSpec, match=rf"{section}\.{field}.*{family} is trained by flow matching: leave it out"):
        families(family).style("noise", **{section: {field: 0.5}})


@pytest.mark.parametrize("family", ROWS)
def test_targets_are_the_familys_own_where_a_spec_names_none(families: Of, family: str):
    packs = families(family)
    style = packs.style("usual", adapter={"rank": 1})
    spec = json.loads(style.spec.model_dump_json())
    del spec["adapter"]["target_modules"]
    assert type(style.spec).model_validate_json(json.dumps(spec)).adapter.target_modules == FAMILIES.get(family).denoiser.target_modules
