"""Each way in which a program ends is an end of its run.

A daemon writes the row of a run once a second at most, so the programs of a test run first, and their rows are awaited together.
"""

import signal
import unittest

from servers import Case

BEGIN = "run = cascor_ingest.init(name={!r}, redis_url=R)\nrun.log({{'loss': 0.5}}, epoch=1)\n"
WAIT = "print('trains', flush=True)\nfor _ in range(600): time.sleep(0.05)\n"


class Endings(Case):
    def test_leaving_the_with_is_completed(self):
        self.train("with cascor_ingest.init(name='with', redis_url=R) as run:\n    run.log({'loss': 0.5}, epoch=1)\n")
        self.assertEqual(self.daemon.ended("with", "completed")["final_train_loss"], 0.5)

    def test_leaving_the_program_is_completed(self):
        self.train(BEGIN.format("program"))
        self.train(BEGIN.format("exit-0") + "sys.exit(0)\n")
        self.assertEqual(self.daemon.ended("program", "completed")["final_epoch"], 1)
        self.daemon.ended("exit-0", "completed")

    def test_an_exception_is_failed_with_its_text(self):
        raising = "raise ValueError('the loss is ' + 'NaN')\n"
        within = "with cascor_ingest.init(name='raises-within', redis_url=R) as run:\n    " + raising
        for script in BEGIN.format("raises") + raising, within:
            said = self.train(script, status=1)
            self.assertIn("ValueError: the loss is NaN", said, "the program says so as ever")
        for name in "raises", "raises-within":
            self.daemon.ended(name, "failed")
            payload = str(self.daemon.events(name, "training_end")[0])
            self.assertIn("ValueError: the loss is NaN", payload)
            self.assertIn("train.py", payload, "the traceback")

    def test_an_exit_status_that_is_not_0_is_failed(self):
        self.train(BEGIN.format("exit-3") + "sys.exit(3)\n", status=3)
        self.train("with cascor_ingest.init(name='exit-text', redis_url=R):\n    sys.exit('no data')\n", status=1)
        self.daemon.ended("exit-3", "failed")
        self.daemon.ended("exit-text", "failed")
        self.assertIn("no data", str(self.daemon.events("exit-text", "training_end")))

    def test_an_exception_that_is_handled_is_no_failure(self):
        handled = "try:\n    raise ValueError\nexcept ValueError:\n    pass\n"
        self.train(BEGIN.format("handled") + handled)
        self.daemon.ended("handled", "completed")

    def test_sigterm_is_stopped(self):
        within = "with cascor_ingest.init(name='term-within', redis_url=R) as run:\n    print('trains', flush=True)\n    time.sleep(30)\n"
        for script in BEGIN.format("term") + WAIT, within:
            self.assertEqual(self.interrupt(self.trainer(script)), 128 + signal.SIGTERM)
        for name in "term", "term-within":
            self.daemon.ended(name, "stopped")
            self.assertIn("SIGTERM", str(self.daemon.events(name, "training_end")))

    def test_sigint_is_stopped(self):
        self.interrupt(self.trainer(BEGIN.format("int") + WAIT), signal.SIGINT)
        self.daemon.ended("int", "stopped")

    def test_a_handler_of_the_program_stays(self):
        own = "signal.signal(signal.SIGTERM, lambda *_: (run.finish('failed'), sys.exit(9)))\n"
        early = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        self.assertEqual(self.interrupt(self.trainer(BEGIN.format("own") + own + WAIT)), 9)
        self.assertEqual(self.interrupt(self.trainer(early + BEGIN.format("early") + WAIT)), 9)
        self.daemon.ended("own", "failed")
        self.daemon.ended("early", "failed")

    def test_after_the_run_sigterm_ends_the_program_as_ever(self):
        self.assertEqual(self.interrupt(self.trainer(BEGIN.format("after") + "run.finish()\n" + WAIT)), -signal.SIGTERM)
        self.daemon.ended("after", "completed")

    def test_kill_is_stale(self):
        # Six minutes ago, because a run is stale after five minutes of silence.
        past = "now = time.time\ntime.time = lambda: now() - 360\n"
        self.assertEqual(self.interrupt(self.trainer(past + BEGIN.format("kill") + "run.flush()\n" + WAIT), signal.SIGKILL), -9)
        self.daemon.ended("kill", "stale")

    def test_finish_says_how(self):
        for status in "completed", "failed", "stopped":
            self.train(BEGIN.format(status) + f"run.finish({status!r})\nrun.finish('failed')\nrun.log({{'loss': 9}})\n")
        for status in "completed", "failed", "stopped":
            self.daemon.ended(status, status)
            self.assertEqual(len(self.daemon.rows(status, 1)), 1, "what is logged after the end is left out")

    def test_a_name_continues_its_run(self):
        for loss in 0.5, 0.25:
            self.train(f"with cascor_ingest.init('again', redis_url=R) as run:\n    run.log({{'loss': {loss}}}, epoch=1)\n")
            self.daemon.ended("again", "completed")
        self.daemon.rows("again", 2)
        self.assertEqual(len(self.daemon.events("again", "training_start")), 2)
        self.assertEqual(self.daemon.lost("again"), 0)
        self.assertEqual(self.daemon.get("/api/runs", q="again")["count"], 1)


if __name__ == "__main__":
    unittest.main()
