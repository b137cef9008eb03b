"""Has a child process parse what a tenant wrote: a value within limits comes back, or one kind of error, in bounded time.

The child is started for each request, in some 30 ms, so that nothing of one tenant's can be met by another's. Input and answer
are files without names, not pipes: neither side can make the other wait.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from lorafleet.contract import artifact_manifest
from lorafleet.contract.artifact_manifest import ArtifactManifest
from lorafleet.errors import LorafleetError, Unavailable
from service.core.concurrency import Lanes
from service.untrusted import child

WITHIN_S = 10.0  # by the clock, of a machine that is busy; CPU time and memory are limited by the child itself
AT_ONCE = 4  # children; each tenant has one at a time


class ToldArtifact(NamedTuple):
    """What a manifest says: its maker's word."""

    manifest: ArtifactManifest
    words: dict[str, str]  # base_digest and family, each where it is there
    quality: dict[str, float]  # figures by name
    parents: list[dict[str, Any]]  # what it was made of: name or uri, digest and weight where they are told


class Unreadable(LorafleetError):
    """What a tenant wrote is not what it should be, or takes too much to parse."""

    reason = "UNREADABLE"


class ParserUnavailable(Unavailable):
    """The machine had no time, no memory or no process for parsing: this says nothing of what a tenant wrote."""

    reason = "PARSER_UNAVAILABLE"


class Parser:
    """Parses for all tenants. Who asks for much waits for himself: take the tenant's lane around reading and parsing."""

    def __init__(self, within_s: float = WITHIN_S) -> None:
        self.lanes = Lanes(AT_ONCE)
        self._within_s = within_s

    async def parse(self, kind: str, files: Sequence[bytes]) -> dict[str, Any]:
        """The answer of `child.KINDS`. Raises Unreadable for what a tenant wrote, ParserUnavailable for what the machine lacks."""
        try:
            with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as answer:
                await asyncio.to_thread(_write, request, files)
                code = await self._run(kind, files, request, answer)
                answer.seek(0)
                text = answer.read(child.ANSWER_BYTES)
        except OSError as error:
            raise ParserUnavailable(f"no parser can be started: {error.strerror}; it is tried again") from error
        return _checked(code, text, self._within_s)

    async def manifest(self, text: bytes) -> ArtifactManifest:
        """The files of an artifact. Raises as `parse` does, and InvalidInput for one whose files must not be."""
        return (await self.artifact(text)).manifest

    async def artifact(self, text: bytes) -> ToldArtifact:
        """The files of an artifact, and what its manifest tells of it. Raises as `manifest` does."""
        found = await self.parse("manifest", [text])
        return ToldArtifact(artifact_manifest.parse(json.dumps(found).encode()), found["words"], found["quality"], found["parents"])

    async def _run(self, kind: str, files: Sequence[bytes], request: IO[bytes], answer: IO[bytes]) -> int | None:
        """The exit code; None when it took too long."""
        sizes = [str(len(data)) for data in files]
        command = [sys.executable, "-I", "-S", str(Path(child.__file__)), kind, *sizes]
        env = {name: value for name, value in os.environ.items() if name == "LD_LIBRARY_PATH"}  # no secret is near what it parses
        process = await asyncio.create_subprocess_exec(*command, stdin=request, stdout=answer, stderr=asyncio.subprocess.DEVNULL, env=env)
        try:
            async with asyncio.timeout(self._within_s):
                return await process.wait()
        except TimeoutError:
            return None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _write(request: IO[bytes], files: Sequence[bytes]) -> None:
    for data in files:
        request.write(data)
    request.flush()
    request.seek(0)


def _checked(code: int | None, text: bytes, within_s: float) -> dict[str, Any]:
    """Its limits are CPU time and memory of its own: what the clock says, and who else kills it, is the machine's doing."""
    if code is None or code == -signal.SIGKILL:
        told = f"did not end within {within_s:.0f} s" if code is None else "was killed"
        raise ParserUnavailable(f"its parser {told}, while the machine is busy with other work; it is tried again")
    if code != 0:
        limits = f"{child.CPU_S} s of CPU time and {child.MEMORY_BYTES // 2**20} MiB"
        raise Unreadable(f"it takes more than {limits} to parse" if code < 0 else "its parser failed")
    found: dict[str, Any] = json.loads(text)
    if "error" in found:
        raise Unreadable(found["error"])
    return found
