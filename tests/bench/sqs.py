"""Send, receive and delete by the SQS protocol in JSON, beside enqueue, dequeue and conclude of the API.

Closed loop, the same generator, connections and payload (100 bytes), interleaved round by round. `SQS` sends
the headers that the protocol needs; the server recognises a head that came before, as it does with those of
the API. An SDK signs each request anew, so its heads are parsed each time: `SQS, signed` has the headers of
boto3, whose signature this server ignores, since it has no access tokens.
"""

import contextlib
from statistics import median

from tests.bench import processes
from tests.bench.client import Client, lifecycle_script
from tests.bench.processes import HOST, Load, Process, Server
from tests.bench.report import Report, check, figure, how_many, spread

API, SQS, SIGNED = "API", "SQS", "SQS, signed"
PAYLOAD = 100
_KIND = "application/x-amz-json-1.0"
_OF_BOTO3 = (
    "Accept-Encoding: identity|X-Amz-Date: 20261124T031415Z|amz-sdk-invocation-id: 6f3c1f9e-7c57-4d9c-9c12-8e0a1b2c3d4e"
    "|User-Agent: Boto3/1.44.8 md/Botocore#1.44.8 ua/2.1 os/linux#6.1 md/arch#x86_64 lang/python#3.11 cfg/retry-mode#legacy"
    "|amz-sdk-request: attempt=1|x-amzn-query-mode: true|Authorization: AWS4-HMAC-SHA256 Credential=bench/20261124/"
    "us-east-1/sqs/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature="
    + "0"
    * 64
)


def run(quick: bool) -> Report:
    processes.generator()
    report = Report("sqs: send, receive, delete by the SQS protocol")
    rounds, seconds, connections = (1, 0.2, (8,)) if quick else (9, 2, (1, 64))
    found: dict[tuple[str, int], list[Load]] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server("fast"))
        subjects: dict[str, tuple[Process, str]] = {
            API: (server, lifecycle_script(PAYLOAD)),
            SQS: (server, script(server, "")),
            SIGNED: (server, script(server, _OF_BOTO3)),
        }
        if not quick:
            for process, requests in subjects.values():
                processes.load("http", process, 64, 5, requests)
        for turn in range(rounds):
            for count in connections:
                for name in (list(subjects), list(reversed(subjects)))[turn % 2]:
                    load = processes.load("http", subjects[name][0], count, seconds, subjects[name][1])
                    check(load.lifecycles > 0, f"{name}: no message in {seconds} s")
                    found.setdefault((name, count), []).append(load)
    for count in connections:
        _table(report, count, {name: found[name, count] for name in subjects}, seconds)
    return report


def script(process: Process, headers: str) -> str:
    """Creates a queue, and returns send, receive and delete for the load generator. `headers`: further ones."""
    common = f"Content-Type: {_KIND}|" + (headers and f"{headers}|") + "X-Amz-Target: AmazonSQS."
    with Client(process.port) as client:
        path = f"POST / HTTP/1.1\r\nHost: {HOST}:{process.port}\r\n"
        lines = "".join(f"{line}\r\n" for line in (common + "CreateQueue").split("|"))
        body = '{"QueueName":"bench"}'
        client.send(f"{path}{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = client.receive()
        check(answer.status == 200, f"CreateQueue: {answer.status} {answer.body[:300]!r}")
    url = f'"QueueUrl":"http://{HOST}:{process.port}/{"0" * 12}/bench"'
    return "%%\n".join(
        f"POST / {common}{action}\n{{{url}{parameters}}}\n"
        for action, parameters in (
            ("SendMessage", f',"MessageBody":"{"x" * PAYLOAD}"'),
            ("ReceiveMessage", ""),
            ("DeleteMessage", ',"ReceiptHandle":"{receipt}"'),
        )
    )


def _table(report: Report, count: int, found: dict[str, list[Load]], seconds: float) -> None:
    def ratios(name: str, other: str, what: str = "rate") -> list[float]:
        pairs = zip(found[name], found[other], strict=True)
        return [getattr(mine, what) / getattr(theirs, what) for mine, theirs in pairs]

    over = how_many(count, "connection")
    report.table(
        f"{over}, {how_many(len(found[API]), 'interleaved round')} of {seconds:g} s: median (least–most); ratios round by round",
        ["", "messages/s", "rate : the API's", "p50, ms", "p99, ms", "server's CPU, µs each", "CPU : the API's"],
        [
            [
                name,
                spread([load.rate for load in loads]),
                spread(ratios(name, API)),
                figure(median(load.p50 for load in loads) / 1000),
                figure(median(load.p99 for load in loads) / 1000),
                spread([load.cost for load in loads]),
                spread(ratios(name, API, "cost")),
            ]
            for name, loads in found.items()
        ],
    )  # fmt: skip
    report.at_least(f"rate of SQS against the API's, {over}", median(ratios(SQS, API)), 0.8, "times")
