"""Reading back: the queries of §5 as they are written, and every route of §6."""

import csv
import io
import json
import time
import uuid

from parts import *

ROWS = 1_200
NOBODY = "00000000-0000-4000-8000-000000000000"
METRICS_COLUMNS = {
    "run_id", "timestamp", "event_id", "epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate",
    "hidden_units", "phase", "seq", "extra", "rest_json",
}
RUN_COLUMNS = {
    "run_id", "run_name", "start_time", "end_time", "duration_seconds", "status", "dataset_name", "dataset_size", "config_json", "final_epoch",
    "final_train_loss", "final_train_accuracy", "final_val_loss", "final_val_accuracy", "best_val_accuracy", "best_epoch",
    "total_hidden_units", "total_parameters", "notes", "tags", "created_by", "last_event_time",
    "restarted_at",
}


def recorded(world):
    """Two runs to read back, made once: 1,200 rows with two holes in `seq` and two values that are not finite."""
    if hasattr(world, "recorded"):
        return world.recorded
    trainer, dataset = world.trainer, f"read-{uuid.uuid4()}"
    runs = [str(uuid.uuid4()), str(uuid.uuid4())]
    times = []
    for run in runs:
        trainer.send({"type": "training_start", "run_id": run, "timestamp": trainer.moment() / 1e6, "data": {"dataset": dataset}})
        trainer.send({"type": "topology", "run_id": run, "timestamp": trainer.moment() / 1e6, "data": {"input_units": 2, "output_units": 1, "hidden_units": [1]}})
    for n in range(ROWS):
        times.append(trainer.moment())
        loss = {700: float("nan"), 701: float("inf")}.get(n, 1 / (n + 1))
        trainer.send({"run_id": runs[0], "seq": n + 2 * (n >= 40), "epoch": n, "train_loss": loss, "val_loss": 2.0, "grad": 0.5, "phase": 'a,"b"', "timestamp": times[-1]})
    trainer.send({"run_id": runs[1], "epoch": 1, "train_loss": 0.75, "timestamp": trainer.moment()})
    until("all rows by HTTP", lambda: world.http.get(f"/api/runs/{runs[0]}")["metric_count"] == ROWS if exists(world, runs[0]) else False)
    until("the other run", lambda: exists(world, runs[1]) and world.http.get(f"/api/runs/{runs[1]}")["metric_count"] == 1)
    world.recorded = runs, dataset, times
    return world.recorded


def exists(world, run):
    return world.http.ask("GET", f"/api/runs/{run}", (200, 404)).status_code == 200


def queries(world):
    """§5: the queries that dashboards use, as they are written."""
    (run, other), dataset, times = recorded(world)
    ask, at = world.store.rows, world.store.time
    newest = ask("SELECT * FROM training_metrics WHERE run_id = ? ORDER BY timestamp DESC LIMIT ?", run, 10)
    same("the newest", [row["timestamp"] for row in newest], [at(moment) for moment in times[:-11:-1]])
    assert METRICS_COLUMNS <= set(newest[0]), METRICS_COLUMNS - set(newest[0])
    same("a row", (newest[0]["epoch"], newest[0]["seq"], newest[0]["extra"]), (ROWS - 1, ROWS + 1, {"grad": 0.5}))
    between = "SELECT * FROM training_metrics WHERE run_id = ? AND timestamp >= ? AND timestamp <= ? ORDER BY timestamp DESC LIMIT ?"
    same("a range", [row["epoch"] for row in ask(between, run, At(at(times[5])), At(at(times[8])), 100)], [8, 7, 6, 5])
    row = ask("SELECT * FROM training_runs WHERE run_id = ?", run)[0]
    assert RUN_COLUMNS <= set(row), RUN_COLUMNS - set(row)
    same("the run", (row["status"], row["dataset_name"]), ("running", dataset))
    assert {run, other} <= {row["run_id"] for row in ask("SELECT * FROM training_runs WHERE status = ? LIMIT ?", "running", 1_000)}, "by status"
    for more in ("", " ALLOW FILTERING"):
        same("by dataset", {row["run_id"] for row in ask(f"SELECT * FROM training_runs WHERE dataset_name = ?{more}", dataset)}, {run, other})
    same("some", len(ask("SELECT * FROM training_runs LIMIT ?", 3)), 3)
    assert all(row["version"] >= 1 for row in ask("SELECT * FROM schema_version")), "versions"
    ask("SELECT * FROM ingest_gaps WHERE day = ?", rfc3339(times[0])[:10])


def runs(world):
    """The list of runs, page by page to its end; one run."""
    (run, other), dataset, _ = recorded(world)
    http = world.http
    seen, cursor = [], None
    while cursor is not False:
        page = http.get("/api/runs", limit=2, **({"before": cursor} if cursor else {}))
        assert {"runs", "count", "next"} <= set(page) and page["count"] == len(page["runs"]) <= 2, page
        seen += page["runs"]
        cursor = page["next"] or False
    ids, starts = [row["run_id"] for row in seen], [micros(row["start_time"]) for row in seen]
    assert len(ids) == len(set(ids)) > 5 and {run, other} <= set(ids), "every run once"
    same("newest first", starts, sorted(starts, reverse=True))
    same("the same in one page", [row["run_id"] for row in http.get("/api/runs", limit=1_000)["runs"]], ids)
    assert http.get("/api/runs")["count"] == min(100, len(ids))
    same("by dataset", {row["run_id"] for row in http.get("/api/runs", dataset=dataset)["runs"]}, {run, other})
    same("by dataset and status", http.get("/api/runs", dataset=dataset, status="completed"), {"runs": [], "count": 0, "next": None})
    for status in ("running", "completed", "failed", "stopped"):
        assert {row["status"] for row in http.get("/api/runs", status=status)["runs"]} == {status}, status
    one = http.get(f"/api/runs/{run}")
    assert {"run", "metrics", "metric_count"} <= set(one) and RUN_COLUMNS <= set(one["run"]), one["run"]
    same("one run", (one["run"]["run_id"], one["metric_count"], len(one["metrics"])), (run, ROWS, 1_000))
    same("its newest", one["metrics"][0]["epoch"], ROWS - 1)
    assert METRICS_COLUMNS <= set(one["metrics"][0]), METRICS_COLUMNS - set(one["metrics"][0])
    odd = [row for row in one["metrics"] if row["epoch"] in (700, 701)]
    same("what is not finite", [(row["train_loss"], row["non_finite"]) for row in odd], [(None, ["train_loss"])] * 2)
    for path, status, detail in [("/api/runs/7", 400, "Invalid UUID"), (f"/api/runs/{NOBODY}", 404, "Run not found"), ("/api/nothing", 404, None)]:
        http.refused(path, status, detail)
    for wrong in ({"limit": "many"}, {"limit": -1}, {"before": "?"}):
        http.refused("/api/runs", 400, **wrong)


def ranges(world):
    """Metrics of a run: pages, bounds, order; a curve says what it is made of."""
    (run, _), _, times = recorded(world)
    ask = lambda **more: world.http.get("/api/metrics/range", run_id=run, **more)
    whole = ask()
    assert {"metrics", "count", "next", "exact"} <= set(whole) and whole["exact"] is True and whole["next"], list(whole)
    same("a page", (whole["count"], len(whole["metrics"]), whole["metrics"][0]["epoch"]), (1_000, 1_000, ROWS - 1))
    for order, expected in [("desc", list(range(ROWS))[::-1]), ("asc", list(range(ROWS)))]:
        epochs, cursor = [], {}
        while cursor is not None:
            page = ask(limit=250, order=order, **cursor)
            assert page["count"] == len(page["metrics"]) <= 250
            epochs += [row["epoch"] for row in page["metrics"]]
            cursor = {"cursor": page["next"]} if page["next"] else None
        same(f"every row once, {order}", epochs, expected)
    part = ask(start_time=rfc3339(times[5]), end_time=rfc3339(times[8]), order="asc")
    same("a range", [(row["epoch"], micros(row["timestamp"])) for row in part["metrics"]], [(n, times[n]) for n in (5, 6, 7, 8)])
    some = ask(limit=3, fields="train_loss,grad")["metrics"]
    assert all("train_loss" in row and "grad" in {**row, **(row.get("extra") or {})} and "val_loss" not in row for row in some), some
    curve = ask(max_points=50, fields="train_loss")
    assert 0 < curve["count"] == len(curve["metrics"]) <= 50 and isinstance(curve["exact"]["method"], str), curve["exact"]
    same("of how many", curve["exact"]["of"], ROWS)
    same("nothing was left out", ask(max_points=5_000)["exact"] is True or ask(max_points=5_000)["count"] == ROWS, True)
    for wrong in ({"limit": "x"}, {"order": "up"}, {"start_time": "soon"}, {"cursor": "?"}):
        world.http.refused("/api/metrics/range", 400, run_id=run, **wrong)
    world.http.refused("/api/metrics/range", 400, "Invalid UUID", run_id="7")
    world.http.refused("/api/metrics/range", 400)


def newest(world):
    """The latest values, from Redis or from the store; the answer says which."""
    trainer, http, run = world.trainer, world.http, str(uuid.uuid4())

    def becomes(path, status, fits, message=None):
        def ask():
            if message:
                trainer.send({"run_id": run, **message})
                time.sleep(0.1)
            answer = http.ask("GET", path)
            value = strict(answer.text)
            return value if answer.headers["X-Cache-Status"] == status and fits(value) else None

        return until(f"{path}: {status}", ask)

    metrics = {"epoch": 77, "loss": 0.5, "own": "field"}
    network = {"type": "topology", "data": {"input_units": 2, "output_units": 1, "hidden_units": [1, 2]}}
    value = becomes("/api/metrics", "HIT", lambda value: value["run_id"] == run, metrics)
    same("from Redis", (value["train_loss"], value["own"], value["_ingest"]["run_id"]), (0.5, "field", run))
    becomes("/api/history", "HIT", lambda value: value[-1]["run_id"] == run, metrics)
    for path in ("/api/network/topology", "/api/topology"):
        becomes(path, "HIT", lambda value: value["run_id"] == run and value["hidden_units"] == 2, network)
    # Other clients delete these keys at will, and the store knows, too.
    time.sleep(1)
    for path, fits in [("/api/metrics", lambda value: value["epoch"] == 77), ("/api/network/topology", lambda value: value["hidden_units"] == 2),
                       ("/api/topology", lambda value: value["input_size"] == 2), ("/api/history", lambda value: {row["epoch"] for row in value} == {77})]:
        trainer.redis.flushdb()
        becomes(path, "MISS", fits)


def details(world):
    """What is said about one run."""
    (run, other), _, times = recorded(world)
    http = world.http
    one = rows_in(http.get(f"/api/runs/{run}/topology"))
    same("snapshots", [(row["input_size"], row["hidden_units"]) for row in one], [(2, 1)])
    same("lifecycle", [row["type"] for row in rows_in(http.get(f"/api/runs/{run}/events"))], ["training_start"])
    loss = found(http.get(f"/api/runs/{run}/aggregates"), "train_loss")[0]
    same("aggregates", (loss["min"], loss["max"], loss["last"]), (1 / ROWS, 1.0, 1 / ROWS))
    mean = sum(1 / (n + 1) for n in range(ROWS) if n not in (700, 701)) / (ROWS - 2)
    assert abs(loss["avg"] - mean) < 1e-12 and 700 in loss.values(), f"avg {mean}, first non-finite epoch 700: {loss}"
    gaps = http.get(f"/api/runs/{run}/gaps")
    missing = json.dumps(gaps)
    assert 2 in gaps.values() and "40" in missing and "41" in missing, f"seq 40 and 41 are missing: {missing}"
    compared = json.dumps(http.get("/api/compare", run_id=[run, other], field="train_loss"))
    assert run in compared and other in compared and "0.75" in compared, compared[:500]
    for part in ("topology", "events", "aggregates", "gaps"):
        http.refused(f"/api/runs/{NOBODY}/{part}", 404, "Run not found")
        http.refused(f"/api/runs/7/{part}", 400, "Invalid UUID")


def export(world):
    """Whole runs: every row in every format, and how many there should be."""
    (run, _), _, times = recorded(world)
    path = f"/api/export?run_id={run}"
    text, trailer = world.http.trailers(path + "&format=csv")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert METRICS_COLUMNS <= set(rows[0]), METRICS_COLUMNS - set(rows[0])
    same("CSV", [int(row["epoch"]) for row in rows], list(range(ROWS)))
    same("not finite", (rows[700]["train_loss"], rows[701]["train_loss"], rows[5]["phase"]), ("NaN", "Infinity", 'a,"b"'))
    same("as it was", float(rows[5]["train_loss"]), 1 / 6)
    assert str(ROWS) in trailer.values(), f"the row count: {trailer}"
    text, trailer = world.http.trailers(path + "&format=ndjson")
    lines = [strict(line) for line in text.splitlines()]
    same("NDJSON", [row["epoch"] for row in lines if "epoch" in row], list(range(ROWS)))
    assert str(ROWS) in trailer.values() or ROWS in found(lines[-1], "rows"), trailer
    whole = world.http.get(path + "&format=json")
    same("JSON", rows_in(whole) == lines[:ROWS], True)
    same("the usual client gets the same", world.http.ask("GET", path + "&format=ndjson").text, text)
    events = world.http.ask("GET", path + "&format=ndjson&table=training_events").text
    same("another table", [strict(line)["type"] for line in events.splitlines()], ["training_start"])
    for wrong in ("&format=xls", "&table=nothing"):
        world.http.refused(path + wrong, 400)


def stream(world):
    """Live messages, as server-sent events."""
    run = str(uuid.uuid4())
    with world.http.ask("GET", "/api/stream", stream=True) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream"), answer.headers
        deadline = time.time() + LIMIT
        for line in answer.iter_lines(chunk_size=1):
            world.trainer.send({"run_id": run, "epoch": 1, "loss": 0.5})
            if line.startswith(b"data:") and run.encode() in line:
                strict(line[5:].decode())
                break
            assert time.time() < deadline, "the message was not seen"


def operators(world):
    """What probes, scrapers and people ask."""
    http = world.http
    for path in ("/healthz", "/readyz"):
        http.ask("GET", path)
    page = http.ask("GET", "/metrics")
    assert page.headers["Content-Type"].startswith("application/openmetrics-text") and page.text.endswith("# EOF\n"), page.headers
    assert "html" in http.ask("GET", "/").headers["Content-Type"]
    status = http.get("/api/status")
    assert all(any(name.startswith(part) for name in status) for part in ("phase", "paused", "lag", "spool", "store", "counters")), list(status)


def made(world):
    """A run created and completed by HTTP is as one by message."""
    http, name = world.http, f"made {uuid.uuid4()}"
    body = {"run_id": name, "dataset": {"name": "moons", "num_samples": 7}, "config": {"learning_rate": 0.01}, "tags": ["x"], "notes": "n"}
    run = http.post("/api/runs", body)["run_id"]
    same("its id", run, uuid5(name))
    until("the run", lambda: exists(world, run))
    row = until("its start", lambda: (row := http.get(f"/api/runs/{run}")["run"])["status"] and row)
    expected = {"run_name": name, "status": "running", "dataset_name": "moons", "dataset_size": 7, "tags": ["x"], "notes": "n"}
    same("as it began", {name: row[name] for name in expected}, expected)
    world.trainer.send({"run_id": name, "epoch": 1, "loss": 0.5})
    until("its metrics", lambda: http.get(f"/api/runs/{run}")["metric_count"] == 1)
    http.post(f"/api/runs/{run}/complete", {"status": "converged", "epoch": 9, "final_metrics": {"train_loss": 0.01}})
    until("its end", lambda: http.get(f"/api/runs/{run}")["run"]["status"] == "completed")
    row = http.get(f"/api/runs/{run}")["run"]
    same("as it ended", (row["final_epoch"], row["final_train_loss"], row["end_time"] is None), (9, 0.01, False))
    until("its events", lambda: len(rows_in(http.get(f"/api/runs/{run}/events"))) == 2)
    http.post("/api/runs/7/complete", {}, 400)
    http.post(f"/api/runs/{NOBODY}/complete", {}, 404)
    http.ask("POST", "/api/runs", 400, data="no json")


def tokens(world):
    """Where there are tokens, changing something needs one."""
    given, url = world.http, world.place["url"]
    for http in (Http(url), Http(url, "x" * 32)):
        for path, body in [("/api/control", {"command": "status"}), ("/api/runs", {}), (f"/api/runs/{NOBODY}/complete", {})]:
            http.post(path, body, 401)
    for path in ("/healthz", "/readyz", "/metrics"):
        Http(url).ask("GET", path)
    same("a command", given.post("/api/control", {"command": "status"})["outcome"], "done")
    run = given.post("/api/runs", {})["run_id"]
    given.post(f"/api/runs/{run}/complete", {})
    until("the run", lambda: exists(world, run) and given.get(f"/api/runs/{run}")["run"]["status"] == "completed")


def closed(world):
    """Beyond loopback and without tokens nothing may be changed; what is always open is."""
    for path, body in [("/api/control", {"command": "pause"}), ("/api/runs", {}), (f"/api/runs/{NOBODY}/complete", {})]:
        world.http.post(path, body, 401)
    for path in ("/healthz", "/readyz", "/metrics"):
        world.http.ask("GET", path)


def storeless(world):
    """The store is away: reading says so, the newest values do not care, nothing is refused that can be kept."""
    trainer, http, run = world.trainer, world.http, str(uuid.uuid4())
    http.ask("GET", "/healthz")
    for path in ("/api/runs", f"/api/runs/{run}", f"/api/metrics/range?run_id={run}", f"/api/export?run_id={run}&format=csv"):
        http.refused(path, 503)

    def hit():
        trainer.send({"run_id": run, "epoch": 1, "loss": 0.5})
        answer = http.ask("GET", "/api/metrics", (200, 503))
        return answer.status_code == 200 and answer.headers["X-Cache-Status"] == "HIT" and strict(answer.text)["run_id"] == run

    until("a fresh value", hit)
    same("a command", trainer.command({"command": "flush", "id": "f"})["outcome"], "failed")


WALK = [queries, runs, ranges, newest, details, export, stream, operators, made]
TOKENS = [tokens]
NETWORK = [closed]
STORELESS = [storeless]
