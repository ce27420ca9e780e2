"""What the scripts beside it share: a browser, a trainer that publishes, a proxy, and clients that note how late they hear.

Needs selenium, chromium and chromedriver.
"""

import contextlib
import datetime
import http.client
import itertools
import json
import os
import shutil
import socket
import ssl
import tempfile
import threading
import time

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    JavascriptException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

#: On a machine that does much else; a page that is right is never waited for that long.
LIMIT = 90
NOT_YET = (NoSuchElementException, StaleElementReferenceException, ElementClickInterceptedException, ElementNotInteractableException)
#: An element that is where it was a moment ago: what loads above it moves it. A page that was frozen may draw no pictures.
STILL = """
const one = document.querySelector(arguments[0]);
if (!one) return null;
one.scrollIntoView({block: arguments[1]});
const place = () => JSON.stringify(one.getBoundingClientRect());
const before = place();
return new Promise((told) => setTimeout(() => told(one.isConnected && place() === before ? one : null), 50));
"""
#: No sideways scroll.
FITS = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
#: Presses a button by its text.
BUTTON = """
const button = [...document.querySelectorAll('button')].find((one) => one.textContent === arguments[0] && one.getClientRects().length && !one.disabled);
if (button) button.click();
return Boolean(button);
"""
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
]


class Browser:
    """A browser with a profile of its own, and the questions that the checks ask."""

    def __init__(self, width=1440, height=1000, flags=(), trace=None):
        self.profile = tempfile.mkdtemp(prefix="cascor-browser")
        options = webdriver.ChromeOptions()
        for flag in [*FLAGS, *flags, f"--user-data-dir={self.profile}", f"--window-size={width},{height}"]:
            options.add_argument(flag)
        options.binary_location = os.environ["CASCOR_TEST_CHROMIUM"]
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", **({"performance": "ALL"} if trace else {})})
        if trace:
            options.add_experimental_option("perfLoggingPrefs", {"enableNetwork": False, "enablePage": False, "traceCategories": trace})
        service = webdriver.ChromeService(executable_path=os.environ["CASCOR_TEST_CHROMEDRIVER"])
        self.driver = webdriver.Chrome(options=options, service=service)
        self.size(width, height)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind and os.environ.get("CASCOR_TEST_SCREENSHOTS"):
            self.driver.save_screenshot(os.path.join(os.environ["CASCOR_TEST_SCREENSHOTS"], "failed.png"))
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    def size(self, width, height, scheme="light"):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, url):
        self.driver.get(url)
        self.until("the page is ready", "return document.documentElement.dataset.ready === 'yes'")

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, what, script, *arguments, limit=LIMIT):
        """Waits until the script answers something true; one that fails, as on an element that is not there yet, is asked again."""
        started = time.time()
        wait = WebDriverWait(self.driver, limit, 0.05, ignored_exceptions=[JavascriptException, StaleElementReferenceException])
        try:
            value = wait.until(lambda _: self.run(script, *arguments))
        except Exception as error:
            text = self.run("return document.body.innerText")
            raise AssertionError(f"waited {limit} s for {what}; the page says:\n{text}") from error
        return value, time.time() - started

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def attempt(self, what, act):
        """Does this as soon as the element is there and can be reached."""
        end = time.time() + LIMIT
        while True:
            try:
                if act() is not False:
                    return
                problem = "it moves, or is not there"
            except NOT_YET as error:
                problem = error.msg
            if time.time() > end:
                raise AssertionError(f"waited {LIMIT} s for {what}: {problem}; the page says:\n{self.run('return document.body.innerText')}")
            time.sleep(0.05)

    def click(self, selector):
        """Clicks on the element, once it is there, stands still and nothing is over it."""
        # At the edge of the screen the head of the page may be over it.
        blocks = itertools.cycle(["nearest", "center"])

        def act():
            element = self.run(STILL, selector, next(blocks))
            return False if element is None else element.click()

        self.attempt(f"a click on {selector}", act)

    def type(self, selector, *keys):
        """Types into the element, once it is there."""
        self.attempt(f"the field {selector}", lambda: self.find(selector).send_keys(*keys))

    def still(self, selector):
        """The element, once it is there and stands still."""
        return self.until(f"{selector} to stand still", STILL, selector, "center")[0]

    def drag(self, selector, start, end):
        """Over this part of the width of a chart, which makes it the part that is looked at. One that moves meanwhile is dragged again."""
        before = self.run("return location.hash")
        for _ in range(3):
            over = self.still(selector)
            at = lambda part: round(over.size["width"] * (part - 0.5))
            chain = ActionChains(self.driver, duration=50).move_to_element_with_offset(over, at(start), 0).click_and_hold()
            with contextlib.suppress(StaleElementReferenceException):
                chain.move_to_element_with_offset(over, at(end), 0).release().perform()
            with contextlib.suppress(AssertionError):
                return self.until("another part", "return location.hash !== arguments[0]", before, limit=LIMIT / 3)
        raise AssertionError(f"no part of {selector} is chosen")

    def double_click(self, selector):
        self.attempt(f"a double click on {selector}", lambda: ActionChains(self.driver).double_click(self.still(selector)).perform())

    def fill(self, selector, text, *keys):
        """Types in place of what the field has."""
        self.type(selector, Keys.CONTROL, "a")
        self.type(selector, text, *keys)

    def button(self, text):
        """Presses the button with this text, once there is one."""
        self.until(f"the button {text}", BUTTON, text)

    def press(self, *keys):
        """Presses keys, where the focus is."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def traced(self, mark):
        """Events of the trace since the last call, up to this mark of the page at least: `trace` names their categories."""
        # The browser hands them over late, and drops what does not fit into its buffer: to be called before that is full.
        events, end = [], time.time() + LIMIT
        while not any(event["name"] == mark for event in events):
            assert time.time() < end, f"waited {LIMIT} s for the mark `{mark}` in {len(events)} events"
            lines = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
            events += [line["params"] for line in lines if line["method"] == "Tracing.dataCollected"]
            time.sleep(0.1)
        return events

    def complaints(self):
        """What the browser's console complains about, but for connections that a restart breaks."""
        lines = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [line for line in lines if "net::ERR" not in line and "Failed to load resource" not in line]


class Trainer:
    """A training process that publishes one run, without any client library."""

    def __init__(self, port, name):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.port, self.name, self.epoch, self.seq = port, name, 0, 0

    def publish(self, message):
        self.seq += 1
        self.send(b"cascor:training", json.dumps({"run_id": self.name, "seq": self.seq, "timestamp": time.time(), **message}).encode())

    def send(self, channel, text):
        self.socket.sendall(b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(channel), channel, len(text), text))
        assert self.socket.recv(64).startswith(b":"), "Redis takes the message"

    def start(self):
        self.publish({"type": "training_start", "data": {"dataset": {"name": "spiral", "num_samples": 194}}})

    def train(self, epochs, pause=0.002):
        for _ in range(epochs):
            loss = 1 / (1 + self.epoch / 40)
            data = {"epoch": self.epoch, "train_loss": loss, "val_loss": loss * 1.1, "train_accuracy": 1 - loss / 2,
                    "hidden_units": self.epoch // 50, "phase": "candidate" if self.epoch % 50 > 35 else "output"}
            self.publish({"type": "metrics", "data": data})
            self.epoch += 1
            time.sleep(pause)

    def grow(self, hidden):
        links = [{"from": f"input_{n}", "to": "output_0", "weight": 0.5 - n} for n in range(2)]
        self.publish({"type": "topology", "data": {"input_units": 2, "output_units": 1, "hidden_units": hidden, "connections": links}})


class Heard:
    """How late each row is, in milliseconds, at a bare client that does nothing else."""

    def __init__(self, read):
        self.late, self.some = [], threading.Condition()
        threading.Thread(target=read, args=(self,), daemon=True).start()

    def add(self, sent):
        with self.some:
            self.late.append(1000 * (time.time() - sent))
            self.some.notify_all()

    def take(self, count):
        """The next so many, sorted."""
        with self.some:
            assert self.some.wait_for(lambda: len(self.late) >= count, LIMIT), f"{len(self.late)} of {count} rows"
            taken, self.late = sorted(self.late[:count]), self.late[count:]
        return taken

    @classmethod
    def of_redis(cls, port):
        """One that subscribes to what the trainer publishes."""
        server = socket.create_connection(("127.0.0.1", port))
        server.sendall(b"SUBSCRIBE cascor:training\r\n")
        lines = server.makefile("rb")
        assert [lines.readline() for _ in range(6)][-1] == b":1\r\n", "Redis takes the subscription"

        def read(heard):
            for line in lines:
                if line.startswith(b"{"):
                    heard.add(json.loads(line)["timestamp"])

        return cls(read)

    @classmethod
    def of_stream(cls, url):
        """One of the daemon's live stream."""
        server = http.client.HTTPConnection(url.removeprefix("http://"))
        server.request("GET", "/api/stream")
        lines = server.getresponse()
        assert lines.readline() and lines.status == 200, "the stream begins"

        def read(heard):
            event = None
            for line in iter(lines.readline, b""):
                name, _, text = line.decode().rstrip().partition(": ")
                if name == "event":
                    event = text
                elif name == "data" and event == "metrics":
                    for row in json.loads(text)["rows"]:
                        heard.add(datetime.datetime.fromisoformat(row["timestamp"].replace("Z", "+00:00")).timestamp())

        return cls(read)


def part_of(late, percent):
    """The value that so many percent of these are below."""
    return late[len(late) * percent // 100]


def relay(port, directory):
    """Ends TLS in front of a port, as a proxy does; the port to connect to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(directory, "redis.pem"), os.path.join(directory, "redis.key"))
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(client):
        with contextlib.suppress(OSError):
            client, server = context.wrap_socket(client, server_side=True), socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=pump, args=(client, server), daemon=True).start()
            pump(server, client)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


class Door:
    """What stands in front of a daemon: passes on what both sides say, refuses, or answers like a proxy whose server is away."""

    def __init__(self, server):
        self.server, self.mode, self.rewrite, self.open = server, "open", None, set()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name in ("mode", "rewrite"):
            # What is open is of before.
            for one in list(getattr(self, "open", ())):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def accept(self, listener):
        while True:
            client = listener.accept()[0]
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with contextlib.suppress(OSError), client:
            if self.mode == "refuse":
                return
            head = client.recv(65536)
            if self.mode == "502":
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self.server)) as server:
                self.open |= {client, server}
                # One request a connection, and uncompressed, so that the answer can be rewritten.
                server.sendall(head.replace(b"Accept-Encoding:", b"X-Encoding:").replace(b"Connection: keep-alive", b"Connection: close"))
                while part := server.recv(65536):
                    client.sendall(part.replace(*self.rewrite) if self.rewrite else part)
                self.open -= {client, server}
