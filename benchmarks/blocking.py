"""
The workloads of a client that blocks, or that the program drives step by step. For MicroPython.

A contestant calls `contest` with a class:

    Client(arrived=None, filter=None, qos=0)
        connects; returns when its subscription of `filter` is granted; calls arrived() for each
        message
    publish(topic, qos)  publish PAYLOAD; with QoS 1 it returns when that is acknowledged
    wait()               wait for input and handle it
    close()
    in_flight(count)     optional: publish so many, never more than IN_FLIGHT unacknowledged
    step_ms              optional: the longest that connecting kept the program from other work;
                         without it, connecting is one blocking call
"""

import time

from benchmarks import common
from benchmarks.common import (
    END,
    TOPIC,
    WARM_UP,
    Allocated,
    median,
    rate,
    report,
    since_ms,
    turn,
    unable,
)


def contest(client):
    """Run the workload of the command line."""
    global _Client
    _Client = client
    common.run(globals())


def connect():
    while True:
        count = turn()
        times = []
        for _ in range(count):
            start = time.ticks_us()
            client = _Client()
            times.append(since_ms(start))
            client.close()
        report(median(times))


def stall():
    while True:
        count = turn()
        steps = []
        for _ in range(count):
            start = time.ticks_us()
            client = _Client()
            took_ms = since_ms(start)
            steps.append(getattr(client, "step_ms", took_ms))
            client.close()
        report(median(steps))


def one_by_one():
    client = _Client()
    while True:
        count = turn()
        start = time.ticks_us()
        for _ in range(count):
            client.publish(TOPIC, 1)
        report(rate(count, start))


def in_flight():
    client = _Client()
    if not hasattr(client, "in_flight"):
        unable("waits for each acknowledgement")
    while True:
        count = turn()
        start = time.ticks_us()
        client.in_flight(count)
        report(rate(count, start))


class _Arrivals:
    def __init__(self):
        self.count = 0
        self.last_us = 0

    def one(self):
        self.last_us = time.ticks_us()
        self.count += 1


def round_trip():
    arrivals = _Arrivals()
    client = _Client(arrivals.one, TOPIC)
    while True:
        count = turn()
        times = []
        for _ in range(count):
            before = arrivals.count
            start = time.ticks_us()
            client.publish(TOPIC, 0)
            while arrivals.count == before:
                client.wait()
            times.append(time.ticks_diff(arrivals.last_us, start))
        report(times)


def publish_qos0():
    arrivals = _Arrivals()
    client = _Client(arrivals.one, END)
    while True:
        count = turn()
        before = arrivals.count
        start = time.ticks_us()
        for _ in range(count):
            client.publish(TOPIC, 0)
        client.publish(END, 0)  # when it is back the broker has read all
        while arrivals.count == before:
            client.wait()
        report(rate(count, start))


def receive():
    arrivals = _Arrivals()
    client = _Client(arrivals.one, TOPIC)
    while True:
        count = turn()
        arrivals.count = 0
        while not arrivals.count:
            client.wait()
        start = time.ticks_us()
        first = arrivals.count
        while arrivals.count < count:
            client.wait()
        report(rate(count - first, start))


def publish_memory():
    client = _Client()
    allocated = Allocated()
    while True:
        count = turn()
        for i in range(WARM_UP + count):
            if i == WARM_UP:
                allocated.start()
            client.publish(TOPIC, 1)
        report(allocated.stop() / count)


def receive_memory():
    arrivals = _Arrivals()
    client = _Client(arrivals.one, TOPIC, 1)
    allocated = Allocated()
    while True:
        count = turn()
        arrivals.count = 0
        while arrivals.count < WARM_UP:
            client.wait()
        first = arrivals.count
        allocated.start()
        while arrivals.count < WARM_UP + count:
            client.wait()
        report(allocated.stop() / (arrivals.count - first))


def stay_idle():
    client = _Client(lambda: None, TOPIC, 1)
    client.publish(TOPIC, 1)
    turn()
    while True:
        client.wait()


def modules():
    arrivals = _Arrivals()
    client = _Client(arrivals.one, TOPIC, 1)
    client.publish(TOPIC, 1)
    while not arrivals.count:
        client.wait()
    common.modules()
