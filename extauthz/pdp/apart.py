"""Long work of the API, apart from the event loop and from the threads that everybody else relies on.

The default threads of asyncio look up host names and read key files, also for Envoy's requests: requests of
the API that keep threads busy for seconds must not be what these wait for.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

THREADS: Final = 2
"""Python runs one at a time; the second one lets short work pass by long work."""

_pool: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="pdp")


async def apart(
    function: Callable[Arguments, Answer], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Answer:
    """Call *function* in a thread of the API's own."""
    call = functools.partial(function, *arguments, **options)
    return await asyncio.get_running_loop().run_in_executor(_pool, call)
