"""The log writer: what happens to lines when stderr takes them, takes none, or is gone."""

import contextlib
import os
import re
import socket

import pytest
from running import until

from jobqueue.server.log_writer import LogStream, LogWriter


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def read_all(descriptor):
    os.set_blocking(descriptor, False)
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
    return b"".join(parts).decode()


def read_until(descriptor, ending):
    text = b""
    while not text.endswith(ending):
        text += os.read(descriptor, 1 << 16)
    return text.decode()


def test_lines_are_written_in_order_and_the_last_ones_before_a_stop_too(pipe):
    reading, writing = pipe
    writer = LogWriter(writing)
    lines = [f"line {number}" for number in range(1000)]
    for line in lines:
        writer.write(line)
    writer.stop()
    assert read_all(reading).splitlines() == lines
    assert writer.lost == 0


def test_without_a_reader_lines_are_lost_and_counted_and_a_line_says_so_when_one_reads_again(pipe):
    reading, writing = pipe
    writer = LogWriter(writing, limit=10_000)
    for number in range(5000):
        writer.write(f"{number:0100}")
    assert writer.lost > 3000
    lines, said = [], []
    while sum(said) < writer.lost:
        for line in read_until(reading, b"\n").splitlines():
            found = re.fullmatch("([0-9]+) log lines were lost", line)
            if found:
                said.append(int(found[1]))
            else:
                lines.append(line)
    assert len(lines) + writer.lost == 5000
    assert lines == sorted(lines)
    writer.write("after")
    assert read_until(reading, b"after\n") == "after\n"
    (family,) = writer.metrics()
    assert family.samples[0].value == writer.lost


def test_a_stop_waits_only_a_moment_for_a_reader_that_stands_still(pipe):
    _, writing = pipe
    writer = LogWriter(writing)
    for _ in range(2000):
        writer.write("x" * 100)
    writer.stop(0.05)  # it returns
    writer.write("nobody writes this any more")
    assert writer.lost == 0


@pytest.mark.parametrize("how", ["reader gone", "closed", "full"])
def test_lines_that_cannot_be_written_are_lost_and_counted(pipe, how):
    reading, writing = pipe
    if how == "reader gone":
        os.close(reading)
    elif how == "full":
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, writing)
        os.close(full)
    else:
        writing = 1 << 20  # no descriptor has this number
    writer = LogWriter(writing)
    for number in range(10):
        writer.write(str(number))
    writer.stop()
    assert writer.lost == 10


def test_a_pipe_that_another_process_has_made_non_blocking_gets_all_lines(pipe):
    reading, writing = pipe
    os.set_blocking(writing, False)
    writer = LogWriter(writing)
    for number in range(2000):
        writer.write(f"{number:0100}")
    lines = read_until(reading, b"1999\n").splitlines()
    assert [int(line) for line in lines] == list(range(2000))
    writer.stop()


def test_the_line_after_one_that_was_cut_begins_on_a_line_of_its_own(pipe):
    reading, writing = pipe
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = LogWriter(ours.fileno(), limit=4 << 20)
        writer.write("x" * (2 << 20))
        assert theirs.recv(10) == b"x" * 10
        theirs.close()
        until(lambda: writer.lost == 1)
        os.dup2(writing, ours.fileno())
        writer.write("whole")
        assert read_until(reading, b"lost\n") == "\nwhole\n1 log lines were lost\n"
        writer.stop()


def test_what_python_prints_to_stderr_goes_the_same_way(pipe):
    reading, writing = pipe
    writer = LogWriter(writing)
    stream = LogStream(writer)
    print("one", "two", file=stream)
    print("half", end="", file=stream)
    print(" and half\nthird \udcff", file=stream, flush=True)
    writer.stop()
    assert read_all(reading).splitlines() == ["one two", "half and half", "third \\udcff"]
