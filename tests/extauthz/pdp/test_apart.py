"""Where long work of the API is done."""

from __future__ import annotations

import asyncio
import threading

from extauthz.pdp.apart import THREADS, apart


async def test_others_have_threads_while_the_api_is_busy() -> None:
    """However much the API has to do, asyncio's own threads are free for host names and key files."""
    done = threading.Event()
    busy = [asyncio.create_task(apart(done.wait, timeout=10)) for _ in range(THREADS * 4)]
    name = await asyncio.wait_for(asyncio.to_thread(lambda: threading.current_thread().name), 5)
    done.set()
    assert await asyncio.gather(*busy) == [True] * len(busy)
    assert not name.startswith("pdp")
