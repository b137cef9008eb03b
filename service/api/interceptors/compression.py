"""Compresses the large answers to a client that takes it."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from service.api.errors import Context
from service.api.handlers import Handler, MethodInterceptor, wrapped

WORTH_IT_BYTES = 2048  # an event or an answer to a report has some hundred: with a thousand watchers a deflate is most of the work


class CompressionInterceptor(MethodInterceptor):
    """Lets small answers go as they are. The server's options say how the others are compressed."""

    def around(self, method: str, handler: Handler) -> Handler:
        return wrapped(handler, unary=_unary, stream=_stream)


def _unary(method: Any) -> Any:
    async def call(request: Any, context: Context) -> Any:
        answer = await method(request, context)
        _weigh(answer, context)
        return answer

    return call


def _stream(method: Any) -> Any:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        async with aclosing(method(request, context)) as answers:
            async for answer in answers:
                _weigh(answer, context)
                yield answer

    return call


def _weigh(answer: Any, context: Context) -> None:
    if answer.ByteSize() < WORTH_IT_BYTES:
        context.disable_next_message_compression()
