#!/usr/bin/env python3
"""Measures whether reading grows with what is stored: answers of a daemon with one short run, and with many runs and a long one.

    tests/bench/size.py sqlite [--runs 1000000] [--rows 10000000] [--binary target/release/cascor-ingest]
    tests/bench/size.py cassandra [--runs 100000] [--rows 1000000]    needs CASCOR_TEST_CASSANDRA (host:port) and the driver of CASCOR_TEST_PYTHON

Runs and rows are written straight into the tables. The daemon takes 2,000 events a second meanwhile. Each figure is of whole requests over HTTP
on one connection: median and 99th percentile, without the other runs and rows, and with them.
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.parse
import uuid

import search

SHORT = 1_000
SECONDS = 6  # of each kind of request, at most
RATE = 2_000
FIRST_ROW = 1_600_000_000_000_000
COLUMNS = "run_id, timestamp, event_id, epoch, train_loss, val_loss, seq"


class Redis:
    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = ["redis-server", "--port", str(self.port), "--save", "", "--dir", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def connect(self):
        for _ in range(100):
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", self.port))
            time.sleep(0.05)
        raise SystemExit("redis-server does not answer")


class Trainer(threading.Thread):
    """Publishes RATE events a second, of eight runs, until it is stopped."""

    def __init__(self, redis):
        super().__init__(daemon=True)
        self.connection, self.stopped = redis.connect(), threading.Event()
        threading.Thread(target=self.drop_answers, daemon=True).start()

    def drop_answers(self):
        with contextlib.suppress(OSError):
            while self.connection.recv(1 << 16):
                pass

    def run(self):
        runs, sent, began = [uuid.uuid4() for _ in range(8)], 0, time.monotonic()
        while not self.stopped.wait(0.01):
            due, batch = int((time.monotonic() - began) * RATE), []
            while sent < due:
                data = {"epoch": sent // 8, "train_loss": 0.25, "val_loss": 0.5}
                message = json.dumps({"type": "metrics", "run_id": str(runs[sent % 8]), "seq": sent // 8, "timestamp": time.time(), "data": data})
                batch.append(f"*3\r\n$7\r\nPUBLISH\r\n$15\r\ncascor:training\r\n${len(message)}\r\n{message}\r\n")
                sent += 1
            self.connection.sendall("".join(batch).encode())


def fill_rows_of_sqlite(path, run, rows):
    store = sqlite3.connect(path)
    store.execute("PRAGMA synchronous = OFF")
    store.execute(
        f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {rows}) "
        f"INSERT INTO training_metrics_rows ({COLUMNS}) SELECT ?, {FIRST_ROW} + i * 1000, i, i, 0.25, 0.5, i FROM n",
        [str(run)],
    )
    store.execute("INSERT INTO training_runs (run_id, run_name, start_time, status, final_epoch) VALUES (?, 'long', ?, 'running', ?)", [str(run), FIRST_ROW, rows - 1])
    store.execute("INSERT INTO runs_by_month VALUES ('2020-09', ?, ?)", [FIRST_ROW, str(run)])
    store.commit()
    store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()


def fill_rows_of_cassandra(session, run, rows):
    from cassandra.concurrent import execute_concurrent_with_args

    insert = session.prepare(f"INSERT INTO training_metrics ({COLUMNS}) VALUES (?, ?, ?, ?, 0.25, 0.5, ?)")
    for begin in range(0, rows, 50_000):
        some = [(run, (FIRST_ROW // 1000) + n, n, n, n) for n in range(begin, min(begin + 50_000, rows))]
        execute_concurrent_with_args(session, insert, some, concurrency=128)
    session.execute("INSERT INTO training_runs (run_id, run_name, start_time, status, final_epoch) VALUES (%s, 'long', %s, 'running', %s)", (run, FIRST_ROW // 1000, rows - 1))
    session.execute("INSERT INTO runs_by_month (month, start_time, run_id) VALUES ('2020-09', %s, %s)", (FIRST_ROW // 1000, run))


def requests_of(run, rows):
    """What must not grow, then what may grow with the run: name, path, how often."""
    middle = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(FIRST_ROW / 1e6 + rows / 2000))
    of = f"run_id={run}"
    return [
        ("list of runs, first page", "/api/runs?limit=50", 300),
        ("search of every run, first page", "/api/runs?limit=50&q=baseline", 300),
        ("one run", f"/api/runs/{run}?limit=0&count=none", 300),
        ("one run with its newest rows", f"/api/runs/{run}?limit=50&count=none", 300),
        ("newest 100 rows", f"/api/metrics/range?{of}&limit=100&order=desc", 300),
        ("100 rows from the middle", f"/api/metrics/range?{of}&limit=100&start_time={urllib.parse.quote(middle)}", 300),
        ("gaps of the run", f"/api/runs/{run}/gaps", 300),
        ("all gaps", "/api/gaps", 300),
        ("topology", f"/api/runs/{run}/topology?limit=10", 300),
        ("events", f"/api/runs/{run}/events?limit=10", 300),
        ("status", "/api/status", 300),
        ("exact number of its rows (may grow)", f"/api/runs/{run}?limit=0", 2),
        ("curve of 1,000 points (may grow)", f"/api/metrics/range?{of}&max_points=1000&fields=train_loss", 2),
        ("aggregates (may grow)", f"/api/runs/{run}/aggregates", 2),
    ]


def measure(port, run, rows):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    figures = {}
    for name, path, times in requests_of(run, rows):
        taken = []
        for _ in range(times):
            if len(taken) > 2 and sum(taken) > SECONDS:
                break
            began = time.monotonic()
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            taken.append(time.monotonic() - began)
            if answer.status not in (200, 404):
                raise SystemExit(f"{path}: {answer.status} {body[:300]}")
        taken.sort()
        figures[name] = (taken[len(taken) // 2], taken[int(len(taken) * 0.99) if len(taken) > 10 else -1], answer.status)
    return figures


def one_size(options, folder, runs, rows):
    folder.mkdir()
    redis, run = Redis(folder), uuid.uuid4()
    more, session = f'store.sqlite.path = "{folder / "cascor.db"}"\n', None
    keyspace = f"cascor_bench_{uuid.uuid4().hex[:12]}"
    if options.store == "cassandra":
        host, port = os.environ["CASCOR_TEST_CASSANDRA"].split(":")
        more = f'store.kind = "cassandra"\nstore.cassandra = {{contact_points = ["{host}"], port = {port}, keyspace = "{keyspace}"}}\n'
    daemon = search.Daemon(options.binary, folder, more)
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("redis://127.0.0.1:1/0", f"redis://127.0.0.1:{redis.port}/0"))
    trainer = Trainer(redis)
    try:
        subprocess.run([*daemon.command, "schema", "apply"], check=True, stdout=subprocess.DEVNULL)
        began = time.monotonic()
        if options.store == "cassandra":
            session = search.fill_cassandra(host, int(port), keyspace, runs)
            fill_rows_of_cassandra(session, run, rows)
        else:
            search.fill_sqlite(folder / "cascor.db", runs)
            fill_rows_of_sqlite(folder / "cascor.db", run, rows)
        print(f"{runs} runs and {rows} rows written in {time.monotonic() - began:.0f} s", flush=True)
        daemon.process = subprocess.Popen([*daemon.command, "run"], stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"))
        for _ in range(200):
            with contextlib.suppress(OSError):
                daemon.get("limit=1")
                break
            time.sleep(0.1)
        trainer.start()
        time.sleep(3)
        figures = measure(daemon.port, run, rows)
        print(f"memory of the daemon: {daemon.memory()} MiB", flush=True)
        return figures
    finally:
        trainer.stopped.set()
        for process in filter(None, [daemon.process, redis.process]):
            process.terminate()
            process.wait()
        if session:
            session.execute(f"DROP KEYSPACE {keyspace}", timeout=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", choices=["sqlite", "cassandra"])
    parser.add_argument("--runs", type=int)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--binary", default="target/release/cascor-ingest")
    options = parser.parse_args()
    lite = options.store == "sqlite"
    runs, rows = options.runs or (1_000_000 if lite else 100_000), options.rows or (10_000_000 if lite else 1_000_000)
    parent = os.environ.get("TMPDIR", "target/tmp")
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cascor-bench-size.", dir=parent) as folder:
        folder = pathlib.Path(folder).resolve()
        small = one_size(options, folder / "small", 100, SHORT)
        large = one_size(options, folder / "large", runs, rows)
    print(f"{'milliseconds':36} {f'100 runs, {SHORT} rows':>24} {f'{runs} runs, {rows} rows':>30}")
    for name, (p50, p99, _) in small.items():
        big50, big99, status = large[name]
        note = "" if status == 200 else f"   (status {status})"
        print(f"{name:36} {p50 * 1e3:>12.1f} {p99 * 1e3:>11.1f} {big50 * 1e3:>18.1f} {big99 * 1e3:>11.1f}{note}")


if __name__ == "__main__":
    main()
