"""Worker processes that do not outlive their parent."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Called in a worker at its start: it ends when its parent does. A parent that was killed cannot stop its workers, which would wait for work for ever."""
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
