"""From a run's manifest to the styles that can train: in the driver for the first run, in warm workers for later ones."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lorafleet.contract.run_manifest import RunManifest, Style
from lorafleet.contract.s3_settings import learn_regions
from lorafleet.errors import RunFailed
from trainer import artifact, run_log, style_isolation
from trainer.prepare import data_facts
from trainer.prepare.style import PreparedStyle, prepare
from trainer.report import Reporter, not_understood
from trainer.storage import Folder

log = logging.getLogger("lorafleet.prepare")


class Given(NamedTuple):
    """What a run was given: its manifest with the styles that can be read, and why the others cannot, by job."""

    manifest: RunManifest
    unreadable: Mapping[str, RunFailed]


def read_manifest(uri: str) -> Given:
    """A style that this trainer does not understand fails alone, as a joiner does."""
    folder, _, name = uri.rpartition("/")
    fields = json.loads(Folder(folder).get(name))
    given, parents = fields.pop("pack"), fields.pop("trace_parents", ())
    found = [_read_style(each) for each in given]
    kept = [number for number, each in enumerate(found) if isinstance(each, Style)]
    fields |= {"pack": [given[number] for number in kept], "trace_parents": [parents[number] for number in kept if number < len(parents)]}
    unreadable = {str(each["job"]): error for each, error in zip(given, found, strict=True) if isinstance(error, RunFailed)}
    manifest = RunManifest.model_validate_json(json.dumps(fields))
    learn_regions(manifest.bucket_regions)
    return Given(manifest, unreadable)


def _read_style(fields: Any) -> Style | RunFailed:
    try:
        return Style.model_validate_json(json.dumps(fields))
    except (ValueError, RecursionError) as error:
        return not_understood(error)


def prepare_given(given: Given, reporter: Reporter) -> tuple[PreparedStyle, ...]:
    """The styles of a new run that can train."""
    for job, error in given.unreadable.items():
        _say_failed(job, error, reporter)
    return prepare_pack(given.manifest.pack, given.manifest.cache_uri, reporter)


def prepare_pack(styles: Sequence[Style], cache_uri: str, reporter: Reporter) -> tuple[PreparedStyle, ...]:
    """The styles that can train. One that cannot is reported as failed and leaves the pack."""
    return tuple(ready for style in styles if (ready := _prepare_one(style, cache_uri, reporter)) is not None)


def _prepare_one(style: Style, cache_uri: str, reporter: Reporter) -> PreparedStyle | None:
    try:
        with style_isolation.only(style.job, "preparing the style"):
            return _prepared(style, cache_uri, reporter)
    except RunFailed as error:
        _say_failed(style.job, error, reporter)
        return None


def _say_failed(job: str, error: RunFailed, reporter: Reporter) -> None:
    with run_log.about(job):
        log.error("%s", error)
    reporter.failed(job, error)


def _prepared(style: Style, cache_uri: str, reporter: Reporter) -> PreparedStyle | None:
    max_steps = style.spec.training.max_steps
    reporter.progress(style.job, phase="preparing", max_steps=max_steps)
    ready = prepare(style, Folder(cache_uri))
    with style_isolation.naming(f"output.uri: {style.output_uri}"):
        done = artifact.existing(ready)
    if done is not None:
        reporter.succeeded(style.job, max_steps, done)  # an earlier attempt died after its commit
        return None
    reporter.progress(style.job, num_corrupt_pictures=len(ready.data_set.corrupt))
    for caution in ready.cautions:
        log.warning("%s", caution)
    log.info("prepared %s", json.dumps(data_facts.for_log(ready)))
    return ready
