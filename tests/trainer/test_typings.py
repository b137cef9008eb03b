"""Types written by hand for libraries are those libraries' still: what they name is there, and takes what they say it takes."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafleet.spec import ClusterSpec
from trainer.engine import select_accelerator

TYPINGS = Path(__file__).resolve().parents[2] / "typings"
STUBS = sorted(str(path.relative_to(TYPINGS)) for path in TYPINGS.rglob("*.pyi"))


@pytest.mark.parametrize("stub", STUBS)
def test_what_is_typed_for_a_library_is_there(stub: str):
    select_accelerator(ClusterSpec())  # DeepSpeed decides as it is imported
    library = importlib.import_module(".".join(Path(stub).with_suffix("").parts).removesuffix(".__init__"))
    assert list(misfits(library, (TYPINGS / stub).read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "def absent() -> None: ...",
        "def parse(source: str, *, absent: bool) -> object: ...",
        "def parse(mode: str, source: str) -> object: ...",
        "class NodeVisitor:\n    def absent(self) -> None: ...",
        "absent: int",
    ],
)
def test_a_misfit_is_found(text: str):
    assert len(list(misfits(ast, text))) == 1


def misfits(owner: object, text: str) -> Iterator[str]:
    """What a module's or a class's stub says and it does not have. Names with an underscore are the stub's own, unless functions."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from misfits(getattr(owner, node.name), "\n".join(ast.unparse(each) for each in node.body))
        elif isinstance(node, ast.FunctionDef):
            yield from _misfit(owner, node)
        elif isinstance(node, ast.AnnAssign) and not isinstance(owner, type) and not hasattr(owner, ast.unparse(node.target)):
            yield ast.unparse(node)


def _misfit(owner: object, node: ast.FunctionDef) -> Iterator[str]:
    if not hasattr(owner, node.name):
        yield f"{node.name} is not there"
        return
    parameters = inspect.signature(getattr(owner, node.name)).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return
    in_order = [each.arg for each in node.args.args]
    if list(parameters)[: len(in_order)] != in_order or not {each.arg for each in node.args.kwonlyargs} <= set(parameters):
        yield f"{ast.unparse(node)} takes {list(parameters)}"
