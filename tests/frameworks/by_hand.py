"""A Flask view that mails, over the HTTP API with the standard library: what docs/frameworks.md compares with."""

import json
import os
import signal
import smtplib
import sys
import threading
import time
import traceback
from email.message import EmailMessage
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from flask import Flask, request

QUEUE = os.environ["JOBQUEUE_URL"]
app = Flask(__name__)
stopping = threading.Event()


def call(path, fields, timeout=10):
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("JOBQUEUE_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    asked = Request(QUEUE + path, json.dumps(fields).encode(), headers)
    with urlopen(asked, timeout=timeout) as answer:
        return json.loads(answer.read() or b"null")


def welcome(to):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", to, "Welcome"
    message.set_content("Hello!")
    with smtplib.SMTP(os.environ["SMTP"]) as server:
        server.send_message(message)


@app.post("/sign-up")
def sign_up():
    job = {
        "type": "welcome",
        "queue": "mail",
        "max_attempts": 5,
        "payload": {"to": request.form["email"]},
    }
    return {"job": call("/jobs/enqueue", job)["id"]}, 202


def beat(job, ended):
    while not ended.wait(10):
        try:
            call(f"/jobs/{job['id']}/heartbeat", {"lease": job["lease"]})
        except HTTPError:
            return
        except URLError:
            continue


def report(job, verb, fields):
    for delay in (0, 1, 2, 4, 8):
        time.sleep(delay)
        try:
            call(f"/jobs/{job['id']}/{verb}", {"lease": job["lease"], **fields})
            return
        except HTTPError as error:
            if error.code not in (429, 503):
                print(f"job {job['id']}: {error}", file=sys.stderr)
                return
        except URLError as error:
            print(f"job {job['id']}: {error}", file=sys.stderr)


def run(job):
    ended = threading.Event()
    threading.Thread(target=beat, args=(job, ended), daemon=True).start()
    try:
        with app.app_context():
            welcome(**job["payload"])
    except Exception as error:
        details = {"traceback": traceback.format_exc()[-10_000:]}
        failure = {"type": type(error).__name__, "message": str(error)[:1000], "details": details}
        report(job, "fail", {"error": failure})
    else:
        report(job, "conclude", {})
    finally:
        ended.set()


def work():
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.is_set():
        try:
            job = call("/jobs/dequeue", {"queue": "mail", "wait": 5, "lease_for": 30}, timeout=20)
        except URLError as error:
            print(error, file=sys.stderr)
            stopping.wait(1)
            continue
        if job is not None:
            run(job)


if __name__ == "__main__":
    work()
