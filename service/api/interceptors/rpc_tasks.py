"""Finds which of gRPC's tasks stands for a whole call. A handler runs in a task inside it, and gRPC has no other way to end a call from
here."""

import asyncio
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

_CALL = "rpc_task"  # gRPC's name of it: it lasts until the caller has read the answer, or is gone
_calls: WeakKeyDictionary["asyncio.Task[Any]", "asyncio.Task[Any]"] = WeakKeyDictionary()


def keep_calls(loop: asyncio.AbstractEventLoop) -> None:
    """From now on the loop remembers in which call a task was begun."""
    factory: Any = _begin
    loop.set_task_factory(factory)


def cut_off(task: "asyncio.Task[Any]") -> None:
    """Ends the call that the handler's task is of, although its answer was not read. gRPC then resets the stream."""
    task.cancel()
    if (call := _calls.get(task)) is not None:
        call.cancel()


def _begin(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **more: Any) -> "asyncio.Task[Any]":
    task = asyncio.Task(coro, loop=loop, **more)
    parent = asyncio.current_task(loop)
    if parent is not None and parent.get_name() == _CALL:
        _calls[task] = parent
    return task
