"""Runs a function on several threads of this machine, for NumPy, which computes on one."""

import collections
import contextvars
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rethinking import provenance

# More threads do not help, because they share the memory's bandwidth.
MOST_THREADS = 32


def count(num_items: int) -> int:
    """The number of threads for so many items: one for each core that this process may use."""
    return max(1, min(provenance.usable_cores(), num_items, MOST_THREADS))


def in_order(
    function: Callable[[Any], Any], items: Iterable, before: Callable[[], None] = lambda: None
) -> Iterator[Any]:
    """Yields function(item) for each item, in the order of the items.

    Threads compute the next results meanwhile, at most two for each thread. The caller's thread
    calls `before` for each item, before it is computed. An exception of `before` ends everything.
    """
    items = list(items)
    num_threads = count(len(items))
    if num_threads == 1:
        for item in items:
            before()
            yield function(item)
        return
    waiting: collections.deque = collections.deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for item in items:
            before()
            # NumPy keeps what it does about errors in the context.
            waiting.append(pool.submit(contextvars.copy_context().run, function, item))
            if len(waiting) > 2 * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
