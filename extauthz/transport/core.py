"""A gRPC server in one thread, on the completion queue of gRPC's core.

grpcio's own servers hand each event of a call on: ``grpc.aio`` to an event loop, ``grpc.server`` to a pool of
threads. Where the answer takes a few microseconds that is nearly all of the work. Here the thread that takes
the events from the queue also answers: an empty answer takes 27-30 us of processor time, with ``grpc.aio`` on
uvloop 180-210 us (h2load, 64 in flight, two processors).

It is made of ``grpc._cython.cygrpc``, which both of grpcio's servers are made of and which is not documented:
this module is the only one that knows of it. The contract tests have run with grpcio 1.70, 1.83 and 1.85.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # not in the stubs

from extauthz.transport.calls import PEER, Refusal
from extauthz.transport.handlers import INTERNAL, ClientGone

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    import grpc

    from extauthz.transport.calls import Pairs

    Arrival = Any
    """A call that has come: cygrpc's ``RequestCallEvent``."""
    Event = Any
    Operations = tuple[Any, ...]
    Tag = Callable[[Event], None]
    """Called in the thread of the server with the event that it was given for."""
    OnMessage = Callable[[Arrival, bytes], None]

logger = logging.getLogger(__name__)

AWAITED: Final = 64
"""Calls that may arrive before the first of them is looked at, without waiting in the core: in the first
trial an empty handler answered 38,000 calls a second with one, 48,000 with 64."""
MAX_TAKEN: Final = 24
"""Events that may be taken, if they are there, before an answer is sent: those of eight calls. Checks find
what they need in the processor's caches when their answers are sent one after the other, and so does what
sends; the client is woken less often: a Check takes 50 us of processor time so, not 68. And nothing that
clients send without end can hold an answer up for longer."""
AT_ONCE: Final = 0.0
"""Until when to wait for an event that is there or is not: this time is over."""

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
"""Read when gRPC begins its work. Without it four threads of the core read from connections and pass on what
they have read; so the thread of the server reads itself: a Check takes 50 us of processor time, not 66."""

_FLAGS: Final = 0
_OK: Final = cygrpc.StatusCode.ok
_TIMEOUT: Final = cygrpc.CompletionType.queue_timeout
_SendInitial: Final = cygrpc.SendInitialMetadataOperation
_SendMessage: Final = cygrpc.SendMessageOperation
_SendStatus: Final = cygrpc.SendStatusFromServerOperation
_ReceiveMessage: Final = cygrpc.ReceiveMessageOperation
_ReceiveClose: Final = cygrpc.ReceiveCloseOnServerOperation


class Core:
    """The server. What it calls it calls in its thread, one event after the other; that must not wait."""

    def __init__(
        self,
        arguments: Iterable[tuple[str, int]],
        on_call: Callable[[Arrival], None],
        unary: Mapping[str, OnMessage],
    ) -> None:
        """*arguments* are of the channel.

        *unary* has the methods whose one message is received before they are called, *on_call* gets the calls
        of all others.
        """
        self._server = cygrpc.Server(tuple(arguments), False)  # no xDS
        self._queue = cygrpc.CompletionQueue()
        self._server.register_completion_queue(self._queue)
        self._on_call = on_call
        self._unary = {path.encode(): on_message for path, on_message in unary.items()}
        self._thread = threading.Thread(target=self._serve, name="gRPC", daemon=True)
        self.event: Event | BaseException | None = None
        """What is being handled now; what ended the thread, if it should ever end so, for good."""
        self._expected = 0
        """Unary calls whose message has not come yet."""
        self._answers: list[tuple[Arrival, Operations]] = []
        """To be sent before the thread waits for anything."""
        self._taken = 0
        """Events that were taken since the first of them was there."""
        self._is_open = False
        self._opening = threading.Lock()
        """Held by other threads while they use the core, and to end: what has ended must not be used."""
        self._held: list[tuple[Arrival, Operations]] | None = None
        self._holding = threading.Lock()
        self.ended = threading.Event()
        """Set when every call has ended and nothing is served any more."""

    # --- life ---------------------------------------------------------------------------------------------

    def listen(self, target: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listen on *target*, before the start; return the port, 0 when it cannot be had."""
        of_core = None if credentials is None else credentials._credentials  # type: ignore[attr-defined]  # noqa: SLF001  # as grpc._server does
        port: int = self._server.add_http2_port(target.encode(), of_core)
        return port

    def start(self) -> None:
        """Serve."""
        self._server.start()
        self._is_open = True
        for _ in range(AWAITED):
            self._await_call()
        self._thread.start()

    def shut_down(self) -> None:
        """Tell clients to go (GOAWAY): new calls are cancelled, those under way go on. See :attr:`ended`."""
        with self._opening:
            if self._is_open:
                self._server.shutdown(self._queue, self._end)
            else:
                self.ended.set()

    def cancel_calls(self) -> None:
        """Cancel the calls that are under way, after :meth:`shut_down`."""
        with self._opening:
            if self._is_open:
                self._server.cancel_all_calls()

    def _serve(self) -> None:
        try:
            self._handle_events()
        except BaseException as error:
            self.event = error
            logger.critical("calls are not answered any more", exc_info=error)
        finally:
            self.ended.set()

    def _handle_events(self) -> None:
        while True:
            self.event = event = self._next_event()
            tag = event.tag
            if tag is None:  # the queue has ended
                self.event = None
                return
            try:
                tag(event)
            except BaseException:  # whatever it is: nobody would start this thread again
                logger.exception("an event of a call was not handled; the client gets no answer")
            # A reference to a call that has ended would keep the core from letting its connection go.
            self.event = event = tag = None

    def _next_event(self) -> Event:
        """Wait for an event. Answers are sent first, unless more of them seem to be coming at once."""
        if self._answers:
            if self._expected and self._taken < MAX_TAKEN:
                self._taken += 1
                event = self._queue.poll(AT_ONCE)
                if event.completion_type != _TIMEOUT:
                    return event
            self._send_answers()
        return self._queue.poll()

    def _send_answers(self) -> None:
        answers, self._answers, self._taken = self._answers, [], 0
        for arrival, operations in answers:
            try:
                arrival.call.start_server_batch(operations, _nothing)
            except Exception:  # the others are to have theirs
                logger.exception("an answer could not be sent")

    def _end(self, event: Event) -> None:
        """Take the event that all is over, and end the queue.

        There may be events of cancelled calls in it, and answers to such calls. They concern nobody, and
        nothing may be begun any more.
        """
        del event
        self._answers.clear()
        with self._opening:
            self._is_open = False
            self._server.destroy()
            self._queue.shutdown()
        while self._queue.poll().tag is not None:
            pass

    def _await_call(self) -> None:
        try:
            self._server.request_call(self._queue, self._queue, self._arrive)
        except ValueError:  # it is being shut down
            logger.debug("no more calls are awaited")

    # --- calls --------------------------------------------------------------------------------------------

    def _arrive(self, arrival: Arrival) -> None:
        if not arrival.success:  # it is being shut down
            return
        self._await_call()
        on_message = self._unary.get(arrival.call_details.method)
        if on_message is None:
            self._on_call(arrival)
        else:
            received = functools.partial(self._receive, arrival, on_message)
            arrival.call.start_server_batch((_ReceiveMessage(_FLAGS),), received)
            self._expected += 1

    def _receive(self, arrival: Arrival, on_message: OnMessage, event: Event) -> None:
        self._expected -= 1
        message = event.batch_operations[0].message()
        if message is None:  # or it could not be read, or the client has gone: then this goes nowhere
            self.refuse(arrival, NO_MESSAGE)
        else:
            on_message(arrival, message)

    def answer(self, arrival: Arrival, message: bytes, initial: Pairs | None) -> None:
        """End a unary call with its answer; *initial* is metadata that goes before it. In the thread only."""
        operations = (
            _SendInitial(initial, _FLAGS),
            _SendMessage(message, _FLAGS),
            _well(),
            _ReceiveClose(_FLAGS),
        )
        if self._held is None:
            self._answers.append((arrival, operations))
        else:
            self._hold(arrival, operations)

    def refuse(self, arrival: Arrival, refusal: Refusal, initial: Pairs | None = None) -> None:
        """End a call with an error. In the thread only."""
        operations = (_SendInitial(initial, _FLAGS), _status(refusal), _ReceiveClose(_FLAGS))
        arrival.call.start_server_batch(operations, _nothing)

    def begin(self, arrival: Arrival, operations: Operations, tag: Tag) -> None:
        """Begin *operations* of a call, from any thread.

        Raises:
            ClientGone: all calls have ended.

        """
        with self._opening:
            if not self._is_open or arrival.call.start_server_batch(operations, tag) != cygrpc.CallError.ok:
                raise ClientGone

    def finish(self, arrival: Arrival, operations: Operations) -> None:
        """Begin the last *operations* of a call, or hold them back; from any thread, raises as above."""
        if self._held is None:
            self.begin(arrival, operations, _nothing)
        else:
            self._hold(arrival, operations)

    # --- holding back -------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep answers back until :meth:`release`."""
        with self._holding:
            self._held = []

    def release(self) -> None:
        """Send what :meth:`hold` kept back."""
        with self._holding:
            held, self._held = self._held or [], None
        for arrival, operations in held:
            self._send(arrival, operations)

    def _hold(self, arrival: Arrival, operations: Operations) -> None:
        with self._holding:
            if self._held is not None:
                self._held.append((arrival, operations))
                return
        self._send(arrival, operations)

    def _send(self, arrival: Arrival, operations: Operations) -> None:
        try:
            self.begin(arrival, operations, _nothing)
        except ClientGone:
            logger.debug("an answer came too late")


NO_MESSAGE: Final = Refusal(INTERNAL, "no message")


def _nothing(event: Event) -> None:
    """Take an event that says nothing new."""


def _well() -> Any:
    return _SendStatus(None, _OK, b"", _FLAGS)


def _status(refusal: Refusal) -> Any:
    return _SendStatus(refusal.trailing, refusal.code, refusal.message.encode(), _FLAGS)


class CoreCall:
    """One call that takes longer, on an event loop."""

    def __init__(self, core: Core, arrival: Arrival) -> None:
        self.path: str = arrival.call_details.method.decode("latin-1")
        self._core = core
        self._arrival = arrival
        self._loop = asyncio.get_running_loop()
        self._gone = asyncio.Event()
        self._started = False
        try:
            core.begin(arrival, (_ReceiveClose(_FLAGS),), self._on_close)
        except ClientGone:
            self._gone.set()

    def _on_close(self, event: Event) -> None:
        """Hear that the call has ended, or that its client has gone or its deadline has passed."""
        del event
        self._loop.call_soon_threadsafe(self._gone.set)

    async def _done(self, *operations: Any) -> Event:
        done: asyncio.Future[Event] = self._loop.create_future()

        def settle(event: Event) -> None:
            if not done.done():
                done.set_result(event)

        def tell(event: Event) -> None:
            self._loop.call_soon_threadsafe(settle, event)

        self._core.begin(self._arrival, operations, tell)
        return await done

    def metadata(self) -> Mapping[str, str]:
        """Return the metadata that came with the call, of repeated ones the last, and who it came from."""
        pairs = self._arrival.invocation_metadata or ()
        peer = host(self._arrival.call.peer().decode())
        return {name: value for name, value in pairs if isinstance(value, str)} | {PEER: peer}

    def time_left(self) -> None:
        """Tell nothing: the core counts the time, and when it is over the client has gone."""
        return

    async def message(self) -> bytes:
        """Return the one message of a unary call; raises :class:`Refusal` when there is none."""
        message = await self._next()
        if message is None:
            raise NO_MESSAGE
        return message

    async def messages(self) -> AsyncGenerator[bytes]:
        """Read messages as they come, until the client has no more."""
        while (message := await self._next()) is not None:
            yield message

    async def _next(self) -> bytes | None:
        event = await self._done(_ReceiveMessage(_FLAGS))
        message: bytes | None = event.batch_operations[0].message()
        return message

    async def gone(self) -> None:
        """Return when the client has gone."""
        await self._gone.wait()

    async def has_gone(self) -> bool:
        """Tell whether the client has gone."""
        return self._gone.is_set()

    async def answer(self, message: bytes, initial: Pairs) -> None:
        """Send the one answer of a unary call; *initial* is metadata that goes before it."""
        operations = (_SendInitial(initial, _FLAGS), _SendMessage(message, _FLAGS), _well())
        self._core.finish(self._arrival, operations)

    async def stream(self, message: bytes) -> None:
        """Send one of several answers."""
        await self._done(*self._start(()), _SendMessage(message, _FLAGS))

    async def end(self) -> None:
        """End the answers of :meth:`stream` well."""
        self._core.finish(self._arrival, (*self._start(()), _well()))

    async def refuse(self, refusal: Refusal, initial: Pairs = ()) -> None:
        """End the call with an error."""
        try:
            self._core.finish(self._arrival, (*self._start(initial), _status(refusal)))
        except ClientGone:
            logger.debug("an error came too late")

    def _start(self, initial: Pairs) -> Operations:
        if self._started:
            return ()
        self._started = True
        return (_SendInitial(initial, _FLAGS),)


def host(peer: str) -> str:
    """Return the address in ``ipv4:192.0.2.1:5000`` or ``ipv6:[2001:db8::1]:5000``; none of unix sockets."""
    family, _, rest = urllib.parse.unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if family in {"ipv4", "ipv6"} else ""
