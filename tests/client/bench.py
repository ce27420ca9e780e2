"""What `run.log` costs a training loop: 100,000 calls beside the bare loop, into a real Redis that something subscribes to.

    python3 tests/client/bench.py [CALLS]      needs redis-server and the package `redis`

Two loops: one that logs as fast as it can, and one whose steps take 100 µs of work outside Python, as those of a training do.
Printed in microseconds a call: the median of the calls, the difference of the whole loops, and the processor time of the program
with its thread, which other programs do not change.
"""

import ctypes
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "trainer"))

from servers import Redis, until  # noqa: E402

import cascor_ingest  # noqa: E402

CALLS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
WORK_US = 100


def measure(work, log):
    """Microseconds a call of the whole loop and of the processor, and nanoseconds of each call."""
    sleep, clock, calls = ctypes.CDLL(None).usleep, time.perf_counter_ns, [0] * CALLS
    began, processor = clock(), time.process_time_ns()
    for step in range(CALLS):
        if work:
            sleep(WORK_US)
        before = clock()
        if log:
            log({"train_loss": 0.5, "grad_norm": 2.0}, epoch=1, step=step)
        calls[step] = clock() - before
    return (clock() - began) / CALLS / 1e3, (time.process_time_ns() - processor) / CALLS / 1e3, sorted(calls)


def main():
    redis = Redis()
    command = ["redis-cli", "-p", str(redis.port), "subscribe", "cascor:training"]
    subscriber = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until("the subscription", lambda: redis.client().pubsub_numsub("cascor:training")[0][1])
        print(f"{'loop':<24}{'median':>8}{'99 %':>8}{'loop':>8}{'processor':>11}{'dropped':>9}")
        for name, work in ("logs at once", False), (f"{WORK_US} µs of work a step", True):
            bare = measure(work, None)
            with cascor_ingest.init("bench", redis_url=redis.url, finish_timeout=60) as run:
                whole = measure(work, run.log)
            median = (statistics.median(whole[2]) - statistics.median(bare[2])) / 1e3
            high = whole[2][CALLS * 99 // 100] / 1e3
            print(f"{name:<24}{median:>8.2f}{high:>8.1f}{whole[0] - bare[0]:>8.1f}{whole[1] - bare[1]:>11.1f}{run.dropped:>9}")
    finally:
        subscriber.kill()
        redis.kill()


if __name__ == "__main__":
    main()
