"""Threads that work on tasks in order, for one thread that Ctrl-C may interrupt anywhere.

The conditions, semaphores and futures of the standard library are written in Python: an interrupt within them leaves a
lock taken that nobody gives back, and who needs it next waits for ever. Whoever waits here touches nothing but queues
that are written in C.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from types import TracebackType

Task = Callable[[], object]


class Workers:
    """So many threads, all of which run before there is work."""

    def __init__(self, count: int, name: str) -> None:
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"{name}_{number}") for number in range(count)]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, tasks: Iterable[Task]) -> None:
        """Has all tasks done; raises what the first that fails raises, while others may still be at work."""
        count = 0
        for task in tasks:
            self._tasks.put(task)
            count += 1
        for _ in range(count):
            if (error := self._outcomes.get()) is not None:
                raise error

    def stop(self) -> None:
        """Ends the threads after the tasks that they are at, and returns when nobody works any more."""
        try:
            while True:
                self._tasks.get_nowait()
        except Empty:
            pass
        self._end()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _end(self) -> None:
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except BaseException as error:  # whoever waits for it raises it
                self._outcomes.put(error)
            else:
                self._outcomes.put(None)
