"""A client written only against the contract: it publishes, commands and reads back everything the contract promises.

    contract.py walk PLACE           a trainer, the latest keys, commands, the store by plain queries, every route
    contract.py tokens PLACE         the same routes where tokens are needed
    contract.py network PLACE        a server beyond loopback that has no tokens
    contract.py storeless PLACE      a store that cannot be reached

PLACE is JSON: url, redis_port, instance, store ("sqlite" with database, or "cassandra" with host, port, keyspace), token.
The daemon listens on the channels cascor:training and cascor:topology. Started by tests/it/client.rs.
Every check runs, whatever became of those before; ends with status 0 when all hold.
"""

import json
import sys
import time
import traceback
import uuid

import reading
from parts import *

METRICS = "SELECT * FROM training_metrics WHERE run_id = ? ORDER BY timestamp DESC LIMIT ?"
TOPOLOGY = "SELECT * FROM network_topology WHERE run_id = ? ORDER BY timestamp DESC LIMIT ?"
EVENTS = "SELECT * FROM training_events WHERE run_id = ? ORDER BY timestamp DESC LIMIT ?"
RUN = "SELECT * FROM training_runs WHERE run_id = ?"
DATASET = "SELECT * FROM dataset_info WHERE dataset_id = ?"


class World:
    """The daemon under test, from all sides."""

    def __init__(self, place):
        self.place = place
        self.trainer = Trainer(place["redis_port"])
        self.http = Http(place["url"], place.get("token"))
        self.store = {"sqlite": Sqlite, "cassandra": Cassandra}[place["store"]](place) if "store" in place else None

    def rows(self, query, run, count):
        """The rows of a run, oldest first, once there are as many; a moment later there must be no more."""
        last = []

        def ask():
            last[:] = self.store.rows(query, run, 10_000)[::-1]
            return len(last) >= count

        try:
            until("rows", ask)
        except AssertionError:
            raise AssertionError(f"{count} rows of `{query}`, and not {len(last)}: {last}") from None
        same(f"rows of `{query}`", len(last), count)
        return last

    def run(self, run, **expected):
        """The row of a run, once it says so."""
        last = {}

        def ask():
            rows = self.store.rows(RUN, run)
            last.update(rows[0] if rows else {})
            return rows and all(rows[0][name] == value for name, value in expected.items())

        try:
            until("the run", ask)
        except AssertionError:
            raise AssertionError(f"the run's row should say {expected}: {last}") from None
        return last


def shapes(world):
    """§1: every shape of a message, as trainers send them, becomes the row that the table says."""
    trainer, name = world.trainer, f"shapes {uuid.uuid4()}"
    run, one, two, three = uuid5(name), trainer.moment(), trainer.moment() // 1_000 * 1_000, trainer.moment()
    began = int(time.time() * 1e6)
    for message in [
        {"type": "metrics_update", "epoch": 5, "loss": 0.21, "accuracy": 0.93, "timestamp": rfc3339(one)[:-1]},
        {"type": "metrics", "timestamp": two / 1e6, "data": {"epoch": 5, "train_loss": 0.21, "val_loss": 0.3, "hidden_units": 2}},
        {"type": "metrics", "data": {"epoch": 6, "metrics": {"loss": 0.21, "accuracy": 0.93}, "phase": "output"}},
        {"type": "metrics", "data": {"epoch": 7, "metrics": {"loss": 0.2}, "network_topology": {"input_units": 2, "hidden_units": 3, "output_units": 1}, "phase": "output"}},
        {"epoch": 8, "loss": 0.21},
        {"type": "topology_update", "timestamp": one / 1e6, "data": {"input_size": 2, "output_size": 1, "hidden_units": 3, "nodes": [{"id": 0}],
            "connections": [{"from": 0, "to": 2, "weight": 0.5}, {"from": 1, "to": 2, "weight": -1.5}]}},
        {"type": "topology", "timestamp": two / 1e6, "data": {"input_units": 2, "output_units": 1, "hidden_units": [{"id": 0}, {"id": 1}], "cascade_history": [], "current_epoch": 7}},
        {"type": "cascade_add", "timestamp": one / 1e6, "data": {"hidden_unit_index": 3, "correlation": 0.87, "epoch": 40}},
        {"type": "event", "timestamp": two / 1e6, "data": {"event_type": "cascade_add", "details": {"unit_index": 2, "total_hidden_units": 3, "epoch": 42}}},
        {"type": "state", "timestamp": three / 1e6, "data": {"status": "Started", "phase": "Candidate", "current_epoch": 42, "learning_rate": 0.01}},
    ]:
        trainer.send({"run_id": name, **message})
    metrics = {row["epoch"]: row for row in world.rows(METRICS, run, 5) if row["timestamp"] != world.store.time(two)}
    ended = int(time.time() * 1e6)
    second = next(row for row in world.rows(METRICS, run, 5) if row["timestamp"] == world.store.time(two))
    same("the first", [metrics[5][name] for name in ("timestamp", "train_loss", "train_accuracy")], [world.store.time(one), 0.21, 0.93])
    same("the second", [second[name] for name in ("epoch", "train_loss", "val_loss", "hidden_units")], [5, 0.21, 0.3, 2])
    same("the third", [metrics[6][name] for name in ("train_loss", "train_accuracy", "phase")], [0.21, 0.93, "output"])
    same("the fourth", [metrics[7][name] for name in ("train_loss", "hidden_units", "phase")], [0.2, 3, "output"])
    assert all(began - 1_000 <= metrics[epoch]["timestamp"] <= ended for epoch in (6, 7, 8)), "the time of receipt"
    for row in metrics.values():
        assert 0 <= row["event_id"] < 1 << 53, row
    same("microseconds in the id", metrics[5]["event_id"] >> 43, one % 1_000)
    listed, sized = world.rows(TOPOLOGY, run, 2)
    columns = ("input_size", "output_size", "hidden_units", "total_parameters", "epoch")
    same("the listed network", [listed[name] for name in columns], [2, 1, 3, 2, None])
    same("the sized network", [sized[name] for name in columns], [2, 1, 2, 2 * 3 + 1 + 5, 7])
    summary = json.loads(listed["weights_summary"])
    assert {2, -1.5, 0.5, -0.5} <= set(summary.values()), f"count, min, max, mean: {summary}"
    assert any(abs(value - 1) < 1e-9 or abs(value - 2**0.5) < 1e-9 for value in summary.values()), f"deviation: {summary}"
    assert 0.5 in found(json.loads(listed["topology_json"]), "weight"), "the topology is kept"
    events = world.rows(EVENTS, run, 3)
    same("events", [(row["type"], row["epoch"]) for row in events], [("cascade_add", 40), ("cascade_add", 42), ("state", 42)])
    same("their payload", found(json.loads(events[0]["payload_json"]), "correlation"), [0.87])
    same("the name of the run", world.run(run, run_name=name)["run_id"], run)


def lifecycle(world):
    """§1, §5: start, end, the dataset; a run's row is merged by value."""
    trainer, run, dataset = world.trainer, str(uuid.uuid4()), f"spiral-{uuid.uuid4()}"
    start, one, two, three, end = (trainer.moment() for _ in range(5))
    end = start + 90_000_000
    for message in [
        {"type": "training_start", "timestamp": start / 1e6, "data": {"dataset": {"name": dataset, "num_samples": 194}, "config": {"learning_rate": 0.01}, "tags": ["a", "b"], "description": "ours", "user": "ann"}},
        {"epoch": 1, "timestamp": one / 1e6, "val_accuracy": 0.5, "val_loss": 0.5, "hidden_units": 1},
        {"epoch": 3, "timestamp": three / 1e6, "val_accuracy": 0.7, "val_loss": 0.25, "hidden_units": 2},
        {"epoch": 2, "timestamp": two / 1e6, "val_accuracy": 0.9, "val_loss": 0.125, "hidden_units": 1},
        {"type": "training_end", "timestamp": end / 1e6, "data": {"status": "completed", "epoch": 100, "final_metrics": {"train_loss": 0.01}, "reason": "converged"}},
    ]:
        trainer.send({"run_id": run, **message})
    row = world.run(run, status="completed")
    expected = {"run_name": None, "start_time": world.store.time(start), "end_time": world.store.time(end), "duration_seconds": 90,
        "dataset_name": dataset, "dataset_size": 194, "final_epoch": 100, "final_train_loss": 0.01, "final_val_loss": 0.25,
        "final_val_accuracy": 0.7, "best_val_accuracy": 0.9, "best_epoch": 2, "total_hidden_units": 2, "notes": "ours", "tags": ["a", "b"],
        "created_by": "ann", "last_event_time": world.store.time(end)}
    same("the run", {name: row[name] for name in expected}, expected)
    same("its configuration", json.loads(row["config_json"]), {"learning_rate": 0.01})
    same("its events", [row["type"] for row in world.rows(EVENTS, run, 2)], ["training_start", "training_end"])
    found_one = until("the dataset", lambda: world.store.rows(DATASET, uuid5("dataset:" + dataset)))[0]
    same("the dataset", (found_one["name"], found_one["num_samples"]), (dataset, 194))
    month = rfc3339(start)[:7]
    index = world.store.rows("SELECT * FROM runs_by_month WHERE month = ?", month)
    assert any(entry["run_id"] == run and entry["start_time"] == row["start_time"] for entry in index), "the index by month"
    ended = {}
    for said, stored in [(None, "completed"), ("converged", "completed"), ("success", "completed"), ("finished", "completed"), ("failed", "failed"),
                         ("error", "failed"), ("stopped", "stopped"), ("cancelled", "stopped"), ("aborted", "stopped"), ("interrupted", "stopped")]:
        ended[str(uuid.uuid4())] = said, stored
    for run, (said, _) in ended.items():
        trainer.send({"type": "run_start", "run_id": run, "timestamp": trainer.moment() / 1e6})
        trainer.send({"type": "run_end", "run_id": run, "timestamp": trainer.moment() / 1e6, "data": {"status": said} if said else {}})
    for run, (_, stored) in ended.items():
        world.run(run, status=stored)


def times(world):
    """§1: forms of a time; one that is not plausible is the time of receipt, and kept."""
    trainer, run = world.trainer, str(uuid.uuid4())
    at = [trainer.moment() for _ in range(9)]
    whole, milli = at[0] // 1_000_000 * 1_000_000, at[1] // 1_000 * 1_000
    east = rfc3339(at[7] + 2 * 3_600 * 1_000_000)[:-1] + "+02:00"
    forms = [(whole // 1_000_000, whole), (milli // 1_000, milli), (at[2], at[2]), (at[3] * 1_000 + 400, at[3]), (at[4] / 1e6, at[4]),
             (f"{at[5] / 1e6:.6f}", at[5]), (rfc3339(at[6]), at[6]), (east, at[7]), (rfc3339(at[8])[:-1], at[8])]
    for epoch, (form, _) in enumerate(forms):
        trainer.send({"run_id": run, "epoch": epoch, "loss": 1, "timestamp": form})
    rows = {row["epoch"]: row for row in world.rows(METRICS, run, len(forms))}
    for epoch, (form, expected) in enumerate(forms):
        row = rows[epoch]
        same(f"the time {form!r}", (row["timestamp"], row["event_id"] >> 43), (world.store.time(expected), expected % 1_000))
    began, odd = time.time(), str(uuid.uuid4())
    ahead, before = int(began) + 3_600, int(began) - 11 * 366 * 86_400
    for form in (ahead, before, None):
        trainer.send({"run_id": odd, "loss": 1, "timestamp": form})
    rows = world.rows(METRICS, odd, 3)
    for row, form in zip(rows, (ahead, before, None)):
        assert began - 1 <= row["timestamp"] / 1e6 <= time.time(), f"{form}: {row}"
        assert form is None or form in found(json.loads(row["rest_json"] or "{}"), "timestamp"), f"{form} is kept: {row}"


def names(world):
    """§1: aliases, text for numbers, what has no column, encodings; one event, one row."""
    trainer, run, at = world.trainer, str(uuid.uuid4()), iter([world.trainer.moment() for _ in range(9)])
    send = lambda message: trainer.send({"run_id": run, "timestamp": next(at), **message})
    send({"epoch": 1, "loss": 0.5, "acc": "0.25", "validation_loss": "NaN", "value_accuracy": 0.125, "lr": "0.01", "cascade_phase": "output",
          "n_hidden": [{"id": 1}, {"id": 2}], "global_step": 7.0, "sequence": 3})
    send({"epoch": 2, "train_loss": 1.0, "data": {"loss": 2.0}, "val_loss": None, "grad_norm": 1.5, "hidden_units": 5_000_000_000, "host": "h1", "layers": [1, 2]})
    trainer.send(b' \n\xef\xbb\xbf{"run_id": "%s", "timestamp": %d, "epoch": 3, "loss": NaN, "val_loss": Infinity, "val_accuracy": -Infinity}' % (run.encode(), next(at)))
    first, second, third = world.rows(METRICS, run, 3)
    expected = {"epoch": 1, "step": 7, "seq": 3, "train_loss": 0.5, "train_accuracy": 0.25, "val_accuracy": 0.125, "learning_rate": 0.01, "hidden_units": 2, "phase": "output"}
    same("aliases", {name: first[name] for name in expected}, expected)
    assert first["val_loss"] != first["val_loss"], "a NaN stays one"
    same("canonical beats alias", (second["train_loss"], second["val_loss"], second["hidden_units"]), (1.0, None, None))
    same("extra", (second["extra"]["grad_norm"], second["extra"]["hidden_units"]), (1.5, 5e9))
    kept = json.loads(second["rest_json"])
    same("the rest", (found(kept, "host"), found(kept, "layers")), (["h1"], [[1, 2]]))
    assert 2.0 in [*second["extra"].values(), *found(kept, "loss")], f"nothing is dropped: {second}"
    assert third["train_loss"] != third["train_loss"] and (third["val_loss"], third["val_accuracy"]) == (float("inf"), float("-inf")), third
    if world.store.kind == "sqlite":
        raw = world.store.raw(METRICS, run, 1)[0]
        same("encodings", (raw["run_id"], type(raw["timestamp"]), raw["train_loss"], json.loads(raw["non_finite"])), (run, int, None, {"train_loss": "NaN"}))
        assert 29 * 86_400e6 < raw["expires_at"] - time.time() * 1e6 < 31 * 86_400e6, raw["expires_at"]
    else:
        kept_for = world.store.rows("SELECT TTL(epoch) AS ttl FROM training_metrics WHERE run_id = ? LIMIT 1", run)[0]["ttl"]
        assert 29 * 86_400 < kept_for <= 30 * 86_400, kept_for
    for query, kind in [(EVENTS, "note of mine"), (TOPOLOGY, None)]:
        other = str(uuid.uuid4())
        trainer.send({"type": kind, "run_id": other, "data": {"a": [1]}} if kind else {"run_id": other, "nodes": [], "connections": []})
        row = world.rows(query, other, 1)[0]
        assert kind is None or (row["type"], found(json.loads(row["payload_json"]), "a")) == (kind, [[1]]), row
    twice, unstamped = str(uuid.uuid4()), str(uuid.uuid4())
    message = {"run_id": twice, "epoch": 1, "loss": 1, "timestamp": world.trainer.moment()}
    for channel in [TRAINING, TRAINING, "cascor:topology"]:
        trainer.send(message, channel)
    for _ in range(2):
        trainer.send({"run_id": unstamped, "epoch": 1, "loss": 1})
        time.sleep(0.01)
    for broken in [b"not json", b"[1]", b'{"epoch":', b'{"a": 1}', b'{"run_id": "x", "epoch": [], "loss": {}}', b""]:
        trainer.send(broken)
    trainer.send({"run_id": unstamped, "epoch": 2, "loss": 1})
    same("two receipts, and one beside what is rejected", [row["epoch"] for row in world.rows(METRICS, unstamped, 3)], [1, 1, 2])
    same("the same bytes once for each channel", len(world.rows(METRICS, twice, 2)), 2)


def attribution(world):
    """§2: which run an event without an id belongs to."""
    trainer = world.trainer
    receipt = trainer.command({"command": "reset", "id": "fresh"})
    same("reset", receipt["outcome"], "done")

    def send(**message):
        at = trainer.moment()
        return opened_by(trainer.send({"timestamp": at / 1e6, **message}), at)

    first = send(type="training_start")
    for epoch in (1, 2, 3):
        send(epoch=epoch, loss=1, phase="output", hidden_units=0)
    send(epoch=1, loss=1, phase="candidate", hidden_units=0)
    send(epoch=1, loss=1, phase="output", hidden_units=1)
    send(epoch=4, loss=1, phase="output", hidden_units=1)
    second = send(epoch=0, loss=1, phase="output", hidden_units=1)
    send(epoch=5, loss=1, phase="output", hidden_units=1)
    send(type="training_end")
    send(type="cascade_add", epoch=5)
    third = send(epoch=3, loss=1)
    trainer.command({"command": "reset", "id": "again"})
    fourth = send(epoch=9, loss=1)
    same("the first run", [row["epoch"] for row in world.rows(METRICS, first, 6)], [1, 2, 3, 1, 1, 4])
    same("a restart opens a run", [row["epoch"] for row in world.rows(METRICS, second, 2)], [0, 5])
    same("its events, also after its end", [row["type"] for row in world.rows(EVENTS, second, 2)], ["training_end", "cascade_add"])
    same("an epoch below the last", len(world.rows(METRICS, third, 1)), 1)
    same("after a reset", len(world.rows(METRICS, fourth, 1)), 1)
    world.run(second, status="completed")
    own = str(uuid.uuid4())
    trainer.send({"type": "run_start", "run_id": own, "timestamp": trainer.moment() / 1e6})
    send(epoch=1, loss=1)
    same("a start with an id of its own", len(world.rows(METRICS, own, 1)), 1)


def latest(world):
    """§3: the newest values in Redis."""
    trainer, name = world.trainer, f"latest {uuid.uuid4()}"
    run, at = uuid5(name), int(time.time() * 1e6)

    def shown(key, message, longest, fits):
        def ask():
            trainer.send({"run_id": name, "timestamp": trainer.moment(), **message})
            for _ in range(20):
                value = trainer.read(key)
                if value and fits(value):
                    return value, trainer.redis.pttl(key)
                time.sleep(0.01)

        value, left = until(key, ask)
        assert 0 < left <= longest, f"{key} lives {left} ms"
        return value

    message = {"type": "metrics", "seq": 7, "data": {"epoch": 1, "loss": 0.5, "own": "field", "val_loss": "NaN"}}
    for key in ("cascor:metrics:latest", f"cascor:metrics:{run}:latest"):
        value = shown(key, message, 1_000, lambda value: value["run_id"] == run)
        same(key, [value[name] for name in ("epoch", "loss", "train_loss", "own", "val_loss", "type")], [1, 0.5, 0.5, "field", "NaN", "metrics"])
        same("_ingest", set(value["_ingest"]), {"run_id", "received_at", "published_at", "seq", "lag_ms", "instance"})
        same("_ingest", [value["_ingest"][name] for name in ("run_id", "seq", "instance")], [run, 7, world.place["instance"]])
        assert micros(value["_ingest"]["received_at"]) >= at and micros(value["_ingest"]["published_at"]) < at, value
    # Within a run the newest by its own time stays.
    newest, older = {"timestamp": trainer.clock + 5_000_000, "epoch": 50}, {"timestamp": trainer.clock + 1_000_000, "epoch": 49}
    for one in (newest, older):
        trainer.send({"run_id": name, "loss": 1, **one})
    time.sleep(0.3)
    value = trainer.read("cascor:metrics:latest")
    same("the newest stays", value and value["epoch"], 50)
    for key in ("cascor:topology:latest", f"cascor:topology:{run}:latest"):
        value = shown(key, {"type": "topology", "data": {"input_units": 2, "hidden_units": [1], "output_units": 1}}, 5_000, lambda value: value["run_id"] == run)
        same(key, [value[name] for name in ("input_size", "output_size", "hidden_units")], [2, 1, 1])
    for message in ({"type": "state", "data": {"status": "Started", "phase": "Candidate"}}, {"type": "training_end", "data": {"status": "completed"}}):
        value = shown("cascor:state:latest", message, 60_000, lambda value: value["run_id"] == run and value["type"] == message["type"])
        same("state", value["status"], message["data"]["status"])
    history = until("the history", lambda: trainer.read("cascor:history:latest"))
    moments = [entry["_ingest"]["received_at"] for entry in history]
    assert 0 < len(history) <= 512 and moments == sorted(moments), "oldest first"
    assert 0 < trainer.redis.pttl("cascor:history:latest") <= 60_000
    key = f"cascor:ingest:{world.place['instance']}"
    status = until("the status", lambda: trainer.read(key))
    for part in ("phase", "paused", "lag", "spool", "store", "counters"):
        assert any(name.startswith(part) for name in status), f"{part}: {list(status)}"
    assert 0 < trainer.redis.pttl(key) <= 15_000
    until("the end of a value's life", lambda: trainer.read("cascor:metrics:latest") is None, 3)


def control(world):
    """§4: commands, their receipts, and what they do."""
    trainer, run = world.trainer, str(uuid.uuid4())
    fields = {"id", "command", "target", "instance", "outcome", "detail", "received_at", "took_ms"}

    def command(message, outcome, wanted=None):
        receipt = trainer.command(message, wanted=wanted)
        same("a receipt", (set(receipt), receipt["outcome"], receipt["instance"]), (fields, outcome, world.place["instance"]))
        micros(receipt["received_at"])
        until("the last command", lambda: (trainer.read("cascor:control:latest") or {}).get("id") == receipt["id"], 1)
        same("its outcome", trainer.read("cascor:control:latest")["outcome"], outcome)
        assert 0 < trainer.redis.pttl("cascor:control:latest") <= 5_000
        return receipt

    stored = lambda: len(world.store.rows(METRICS, run, 10))
    send = lambda epoch: trainer.send({"run_id": run, "epoch": epoch, "loss": 1, "timestamp": trainer.moment() / 1e6})
    same("status", found(command({"command": "status", "id": "s"}, "done"), "paused"), [False])
    send(1)
    command({"type": "command", "id": "p", "data": {"command": "pause", "params": {}}}, "done", "p")
    until("what came before the pause", lambda: stored() == 1)
    send(2)
    until("the latest value while paused", lambda: (trainer.read("cascor:metrics:latest") or {}).get("epoch") == 2, 1)
    time.sleep(0.5)
    same("held", stored(), 1)
    command({"command": "flush", "id": "f"}, "done")
    same("flushed, also while paused", stored(), 2)
    send(3)
    time.sleep(0.5)
    same("held again", stored(), 2)
    same("the bare word", command("resume", "done")["command"], "resume")
    until("written on", lambda: stored() == 3)
    command({"command": "launch_missiles", "id": "m"}, "ignored")
    trainer.send({"command": "stop", "target": "trainer", "id": "t"}, CONTROL)
    command({"command": "flush", "target": world.place["instance"], "id": "i"}, "done")
    until("a key to delete", lambda: send(4) and trainer.read("cascor:metrics:latest"))
    command({"command": "reset", "id": "r"}, "done")
    same("reset deletes the latest keys", trainer.read("cascor:metrics:latest"), None)
    until("its rows stay", lambda: stored() >= 3)
    day = rfc3339(int(time.time() * 1e6))[:10]
    log = until("the log of commands", lambda: (rows := world.store.rows("SELECT * FROM control_log WHERE day = ?", day))
                and {"s", "p", "f", "m", "t", "i", "r"} <= {row["command_id"] for row in rows} and rows)
    until("their outcomes", lambda: ("m", "launch_missiles", "ignored", world.place["instance"]) in {
        (row["command_id"], row["command"], row["outcome"], row["instance"]) for row in world.store.rows("SELECT * FROM control_log WHERE day = ?", day)})
    same("for whom", {row["target"] for row in log if row["command_id"] == "t"}, {"trainer"})
    said = world.http.post("/api/control", {"command": "status", "id": "by http"})
    same("by HTTP", (set(said), said["id"], said["outcome"]), (fields, "by http", "done"))


def main():
    place, checks = json.loads(sys.argv[2]), {
        "walk": [shapes, lifecycle, times, names, attribution, latest, control, *reading.WALK],
        "tokens": reading.TOKENS, "network": reading.NETWORK, "storeless": reading.STORELESS,
    }[sys.argv[1]]
    world, failed = World(place), []
    for check in checks:
        started = time.time()
        try:
            check(world)
            print(f"{check.__name__}: holds ({time.time() - started:.1f} s)", flush=True)
        except Exception:  # the others are of interest, too
            failed.append(check.__name__)
            print(f"{check.__name__}: {traceback.format_exc()}", flush=True)
    if world.store:
        world.store.close()
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
