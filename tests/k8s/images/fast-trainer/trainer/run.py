"""`python -m trainer.run --manifest URI`, as the trainer's driver is started, of a trainer that trains nothing.

All the rest is real: the manifest out of the store, workers that Ray places by the spec's resources, reports by the trainer's
own reporter, checkpoints, resuming, stopping, and an artifact committed by its manifest. A loss is a function of seed and step.
Labels of the spec set the pace: `step-ms` (default 0) for each step, `commit-ms` before the artifact, `gates` names steps (5,10) behind
which it waits to be let through: for what is to happen while a job trains, however long that takes. With the label `workers` set
to `none` the driver does the worker's part itself: it reports and ends, and is there without a start of Ray's workers.
"""

import argparse
import logging
import sys

from trainer.fast import Worker

from lorafleet.contract import s3_settings
from lorafleet.contract.run_manifest import RunManifest
from trainer import eviction
from trainer.report import Address, Reporter
from trainer.storage import Folder

log = logging.getLogger("lorafleet.run")


def main() -> int:
    options = _options()
    s3_settings.learn_regions(s3_settings.parse_regions(options.bucket_regions))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    folder, _, name = options.manifest.rpartition("/")
    manifest = RunManifest.model_validate_json(Folder(folder).get(name))
    address = Address.of(manifest, options.token_file)
    with Reporter(address, source="driver") as reporter:
        for style in manifest.pack:
            reporter.progress(style.job, phase="starting-workers", max_steps=style.spec.training.max_steps)
        if not reporter.close():
            return 1
    if manifest.pack[0].spec.labels.get("workers") == "none":
        Worker(rank=0).train(manifest, address)
        return 0
    return fit(manifest, address)


def fit(manifest: RunManifest, address: Address) -> int:
    """One worker in each bundle, placed as Ray Train places them: all at once or none. Ends with rank 0, or the first that dies."""
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    cluster = manifest.pack[0].spec.cluster
    bundle = {"CPU": cluster.cpus_per_worker, **({"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {})}
    ray.init(logging_level=logging.WARNING)
    group = placement_group([bundle] * cluster.num_workers, strategy="PACK")
    ray.get(group.ready())
    log.info("== run %s ==", manifest.run)
    workers = [
        ray.remote(Worker)
        .options(
            num_cpus=bundle["CPU"],
            num_gpus=bundle.get("GPU", 0),
            max_concurrency=2,  # it trains in one thread, and hears in the other that it must leave
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
        )
        .remote(rank)
        for rank in range(cluster.num_workers)
    ]
    rounds = [worker.train.remote(manifest, address) for worker in workers]
    with eviction.at_work():
        while not (ended := ray.wait(rounds, timeout=1)[0]):
            if eviction.is_told():
                workers[0].leave.remote()
        ray.get(ended)  # raises what a worker died of
        if ended[0] != rounds[0]:  # another rank's pod must go: rank 0 saves for all
            workers[0].leave.remote()
            ray.get(rounds[0])
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.run")
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--token-file")
    parser.add_argument("--bucket-regions", default="")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
