"""make_sync_client.py [OUT_DIR]: writes lorafleet/sync, the blocking client, from lorafleet/aio, the one that is written by hand.

Both read alike but for the words below, so a few replacements and ruff are the whole of it; `make check` compares. What the two do
differently, which is to wait, is in lorafleet/transport/async_io.py and lorafleet/transport/sync_io.py, by the same names.
"""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "lorafleet" / "aio"
NOTE = "Made by scripts/make_sync_client.py from lorafleet/aio/{name}: change that one, then run `make sync-client`."

WORDS = [
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAwaitable, ", ""),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAsync(?=[A-Z])", ""),  # AsyncClient, AsyncGenerator
    (r"\blorafleet\.aio\b", "lorafleet.sync"),
    (r"\basync_io\b", "sync_io"),
    (r"\baclosing\b", "closing"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\b[Aa]synchronous\b", "blocking"),
]
LEFT = re.compile(r"\b(async|await|asyncio)\b")  # in what is made: a word that this list does not know yet


def made(name: str, source: str) -> str:
    """The blocking twin of a module, as ruff formats it."""
    for pattern, replacement in WORDS:
        source = re.sub(pattern, replacement, source)
    if left := LEFT.search(source):
        raise SystemExit(f"{SOURCE / name}: no blocking word for {left[0]!r}; add it to WORDS, or move it to transport/async_io.py")
    opening, docstring, code = source.split('"""', 2)
    source = f'{opening}"""{docstring}"""\n# {NOTE.format(name=name)}\n{code}'
    for command in (["check", "--quiet", "--fix", "--select", "I"], ["format", "--quiet"]):
        source = _ruff(*command, "--stdin-filename", f"lorafleet/sync/{name}", "-", source=source)
    return source


def _ruff(*arguments: str, source: str) -> str:
    ran = subprocess.run(["ruff", *arguments], input=source, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return ran.stdout


def main() -> None:
    if sys.argv[1:] and sys.argv[1].startswith("-"):
        raise SystemExit(f"{sys.argv[1]}: no options are taken; {(__doc__ or '').splitlines()[0]}")
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "lorafleet" / "sync"
    out.mkdir(parents=True, exist_ok=True)
    modules = {path.name: path.read_text() for path in sorted(SOURCE.glob("*.py"))}
    for stale in {path.name for path in out.glob("*.py")} - set(modules):
        (out / stale).unlink()
    for name, source in modules.items():
        (out / name).write_text(made(name, source) if name != "__init__.py" else f'"""{NOTE.format(name="")}"""\n')


if __name__ == "__main__":
    main()
