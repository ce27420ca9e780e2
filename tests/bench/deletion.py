#!/usr/bin/env python3
"""Measures the deletion of a run: a million rows in SQLite, 100,000 in Cassandra.

    tests/bench/deletion.py sqlite [--rows 1000000] [--binary target/release/cascor-ingest]
    tests/bench/deletion.py cassandra [--rows 100000]    needs CASCOR_TEST_CASSANDRA (host:port) and the driver of CASCOR_TEST_PYTHON

The rows are written straight into the tables; `runs delete` deletes the run. In SQLite a write beside it waits as long as the last figure says.
"""
import argparse
import json
import os
import pathlib
import sqlite3
import subprocess
import tempfile
import threading
import time
import uuid

from search import Daemon, START

RUN, OTHER = uuid.uuid4(), uuid.uuid4()
COLUMNS = ["run_id", "timestamp", "event_id", "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "seq"]
MARKS = ", ".join("?" * len(COLUMNS))


def rows(run, count, tick):
    for n in range(count):
        yield [run, START // tick + n * 1_000_000 // tick, n, n, 1 / (n + 1), 0.5, 1 / (n + 2), 0.5, 0.001, n]


class Sqlite:
    def __init__(self, file, count):
        self.file = file
        with sqlite3.connect(file) as store:
            for run, size in [(RUN, count), (OTHER, 1_000)]:
                extra = json.dumps({"f1": 0.5, "grad_norm": 1.25})
                into = f"INSERT INTO training_metrics_rows ({', '.join(COLUMNS)}, extra) VALUES ({MARKS}, '{extra}')"
                store.executemany(into, rows(str(run), size, 1))
                store.execute("INSERT INTO training_runs (run_id, status, start_time) VALUES (?, 'completed', ?)", [str(run), START])

    def count(self, run):
        return sqlite3.connect(self.file).execute("SELECT count(*) FROM training_metrics WHERE run_id = ?", [str(run)]).fetchone()[0]

    def longest_write(self, stop):
        """The longest of small writes, one every 20 ms, as another process sees it."""
        store, longest = sqlite3.connect(self.file, timeout=120, isolation_level=None), 0
        while not stop.is_set():
            began = time.monotonic()
            store.execute("UPDATE training_runs SET final_epoch = 1 WHERE run_id = ?", [str(OTHER)])
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.02)
        print(f"longest write of another process: {longest:.2f} s")


class Cassandra:
    def __init__(self, host, port, keyspace, count):
        from cassandra.cluster import Cluster
        from cassandra.concurrent import execute_concurrent_with_args
        from cassandra.policies import WhiteListRoundRobinPolicy

        self.session = Cluster([host], port=port, load_balancing_policy=WhiteListRoundRobinPolicy([host])).connect(keyspace)
        self.session.default_timeout = 120
        insert = self.session.prepare(f"INSERT INTO training_metrics ({', '.join(COLUMNS)}) VALUES ({MARKS})")
        for run, size in [(RUN, count), (OTHER, 1_000)]:
            execute_concurrent_with_args(self.session, insert, rows(run, size, 1_000), concurrency=64)
            values = [run, START // 1_000]
            self.session.execute("INSERT INTO training_runs (run_id, status, start_time) VALUES (%s, 'completed', %s)", values)

    def count(self, run):
        return self.session.execute("SELECT count(*) FROM training_metrics WHERE run_id = %s", [run], timeout=120).one()[0]

    def longest_write(self, stop):
        stop.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", choices=["sqlite", "cassandra"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--binary", default="target/release/cascor-ingest")
    options = parser.parse_args()
    count = options.rows or (1_000_000 if options.store == "sqlite" else 100_000)
    with tempfile.TemporaryDirectory(prefix="cascor-bench-deletion.", dir=os.environ.get("TMPDIR", "target/tmp")) as folder:
        folder = pathlib.Path(folder).resolve()
        file, keyspace = folder / "cascor.db", f"cascor_bench_{uuid.uuid4().hex[:12]}"
        more = f'store.sqlite.path = "{file}"\n'
        if options.store == "cassandra":
            host, port = os.environ["CASCOR_TEST_CASSANDRA"].split(":")
            more = f'store.kind = "cassandra"\nstore.cassandra = {{contact_points = ["{host}"], port = {port}, keyspace = "{keyspace}"}}\n'
        program = Daemon(options.binary, folder, more).command
        subprocess.run([*program, "schema", "apply"], check=True, stdout=subprocess.DEVNULL)
        store = None
        try:
            store = Sqlite(file, count) if options.store == "sqlite" else Cassandra(host, int(port), keyspace, count)
            found = (store.count(RUN), store.count(OTHER))
            assert found == (count, 1_000), found
            stop = threading.Event()
            writes = threading.Thread(target=store.longest_write, args=[stop])
            writes.start()
            began = time.monotonic()
            subprocess.run([*program, "runs", "delete", str(RUN), "--yes"], check=True, stdout=subprocess.DEVNULL)
            print(f"a run of {count} rows deleted in {time.monotonic() - began:.2f} s")
            stop.set()
            writes.join()
            found = (store.count(RUN), store.count(OTHER))
            assert found == (0, 1_000), found
        finally:
            if isinstance(store, Cassandra):
                store.session.execute(f"DROP KEYSPACE {keyspace}", timeout=60)


main()
