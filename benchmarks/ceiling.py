"""The machine's ceiling: rates of matrix products and of reading memory, which all figures are compared with.

Measured with as many threads as the contestants have, per CPU second (on a GPU: per second of its own clock).
"""

import statistics
import time

from benchmarks.harness import Contestant

SIZE = 2048  # of the square matrices; their product is 17 GFLOP
READ = 2**26  # float32 numbers in each vector: 256 MiB, more than any cache holds


def rates(work: dict) -> dict:
    """{"sgemm_flop_per_second", "read_bytes_per_second", "bf16_flop_per_second"}; the last is None without a GPU."""
    import torch

    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    x, y = torch.ones(READ), torch.ones(READ)
    product = _seconds(lambda: torch.mm(a, b), repeats=5)
    reading = _seconds(lambda: torch.dot(x, y), repeats=9)
    found = {"sgemm_flop_per_second": 2 * SIZE**3 / product, "read_bytes_per_second": 2 * 4 * READ / reading}
    return found | {"bf16_flop_per_second": _bf16_rate() if torch.cuda.is_available() else None}


def _seconds(work, repeats: int) -> float:
    """Return the median CPU seconds of one call, without the first, which starts threads and allocates memory."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def _bf16_rate(size: int = 8192, repeats: int = 20) -> float:
    import torch

    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        a @ b
    end.record()
    torch.cuda.synchronize()
    return repeats * 2 * size**3 / (start.elapsed_time(end) / 1000)


CONTESTANTS = {"ceiling": Contestant(rates, "the machine itself")}
