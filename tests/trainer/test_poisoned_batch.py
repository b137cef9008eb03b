"""Hundreds of poisoned styles in one batch beside five good ones: the good ones end well, each bad one in its first attempt."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from lorafleet.contract.run_manifest import RunManifest, Style
from lorafleet.errors import RunFailed
from lorafleet.spec import parse
from tests.trainer.packs import Packs, Recorder, job_of
from tests.trainer.poisons import Poisons
from trainer.frozen_base import FrozenBase
from trainer.group import Group
from trainer.prepare import pack as preparing
from trainer.prepare.pack import Given, prepare_given, prepare_pack, read_manifest

pytestmark = pytest.mark.timeout(1500)
PACK_SIZE = 16  # the service's own (--max-pack-size)
NUM_GOOD = 5


def run(packs: Packs, styles: list[Style], recorder: Recorder, base: FrozenBase | None = None) -> FrozenBase | None:
    """A run's driver and worker, one after the other; answers with the base that the worker keeps warm."""
    reporter: Any = recorder
    if ready := prepare_pack(styles, packs.cache.uri, reporter):
        pack = packs.run(ready, recorder=recorder, batch_invariant=True, base=base)
        pack.train()
        return pack.base
    return base


def assert_each_ends_as_it_should(endings: dict[str, str | RunFailed], bad: dict[str, tuple[str, ...]], num_good: int) -> None:
    good = [endings.pop(job_of(f"good-{number}")) for number in range(num_good)]
    assert good == ["succeeded"] * num_good
    assert endings.keys() == bad.keys()
    for job, error in endings.items():
        assert isinstance(error, RunFailed), job
        assert not error.retryable, f"{job} would be tried again: {error}"
        assert any(word in error.message for word in bad[job]), f"{job} names none of {bad[job]}: {error}"
        assert "Traceback" not in error.message
        assert len(error.message) < 4_000


@pytest.mark.timeout(300)
def test_one_of_each_kind_of_poison_spoils_nothing_in_the_pack_of_a_good_style(tmp_path: Path, group: Group):
    packs, recorder = Packs(tmp_path, group), Recorder()
    poisons = Poisons(packs, tmp_path / "poisons")
    bad = {kind: make(kind) for kind, make in poisons.makers.items()}
    styles = [style for style, _ in bad.values()]
    run(packs, [*styles[:9], poisons.good("good-0"), *styles[9:]], recorder)
    assert_each_ends_as_it_should(recorder.endings, {style.job: names for style, names in bad.values()}, 1)


def test_what_nobody_thought_of_while_a_style_is_prepared_is_that_styles_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packs, recorder = Packs(tmp_path, None), Recorder()  # pyright: ignore[reportArgumentType]: nothing trains
    styles = [packs.style(name) for name in ("bad", "good")]
    prepare: Any = preparing.prepare

    def raises(style: Style, cache: Any) -> Any:
        if style.job == job_of("bad"):
            raise ZeroDivisionError("of a kind that is not thought of")
        return prepare(style, cache)

    monkeypatch.setattr(preparing, "prepare", raises)
    reporter: Any = recorder
    assert [ready.job for ready in prepare_pack(styles, packs.cache.uri, reporter)] == [job_of("good")]
    error = recorder.endings[job_of("bad")]
    assert isinstance(error, RunFailed)
    assert "ZeroDivisionError" in error.message


@pytest.mark.proof
def test_five_hundred_poisoned_styles_beside_five_good_ones(tmp_path: Path, group: Group):
    packs, recorder = Packs(tmp_path, group), Recorder()
    poisons = Poisons(packs, tmp_path / "poisons")
    kinds = itertools.islice(itertools.cycle(poisons.makers.items()), 500)
    bad = [make(f"{kind}-{number}") for number, (kind, make) in enumerate(kinds)]
    styles = [style for style, _ in bad]
    for number in range(NUM_GOOD):
        styles.insert(number * 125, poisons.good(f"good-{number}"))
    base = None
    for start in range(0, len(styles), PACK_SIZE):
        base = run(packs, styles[start : start + PACK_SIZE], recorder, base)
    assert_each_ends_as_it_should(recorder.endings, {style.job: names for style, names in bad}, NUM_GOOD)


def test_a_style_of_a_manifest_that_this_trainer_cannot_read_fails_alone(tmp_path: Path):
    """A control plane may be newer; the styles' trace parents stay theirs."""
    good = Style(
        job=job_of("good"), spec=parse({"base_model": {"uri": "file:///b"}, "dataset": {"uri": "file:///d"}}), output_uri="file:///o"
    )
    manifest = RunManifest(
        run="run-1",
        attempt=1,
        pack=(good, good),
        cache_uri=f"file://{tmp_path}",
        report_address="x:1",
        trace_parents=("a", "b"),
        storage_dir="/s",
    )
    fields = json.loads(manifest.model_dump_json())
    fields["pack"][0] = {**fields["pack"][0], "job": job_of("newer"), "spec": {"hologram": {}}}
    (tmp_path / "run.json").write_text(json.dumps(fields))
    given = read_manifest(f"file://{tmp_path}/run.json")
    assert given.manifest.pack == (good,)
    assert given.manifest.trace_parents == ("b",)
    recorder: Any = Recorder()
    prepare_given(Given(given.manifest.model_copy(update={"pack": ()}), given.unreadable), recorder)
    assert recorder.endings[job_of("newer")].reason == "INVALID_SPEC"
