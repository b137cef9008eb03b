"""The header of a safetensors file in the store: which tensors it holds, with nothing of them read. No torch."""

from trainer import untrusted
from trainer.prepare.base_folders import BaseFolders
from trainer.storage import Entry, Folder
from trainer.untrusted import Refused, Stored


def stored_tensors(folder: BaseFolders | Folder, file: Entry) -> dict[str, Stored]:
    """By name. The file's length must be what its header says, for half an upload has a fine header. Raises Refused."""
    size_bytes = file.size_bytes
    length = int.from_bytes(folder.get_range(file.path, 0, 8), "little") if size_bytes > 8 else size_bytes
    if not 0 < length <= min(size_bytes - 8, untrusted.MAX_HEADER_BYTES):
        raise Refused("is not a safetensors file, or cut short; upload it again")
    return untrusted.tensors(folder.get_range(file.path, 8, length), size_bytes - 8 - length)
