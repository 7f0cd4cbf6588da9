"""What a process asks of its threads and of the C library's memory, and work that several threads share.

torch's OpenMP threads spin while they wait for one another. On a machine that other work shares, a spinning thread
holds the core that the thread it waits for needs: at a load of 5 to 10 on two cores, a training step took 125 to
1 100 ms with threads that spin and 15 to 16 ms with threads that sleep at once. On a quiet machine threads that sleep
at once take twice as long as threads that spin: a core that wakes up takes a tenth of a millisecond (docs/speed.md). So
a run starts with as many threads as there are cores that nothing else uses; the command line lets them spin for some
400 µs; and while other work appears next to the run, they sleep at once.

The C library gives large freed tensors back to the system and gets them again at the next step, page by page: a step of
the DCGAN caused 8 600 page faults, and the command from the prompt to the pictures took 9.6 s of CPU time in place of
8.5 (docs/speed.md). So in the processes that train, freed memory is kept.
"""

from __future__ import annotations

__all__ = ["Map", "free_cores", "keep_memory", "sharing", "thread_count", "training_environment"]

import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]

_WINDOW = 0.1  # seconds in which the load is measured
_SPINS = "20000"  # some 400 µs: longer than Python takes between two parallel loops
_WATCH = 0.5  # seconds between looks at the load during a run
_LOADED, _QUIET = 0.2, 0.05  # seconds of waiting for a core, in a second: from here threads sleep at once, or spin
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}  # variables, and the parameters of mallopt
_ARENA_MAX = -8  # of mallopt
_KEPT_BYTES = 1 << 30, 1 << 25  # the second for older libraries, which refuse the first


def training_environment() -> dict[str, str]:
    """Environment variables for a process that trains.

    By them GNU's OpenMP lets a thread spin for some 400 µs and then sleep, and Intel's lets it sleep at once, unless
    the user has set OMP_WAIT_POLICY; and GNU's C library keeps freed memory. The former are read when torch is
    imported, the latter when the process starts; `keep_memory` is for one that runs already.
    """
    waits = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": _SPINS, "KMP_BLOCKTIME": "0"}
    return waits | {name: str(_KEPT_BYTES[0]) for name in _ALLOCATOR}


def keep_memory() -> None:
    """Let GNU's C library keep freed memory in this process, unless the user has set its variables."""
    if any(os.environ.get(name, str(_KEPT_BYTES[0])) != str(_KEPT_BYTES[0]) for name in _ALLOCATOR):
        return
    with suppress(AttributeError, OSError, TypeError):  # another C library
        for parameter in _ALLOCATOR.values():
            any(ctypes.CDLL(None).mallopt(parameter, size) for size in _KEPT_BYTES)


@contextmanager
def sharing(count: int) -> Iterator[Map]:
    """`map` by so many threads, each of which computes with one thread of torch's and without gradients.

    Results come in the order of the work, a few ahead of what is taken, and do not depend on the number of threads.
    torch's own threads would wait in a loop between two operations, and take the cores from these.
    """
    import torch

    if count == 1:
        yield map
        return
    before = torch.get_num_threads()
    _share_memory()

    with ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1)) as pool:

        def in_order(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            def quietly(item: Any) -> Any:
                with torch.no_grad():  # a thread has this setting for itself
                    return work(item)

            waiting: deque[Future[Any]] = deque()
            try:
                for item in items:
                    waiting.append(pool.submit(quietly, item))
                    if len(waiting) > count:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

        torch.set_num_threads(1)
        try:
            yield in_order
        finally:
            torch.set_num_threads(before)


def _share_memory() -> None:
    """Let threads that start from now on allocate from the memory of the first one, with GNU's C library.

    By default each thread keeps what it frees for itself: two threads of the quadrature then hold 80 MiB more.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def free_cores() -> int:
    """Of the usable cores, how many nothing else uses now, at least 1; takes a tenth of a second."""
    cores = _usable_cores()
    try:
        before = _ticks()
        time.sleep(_WINDOW)
        after = _ticks()
        idle, all_of_them = (now - then for now, then in zip(after, before, strict=True))
        busy = len(_affinity()) * (1 - idle / all_of_them) if all_of_them else 0.0
    except (OSError, ValueError):  # not Linux
        try:
            busy = os.getloadavg()[0]
        except (OSError, AttributeError):  # Windows
            busy = 0.0
    return max(1, round(cores - busy))


@contextmanager
def thread_count(began_with: int | None) -> Iterator[str | None]:
    """Set the number of torch's threads inside the block.

    OMP_NUM_THREADS, or a smaller number that is set already, is kept. Sums over threads are rounded differently by
    another number of them, so a resumed run keeps the number that it began with.

    Args:
        began_with: the number that a resumed run began with; None for a new one, which takes the cores that are free.

    Yields:
        A line to show where a resumed run cannot keep its number; else None.
    """
    import torch

    before, line = torch.get_num_threads(), None
    chosen = before
    if "OMP_NUM_THREADS" in os.environ:
        line = _other_rounding(began_with, before, "OMP_NUM_THREADS asks for another number")
    elif began_with is not None and began_with <= _usable_cores():
        chosen = began_with
    elif began_with is not None:
        line = _other_rounding(began_with, before, "this machine has fewer cores")
    elif before > 1:
        chosen = min(before, free_cores())
    torch.set_num_threads(chosen)
    try:
        with _no_spinning_under_load():
            yield line
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_spinning_under_load() -> Iterator[None]:
    """Inside the block, torch's threads sleep at once while other processes use the cores.

    For threads that spin as long as `training_environment` says; another choice is the user's and is kept.
    """
    import torch

    if os.environ.get("GOMP_SPINCOUNT") != _SPINS or torch.get_num_threads() == 1:
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch_load, args=(ended,), name="latentia-load", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch_load(ended: threading.Event) -> None:
    """Until the end, see how long this process's threads wait for cores, and let them spin or not accordingly."""
    loaded = False
    with suppress(OSError, ValueError), ExitStack() as held:  # not Linux: nothing is watched
        before = _waited()
        while not ended.wait(_WATCH):
            now = _waited()
            share = (now[0] - before[0]) / (now[1] - before[1])
            before = now
            if loaded and share < _QUIET:
                held.close()
                loaded = False
            elif not loaded and share > _LOADED:
                held.enter_context(_no_spinning())
                loaded = True


@contextmanager
def _no_spinning() -> Iterator[None]:
    """Inside the block, torch's threads sleep at once when they wait, where OpenMP is GNU's.

    GNU's OpenMP lets threads spin for 100 rounds only while there are more of them than cores. So other threads of this
    process start teams as well, each as large as torch's, and sleep until the block ends.
    """
    import torch

    size = torch.get_num_threads()
    ended = threading.Event()

    def hold() -> None:
        torch.zeros(1 << 20).add_(1.0)  # large enough to be shared by a team, which lives as long as this thread
        ended.wait()

    count = -(-(len(_affinity()) + 1 - size) // (size - 1)) if size > 1 else 0
    holders = [threading.Thread(target=hold, name="latentia-team", daemon=True) for _ in range(count)]
    for holder in holders:
        holder.start()
    try:
        yield
    finally:
        ended.set()
        for holder in holders:
            holder.join()


def _waited() -> tuple[float, float]:
    """Seconds that this process's threads have been ready to run while others had the cores; the time now."""
    tasks = [task.read_text() for task in Path("/proc/self/task").glob("*/schedstat")]
    return sum(int(task.split()[1]) for task in tasks) / 1e9, time.monotonic()


def _other_rounding(began_with: int | None, now: int, reason: str) -> str | None:
    if began_with is None or began_with == now:
        return None
    return f"the run began with {began_with} threads and goes on with {now}, to other rounding: {reason}"


def _usable_cores() -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container."""
    cores = len(_affinity())
    with suppress(OSError, ValueError):  # Linux, control groups version 2
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, round(int(quota) / int(period))))  # "max" for no quota: a ValueError
    return cores


def _affinity() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return set(range(os.cpu_count() or 1))


def _ticks() -> tuple[int, int]:
    """Idle ticks and all ticks of the cores that this process may use, since the machine started."""
    idle = total = 0
    names = {f"cpu{core}" for core in _affinity()}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            values = [int(field) for field in fields[:8]]  # user, nice, system, idle, waiting for disks, …, stolen
            idle += values[3] + values[4]
            total += sum(values)
    return idle, total
