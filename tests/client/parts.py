"""What the contract's client is made of: a trainer, the two stores read by plain queries, and HTTP as a program uses it.

Written against the contract alone, with the usual clients (redis, cassandra-driver, sqlite3, requests).
"""

import datetime
import hashlib
import json
import re
import socket
import sqlite3
import time
import uuid

import redis
import requests

NS = uuid.UUID("f0c853b7-6794-4685-b2f5-43019da8836b")
TRAINING, CONTROL, ACK = "cascor:training", "cascor:control", "cascor:control:ack"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|\+00:00)")
LIMIT = 30


def until(what, ask, limit=LIMIT):
    """Asks until the answer is true, and returns it."""
    started, last = time.time(), None
    while time.time() - started < limit:
        last = ask()
        if last:
            return last
        time.sleep(0.02)
    raise AssertionError(f"waited {limit} s for {what}; last: {last!r}")


def same(what, found, expected):
    assert found == expected, f"{what}: {found!r}, and not {expected!r}"


def uuid5(name):
    """UUIDv5 of text or bytes in the contract's name space."""
    name = name.encode() if isinstance(name, str) else name
    return str(uuid.UUID(bytes=hashlib.sha1(NS.bytes + name).digest()[:16], version=5))


def opened_by(payload, micros, channel=TRAINING):
    """The run that a message without an id opens."""
    return uuid5(b"\0".join([channel.encode(), str(micros).encode(), payload]))


def rfc3339(micros):
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=micros)
    return moment.isoformat(timespec="microseconds") + "Z"


def micros(text):
    """The inverse; the text must be RFC 3339 in UTC with microseconds."""
    assert MOMENT.fullmatch(text), f"`{text}` is not RFC 3339 in UTC with microseconds"
    moment = datetime.datetime.fromisoformat(text[:26])
    return (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)


def strict(text):
    """JSON as the standard has it, without NaN and Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON: {text[:300]}")

    return json.loads(text, parse_constant=refuse)


class Trainer:
    """Publishes as the trainers do."""

    def __init__(self, port):
        self.redis = redis.Redis(port=port, decode_responses=False)
        # A moment ago, so that runs are neither stale nor in the future.
        self.clock = int((time.time() - 100) * 1_000_000) // 1_000 * 1_000

    def moment(self):
        """A moment in microseconds that no other message has, not at a whole millisecond."""
        self.clock += 10_000
        return self.clock + 417

    def send(self, message, channel=TRAINING):
        """Publishes, and returns the bytes as they were sent."""
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        assert self.redis.publish(channel, payload) >= 1, f"nobody listens on {channel}"
        return payload

    def read(self, key):
        text = self.redis.get(key)
        return None if text is None else strict(text.decode())

    def command(self, message, channel=CONTROL, wanted=None):
        """Sends a command, and returns its receipt."""
        acks = self.redis.pubsub(ignore_subscribe_messages=True)
        acks.subscribe(ACK)
        until("the subscription to the answers", lambda: dict(self.redis.pubsub_numsub(ACK))[ACK.encode()])
        payload = message.encode() if isinstance(message, str) else json.dumps(message).encode()
        self.send(payload, channel)
        wanted = wanted or (message.get("id") if isinstance(message, dict) else None)

        def receipt():
            found = acks.get_message(timeout=0.1)
            receipt = found and strict(found["data"].decode())
            return receipt if receipt and (wanted is None or receipt["id"] == wanted) else None

        try:
            return until(f"the receipt of {message}", receipt)
        finally:
            acks.close()


class Cassandra:
    """The store as any client of it sees it."""

    kind = "cassandra"

    def __init__(self, place):
        from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
        from cassandra.policies import WhiteListRoundRobinPolicy
        from cassandra.query import dict_factory

        policy = WhiteListRoundRobinPolicy([place["host"]])
        profile = ExecutionProfile(load_balancing_policy=policy, row_factory=dict_factory, request_timeout=60)
        self.cluster = Cluster(
            [place["host"]], port=place["port"], protocol_version=4, execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        )
        self.session = self.cluster.connect(place["keyspace"])
        self.prepared = {}

    def close(self):
        self.cluster.shutdown()

    def rows(self, query, *values):
        if query not in self.prepared:
            self.prepared[query] = self.session.prepare(query)
        values = [uuid.UUID(value) if re.fullmatch(r"[0-9a-f-]{36}", str(value)) else value for value in values]
        values = [self.bound(value) for value in values]
        return [{name: self.plain(value) for name, value in row.items()} for row in self.session.execute(self.prepared[query], values)]

    @staticmethod
    def bound(value):
        """Moments are bound as such; everything else as it is."""
        return datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=value.micros) if isinstance(value, At) else value

    @staticmethod
    def plain(value):
        if isinstance(value, datetime.datetime):
            return (value - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)
        if isinstance(value, uuid.UUID):
            return str(value)
        if hasattr(value, "items"):
            return dict(value.items())
        if value is None or isinstance(value, (str, int, float, bytes)):
            return value
        return sorted(value)

    @staticmethod
    def time(at):
        """A moment as the store keeps it: the microseconds are in the event's id."""
        return at - at % 1_000


class Sqlite:
    """The file as any client of it sees it, its encodings undone as the contract writes them."""

    kind = "sqlite"

    def __init__(self, place):
        self.database = sqlite3.connect(f"file:{place['database']}?mode=ro", uri=True, timeout=10)
        self.database.row_factory = sqlite3.Row

    def close(self):
        self.database.close()

    def raw(self, query, *values):
        query = query.replace(" ALLOW FILTERING", "")
        values = [value.micros if isinstance(value, At) else value for value in values]
        return [dict(row) for row in self.database.execute(query, values)]

    def rows(self, query, *values):
        return [self.plain(row) for row in self.raw(query, *values)]

    @staticmethod
    def plain(row):
        for name in ("extra", "tags", "class_distribution"):
            if row.get(name) is not None:
                row[name] = json.loads(row[name])
        for name, value in json.loads(row.get("non_finite") or "{}").items():
            assert value == "NaN" and row.get(name) is None, f"{name}: {row}"
            row[name] = float("nan")
        return row

    @staticmethod
    def time(at):
        return at


class At:
    """A moment to bind."""

    def __init__(self, at):
        self.micros = at


class Http:
    """Asks, and holds every answer against what all of them have in common."""

    def __init__(self, url, token=None):
        self.url, self.session = url, requests.Session()
        self.session.trust_env = False
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method, path, status=200, **more):
        answer = self.session.request(method, self.url + path, timeout=60, **more)
        wanted = status if isinstance(status, tuple) else (status,)
        assert answer.status_code in wanted, f"{method} {path}: {answer.status_code}, and not {status}: {answer.text[:500]}"
        if answer.status_code >= 400:
            body = strict(answer.text)
            assert set(body) == {"detail"} and isinstance(body["detail"], str), f"{path}: {body}"
        return answer

    def get(self, path, **parameters):
        return strict(self.ask("GET", path, params=parameters).text)

    def refused(self, path, status, detail=None, **parameters):
        said = strict(self.ask("GET", path, status, params=parameters).text)["detail"]
        assert detail is None or said == detail, f"{path}: `{said}`, and not `{detail}`"

    def post(self, path, body, status=(200, 201, 202)):
        return strict(self.ask("POST", path, status, json=body).text)

    def trailers(self, path):
        """Body and trailer of an answer that ends with one; `requests` does not show trailers."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nTE: trailers\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        body = b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            if int(size, 16) == 0:
                break
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        fields = [line.split(": ", 1) for line in rest.decode().splitlines() if ": " in line]
        return body.decode(), {name.lower(): value for name, value in fields}


def found(value, name):
    """Every value of this name, however deep."""
    if isinstance(value, dict):
        own = [value[name]] if name in value else []
        return own + [one for inner in value.values() for one in found(inner, name)]
    return [one for inner in value for one in found(inner, name)] if isinstance(value, list) else []


def rows_in(body):
    """The one list of objects in an answer."""
    lists = [value for value in body.values() if isinstance(value, list)]
    assert len(lists) == 1, f"one list: {list(body)}"
    return lists[0]
