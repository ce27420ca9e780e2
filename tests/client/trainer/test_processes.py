"""Processes that a trainer begins publish nothing: forked or spawned workers, other ranks."""

import unittest

from servers import Case, until

FORKED = """
run = cascor_ingest.init({name!r}, redis_url=R)
def work(number):
    for step in range(50): run.log({{'loss': -1.0}}, step=step)
    run.event('worker'); run.topology(input_size=1)
    assert not run.active and not run.paused and run.wait_while_paused(), run
    assert run.flush(1)
    return number
"""

SPAWNED = """
import multiprocessing
run = cascor_ingest.init('spawned', redis_url=R)  # not below `__main__`: each worker comes here, too
def work(number):
    for step in range(50): run.log({'loss': -1.0}, step=step)
    return run.active
if __name__ == '__main__':
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        assert pool.map(work, range(4)) == [False] * 4
    one = multiprocessing.get_context('spawn').Process(target=run.log, args=({'loss': -1.0},))
    one.start(); one.join()
    assert one.exitcode == 0, one.exitcode
"""

TRAINS = "for step in range(100): run.log({'loss': 0.5}, step=step)\n"


class Processes(Case):
    def one_run(self, name, status="completed"):
        """The messages of one process: a start, a hundred metrics, an end."""
        self.daemon.ended(name, status)
        rows = self.daemon.rows(name, 100)
        self.assertEqual({row["train_loss"] for row in rows}, {0.5})
        self.assertEqual(sorted(row["seq"] for row in rows), list(range(1, 101)))
        events = until("two events", lambda: len(self.daemon.events(name)) >= 2 and self.daemon.events(name))
        self.assertEqual(sorted(event["type"] for event in events), ["training_end", "training_start"])
        self.assertEqual(self.daemon.lost(name), 0)

    def test_children_of_os_fork_publish_nothing_and_end_nothing(self):
        children = """
        for number in range(4):
            if os.fork() == 0:
                work(number)
                if number == 0: os._exit(0)
                if number == 1: sys.exit(0)  # runs what was registered for the end of the program
                if number == 2: raise ValueError('of a worker')
                break
        else:
            for _ in range(4): os.wait()
        """
        script = FORKED.format(name="forked") + "import textwrap\n" + f"exec(textwrap.dedent({children!r}))\n"
        self.train(script + "if run.active:\n    " + TRAINS)
        self.one_run("forked")

    def test_children_within_the_with_end_nothing(self):
        script = "with cascor_ingest.init('forked-within', redis_url=R) as run:\n    if os.fork() == 0: sys.exit(1)\n    os.wait()\n    " + TRAINS
        self.train(script)
        self.one_run("forked-within")

    def test_workers_of_a_forked_pool_publish_nothing(self):
        pool = "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(4) as pool: pool.map(work, range(8))\n"
        self.train(FORKED.format(name="pool") + pool + TRAINS)
        self.one_run("pool")

    def test_spawned_workers_publish_nothing_though_they_import_the_program(self):
        self.train(SPAWNED + "    " + TRAINS)
        self.one_run("spawned")

    def test_a_fork_while_the_queue_is_busy_blocks_nobody(self):
        busy = "import threading\nthreads = [threading.Thread(target=lambda: [run.log({'loss': 0.5}, step=n) for n in range(2000)]) for _ in range(2)]\n"
        forks = "[t.start() for t in threads]\nfor _ in range(20):\n    if os.fork() == 0: work(0); os._exit(0)\n    assert os.wait()[1] == 0\n[t.join() for t in threads]\n"
        self.train(FORKED.format(name="busy") + busy + forks)
        self.daemon.ended("busy", "completed")
        self.daemon.rows("busy", 4000)

    def test_a_worker_that_is_terminated_ends_at_once_and_the_run_goes_on(self):
        worker = "import multiprocessing\nworker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\nworker.start(); time.sleep(0.2); worker.terminate(); worker.join(10)\nassert worker.exitcode == -15, worker.exitcode\n"
        self.train("run = cascor_ingest.init('terminates', redis_url=R)\n" + worker + TRAINS)
        self.one_run("terminates")

    def test_rank_0_alone_publishes(self):
        script = "with cascor_ingest.init('ranks', redis_url=R) as run:\n    " + TRAINS
        for rank in "1", "0":
            self.train(script, RANK=rank, WORLD_SIZE="2")
        self.one_run("ranks")

    def test_a_spawned_process_may_have_a_run_of_its_own(self):
        script = "import multiprocessing\ndef train():\n    with cascor_ingest.init('own', redis_url=R) as run:\n        " + TRAINS
        self.train(script + "if __name__ == '__main__':\n    one = multiprocessing.get_context('spawn').Process(target=train)\n    one.start(); one.join()\n")
        self.one_run("own")

    def test_a_forked_process_may_have_a_run_of_its_own(self):
        script = FORKED.format(name="parent") + "import multiprocessing\ndef train():\n    with cascor_ingest.init('child', redis_url=R) as run:\n        " + TRAINS
        self.train(script + "one = multiprocessing.get_context('fork').Process(target=train)\none.start(); one.join()\nassert one.exitcode == 0\n" + TRAINS)
        self.one_run("child")
        self.one_run("parent")


if __name__ == "__main__":
    unittest.main()
