"""The Ray driver of a run: prepare -> fit -> done. Started by a backend as `python -m trainer.run --manifest URI`.

Exits 0 once every style's end is reported, whatever it was; anything else tells the control plane to try again.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence

from lorafleet.errors import RunFailed
from lorafleet.run_manifest import RunManifest, Style
from trainer import artifact
from trainer.plan import RunPlan
from trainer.prepare import PreparedStyle, prepare
from trainer.report import Address, Reporter, StaleAttempt
from trainer.storage import Folder

log = logging.getLogger("lorafleet.run")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    manifest = read_manifest(options.manifest)
    address = Address.of(manifest, options.token_file)
    with Reporter(address, source="driver", on_stale=_end_stale_run) as reporter:
        pack = prepare_pack(manifest, reporter)
        if pack:
            train(manifest, RunPlan(pack=pack, cache_uri=manifest.cache_uri, report_to=address), reporter)
        return 0 if reporter.close() else 1


def read_manifest(uri: str) -> RunManifest:
    folder, _, name = uri.rpartition("/")
    return RunManifest.model_validate_json(Folder(folder).get(name))


def prepare_pack(manifest: RunManifest, reporter: Reporter) -> tuple[PreparedStyle, ...]:
    """The styles that can train. One that cannot is reported as failed and leaves the pack."""
    prepared = []
    for style in manifest.pack:
        reporter.progress(style.job, phase="preparing", max_steps=style.spec.training.max_steps)
        try:
            ready = prepare(style, Folder(manifest.cache_uri))
            if (done := artifact.existing(ready)) is not None:
                reporter.succeeded(style.job, style.spec.training.max_steps, done)  # an earlier attempt died after its commit
                continue
        except RunFailed as error:
            log.error("%s: %s", style.job, error)
            reporter.failed(style.job, error)
            continue
        reporter.progress(style.job, num_corrupt_pictures=len(ready.data_set.corrupt))
        _log_prepared(style, ready)
        prepared.append(ready)
    return tuple(prepared)


def train(manifest: RunManifest, plan: RunPlan, reporter: Reporter) -> None:
    """Runs the pack on its workers. A worker's RunFailed is reported; anything else is raised, and the run dies of it."""
    from trainer.workers import fit

    for style in plan.pack:
        reporter.progress(style.job, phase="starting-workers")
    try:
        fit(plan, run=manifest.run, storage_dir=manifest.storage_dir)
    except RunFailed as error:
        for style in plan.pack:
            log.error("%s: %s", style.job, error)
            reporter.failed(style.job, error)
    except StaleAttempt:
        log.warning("run %s was replaced by another attempt; stopping", manifest.run)


def _end_stale_run() -> None:
    """Another attempt has taken over. The driver's death ends its workers too, also while it waits for them to start."""
    log.error("another attempt has taken this run's place; ending")
    logging.shutdown()
    os._exit(3)


def _log_prepared(style: Style, ready: PreparedStyle) -> None:
    facts = {
        "job": style.job,
        "pictures": len(ready.data_set.pictures),
        "held_out": len(ready.held_out),
        "skipped": [f"{each.path}: {each.why}" for each in ready.data_set.corrupt],
        "resolution": ready.resolution,
        "buckets": len(ready.members),
        "base_digest": ready.base.digest,
        "dataset_digest": ready.data_set.digest,
    }
    log.info("prepared %s", json.dumps(facts))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.run", description="Driver of one training run.")
    parser.add_argument("--manifest", required=True, help="URI of the run's manifest")
    parser.add_argument("--token-file", help="file that holds the run token; else it is read from the environment")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
