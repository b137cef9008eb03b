"""A tenant that sends poison: bases whose headers are damaged in every way we know of, and specs that are none any more."""

import json
import os
import random
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.chaos.database import FleetDatabase
from bench.chaos.load import LONG, Records
from lorafleet import spec as specs
from lorafleet.client import Client
from tests.service.test_poisoned_bases import KINDS, make_base

TENANT = "evil"
OWN_KINDS = ("words", "negative", "cut off", "no length", "a folder")  # beside those of the tests
BAD_SPECS = ("{}", "[]", '"word"', '{"base_model": {"uri": 7}, "dataset": null}', '{"training": {"max_steps": 1e400}}')
BASES_AT_ONCE = 4
SPECS_AT_ONCE = 2
_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


class Poisoner:
    """Submits some poisoned jobs each time; all kinds come up, in an order that the seed draws."""

    def __init__(self, target: str, folder: Path, database: FleetDatabase, records: Records, seed: int) -> None:
        self._target = target
        self._folder = folder
        self._database = database
        self._records = records
        draw = random.Random(f"{seed}/{TENANT}")
        self._kinds = _again_and_again([*KINDS, *OWN_KINDS], draw)
        self._specs = _again_and_again(list(BAD_SPECS), draw)
        self._draw = draw
        self._num_bases = 0

    def poison(self) -> int:
        """How many poisoned jobs were accepted."""
        with Client(self._target, tenant=TENANT, patience=LONG, call_timeout_s=4.0) as client:
            names = [self._submit(client, self._base()) for _ in range(BASES_AT_ONCE)]
            for _ in range(SPECS_AT_ONCE):
                names.append(self._submit(client, f"file://{self._folder}/base"))
                self._database.replace_spec(TENANT, names[-1].rpartition("/")[2], next(self._specs))
        return len(names)

    def _base(self) -> str:
        self._num_bases += 1
        return poisoned(self._folder / f"poison-{self._num_bases}", next(self._kinds))

    def _submit(self, client: Client, base: str) -> str:
        fields: dict[str, Any] = {"base_model": {"uri": base}, "dataset": {"uri": f"file://{self._folder}/pictures"}}
        request_id = str(uuid.UUID(int=self._draw.getrandbits(128), version=4))
        name = client.create(specs.parse({**fields, "training": {"max_steps": 20}}), request_id=request_id).name
        with self._records.lock:
            self._records.accepted.append(name)
        return name


def poisoned(folder: Path, kind: str) -> str:
    """The URI of a base that is poisoned in that way."""
    uri = make_base(folder, kind)
    weights, config = folder / _WEIGHTS, folder / "unet/config.json"
    match kind:
        case "words":
            _write_header(weights, {"conv_in.weight": {"shape": ["a", "b"]}})
        case "negative":
            _write_header(weights, {"conv_in.weight": {"shape": [-4, 4, 3, 3]}, "to_q.weight": {"shape": [-(10**9), 4]}})
        case "cut off":
            os.truncate(weights, 20)
        case "no length":
            weights.write_bytes(b"\xff" * 8 + b"{}")
        case "a folder":
            config.unlink()
            config.mkdir()
        case _:
            pass
    return uri


def _write_header(path: Path, fields: dict[str, Any]) -> None:
    header = json.dumps(fields).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def _again_and_again(things: list[str], draw: random.Random) -> Iterator[str]:
    while True:
        draw.shuffle(things)
        yield from things
