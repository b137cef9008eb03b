"""From a run's manifest to the styles that can train: in the driver for the first run, in warm workers for later ones."""

import json
import logging
from collections.abc import Sequence

from lorafleet.errors import RunFailed
from lorafleet.run_manifest import RunManifest, Style
from lorafleet.s3_settings import learn_regions
from trainer import artifact, one_style, run_log
from trainer.prepare import PreparedStyle, prepare
from trainer.report import Reporter
from trainer.storage import Folder

log = logging.getLogger("lorafleet.prepare")


def read_manifest(uri: str) -> RunManifest:
    folder, _, name = uri.rpartition("/")
    manifest = RunManifest.model_validate_json(Folder(folder).get(name))
    learn_regions(manifest.bucket_regions)
    return manifest


def prepare_pack(styles: Sequence[Style], cache_uri: str, reporter: Reporter) -> tuple[PreparedStyle, ...]:
    """The styles that can train. One that cannot is reported as failed and leaves the pack."""
    return tuple(ready for style in styles if (ready := _prepare_one(style, cache_uri, reporter)) is not None)


def _prepare_one(style: Style, cache_uri: str, reporter: Reporter) -> PreparedStyle | None:
    try:
        with one_style.only(style.job, "preparing the style"):
            return _prepared(style, cache_uri, reporter)
    except RunFailed as error:
        with run_log.about(style.job):
            log.error("%s", error)
        reporter.failed(style.job, error)
        return None


def _prepared(style: Style, cache_uri: str, reporter: Reporter) -> PreparedStyle | None:
    max_steps = style.spec.training.max_steps
    reporter.progress(style.job, phase="preparing", max_steps=max_steps)
    ready = prepare(style, Folder(cache_uri))
    with one_style.naming(f"output.uri: {style.output_uri}"):
        done = artifact.existing(ready)
    if done is not None:
        reporter.succeeded(style.job, max_steps, done)  # an earlier attempt died after its commit
        return None
    reporter.progress(style.job, num_corrupt_pictures=len(ready.data_set.corrupt))
    _log_prepared(ready)
    return ready


def _log_prepared(ready: PreparedStyle) -> None:
    facts = {
        "pictures": len(ready.data_set.pictures),
        "held_out": len(ready.held_out),
        "skipped": [f"{each.path}: {each.why}" for each in ready.data_set.corrupt],
        "resolution": ready.resolution,
        "buckets": len(ready.members),
        "base_digest": ready.base.digest,
        "dataset_digest": ready.data_set.digest,
    }
    log.info("prepared %s", json.dumps(facts))
