"""The Ray driver of a run: prepare -> fit -> done. Started by a backend as `python -m trainer.run --manifest URI`.

Exits 0 once every style's end is reported, whatever it was; anything else tells the control plane to try again.
"""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence

from lorafleet.contract import s3_settings
from lorafleet.contract.store_faults import last_words
from lorafleet.errors import RunFailed
from trainer import eviction, run_log, store_credentials, style_isolation
from trainer.prepare.pack import Given, prepare_given, read_manifest
from trainer.report import Address, Reporter, StaleAttempt, report_failed
from trainer.run_plan import RunPlan
from trainer.tracing import TraceTo, span, tracing

log = logging.getLogger("lorafleet.run")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    run_log.set_up()
    store_env = store_credentials.given(options.store_credentials_file)
    store_credentials.adopt(store_env)
    s3_settings.learn_regions(s3_settings.parse_regions(options.bucket_regions))
    try:
        given = read_manifest(options.manifest)
    except RunFailed as error:  # to whom to report is in it
        log.error("the run failed: %s", last_words(error.reason, error.message))
        return 1
    address = Address.of(given.manifest, options.token_file)
    with eviction.at_work():
        try:
            return _run(given, address, store_env)
        except Exception as error:
            log.exception("what follows ended the run")
            log.error("the run failed: %s", _in_one_line(error))  # the last words, which the control plane quotes
            return 1


def _run(given: Given, address: Address, store_env: Mapping[str, str]) -> int:
    manifest = given.manifest
    if manifest.tasks:
        from trainer.work.driver import run_tasks

        return run_tasks(manifest, address, store_env)
    if manifest.standby is not None:  # its workers alone speak for it
        return train(RunPlan.of(manifest, (), address, {}), storage_dir=manifest.storage_dir)
    with tracing(TraceTo.of(manifest)), Reporter(address, source="driver", on_stale=_end_stale_run) as reporter:
        with span("prepare", num_jobs=len(manifest.pack)):
            pack = prepare_given(given, reporter)
        for style in pack:
            reporter.progress(style.job, phase="starting-workers")
        if not reporter.close():
            return 1
    # From here on the workers speak for the run, and warm ones for runs that this driver never hears of.
    return train(RunPlan.of(manifest, pack, reporter.address, store_env), storage_dir=manifest.storage_dir) if pack else 0


def train(plan: RunPlan, *, storage_dir: str) -> int:
    """Runs the pack on its workers. What a worker raises on purpose is reported of every style that has not ended; the rest is raised."""
    from trainer.workers import fit

    try:
        fit(plan, storage_dir=storage_dir)
    except RunFailed as error:
        return 0 if report_failed(plan.report_to, [style.job for style in plan.pack], error) else 1
    except StaleAttempt:
        log.warning("run %s was replaced by another attempt; stopping", plan.run)
    return 0


def _in_one_line(error: Exception) -> str:
    """What broke the run, without the tracebacks and colours that Ray puts into its own messages."""
    *_, cause = style_isolation.causes_of(error)
    return style_isolation.in_one_line(cause)


def _end_stale_run() -> None:
    """Another attempt has taken over: prepare nothing for it."""
    log.error("another attempt has taken this run's place; ending")
    logging.shutdown()
    os._exit(3)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.run", description="Driver of one training run.")
    parser.add_argument("--manifest", required=True, help="URI of the run's manifest")
    parser.add_argument("--token-file", help="file that holds the run token; else it is read from the environment")
    parser.add_argument("--store-credentials-file", help="file that holds the store's AWS_* variables; else they are the environment's")
    parser.add_argument("--bucket-regions", default="", help="where buckets are that are not in the usual region: BUCKET=REGION,...")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
