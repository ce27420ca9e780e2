"""Pages of other origins in a real headless browser: what `http.allow_origins` lets them do, and what it does not.

    origins.py URL TOKEN LISTED FOREIGN

URL is the daemon; LISTED and FOREIGN are ports for two small pages on `localhost`, which is another site than 127.0.0.1.
The origin of the first is one that the daemon allows. Ends with status 0 when everything holds.
"""

import http.server
import json
import sys
import threading
import urllib.request

from parts import Browser

PAGE = b"<!doctype html><meta charset=utf-8><title>another dashboard</title><p>another dashboard"


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass


def serve(port):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://localhost:{port}"


FETCH = """
const [url, options, done] = arguments;
fetch(url, options)
  .then(async (answer) => {
    const streamed = (answer.headers.get("content-type") || "").startsWith("text/event-stream");
    const text = streamed ? new TextDecoder().decode((await answer.body.getReader().read()).value) : await answer.text();
    done({status: answer.status, text, cache: answer.headers.get("x-cache-status"), type: answer.type});
  })
  .catch((error) => done({failed: error.name}));
"""

STREAM = """
const [url, done] = arguments;
const stream = new EventSource(url, {withCredentials: true});
stream.addEventListener("hello", (event) => { stream.close(); done(event.data); });
stream.onerror = () => { stream.close(); done(null); };
"""


class Tab:
    """A page and what it asks of the daemon."""

    def __init__(self, browser, page, daemon):
        self.driver, self.page, self.daemon = browser.driver, page, daemon

    def ask(self, path, **options):
        self.driver.get(self.page) if self.driver.current_url != f"{self.page}/" else None
        return self.driver.execute_async_script(FETCH, self.daemon + path, {"credentials": "include", **options})

    def send(self, path, body, **headers):
        headers = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.ask(path, method="POST", headers=headers, body=json.dumps(body))


def check(what, holds, seen):
    print(f"{'ok' if holds else 'WRONG'}: {what}: {str(seen)[:160]}")
    assert holds, what


def paused(daemon, token):
    request = urllib.request.Request(f"{daemon}/api/status", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["paused"]


def listed(tab, token):
    bearer = {"Authorization": f"Bearer {token}"}
    closed = tab.ask("/api/runs")
    check("reading needs a token", closed["status"] == 401, closed)
    runs = tab.ask("/api/runs", headers=bearer)
    check("a listed page reads with one", runs["status"] == 200 and "runs" in json.loads(runs["text"]), runs)
    wrong = tab.ask("/api/runs?limit=x", headers=bearer)
    check("and reads why it may not", wrong["status"] == 400 and "limit" in wrong["text"], wrong)
    latest = tab.ask("/api/metrics", headers=bearer)
    check("and sees where a value comes from", latest["cache"] in ("HIT", "MISS"), latest)
    refused = tab.send("/api/control", {"command": "status"})
    check("a command needs a token", refused["status"] == 401, refused)
    signed = tab.send("/api/session", {"token": token})
    check("a page of another site has no use for a session, and gets none", signed["status"] == 403, signed)
    done = tab.send("/api/control", {"command": "status"}, **bearer)
    check("a command with a token is taken", done["status"] == 200, done)
    quiet = tab.driver.execute_async_script(STREAM, tab.daemon + "/api/stream")
    check("the stream of events does not open without a token", quiet is None, quiet)
    hello = tab.ask("/api/stream", headers=bearer)
    check("it opens with one", hello["status"] == 200 and "hello" in hello["text"], hello)


def foreign(tab, token):
    runs = tab.ask("/api/runs")
    check("another page reads nothing", runs.get("failed") == "TypeError", runs)
    session = tab.ask("/api/session")
    check("not even who is signed in", session.get("failed") == "TypeError", session)
    command = tab.send("/api/control", {"command": "pause"})
    check("its commands are not sent", command.get("failed") == "TypeError", command)
    # As a form would: without asking first.
    blind = tab.ask("/api/control", method="POST", mode="no-cors", body="pause")
    check("one that is sent unasked is not obeyed", not paused(tab.daemon, token), blind)


def main(daemon, token, listed_port, foreign_port):
    with Browser() as browser:
        browser.driver.set_script_timeout(120)
        listed(Tab(browser, serve(int(listed_port)), daemon), token)
        foreign(Tab(browser, serve(int(foreign_port)), daemon), token)


if __name__ == "__main__":
    main(*sys.argv[1:])
