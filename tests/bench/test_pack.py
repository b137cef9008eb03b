"""The pack bench asks for what it says it asks for, and its figures are what their names say."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench import fleet, pack, pack_equal, pack_view, results_file, single
from examples.restyle import read_metadata
from lorafleet import spec
from lorafleet.client import Client
from lorafleet.contract.layout import JobLayout
from lorafleet.spec import AdapterSpec, parse
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.fake_server import FakeServer
from tests.lorafleet.jobs import a_batch, a_job, batch_event

FOUND = {"styles_per_hour_over_peer": 4.0, "curve_pictures_per_second_k1": 10.0, "curve_pictures_per_second_k16": 40.0}


# What is submitted.


def test_styles_train_what_the_peer_trains_and_draw_nothing():
    fields = fleet.defaults(60, 8)
    fields["dataset"]["uri"] = "file:///data"
    asked = spec.parse(fields)
    assert (asked.training.max_steps, asked.training.micro_batch_size) == (60, 8)
    assert asked.adapter.target_modules == AdapterSpec().target_modules
    assert asked.validation.prompts == ()
    assert asked.cluster.zero_stage == 0  # else it would train alone


def test_no_two_styles_of_the_largest_pack_have_the_same_pictures_in_the_same_style():
    seen = {(number % len(fleet.STYLES), number % fleet.EVERY) for number in range(pack.LARGEST_PACK)}
    assert len(seen) == pack.LARGEST_PACK


def test_a_style_has_sixteen_pictures_of_its_own(tmp_path: Path):
    ours = fleet.Fleet(client=None, folder=tmp_path)  # type: ignore[arg-type] - nothing is sent
    first, second = (read_metadata(folder) for folder in ours.data_sets(2, first=16))
    assert len(first) == len(second) == 16
    assert first != second


def test_styles_that_were_split_over_two_runs_are_no_pack():
    jobs = [pb.TrainingJob(state=pb.JOB_STATE_SUCCEEDED, attempts=[pb.Attempt(run=run)]) for run in ("run-a", "run-b")]
    fleet.check(jobs[:1])
    with pytest.raises(RuntimeError, match="had 2: run-a, run-b"):
        fleet.check(jobs)


def test_a_style_that_failed_is_named_with_its_reason():
    job = pb.TrainingJob(name="tenants/default/jobs/a", state=pb.JOB_STATE_FAILED, reason="LOSS_NOT_FINITE", message="at step 3")
    with pytest.raises(RuntimeError, match="jobs/a: FAILED LOSS_NOT_FINITE at step 3"):
        fleet.check([job])


def test_first_step_of_a_pack_is_that_of_its_last_style():
    jobs = [pb.TrainingJob() for _ in range(2)]
    for job, seconds in zip(jobs, (130, 145), strict=True):
        job.create_time.FromSeconds(100)
        job.first_step_time.FromSeconds(seconds)
    assert fleet.Trained(jobs=jobs, wall_seconds=0, pictures_per_second=0).first_step_seconds == 45


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture
def ours(server: FakeServer, tmp_path: Path) -> Iterator[fleet.Fleet]:
    with Client(server.address) as client:
        yield fleet.Fleet(client, tmp_path)


def _step(index: int, rate: float, state: str = "RUNNING") -> pb.TrainingJob:
    job = a_job(f"style-{index}", state, batch_index=index, attempts=[pb.Attempt(run="run-a")])
    job.progress.pictures_per_second = rate
    return job


def test_speed_of_a_pack_is_the_sum_of_its_members_newest(server: FakeServer, ours: fleet.Fleet):
    seen = [_step(1, 2.0), _step(0, 1.0), _step(0, 3.0), _step(1, 0.0, "SUCCEEDED"), _step(0, 4.0, "SUCCEEDED")]
    server.answers("create_batch", a_batch())
    server.answers("get_batch", a_batch())
    server.answers("watch_batch", [batch_event(str(number), job) for number, job in enumerate(seen)])
    trained = ours.train(ours.data_sets(2), num_steps=60)
    assert trained.pictures_per_second == 6.0
    assert [job.batch_index for job in trained.jobs] == [0, 1]
    (header, items), *_ = server.requests
    assert header.header.defaults.training.max_steps == 60
    assert [item.spec.dataset.uri for item in items.items.items] == [folder.as_uri() for folder in ours.data_sets(2)]


def test_every_measurement_encodes_its_pictures_anew(server: FakeServer, ours: fleet.Fleet, tmp_path: Path):
    (tmp_path / "cache" / "latents").mkdir(parents=True)
    server.answers("create_batch", a_batch(num_jobs=1))
    server.answers("get_batch", a_batch(num_jobs=1))
    server.answers("watch_batch", [batch_event("0", _step(0, 1.0, "SUCCEEDED"))])
    ours.train(ours.data_sets(1), num_steps=60)
    assert not (tmp_path / "cache").exists()


def test_peak_memory_is_waited_for_until_the_log_has_it(server: FakeServer, ours: fleet.Fleet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fleet, "POLL_S", 0.0)
    pieces = [pb.StreamTrainingJobLogsResponse(attempt=1, text=text) for text in ("step 60\n", "(pid=1) peak memory 812 MiB\n")]
    server.answers("logs", pieces[:1], pieces)
    assert ours.peak_memory_mib("a") == 812


def test_peak_memory_is_that_of_the_newest_run():
    log = "(RayTrainWorker pid=1) peak memory 900 MiB\n(RayTrainWorker pid=2) peak memory 1234 MiB\n"
    assert fleet.peak_memory_mib(log) == 1234
    assert fleet.peak_memory_mib("step 1 of 60") is None


# What is made of it.


@pytest.mark.parametrize(
    ("peer_runs", "our_runs", "order"),
    [(3, 1, "peer peer ours peer"), (3, 2, "peer ours peer ours peer"), (1, 1, "peer ours"), (2, 1, "peer ours peer")],
)
def test_the_script_runs_before_and_after_ours(peer_runs: int, our_runs: int, order: str):
    assert pack.turns(peer_runs, our_runs) == order.split()


def test_every_run_that_was_asked_for_has_its_turn():
    order = pack.turns(16, 3)
    assert (order.count("peer"), order.count("ours")) == (16, 3)


def test_sixteen_styles_in_the_time_of_four_lone_ones_are_four_times_as_many_an_hour():
    found = pack.speed_summary([100.0], [24.0, 26.0], batch_size=1)
    assert found["styles_per_hour_over_peer"] == pytest.approx(4.0)
    assert found["styles_per_hour"] == pytest.approx(576)
    assert found["peer_styles_per_hour"] == pytest.approx(144)
    assert found["peer_runs"] == 2


def test_another_micro_batch_leaves_the_main_figure_alone():
    assert all(name.endswith("_b4") for name in pack.speed_summary([100.0], [25.0], batch_size=4))


def test_a_pack_that_is_four_times_as_fast_costs_a_quarter_a_style():
    metrics = pack.curve_point(1, 10.0, 60.0) | pack.curve_point(16, 40.0, 96.0)
    assert pack_view.relative(pack_view.series(metrics, "seconds_per_style_and_step")) == pytest.approx({1: 1.0, 16: 0.25})
    assert pack_view.relative(pack_view.series(metrics, "wall_seconds_per_style")) == pytest.approx({1: 1.0, 16: 0.1})


def test_curves_are_in_the_order_of_the_packs_sizes():
    assert list(pack_view.series({f"curve_x_k{size}": 0.0 for size in (16, 2, 1)}, "x")) == [1, 2, 16]


# Alone and in company.


def test_the_worst_step_counts():
    assert pack_equal.max_relative_diff({1: 0.5, 2: 0.2}, {1: 0.5, 2: 0.1}) == pytest.approx(1.0)


def test_losses_of_other_steps_are_not_compared():
    with pytest.raises(ValueError, match="not the same steps"):
        pack_equal.max_relative_diff({1: 0.5}, {1: 0.5, 2: 0.1})
    with pytest.raises(ValueError, match="not the same steps"):
        pack_equal.max_relative_diff({}, {})


def test_similarity_is_of_the_whole_adapter():
    ones, mixed = np.ones((2, 2), np.float32), np.array([[1, 1], [1, -1]], np.float32)
    assert pack_equal.cosine_similarity({"a": ones, "b": ones}, {"a": ones, "b": ones}) == pytest.approx(1.0)
    assert pack_equal.cosine_similarity({"a": ones, "b": ones}, {"a": ones, "b": mixed}) == pytest.approx(6 / 8)
    with pytest.raises(ValueError, match="same tensors"):
        pack_equal.cosine_similarity({"a": ones}, {"b": ones})


def test_losses_and_adapters_are_read_where_the_trainer_leaves_them(tmp_path: Path):
    pack_member, alone = _trained(tmp_path / "pack", 1.0), _trained(tmp_path / "alone", 1.5)
    found = pack_equal.difference(pack_member, alone, num_steps=2)
    assert found.max_relative_loss_diff == pytest.approx(1 / 3)
    assert found.cosine_similarity == pytest.approx(1.0)


def _trained(folder: Path, shift: float) -> pb.TrainingJob:
    """A job whose checkpoint and adapter the trainer's own code has written."""
    torch = pytest.importorskip("torch")
    from lorafleet.contract.layout import adapter_file
    from trainer import checkpoint
    from trainer.adapters.formats.diffusers import diffusers_file
    from trainer.storage import Folder

    layout = JobLayout(folder.as_uri())
    weights = {"unet.a.lora_A.weight": torch.full((16, 3), shift), "unet.a.lora_B.weight": torch.full((3, 16), shift)}
    progress = checkpoint.Progress(step=2, losses=((1, 0.5), (2, 0.25 * shift)))
    checkpoint.write(Folder(layout.checkpoints), checkpoint.Checkpoint(progress, weights, weights), job="a", keep=1)
    Folder(layout.adapter).put(
        adapter_file("diffusers", "a"),
        diffusers_file(weights, parse({"base_model": {"uri": "file:///b", "family": "sd1"}, "dataset": {"uri": "file:///d"}})),
    )
    return pb.TrainingJob(name="tenants/t/jobs/a", output_uri=layout.root, artifact=pb.Artifact(uri=layout.adapter))


# What is shown and kept.


def test_table_tells_met_from_missed_and_from_not_measured():
    verdicts = list(pack_view.table({**FOUND, "pack16_b1_over_lone": 2.0}).columns[3].cells)
    assert verdicts[:3] == ["met", "MISSED", "not measured"]


def test_parts_that_were_not_measured_keep_their_figures(tmp_path: Path):
    file = tmp_path / "pack.json"
    file.write_text(json.dumps({**FOUND, **results_file.machine(), "date": "2020-01-01"}))
    assert pack_view.laid_over_earlier({"styles_per_hour_over_peer": 5.0}, file) == {**FOUND, "styles_per_hour_over_peer": 5.0}


def test_figures_of_another_machine_are_not_kept(tmp_path: Path):
    file = tmp_path / "pack.json"
    file.write_text(json.dumps({**FOUND, **results_file.machine(), "machine": "another"}))
    assert pack_view.laid_over_earlier({"x": 1.0}, file) == {"x": 1.0}


def test_small_differences_are_not_rounded_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(results_file, "RESULTS", tmp_path)
    kept = json.loads(results_file.write("x", {"difference": 1.23e-7, "similarity": 0.9999961, "runs": 3}).read_text())
    assert (kept["difference"], kept["similarity"], kept["runs"]) == (1.23e-7, 0.999996, 3)


def test_curves_are_drawn_once_they_are_measured(tmp_path: Path):
    pack_view.draw({"styles_per_hour_over_peer": 4.0}, tmp_path / "none.png")
    pack_view.draw(pack.curve_point(1, 10.0, 60.0) | pack.curve_point(16, 40.0, 96.0), tmp_path / "pack.png")
    assert [path.name for path in tmp_path.iterdir()] == ["pack.png"]


@pytest.mark.parametrize("part", sorted(pack.PARTS))
def test_every_part_has_a_server(part: str):
    assert [server.name for server in pack.SERVERS if part in server.parts] == [part if part in {"standby", "warm"} else "cold"]


@pytest.mark.parametrize("arguments", [["--parts", "sped"], ["--parts", "speed"], ["no-such-script.py", "--parts", "warm,curve"]])
def test_parts_that_cannot_be_measured_are_refused_before_anything_starts(arguments: list[str]):
    with pytest.raises(SystemExit):
        pack.parse(arguments)


def test_parts_without_the_peer_need_no_path():
    assert pack.parse(["--parts", "curve,equal"]).parts == ["curve", "equal"]


def test_the_part_standby_runs_on_a_server_whose_workers_stand_by_and_needs_the_script():
    [server] = [server for server in pack.SERVERS if "standby" in server.parts]
    assert server.parts == ("standby",), "no other part may find them"
    assert "standby" in pack.NEED_PEER


def test_memory_and_first_step_of_workers_that_stand_by_are_medians_of_rounds():
    found = single.standby_summary([(8.0, 16.0), (9.0, 10.0), (30.0, 30.0)], [900.0, 1000.0, 1100.0])
    assert found["first_step_standby_over_peer_start_up"] == 0.9
    assert found["standby_memory_mib"] == 1000.0
