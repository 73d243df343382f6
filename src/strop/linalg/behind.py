"""Work that is done behind the back of whoever asks for it: in order, and finished before the process ends."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Behind:
    """One thread that does what it is given, the first first; as much may wait as memory allows.

    Args:
        most_bytes: what may wait at once; whoever gives more waits until it fits, or until nothing waits.

    >>> behind, done = Behind(most_bytes=100), []
    >>> behind.do(lambda: done.append("written"), size=60)
    >>> behind.wait()
    >>> done
    ['written']
    """

    def __init__(self, *, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Begin with nothing: a process that was forked has none of its parent's threads, and does none of their work."""
        self._changed = threading.Condition()
        self._waiting_bytes = self._waiting = 0
        self._thread: ThreadPoolExecutor | None = None

    def do(self, work: Callable[[], None], *, size: int) -> None:
        """Have some work done later.

        Args:
            work: says itself what goes wrong in it; an exception that leaves it is lost.
            size: bytes that are held until it is done.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._waiting_bytes + size <= self._most_bytes)
            self._waiting_bytes, self._waiting = self._waiting_bytes + size, self._waiting + 1
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="strop-behind")
        self._thread.submit(self._finish, work, size)

    def wait(self) -> None:
        """Return when all that was given is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)

    def _finish(self, work: Callable[[], None], size: int) -> None:
        try:
            work()
        finally:
            with self._changed:
                self._waiting_bytes, self._waiting = self._waiting_bytes - size, self._waiting - 1
                self._changed.notify_all()
