"""Worker processes that do not outlive their parent, and leave Ctrl-C to it."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator


def end_with_parent() -> None:
    """Called in a worker at its start: it ends when its parent does. A parent that was killed cannot stop its workers, which would wait for work for ever."""
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started inside inherit that SIGINT is ignored: a Ctrl-C goes to all of a terminal's processes, and the parent alone shall answer it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
