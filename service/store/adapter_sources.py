"""Finds the files of an adapter that was made elsewhere, and reads the header of its weights."""

from dataclasses import dataclass

from lorafleet.contract.layout import join
from service.store.client import Store, StoreError

MAX_BYTES = 2**29  # of the weights: they are looked at in memory, one file at a time
MAX_HEADER_BYTES = 2**24
ENDING = ".safetensors"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # of a folder of PEFT's


@dataclass(frozen=True, kw_only=True)
class Source:
    """`config`: of PEFT's; None: it is one file."""

    folder: str
    weights: str
    config: str | None = None

    @property
    def names(self) -> list[str]:
        """Of its files, in their folder."""
        return [self.weights] if self.config is None else [self.config, self.weights]


def source_of(uri: str) -> Source:
    """A file, or a folder of PEFT's."""
    if uri.endswith(ENDING):
        folder, _, name = uri.rpartition("/")
        return Source(folder=folder, weights=name)
    return Source(folder=uri, weights=WEIGHTS, config=CONFIG)


async def header_of(store: Store, source: Source) -> bytes:
    """The header of the weights, in JSON. Raises StoreError, and Unavailable."""
    uri = join(source.folder, source.weights)
    store = store.within(source.folder)
    if source.config is not None and not await store.exists(join(source.folder, source.config)):
        what = f"{source.folder} is no file that ends in {ENDING}, and no folder of PEFT's"
        raise StoreError(f"there is no {source.config} beside it: {what}", reason="SOURCE_NOT_FOUND")
    length = await store.get_range(uri, 0, 8)
    if length is None:
        raise StoreError(f"there is no {uri}", reason="SOURCE_NOT_FOUND")
    num_bytes = int.from_bytes(length, "little")
    if len(length) < 8 or not 0 < num_bytes <= MAX_HEADER_BYTES:
        raise StoreError("is no safetensors file, or cut short: it has no header", reason="UNREADABLE")
    header = await store.get_range(uri, 8, num_bytes)
    if header is None or len(header) < num_bytes:
        raise StoreError("is cut short: its header is not whole", reason="UNREADABLE")
    return header
