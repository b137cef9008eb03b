"""Prior preservation: every pass has as many pictures of the regularisation set, whose mean loss counts its weight (Ruiz et al. 2022)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from examples.demo import PICTURES
from lorafleet.errors import RunFailed
from tests.trainer.pack.test_pack_run import Killed, assert_same_bits, dies_at
from tests.trainer.packs import Packs, job_of
from trainer.group import Group
from trainer.pack.batch import assemble
from trainer.prepare.style import PreparedStyle

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory, group: Group) -> Packs:
    return Packs(tmp_path_factory.mktemp("prior"), group)


@pytest.fixture(scope="module")
def sets(packs: Packs) -> tuple[str, str]:
    """Folders of a data set and of a regularisation set, of which one picture has a caption."""
    pictures = sorted(Path(PICTURES).glob("*.png"))
    for name, chosen in (("data", pictures[:5]), ("class", pictures[10:17])):
        (packs.folder / name).mkdir()
        for picture in chosen:
            shutil.copy(picture, packs.folder / name)
    for picture in pictures[:5]:
        (packs.folder / "data" / f"{picture.stem}.txt").write_text("on a table")
    (packs.folder / "class" / f"{pictures[10].stem}.txt").write_text("a dog asleep")
    return f"file://{packs.folder}/data", f"file://{packs.folder}/class"


def parts(sets: tuple[str, str], weight: float | None, **more: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"uri": sets[0], "validation_fraction": 0.2, "trigger_phrase": "sks dog"}
    if weight is not None:
        data["regularization"] = {"uri": sets[1], "weight": weight, "caption": "a dog"}
    return {"dataset": data, **more}


def ready(packs: Packs, sets: tuple[str, str], name: str) -> PreparedStyle:
    return packs.ready(packs.style(name, **parts(sets, 1.0)))


def test_its_pictures_have_their_own_captions_without_the_trigger(packs: Packs, sets: tuple[str, str]):
    style = ready(packs, sets, "captions")
    said = {(crop.is_prior, caption) for crop, caption in zip(style.crops, style.captions, strict=True)}
    assert said == {(False, "sks dog on a table"), (True, "a dog"), (True, "a dog asleep")}
    assert not {index for index in style.held_out_crops if style.crops[index].is_prior}


def test_every_pass_has_as_many_rows_of_it_as_of_the_set(packs: Packs, sets: tuple[str, str]):
    run = packs.pack(packs.style("rows", **parts(sets, 0.5, training={"gradient_accumulation_steps": 3})))
    [member] = run.members
    member.draw(rank=0, world_size=1)
    passes = run._passes(run.members)
    assert len(passes) == 3
    for each in passes:
        rows = [draw.sample for slot_group in each.slot_groups for block in slot_group.blocks for draw in block.examples]
        assert [member.style.crops[row].is_prior for row in rows] == [False, False, True, True]
        batch = assemble(each, run.members, run.base.family, run.base.device)
        assert batch.weight.tolist() == [1.0, 1.0, 0.5, 0.5]
    assert (member.spec.global_batch_size, member.spec.pictures_per_step) == (6, 12)


def test_a_step_goes_through_the_set_one_picture_after_the_other(packs: Packs, sets: tuple[str, str]):
    [member] = packs.pack(packs.style("order", **parts(sets, 1.0))).members
    seen: list[int] = []
    for step in range(4):
        member.step = step
        member.draw(rank=0, world_size=1)
        seen += [draw.sample for each in member.drawn for draw in each if member.style.crops[draw.sample].is_prior]
    assert len(set(seen[:7])) == 7, "all seven before any comes again"
    by_workers = []
    for rank in range(2):
        member.draw(rank=rank, world_size=2)
        by_workers.append([len(each) for each in member.drawn])
    assert by_workers == [[4], []], "a worker's micro-batches are whole"


def test_its_mean_loss_is_added_by_its_weight(packs: Packs, sets: tuple[str, str]):
    """The first loss is a straight line over the weight, which begins at the loss without the set."""
    of: dict[float, float] = {}
    for weight in (0.0, 1.0, 3.0):
        name = f"weight-{weight:g}"
        packs.alone(name, **parts(sets, weight or None, training={"max_steps": 1}))
        [of[weight]] = packs.losses(name)
    assert of[1.0] - of[0.0] > 1e-3
    assert of[3.0] - of[0.0] == pytest.approx(3 * (of[1.0] - of[0.0]), rel=1e-4)


def test_it_trains_in_company_as_alone_and_leaves_its_neighbours_alone(packs: Packs, sets: tuple[str, str]):
    chosen: dict[str, dict[str, Any]] = {
        name: parts(sets, weight, training={"max_steps": 2}) for name, weight in (("prior", 0.7), ("plain", None))
    }
    packs.train(*(packs.style(f"together-{name}", **each) for name, each in chosen.items()))
    for name, each in chosen.items():
        packs.train(packs.style(f"apart-{name}", **each), batch_invariant=True)
        assert_same_bits(packs.saved(f"together-{name}"), packs.saved(f"apart-{name}"))


def test_a_killed_style_resumes_bit_for_bit_and_tells_of_its_set(packs: Packs, sets: tuple[str, str]):
    packs.train(packs.style("whole", **parts(sets, 0.7)))
    killed = packs.style("killed", **parts(sets, 0.7))
    with pytest.raises(Killed):
        packs.train(killed, recorder=dies_at(job_of("killed"), 5))
    assert packs.train(killed).resumed_from == {job_of("killed"): 3}
    assert_same_bits(packs.saved("whole"), packs.saved("killed"))
    folder = packs.folder / "killed" / "adapter"
    card = (folder / "README.md").read_text()
    assert "| regularisation set | 7 pictures, as many in each pass as of the data set, weight 0.7 |" in card
    assert "| steps | 6 of 2 pictures and 2 of the regularisation set |" in card
    files = json.loads((folder / "manifest.json").read_text())["files"]
    [kohya] = [name for name in files if name.endswith(".safetensors") and "pytorch_lora" not in name]
    with safe_open(folder / kohya, "pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_num_reg_images"], metadata["ss_prior_loss_weight"]) == ("7", "0.7")


def test_what_is_wrong_with_it_is_told_of_its_own_field(packs: Packs, sets: tuple[str, str]):
    style = packs.style("nothing", dataset={"uri": sets[0], "trigger_phrase": "x", "regularization": {"uri": sets[1], "weight": 1.0}})
    with pytest.raises(RunFailed) as caught:
        packs.ready(style)
    assert str(caught.value).startswith("dataset.regularization.uri: 6 of 7 pictures have no caption")


def test_several_resolutions_train_in_turn_and_resume_bit_for_bit(packs: Packs, sets: tuple[str, str]):
    both: dict[str, Any] = {**parts(sets, 0.7), "training": {"max_steps": 8}}
    both["dataset"] = {**both["dataset"], "resolutions": [64, 32]}
    style = packs.style("sizes", **both)
    [member] = packs.pack(style).members
    shapes = {tuple(latents.shape[1:]) for latents in member.encoded.latents.values()}
    assert shapes == {(16, 16), (8, 8)}
    stepped = set()
    for step in range(8):
        member.step = step
        member.draw(rank=0, world_size=1)
        stepped.add(member.latent_shape(member.drawn[0])[-1])
    assert stepped == {16, 8}, "both are drawn"
    killed = packs.style("sizes-killed", **both)
    packs.train(style)
    with pytest.raises(Killed):
        packs.train(killed, recorder=dies_at(job_of("sizes-killed"), 5))
    packs.train(killed)
    assert_same_bits(packs.saved("sizes"), packs.saved("sizes-killed"))
