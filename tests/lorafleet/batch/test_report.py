"""The report of a batch: figures that add up, and sheets with a row for each style."""

import hashlib
from io import BytesIO
from pathlib import Path

from PIL import Image

from lorafleet.batch import report as batch_report
from lorafleet.batch import sheet as batch_sheet
from lorafleet.contact_sheet import GAP, LABEL_HEIGHT
from lorafleet.control_characters import is_harmless
from lorafleet.v1 import training_service_pb2 as pb
from tests.lorafleet.batch_jobs import NOW, before_now
from tests.lorafleet.jobs import a_batch, a_job
from tests.lorafleet.test_download import manifest_of


def trained(id: str = "fox", artifact: pb.Artifact = pb.Artifact(uri="s3://a/fox")) -> pb.TrainingJob:  # noqa: B008 - nobody writes it
    times = {"create_time": before_now(3600), "end_time": before_now(1800)}
    attempts = [pb.Attempt(number=1, run="run-a", pack_size=2), pb.Attempt(number=2, run="run-b", pack_size=1)]
    job = a_job(id, "SUCCEEDED", step=200, attempts=attempts, artifact=artifact, **times)
    job.progress.MergeFrom(pb.Progress(loss=0.09, held_out_loss_base=0.4, held_out_loss=0.1))
    job.spec.labels["customer"] = "7"
    return job


def failed(id: str = "cat") -> pb.TrainingJob:
    attempts = [pb.Attempt(number=1, run="run-a", pack_size=2)]
    times = {"create_time": before_now(3600), "end_time": before_now(2400)}
    return a_job(id, "FAILED", reason="DATASET_EMPTY", message="no picture\nin <there>", attempts=attempts, **times)


def test_report_counts_packs_and_what_has_succeeded() -> None:
    told = batch_report.report(a_batch(), [trained(), failed()], NOW)
    assert told["batch"] == "tenants/acme/batches/tonight"
    assert (told["num_styles"], told["packs"], told["wall_seconds"], told["styles_per_hour"]) == (2, 2, 1800.0, 2.0)
    assert told["states"] == {"SUCCEEDED": 1, "FAILED": 1}


def test_report_of_a_style_has_its_losses_and_its_last_run() -> None:
    assert batch_report.style(trained()) == {
        "job": "tenants/acme/jobs/fox",
        "state": "SUCCEEDED",
        "reason": "",
        "message": "",
        "steps": 200,
        "max_steps": 200,
        "held_out_loss_base": 0.4,
        "held_out_loss": 0.1,
        "final_loss": 0.09,
        "artifact_uri": "s3://a/fox",
        "attempts": 2,
        "run": "run-b",
        "pack_size": 1,
        "labels": {"customer": "7"},
    }


def test_report_of_a_style_that_never_ran_has_the_same_keys() -> None:
    queued = batch_report.style(pb.TrainingJob(name="tenants/acme/jobs/x", state=pb.JOB_STATE_QUEUED))
    assert list(queued) == list(batch_report.style(trained()))
    assert (queued["final_loss"], queued["run"], queued["artifact_uri"]) == (None, None, None)


def test_report_to_read_has_sheets_failures_and_losses() -> None:
    text = batch_report.markdown(a_batch(), [trained(), failed()], NOW, ["sheet.png", "sheet-2.png"])
    assert "2 styles (1 succeeded, 1 failed) in 2 packs, 30:00: 2 styles an hour." in text
    assert "![contact sheet](sheet-2.png)" in text
    assert "| cat | DATASET_EMPTY | no picture in &lt;there> |" in text
    assert "| fox | succeeded | 200/200 | 0.0900 | 0.4000 → 0.1000 (-75%) | run-b | 1 |" in text


def test_report_to_read_turns_no_letters_around() -> None:
    job = failed()
    job.message = "cannot be read: \u202egnp.exe \x1b[2J"
    text = batch_report.markdown(a_batch(), [job], NOW, [])
    assert is_harmless(text)
    assert "cannot be read: \\u202egnp.exe \\x1b[2J" in text


def test_report_to_read_without_failures_has_no_section_for_them() -> None:
    assert "Failures" not in batch_report.markdown(a_batch(), [trained()], NOW, [])


# Sheets.


def an_artifact(store: Path, *colours: str) -> pb.Artifact:
    files: dict[str, bytes] = {"samples/notes.txt": b"no picture"}
    for number, colour in enumerate(colours):
        picture = BytesIO()
        Image.new("RGB", (256, 256), colour).save(picture, "PNG")
        files[f"samples/{number:03d}.png"] = picture.getvalue()
    for path, data in {**files, "manifest.json": manifest_of(files)}.items():
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_bytes(data)
    return pb.Artifact(uri=store.as_uri(), manifest_sha256=hashlib.sha256(manifest_of(files)).hexdigest())


def colour_at(sheet: Image.Image, row: int, column: int) -> object:
    """Of the cell, counted from the right: the margin at the left is as wide as the labels."""
    left = sheet.width - (column + 1) * (batch_sheet.CELL + GAP)
    return sheet.getpixel((left + 10, LABEL_HEIGHT + row * (batch_sheet.CELL + GAP) + 10))


def test_sheet_has_a_row_for_each_style_and_an_empty_one_for_a_failed(tmp_path: Path) -> None:
    jobs = [
        trained("a", artifact=an_artifact(tmp_path / "a", "red", "lime")),
        failed(),
        trained("b", artifact=an_artifact(tmp_path / "b", "blue")),
    ]
    drawn = batch_sheet.draw(jobs, tmp_path)
    assert ([path.name for path in drawn.paths], drawn.missing) == (["sheet.png"], [])
    sheet = Image.open(drawn.paths[0])
    assert [[colour_at(sheet, row, column) for column in (1, 0)] for row in range(3)] == [
        [(255, 0, 0), (0, 255, 0)],
        [(255, 255, 255), (255, 255, 255)],
        [(0, 0, 255), (255, 255, 255)],
    ]


def test_sheet_of_hundreds_is_cut_into_pages_and_old_pages_go(tmp_path: Path) -> None:
    red = an_artifact(tmp_path / "store", "red")
    jobs = [trained(f"s{number}", artifact=red) for number in range(batch_sheet.ROWS_A_PAGE + 1)]
    assert [path.name for path in batch_sheet.draw(jobs, tmp_path).paths] == ["sheet.png", "sheet-2.png"]
    assert Image.open(tmp_path / "sheet.png").height == LABEL_HEIGHT + 50 * (batch_sheet.CELL + GAP) + GAP
    (tmp_path / "sheet-mine.png").write_bytes(b"mine")
    batch_sheet.draw(jobs[:1], tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["sheet-mine.png", "sheet.png"]


def test_artifact_that_is_not_the_committed_one_is_not_drawn(tmp_path: Path) -> None:
    tampered = an_artifact(tmp_path / "store", "red")
    (tmp_path / "store/samples/000.png").write_bytes(b"something else")
    drawn = batch_sheet.draw([trained("fox", artifact=tampered)], tmp_path)
    assert drawn.missing[0].startswith("fox: samples/000.png")


def test_label_of_a_row_tells_the_loss_or_why_there_is_none() -> None:
    assert batch_sheet.row_label(trained()) == "fox\n0.4000 to 0.1000\n(-75%)"
    assert batch_sheet.row_label(failed()) == "cat\nFAILED\nDATASET_EMPTY"
