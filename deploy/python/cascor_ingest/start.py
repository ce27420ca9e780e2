"""`init`: decides where a run is published, and begins it."""

from __future__ import annotations

import getpass
import json
import logging
import multiprocessing
import os
import re
import time
import uuid
from collections.abc import Iterable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import endings, values
from .control import Commands
from .publisher import Publisher
from .run import Run
from .transports import TIMEOUT, FileTransport, HttpTransport, RedisTransport, StreamTransport, Transport

logger = logging.getLogger("cascor_ingest")

MODES = ("online", "offline", "disabled")
OBEY = ("targeted", "all", "none")
LOOPBACK = "redis://127.0.0.1:6379/0"


def init(
    name: str | None = None,
    *,
    id: str | None = None,
    config: Any = None,
    dataset: Any = None,
    tags: Iterable[str] = (),
    notes: str | None = None,
    user: str | None = None,
    redis_url: str | None = None,
    redis_client: Any = None,
    url: str | None = None,
    token: str | None = None,
    channel: str = "cascor:training",
    stream: str | None = None,
    stream_maxlen: int | None = None,
    control_channel: str = "cascor:control",
    mode: str = "online",
    path: str | None = None,
    obey: str = "targeted",
    queue_messages: int = 100_000,
    queue_bytes: int = 64 * 1024 * 1024,
    finish_timeout: float = 10.0,
    wait_for_subscriber: bool = True,
    handle_sigterm: bool = True,
    all_ranks: bool = False,
) -> Run:
    """Begins a run. A server that is away is no error: messages wait for it.

    Args:
        name: What the run is called; the same name later continues the run.
        id: The run id, where it is not to be the name; without both it is a new UUID.
        config: Settings of the training: a dictionary, a dataclass or an `argparse.Namespace`.
        dataset: Its name, or a dictionary with `name`, `num_samples`, ...
        tags: Texts to find the run by.
        notes: Text about the run.
        user: Who began it; absent: the user of the system.
        redis_url: Of redis-py (`redis://`, `rediss://`, `unix://`); absent: `CASCOR_REDIS_URL`, else `CASCOR_CACHE_REDIS_URL`,
            else loopback.
        redis_client: A client of redis-py instead, such as `Sentinel(...).master_for("cascor")`.
        url: The address of a daemon, to publish by HTTP where Redis is out of reach. There are no commands then.
        token: For `url`, of scope `publish`; absent: `CASCOR_INGEST_TOKEN`.
        channel: The training channel.
        stream: A stream of Redis instead of the channel: `XADD` in place of `PUBLISH`, for daemons whose `redis.streams` names
            it. Absent: `CASCOR_REDIS_STREAM`, else the channel; an empty text is the channel, whatever the environment says.
        stream_maxlen: About how many entries the stream keeps (`XADD ... MAXLEN ~`). What is trimmed before a daemon has read
            it is lost. Absent: the stream is not trimmed here.
        control_channel: Where commands arrive.
        mode: `online`; `offline`: writes a file for `cascor-ingest import`; `disabled`: does nothing.
        path: The file of `offline`; absent: one in `cascor-offline/`, named by run and time.
        obey: `targeted`: commands whose target is `trainer`, or the name or id of the run; `all`: also commands without a
            target; `none`.
        queue_messages: Messages that wait at most; beyond that the newest are dropped and counted.
        queue_bytes: The same in bytes.
        finish_timeout: Seconds that the end of the run waits for a server at most.
        wait_for_subscriber: Whether messages wait while nothing is subscribed to the channel. Set False where the daemon
            subscribes at another node than the trainer publishes at (a replica, a cluster). A stream needs no subscriber.
        handle_sigterm: Whether SIGTERM ends the program by `SystemExit`, so that the run is `stopped`.
        all_ranks: Whether ranks other than 0 of `torchrun` (`RANK`) publish, too.

    Raises:
        ValueError: An argument is not one of those above, or a URL cannot be read.
        OSError: The file of `offline` cannot be written.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}, and is {mode!r}")
    if obey not in OBEY:
        raise ValueError(f"`obey` must be one of {', '.join(OBEY)}, and is {obey!r}")
    if stream_maxlen is not None and stream_maxlen < 1:
        raise ValueError(f"`stream_maxlen` must be at least 1, and is {stream_maxlen!r}")
    run_id = next((values.text(given) for given in (id, name) if given is not None and str(given).strip()), str(uuid.uuid4()))
    name = None if name is None else values.text(name)
    if mode == "disabled" or (why := _bystander(all_ranks)):
        if mode != "disabled":
            logger.info("run `%s`: %s; it publishes nothing", run_id, why)
        return Run(run_id, name)
    client: Any = None
    transport: Transport
    if mode == "offline":
        transport = FileTransport(path or _offline_path(run_id))
        logger.info("run `%s` is written to %s", run_id, transport.place)
    elif url is not None:
        transport = HttpTransport(url, token or os.environ.get("CASCOR_INGEST_TOKEN"))
    else:
        client = redis_client if redis_client is not None else _client(redis_url)
        stream = os.environ.get("CASCOR_REDIS_STREAM") if stream is None else stream
        redis_transport = (
            StreamTransport(client, stream, stream_maxlen) if stream else RedisTransport(client, channel, wait_for_subscriber)
        )
        redis_transport.close_client = redis_client is None
        transport = redis_transport
    publisher = Publisher(run_id, transport, queue_messages, queue_bytes)
    commands = None
    if client is not None and obey != "none":
        own = {run_id, str(Run(run_id).uuid), name or run_id}
        commands = Commands(own | {target.lower() for target in own if _is_uuid(target)}, everyone=obey == "all")
        commands.listen(redis_client if redis_client is not None else _client(redis_url), control_channel)
    run = Run(run_id, name, publisher=publisher, commands=commands, finish_timeout=finish_timeout)
    endings.add(run, handle_sigterm)
    start = {
        "name": name,
        "config": config,
        "dataset": dataset,
        "tags": _tags(tags),
        "notes": notes,
        "created_by": user or _user(),
    }
    data = {key: values.plain(value) for key, value in start.items() if value is not None}
    publisher.put("training_start", json.dumps(data), always=True)
    return run


def _bystander(all_ranks: bool) -> str | None:
    """Why this process only helps one that publishes; None: it does not."""
    # A spawned process imports the main module again before it works.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        return "`init` is called while a spawned process imports the main module"
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not all_ranks and rank.isdigit() and size.isdigit() and int(rank) > 0 and int(size) > 1:
        return f"this is rank {rank} of {size}, and rank 0 publishes"
    return None


def _client(redis_url: str | None) -> Any:
    names = ("CASCOR_REDIS_URL", "CASCOR_CACHE_REDIS_URL")
    address = redis_url or next((os.environ[key] for key in names if os.environ.get(key)), LOOPBACK)
    # The publisher tries again by itself, so that it can say so.
    return redis.Redis.from_url(
        address, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, socket_keepalive=True, retry=Retry(NoBackoff(), 0)
    )


def _offline_path(run_id: str) -> str:
    safe = re.sub(r"[^\w.-]+", "_", run_id)[:100]
    return os.path.join("cascor-offline", f"{safe}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.ndjson")


def _tags(tags: Iterable[str]) -> list[str] | None:
    found = [tags] if isinstance(tags, str) else [values.text(tag) for tag in tags]
    return found or None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except Exception:  # a container without users
        return None


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
