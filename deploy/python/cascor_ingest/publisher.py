"""The bounded queue of a run, and the thread that empties it."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections import deque

from .transports import Sent, Transport

logger = logging.getLogger("cascor_ingest")

MESSAGE_MAX = 20 * 1024 * 1024
"""Bytes of the largest message that a daemon takes by default."""

BATCH_MESSAGES, BATCH_BYTES = 500, 4 * 1024 * 1024
"""A batch is sent in one round trip; it ends at the first of both."""

GATHER = 0.02
"""Seconds for which messages gather before they are sent, so that the thread seldom interrupts the training."""

RETRY_MIN, RETRY_MAX = 0.1, 2.0
"""Seconds between attempts while the server is away, doubled each time."""


class Publisher:
    """Numbers messages, queues them, and sends them from a thread of its own.

    `seq` counts every message, also those that are dropped, so that the daemon's gaps are exactly what was dropped.
    """

    def __init__(self, run_id: str, transport: Transport, max_messages: int, max_bytes: int) -> None:
        self._transport, self._max_messages, self._max_bytes = transport, max_messages, max_bytes
        self._run_id = json.dumps(run_id)
        # Reentrant, because a signal handler may log or finish while this thread holds it.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._seq = itertools.count()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._accepted = self._settled = 0
        self._closed = self._ended = False
        self._problem: str | None = None
        self._overflow = False
        self._overflow_reported = self._refusal_reported = False
        self.published = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._work, name="cascor-ingest", daemon=True)
        self._thread.start()

    def put(self, kind: str, data: str, *, always: bool = False) -> bool:
        """Queues a message whose `data` is JSON; returns whether there was room. Never waits.

        Args:
            kind: The `type` of the message.
            data: A JSON object.
            always: Queue it even when the queue is full: starts and ends.
        """
        with self._lock:
            if self._closed:
                return False
            seq = next(self._seq)
            full = self._accepted - self._settled >= self._max_messages or self._waiting_bytes + len(data) > self._max_bytes
            if full and not always:
                self._overflow = True
                self.dropped += 1
                return False
            head = f'{{"type": "{kind}", "run_id": {self._run_id}, "seq": {seq}, "timestamp": {time.time()!r}'
            message = f'{head}, "data": {data}}}'.encode()
            self._waiting.append(message)
            self._waiting_bytes += len(message)
            self._accepted += 1
        if not self._wake.is_set():
            self._wake.set()
        return True

    def flush(self, timeout: float | None) -> bool:
        """Waits until what was queued before is sent; returns whether it was within `timeout` seconds (None: for ever)."""
        with self._changed:
            target = self._accepted
            self._wake.set()
            return self._changed.wait_for(lambda: self._settled >= target or self._ended, timeout) and (self._settled >= target)

    def close(self, timeout: float | None) -> bool:
        """Takes nothing more, waits for the queue, then ends; what is left after `timeout` seconds is dropped and counted."""
        with self._lock:
            self._closed = True
        done = self.flush(timeout)
        with self._lock:
            left = self._accepted - self._settled
            self._ended = True
            self.dropped += left
            self._wake.set()
        if left:
            logger.error("%s: %s; the last %s messages are lost", self._transport.place, self._problem or "too slow", left)
        if self.dropped > left:
            logger.warning("%s messages in all were dropped", self.dropped - left)
        return done

    def forget(self) -> None:
        """In a forked child: the queue, the connection and the thread are the parent's."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = self._ended = True
        self._waiting = deque()

    def _work(self) -> None:
        delay = RETRY_MIN
        while not self._ended:
            self._wake.wait()
            if not self._closed:
                time.sleep(GATHER)
            self._wake.clear()
            while batch := self._take():
                sent = self._transport.send(batch)
                self._settle(batch, sent.undelivered, sent.refused)
                self._report(sent)
                if self._ended:
                    break
                if len(sent.undelivered) < len(batch):
                    delay = RETRY_MIN
                if sent.undelivered:
                    time.sleep(delay)
                    delay = min(2 * delay, RETRY_MAX)
        try:
            self._transport.close()
        except Exception as error:
            logger.debug("closing %s failed: %s", self._transport.place, error)

    def _take(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        with self._lock:
            while self._waiting and len(batch) < BATCH_MESSAGES and size < BATCH_BYTES:
                batch.append(self._waiting.popleft())
                size += len(batch[-1])
        return batch

    def _settle(self, batch: list[bytes], undelivered: list[bytes], refused: int) -> None:
        with self._changed:
            settled = len(batch) - len(undelivered)
            self._waiting.extendleft(reversed(undelivered))
            self._waiting_bytes += sum(map(len, undelivered)) - sum(map(len, batch))
            self._settled += settled
            self.published += settled - refused
            self.dropped += refused
            self._changed.notify_all()

    def _report(self, sent: Sent) -> None:
        """Says once that the server is away, once that it is back, and once that messages are dropped."""
        waits = sent.problem if sent.undelivered else None
        if waits and not self._problem:
            logger.warning("%s: %s; messages wait for it", self._transport.place, waits)
        elif self._problem and not waits:
            logger.info("%s takes messages again", self._transport.place)
        self._problem = waits
        if sent.refused and not self._refusal_reported:
            self._refusal_reported = True
            logger.warning("%s: %s; such messages are counted in `run.dropped`", self._transport.place, sent.problem)
        if self._overflow and not self._overflow_reported:
            self._overflow_reported = True
            logger.warning("the queue is full: messages are dropped, and counted in `run.dropped`")
