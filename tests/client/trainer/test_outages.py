"""Redis, the daemon or the queue has no room: training goes on, and what is dropped is what the daemon counts as lost.

CASCOR_TEST_OUTAGE: how many seconds Redis is away (2 by default; the long tier: 10 and 60).
"""

import logging
import os
import time
import unittest

from servers import Case, until

import cascor_ingest

OUTAGE = float(os.environ.get("CASCOR_TEST_OUTAGE", "2"))
RATE = 400
"""Messages a second."""


class Outages(Case):
    checked = {}

    @classmethod
    def tearDownClass(cls):
        """No run has lost more: once for all, because a gap is written a second after it began."""
        time.sleep(1.2)
        found = {run: cls.daemon.lost(run) for run in cls.checked}
        assert found == cls.checked, f"gap rows {found}, dropped {cls.checked}"

    def train(self, run, seconds, step=0):
        """Logs at RATE; returns the next step. No call may take long."""
        began, longest = time.monotonic(), 0.0
        while (now := time.monotonic()) < began + seconds:
            run.log({"loss": 1 / (step + 1)}, step=step)
            longest, step = max(longest, time.monotonic() - now), step + 1
            time.sleep(1 / RATE)
        self.assertLess(longest, 0.5, "a call waited")
        return step

    def check(self, run, steps):
        """Every step is a row, or was dropped and is in the daemon's gap rows."""
        self.daemon.ended(run.id, "completed")
        rows = self.daemon.rows(run.id, steps - run.dropped)
        self.assertEqual(len({row["step"] for row in rows}), len(rows), "no row is there twice")
        if run.dropped:
            until(f"{run.dropped} lost; the daemon says {self.daemon.lost(run.id)}", lambda: self.daemon.lost(run.id) == run.dropped)
        self.checked[run.id] = run.dropped

    def test_redis_is_killed_and_the_queue_holds_everything(self):
        with self.assertLogs("cascor_ingest", logging.INFO) as logged:
            with cascor_ingest.init("all", redis_url=self.redis.url, finish_timeout=60) as run:
                step = self.train(run, 0.5)
                self.redis.kill()
                step = self.train(run, min(OUTAGE, 2), step)
                self.redis.start()
                step = self.train(run, 0.5, step)
        self.assertEqual(run.dropped, 0)
        self.check(run, step)
        away = [line for line in logged.output if "messages wait for it" in line]
        self.assertLessEqual(len(away), 3, f"an outage is said once: {away}")

    def test_redis_is_killed_and_the_queue_is_full(self):
        with self.assertLogs("cascor_ingest", logging.WARNING) as logged:
            with cascor_ingest.init("full", redis_url=self.redis.url, queue_messages=RATE, finish_timeout=60) as run:
                step = self.train(run, 0.5)
                self.redis.kill()
                step = self.train(run, OUTAGE, step)
                self.redis.start()
                until("the queue to empty", lambda: run.flush(1))
                step = self.train(run, 0.5, step)
        self.assertGreater(run.dropped, 0)
        self.check(run, step)
        self.assertEqual(len([line for line in logged.output if "queue is full" in line]), 1, "drops are said once")
        self.assertTrue(any(f"{run.dropped} messages in all were dropped" in line for line in logged.output))

    def test_a_queue_that_is_full_of_bytes_drops_too(self):
        with self.assertLogs("cascor_ingest", logging.WARNING):
            with cascor_ingest.init("bytes", redis_url=self.redis.url, queue_bytes=10_000, finish_timeout=60) as run:
                for step in range(500):
                    run.log({"loss": 0.5}, step=step)
        self.assertGreater(run.dropped, 0)
        self.check(run, 500)

    def test_a_daemon_that_restarts_misses_nothing(self):
        with cascor_ingest.init("restart", redis_url=self.redis.url, finish_timeout=60) as run:
            step = self.train(run, 0.5)
            self.daemon.stop()
            step = self.train(run, 1, step)
            self.daemon.start()
            step = self.train(run, 0.5, step)
        self.assertEqual(run.dropped, 0)
        self.check(run, step)

    def test_a_run_may_begin_before_redis_and_the_daemon(self):
        self.daemon.stop()
        self.redis.kill()
        with cascor_ingest.init("early", redis_url=self.redis.url, finish_timeout=60) as run:
            step = self.train(run, 0.5)
            self.redis.start()
            step = self.train(run, 0.5, step)
            self.daemon.start()
        self.check(run, step)

    def test_a_program_ends_though_redis_is_away_and_says_what_is_lost(self):
        script = "run = cascor_ingest.init('away', redis_url='redis://127.0.0.1:1/0', finish_timeout=0.5)\nfor step in range(7): run.log({'loss': 1}, step=step)\n"
        began = time.monotonic()
        said = self.train_program(script)
        self.assertLess(time.monotonic() - began, 20)
        self.assertIn("the last 9 messages are lost", said)

    def train_program(self, script):
        return Case.train(self, script)

    def test_flush_says_whether_all_is_sent(self):
        run = cascor_ingest.init("flushes", redis_url=self.redis.url)
        run.log({"loss": 0.5}, step=0)
        self.assertTrue(run.flush(20))
        self.assertEqual(run.published, 2)
        self.redis.kill()
        run.log({"loss": 0.5}, step=1)
        self.assertFalse(run.flush(0.3))
        self.redis.start()
        self.assertTrue(run.flush(20))
        run.finish()
        self.check(run, 2)


if __name__ == "__main__":
    unittest.main()
