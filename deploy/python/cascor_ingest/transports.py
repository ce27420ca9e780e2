"""Where messages go: Redis, the daemon's HTTP, or a file. Only the thread of the publisher uses them."""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401  (else the thread imports it to connect, and a child that is forked meanwhile never can)
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

TIMEOUT = 5.0
"""Seconds after which a server that does not answer counts as away."""

HTTP_TIMEOUT = 30.0
"""The same for HTTP, where the answer follows when the messages are on the daemon's disk."""


@dataclass
class Sent:
    """What became of a batch."""

    undelivered: list[bytes] = field(default_factory=list)
    """To be sent again, in order."""
    problem: str | None = None
    """Why some are undelivered or refused."""
    refused: int = 0
    """Messages that will never be taken."""


class Transport(Protocol):
    """Takes batches of messages."""

    place: str
    """For messages to the user; without passwords."""

    def send(self, batch: Sequence[bytes]) -> Sent:
        """Sends a batch. Whatever fails is in the answer."""

    def close(self) -> None:
        """Releases connections and files."""


class RedisTransport:
    """Publishes on a channel of Redis.

    A message that no subscriber has received counts as undelivered: the daemon is away, and the message would be lost.
    """

    def __init__(self, client: Any, channel: str, wait_for_subscriber: bool) -> None:
        self._client, self._channel, self._wait = client, channel, wait_for_subscriber
        self.close_client = True
        self._last: list[bytes] = []
        self._broken = False
        settings = getattr(getattr(client, "connection_pool", None), "connection_kwargs", {})
        where = settings.get("path") or f"{settings.get('host', '?')}:{settings.get('port', '?')}"
        self.place = f"Redis at {where}"

    def send(self, batch: Sequence[bytes]) -> Sent:
        """Publishes a batch in one round trip."""
        if self._broken:
            # Redis answers the publisher before it writes to the subscriber, or to its disk: when it dies in between, the last
            # batch that it has taken is lost. The same bytes again are the same row.
            sent = self._publish(self._last)
            if sent.undelivered:
                return Sent(list(batch), sent.problem)
            self._broken = False
        return self._publish(batch)

    def _publish(self, batch: Sequence[bytes]) -> Sent:
        try:
            pipe = self._client.pipeline(transaction=False)
            for message in batch:
                self._add(pipe, message)
            answers = pipe.execute(raise_on_error=False)
        except Exception as error:  # of redis-py, the system, or the caller's client
            self._broken = True
            return Sent(list(batch), str(error).rstrip(".") or type(error).__name__)
        sent, delivered = Sent(), []
        for message, answer in zip(batch, answers):
            problem = str(answer) if isinstance(answer, Exception) else self._not_taken(answer)
            if problem is None:
                delivered.append(message)
            else:
                sent.problem = problem
                sent.undelivered.append(message)
        self._last = delivered or self._last
        return sent

    def _add(self, pipe: Any, message: bytes) -> None:
        """Adds the command that publishes one message to the pipeline."""
        pipe.publish(self._channel, message)

    def _not_taken(self, answer: Any) -> str | None:
        """Why a message is undelivered though the command succeeded; None: it is delivered."""
        if answer == 0 and self._wait:
            return f"nothing is subscribed to `{self._channel}`; is cascor-ingest running?"
        return None

    def close(self) -> None:
        """Closes the connections, unless the client is the caller's."""
        if self.close_client:
            self._client.close()


class StreamTransport(RedisTransport):
    """Appends to a stream of Redis, which keeps entries until a daemon has read them.

    Args:
        client: Of redis-py.
        stream: The stream's key.
        maxlen: About how many entries the stream keeps; None: it is never trimmed here.
    """

    def __init__(self, client: Any, stream: str, maxlen: int | None) -> None:
        super().__init__(client, stream, wait_for_subscriber=False)
        self._maxlen = maxlen

    def _add(self, pipe: Any, message: bytes) -> None:
        pipe.xadd(self._channel, {"data": message}, maxlen=self._maxlen, approximate=True)


class HttpTransport:
    """Posts to `/api/messages` of a daemon."""

    def __init__(self, url: str, token: str | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"`url` must begin with http:// or https://, and is {url!r}")
        self.place = url.rstrip("/")
        self._token = token
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(self, batch: Sequence[bytes]) -> Sent:
        """Posts a batch as lines of JSON."""
        request = urllib.request.Request(f"{self.place}/api/messages", data=b"\n".join(batch), method="POST")
        request.add_header("Content-Type", "application/x-ndjson")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=HTTP_TIMEOUT) as response:
                return self._taken(batch, len(batch), _json(response.read()))
        except urllib.error.HTTPError as error:
            answer = _json(error.read())
            problem = f"HTTP {error.code}: {answer.get('detail', error.reason)}"
            if error.code == 413:
                return self._smaller(batch, problem)
            sent = self._taken(batch, answer.get("taken", 0), answer)
            sent.problem = problem
            return sent
        except Exception as error:  # names that do not resolve, broken answers, TLS
            return Sent(list(batch), str(getattr(error, "reason", error)))

    @staticmethod
    def _taken(batch: Sequence[bytes], taken: int, answer: dict[str, Any]) -> Sent:
        rejected = answer.get("rejected") or []
        problem = f"the daemon rejected a message: {rejected[0]}" if rejected else None
        return Sent(list(batch[taken:]), problem, len(rejected))

    def _smaller(self, batch: Sequence[bytes], problem: str) -> Sent:
        """Sends the halves of a batch that the daemon finds too large; a single message is refused for good."""
        if len(batch) == 1:
            return Sent([], problem, 1)
        middle = len(batch) // 2
        first = self.send(batch[:middle])
        if first.undelivered:
            return Sent(first.undelivered + list(batch[middle:]), first.problem, first.refused)
        second = self.send(batch[middle:])
        return Sent(second.undelivered, second.problem or first.problem, first.refused + second.refused)

    def close(self) -> None:
        """Nothing is open between requests."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would lose its body, and send the token to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _json(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


class FileTransport:
    """Appends to a file, one message a line, for `cascor-ingest import`."""

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        self.place = path
        self._file: BinaryIO = open(path, "ab", buffering=0)  # noqa: SIM115  (closed by `close`)

    def send(self, batch: Sequence[bytes]) -> Sent:
        """Writes the lines; a batch that the disk does not take is cut off again, so that no line is torn."""
        begin = self._file.seek(0, os.SEEK_END)
        lines = memoryview(b"".join(message + b"\n" for message in batch))
        try:
            while lines:
                lines = lines[self._file.write(lines) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(begin)
            return Sent(list(batch), str(error))
        return Sent()

    def close(self) -> None:
        """Makes the file durable, and closes it."""
        with self._file:
            os.fsync(self._file.fileno())
