"""Commands from the control channel: pause, resume, stop."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

logger = logging.getLogger("cascor_ingest")

POLL = 1.0
"""Seconds between looks whether the run has ended."""

RETRY = 1.0
"""Seconds between attempts to subscribe while Redis is away."""


class Commands:
    """What the commands so far ask for; a thread of its own listens.

    Args:
        names: Targets that mean this run, beside `trainer`.
        everyone: Whether commands without a target are obeyed, too.
    """

    def __init__(self, names: set[str], everyone: bool) -> None:
        self._names, self._everyone = names | {"trainer"}, everyone
        self._changed = threading.Condition()
        self._ended = False
        self.paused = False
        self.stopped = False

    def listen(self, client: Any, channel: str) -> None:
        """Starts the thread that obeys what arrives on a channel of Redis."""
        arguments = (client, channel)
        threading.Thread(target=self._work, args=arguments, name="cascor-ingest-control", daemon=True).start()

    def obey(self, payload: bytes) -> None:
        """Obeys one message, when it is a command for this run."""
        command, target = parse(payload)
        command = command and command.strip().lower()
        if target is None:
            if not self._everyone:
                return
        elif target not in self._names and target.lower() not in self._names:
            return
        with self._changed:
            if command == "stop":
                self.stopped, self.paused = True, False
            elif command in ("pause", "resume"):
                self.paused = command == "pause" and not self.stopped
            else:
                return
            self._changed.notify_all()
        logger.info("the command `%s` was received", command)

    def wait_while_paused(self, timeout: float | None) -> bool:
        """Waits until the run is not paused; False after `timeout` seconds (None: for ever)."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended or not self.paused, timeout)

    def end(self) -> None:
        """Ends the thread and everything that waits."""
        with self._changed:
            self._ended, self.paused = True, False
            self._changed.notify_all()

    def forget(self) -> None:
        """In a forked child, which has no such thread: nothing is paused."""
        self._changed = threading.Condition()
        self._ended, self.paused = True, False

    def _work(self, client: Any, channel: str) -> None:
        told = False
        while not self._ended:
            try:
                with client.pubsub(ignore_subscribe_messages=True) as subscription:
                    subscription.subscribe(channel)
                    self._receive(subscription)
            except (redis.RedisError, OSError) as error:
                if not told and not self._ended:
                    logger.warning("commands on `%s` cannot be received for now: %s", channel, error)
                told = True
            except Exception:  # a bug here must not end the thread
                logger.exception("a command could not be obeyed")
            time.sleep(0 if self._ended else RETRY)

    def _receive(self, subscription: Any) -> None:
        while not self._ended:
            message = subscription.get_message(timeout=POLL)
            if message is not None and message.get("type") == "message":
                self.obey(message["data"] if isinstance(message["data"], bytes) else message["data"].encode())


def parse(payload: bytes) -> tuple[str | None, str | None]:
    """The command of a message and its target; None where it has none.

    It is `{"command": ...}`, the same inside `data`, or the bare word; in JSON, or in MessagePack where the package `msgpack`
    is installed.
    """
    message: Any = None
    try:
        message = json.loads(payload)
    except ValueError:
        unpack = _msgpack()
        first = payload[0] if payload else 0
        if unpack and (0x80 <= first <= 0x8F or first in (0xDE, 0xDF)):
            message = unpack(payload)
        else:
            message = payload.decode("utf-8", "replace").strip()
    if isinstance(message, str):
        return message, None
    if not isinstance(message, dict):
        return None, None
    inner = message.get("data")
    places = [message, inner] if isinstance(inner, dict) else [message]
    command = next((place["command"] for place in places if isinstance(place.get("command"), str)), None)
    target = next((place["target"] for place in places if isinstance(place.get("target"), str)), None)
    return command, target


def _msgpack() -> Callable[[bytes], Any] | None:
    try:
        import msgpack
    except ImportError:
        return None

    def unpack(payload: bytes) -> Any:
        try:
            return msgpack.unpackb(payload, strict_map_key=False)
        except Exception:  # not MessagePack after all
            return None

    return unpack
