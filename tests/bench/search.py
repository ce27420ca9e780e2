#!/usr/bin/env python3
"""Measures lists of runs: searches, sorted lists and pages over a million runs in SQLite and 100,000 in Cassandra.

    tests/bench/search.py sqlite [--runs 1000000] [--file FILE] [--binary target/release/cascor-ingest] [--sorted]
    tests/bench/search.py cassandra [--runs 100000]    needs CASCOR_TEST_CASSANDRA (host:port) and the driver of CASCOR_TEST_PYTHON
    tests/bench/search.py changes    what the triggers of `run_changes` cost a write of a run, in SQLite

The runs are written straight into the tables. A daemon (`serve`) answers over HTTP; every figure is of whole requests. A client goes
on until it has its page: `first run` is the time of all requests up to the first one that has a run, also while the runs are being sorted.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

START = int(time.time() * 1_000_000)
STEP = 20_000_000  # a run every 20 s: a million are seven months
DATASETS = ["spiral", "moons", "mnist", "данные", "螺旋"]
OPTIMIZERS = ["adam", "sgd", "lion", "quickprop"]


def run(n):
    """Run n, the newest first, by the names of the columns."""
    value = random.Random(n)
    started = START - n * STEP
    config = {
        "lr": value.choice([0.1, 0.01, 0.001, 0.0003]), "optimizer": {"name": value.choice(OPTIMIZERS), "decay": 0.0001 * value.randrange(9)},
        "batch_size": value.choice([16, 32, 64]), "units": [value.randrange(64) for _ in range(4)], "seed": n,
        "data": {"path": f"/data/{value.choice(DATASETS)}/v{n % 7}", "shuffle": True}, "patience": 20, "candidates": 8,
    }
    return {
        "run_id": uuid.UUID(int=value.getrandbits(128), version=4), "run_name": f"sweep-{n % 977}-{value.randrange(10**6):06}",
        "start_time": started, "end_time": started + STEP, "duration_seconds": 20, "status": value.choice(["completed", "failed", "stopped"]),
        "dataset_name": DATASETS[n % 5], "dataset_size": 194, "config_json": json.dumps(config, ensure_ascii=False), "final_epoch": n % 500,
        "final_train_loss": None if n % 50 == 0 else value.random(), "final_val_loss": value.random(), "best_val_accuracy": value.random(),
        "total_hidden_units": n % 40, "notes": "needle in the haystack" if n % 100_000 == 99_999 else f"baseline {n % 13}, as discussed on Monday",
        "tags": ["nightly", f"group-{n % 20}"], "created_by": value.choice(["ann", "bob", "Зоя"]), "last_event_time": started + STEP,
    }


COLUMNS = list(run(1))


def fill_sqlite(path, runs):
    store = sqlite3.connect(path)
    store.execute("PRAGMA synchronous = OFF")
    marks = ", ".join("?" * len(COLUMNS))
    for begin in range(0, runs, 20_000):
        rows = [run(n) for n in range(begin, min(begin + 20_000, runs))]
        for row in rows:
            row.update(run_id=str(row["run_id"]), tags=json.dumps(row["tags"]))
        store.executemany(f"INSERT INTO training_runs ({', '.join(COLUMNS)}) VALUES ({marks})", [list(row.values()) for row in rows])
        month = lambda row: time.strftime("%Y-%m", time.gmtime(row["start_time"] // 1_000_000))
        store.executemany("INSERT INTO runs_by_month VALUES (?, ?, ?)", [(month(row), row["start_time"], row["run_id"]) for row in rows])
        # One run of a hundred was edited, one of a thousand is archived.
        edits = [(row["run_id"], f"given {n}", n % 10 == 0, START) for n, row in enumerate(rows[::100])]
        store.executemany("INSERT INTO run_edits (run_id, display_name, archived, edited_at) VALUES (?, ?, ?, ?)", edits)
        store.commit()
    store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()


def fill_cassandra(host, port, keyspace, runs):
    from cassandra.cluster import Cluster
    from cassandra.concurrent import execute_concurrent_with_args
    from cassandra.policies import WhiteListRoundRobinPolicy

    session = Cluster([host], port=port, load_balancing_policy=WhiteListRoundRobinPolicy([host])).connect(keyspace)
    marks = ", ".join("?" * len(COLUMNS))
    insert = session.prepare(f"INSERT INTO training_runs ({', '.join(COLUMNS)}) VALUES ({marks})")
    month = session.prepare("INSERT INTO runs_by_month (month, start_time, run_id) VALUES (?, ?, ?)")
    for begin in range(0, runs, 2_000):
        rows = [run(n) for n in range(begin, min(begin + 2_000, runs))]
        for row in rows:
            row.update({name: row[name] // 1_000 for name in ("start_time", "end_time", "last_event_time")}, tags=set(row["tags"]))
        execute_concurrent_with_args(session, insert, [list(row.values()) for row in rows], concurrency=64)
        entries = [(time.strftime("%Y-%m", time.gmtime(row["start_time"] // 1_000)), row["start_time"], row["run_id"]) for row in rows]
        execute_concurrent_with_args(session, month, entries, concurrency=64)
    return session


class Daemon:
    def __init__(self, binary, folder, more):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = folder / "config.toml"
        config.write_text(f'state_dir = "{folder}"\nhttp.listen = "127.0.0.1:{self.port}"\nredis.url = "redis://127.0.0.1:1/0"\n{more}')
        self.command = [binary, "--config", str(config)]
        self.process = None

    def start(self):
        self.process = subprocess.Popen([*self.command, "serve"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                return self.get("limit=1")
            except (OSError, urllib.error.HTTPError):
                time.sleep(0.1)
        raise SystemExit("the daemon does not answer")

    def get(self, query):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/runs?{query}") as answer:
            return json.load(answer)

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return {name: int(line.split()[1]) // 1024 for line in status.splitlines() for name in ("VmRSS", "VmHWM") if line.startswith(name)}


def measure(daemon, name, pages=10**9, **query):
    """The first request, then the first page with a run, then the end (or `pages` full pages)."""
    query = urllib.parse.urlencode({"limit": 100, **query})
    began = time.monotonic()
    first, slowest, with_run, found, requests, cursor, ids = None, 0, None, 0, 0, "", set()
    while pages > 0:
        asked = time.monotonic()
        answer = daemon.get(f"{query}&before={cursor}" if cursor else query)
        took = time.monotonic() - asked
        first, slowest, requests = first or (took, answer["count"]), max(slowest, took), requests + 1
        if answer["count"]:
            with_run = with_run or time.monotonic() - began
        ids.update(row["run_id"] for row in answer["runs"])
        found += answer["count"]
        pages -= answer["count"] > 0
        cursor = answer["next"]
        if not cursor:
            break
    assert len(ids) == found, "a run is listed twice"
    total = time.monotonic() - began
    shown = f"{with_run * 1000:7.0f} ms" if with_run else "         -"
    end = "end" if not cursor else "goes on"
    print(f"{name:44} {first[0] * 1000:7.0f} ms ({first[1]:3}) {shown} {slowest * 1000:7.0f} ms {total:7.2f} s {requests:5} {found:7} {end}", flush=True)


def report_newest_first(daemon, runs):
    measure(daemon, "newest first, first page", pages=1)
    measure(daemon, "q of every run, first page", pages=1, q="baseline")
    measure(daemon, "q of a quarter (key=value), first page", pages=1, q="optimizer.name=adam")
    measure(daemon, "q of a fifth (Cyrillic), first page", pages=1, q="ДАННЫЕ")
    measure(daemon, "q of one of 100,000, to the end", q="needle")
    measure(daemon, "q of one (seed), to the end", q=f"seed={runs - 1}")
    measure(daemon, "q of none, to the end", q="nothing-like-this")
    measure(daemon, "tag, status and q, first page", pages=1, tag="group-7", status="failed", q="zo зоя adam".split()[1])
    measure(daemon, "archived, first page", pages=1, archived="true")


def report(daemon, runs, file, only_sorted):
    print(f"{'list':44} {'first answer':>16} {'first run':>10} {'slowest':>10} {'all':>9} {'req.':>5} {'found':>7}")
    if not only_sorted:
        report_newest_first(daemon, runs)
    print(f"memory of the daemon: {daemon.memory()} MiB")
    loss = {"sort": "final_val_loss", "order": "asc"}
    for name, query in [
        ("final_val_loss, smallest", loss),
        ("name", {"sort": "name", "order": "asc"}),
        ("config.optimizer.decay", {"sort": "config.optimizer.decay"}),
        ("start (oldest first)", {"order": "asc"}),
    ]:
        measure(daemon, f"sort by {name}, the first time", pages=1, **query)
        measure(daemon, f"sort by {name}, first page", pages=1, **query)
        measure(daemon, f"sort by {name}, 50 pages", pages=50, **query)
    print(f"memory of the daemon: {daemon.memory()} MiB")
    measure(daemon, "sort by final_val_loss, the first time again", pages=1, **loss)
    measure(daemon, "sort by final_val_loss, largest", pages=1, sort="final_val_loss")
    measure(daemon, "sorted, key=value, first page", pages=1, q="optimizer.name=adam", **loss)
    measure(daemon, "sorted, key=value, ten pages", pages=10, q="optimizer.name=adam", **loss)
    measure(daemon, "sorted, a word, first page", pages=1, q="ДАННЫЕ", **loss)
    measure(daemon, "sorted, archived, first page", pages=1, archived="true", **loss)
    measure(daemon, "sorted, tag and status, first page", pages=1, tag="group-7", status="failed", **loss)
    with (writing(file) if file else contextlib.nullcontext()):
        measure(daemon, "sorted while 100 runs/s change, 50 pages", pages=50, **loss)
        measure(daemon, "sorted while they change, key=value", pages=10, q="optimizer.name=adam", **loss)
    print(f"memory of the daemon: {daemon.memory()} MiB")
    measure(daemon, "sorted, q of one of 100,000, to the end", q="needle", **loss)


@contextlib.contextmanager
def writing(file):
    """Changes a hundred runs in each second."""
    stop = threading.Event()

    def write():
        store = sqlite3.connect(file, timeout=10)
        store.execute("PRAGMA synchronous = NORMAL")
        while not stop.wait(0.05):
            rows = [(random.random(), str(run(random.randrange(100_000))["run_id"])) for _ in range(5)]
            store.executemany("UPDATE training_runs SET final_val_loss = ? WHERE run_id = ?", rows)
            store.commit()
        store.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def changes(binary, folder):
    """CPU of writing the rows of eight active runs, over and over, with and without the triggers."""
    file = folder / "cascor.db"
    daemon = Daemon(binary, folder, f'store.sqlite.path = "{file}"\n')
    subprocess.run([*daemon.command, "schema", "apply"], check=True, stdout=subprocess.DEVNULL)
    fill_sqlite(file, 20_000)
    store = sqlite3.connect(file, isolation_level=None)
    store.execute("PRAGMA synchronous = OFF")
    rows = [run(n) for n in range(8)]
    for row in rows:
        row.update(run_id=str(row["run_id"]), tags=json.dumps(row["tags"]))
    replace = f"INSERT OR REPLACE INTO training_runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    triggers = [sql for (sql,) in store.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")]
    names = [name for (name,) in store.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")]
    taken = {True: [], False: []}
    for n in range(20):
        has_triggers = n % 2 == 0
        for sql in triggers if has_triggers else [f"DROP TRIGGER {name}" for name in names]:
            store.execute(sql.replace("CREATE TRIGGER", "CREATE TRIGGER IF NOT EXISTS"))
        began = time.process_time()
        for flush in range(500):
            store.execute("BEGIN")
            store.executemany(replace, [list({**row, "final_epoch": flush}.values()) for row in rows])
            store.execute("COMMIT")
        taken[has_triggers].append((time.process_time() - began) / 4_000 * 1e6)
    for has_triggers, times in taken.items():
        print(f"{'with' if has_triggers else 'without'} the triggers: {statistics.median(times):.1f} us a row (from {min(times):.1f} to {max(times):.1f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", choices=["sqlite", "cassandra", "changes"])
    parser.add_argument("--runs", type=int)
    parser.add_argument("--binary", default="target/release/cascor-ingest")
    parser.add_argument("--file", type=pathlib.Path, help="SQLite: use this file of an earlier run, or keep the runs there")
    parser.add_argument("--sorted", action="store_true", help="only the sorted lists")
    options = parser.parse_args()
    runs = options.runs or (1_000_000 if options.store == "sqlite" else 100_000)
    with tempfile.TemporaryDirectory(prefix="cascor-bench-search.", dir=os.environ.get("TMPDIR", "target/tmp")) as folder:
        folder = pathlib.Path(folder).resolve()
        if options.store == "changes":
            return changes(options.binary, folder)
        file = (options.file or folder / "cascor.db").resolve()
        more, session, keyspace = f'store.sqlite.path = "{file}"\n', None, f"cascor_bench_{uuid.uuid4().hex[:12]}"
        if options.store == "cassandra":
            host, port = os.environ["CASCOR_TEST_CASSANDRA"].split(":")
            more = f'store.kind = "cassandra"\nstore.cassandra = {{contact_points = ["{host}"], port = {port}, keyspace = "{keyspace}"}}\n'
        daemon = Daemon(options.binary, folder, more)
        subprocess.run([*daemon.command, "schema", "apply"], check=True, stdout=subprocess.DEVNULL)
        began = time.monotonic()
        try:
            if options.store == "cassandra":
                session = fill_cassandra(host, int(port), keyspace, runs)
            else:
                if sqlite3.connect(file).execute("SELECT count(*) FROM training_runs").fetchone()[0] < runs:
                    fill_sqlite(file, runs)
                print(f"file: {file.stat().st_size >> 20} MiB")
            print(f"{runs} runs written in {time.monotonic() - began:.0f} s", flush=True)
            daemon.start()
            report(daemon, runs, file if options.store == "sqlite" else None, options.sorted)
        finally:
            if daemon.process:
                daemon.process.terminate()
                daemon.process.wait()
            if session:
                session.execute(f"DROP KEYSPACE {keyspace}", timeout=60)


if __name__ == "__main__":
    main()
