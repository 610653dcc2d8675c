"""What guards every method of the server, whoever wrote its handler."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs alone
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Method: TypeAlias = Callable[[bytes, _Context], Awaitable[Any]]
_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]]


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs alone
    """No unary call outlives its bound, whatever it waits for; malformed bytes are refused.

    A call that never returns stops KEDA's poll loop for that ScaledObject for good.  gRPC itself
    would log a traceback for each message that is not one.
    """

    def __init__(self, bound_s: float) -> None:
        self._bound_s = bound_s
        self._handlers: dict[str, _Handler] = {}

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler:
        """The handler of a call, guarded; made once for each method there is."""
        method = handler_call_details.method
        if method not in self._handlers:
            found = await continuation(handler_call_details)
            if found is None:  # no such method
                return found
            self._handlers[method] = self._guarded(found)
        return self._handlers[method]

    def _guarded(self, handler: _Handler) -> _Handler:
        decode, encode = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            unary = self._bounded(_decoding(handler.unary_unary, decode))
            return grpc.unary_unary_rpc_method_handler(unary, None, encode)
        if inspect.iscoroutinefunction(handler.unary_stream):
            stream = _decoding(handler.unary_stream, decode)
            return grpc.unary_stream_rpc_method_handler(stream, None, encode)
        return handler

    def _bounded(self, answer: _Method) -> Any:
        async def bounded(request: bytes, context: _Context) -> Any:
            try:
                async with asyncio.timeout(self._bound_s):
                    return await answer(request, context)
            except TimeoutError:
                message = f"no answer within {self._bound_s:g} s"
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, message)

        return bounded


def _decoding(method: Any, decode: Callable[[bytes], Any] | None) -> _Method:
    """``method`` taking the bytes of its request, refusing those that are no such message."""

    async def decoded(request: bytes, context: _Context) -> Any:
        try:
            message = decode(request) if decode else request
        except DecodeError:
            code = grpc.StatusCode.INVALID_ARGUMENT
            await context.abort(code, "the request is not such a message")
        return await method(message, context)

    return decoded
