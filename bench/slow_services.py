#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the options of docs/slow-services.md are good for: each scene runs a gateway twice, without its
option and with it, before upstreams that this program plays, and counts. A few seconds each.
Usage: slow_services.py PORTICO [SCENE...]."""
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
from server import free_port  # noqa: E402

PORTICO = sys.argv[1]


class Upstream:
    """`answer(self)` is a coroutine that gives a status, 0 to break off."""

    def __init__(self, answer):
        self.answer, self.requests, self.under_way, self.first = answer, 0, 0, None
        self.connections = 0
        self.greeting = 0  # what a new connection takes before it is of use

    async def start(self, port=0):
        self.server = await asyncio.start_server(self.talk, "127.0.0.1", port, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def talk(self, reader, writer):
        self.connections += 1
        try:
            await asyncio.sleep(self.greeting)
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                self.under_way += 1
                try:
                    status = await self.answer(self)
                finally:
                    self.under_way -= 1
                if status == 0:
                    break
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % status)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


async def ask(port, limit):
    """Status (0: none in time) and seconds."""
    begin = time.monotonic()
    writer = None

    async def talk():
        nonlocal writer
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return int((await reader.readuntil(b"\r\n\r\n")).split()[1])

    try:
        status = await asyncio.wait_for(talk(), limit)
    except (asyncio.TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        status = 0
    if writer:
        writer.close()
    return status, time.monotonic() - begin


class Portico:
    def __init__(self, upstreams, options):
        self.port, admin = free_port(), free_port()
        self.folder = tempfile.TemporaryDirectory()
        document = {"admin": {"listen": f"localhost:{admin}"}, "logging": {"logs": {"default": {
            "level": "ERROR"}}}, "apps": {"http": {"servers": {"s": {
                "listen": [f"127.0.0.1:{self.port}"], "routes": [{"handle": [{
                    "handler": "reverse_proxy", **options,
                    "upstreams": [{"dial": f"127.0.0.1:{u.port}"} for u in upstreams]}]}]}}}}}
        with open(f"{self.folder.name}/c.json", "w", encoding="utf-8") as f:
            json.dump(document, f)
        self.process = subprocess.Popen(
            [PORTICO, "run", "--config", f"{self.folder.name}/c.json"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "PORTICO_WORKERS": "2"})

    async def ready(self):
        for _ in range(500):
            try:
                (await asyncio.open_connection("127.0.0.1", self.port))[1].close()
                return
            except OSError:
                await asyncio.sleep(0.01)

    def end(self):
        self.process.terminate()
        self.process.wait(10)
        self.folder.cleanup()


async def offer(port, rate, seconds, limit):
    """So many requests a second, whatever becomes of them."""
    tasks, begin = [], time.monotonic()
    for i in range(int(rate * seconds)):
        await asyncio.sleep(max(0, begin + i / rate - time.monotonic()))
        tasks.append(asyncio.ensure_future(ask(port, limit)))
    return await asyncio.gather(*tasks)


def told(results):
    times = sorted(t for status, t in results if status in (200, 203))
    at = lambda q: f"{1000 * times[int(q * (len(times) - 1))]:.0f} ms" if times else "-"  # noqa: E731
    count = lambda *s: sum(status in s for status, _ in results)  # noqa: E731
    return (f"{len(results)} requests: {count(200, 203)} served, {count(503)} refused (503), "
            f"{len(results) - count(200, 203, 503)} failed; median {at(0.5)}, 99th {at(0.99)}")


async def play(name, make, options, rate, seconds, limit, tell=None, greeting=0):
    random.seed(1)
    upstreams = [await Upstream(answer).start() for answer in make()]
    for u in upstreams:
        u.greeting = greeting
    portico = Portico(upstreams, options)
    await portico.ready()
    if greeting:
        await asyncio.sleep(1)
    results = await offer(portico.port, rate, seconds, limit)
    extra = tell(upstreams, results) if tell else ""
    print(f"  {name:10} {told(results)}{extra}", flush=True)
    portico.end()
    for u in upstreams:
        u.server.close()


# --- scenes ---

async def thrashing(u):
    """Four at once take 20 ms; of more, each takes longer than its share."""
    await asyncio.sleep(0.02 * max(1, u.under_way / 4) ** 1.5)
    return 200


async def queue():
    """An upstream that does 200 requests a second, and fewer the more it has at once, is offered 260;
    clients give up after a second."""
    for name, more in (("without", {}), ("with", {"overload": {"max_requests": 4, "queue": 60,
                                                               "queue_timeout": "500ms"}})):
        await play(name, lambda: [thrashing], more, 260, 4, 1)


async def quick(u):
    await asyncio.sleep(0.002)
    return 200


async def pausing(u):
    """100 ms of each second it does nothing, as a collector of garbage; tells who waited for half of that."""
    left = 0.1 - time.monotonic() % 1
    await asyncio.sleep(max(0.002, left))
    return 200 if left < 0.05 else 203


async def hedge():
    """One of four upstreams pauses 100 ms every second, at 300 requests a second for five seconds."""
    def tell(upstreams, results):
        times = sorted(t for _, t in results)
        return (f", 99.9th {1000 * times[int(0.999 * (len(times) - 1))]:.0f} ms; "
                f"{sum(status == 203 for status, _ in results)} waited for half of a pause; "
                f"{sum(u.requests for u in upstreams) - len(results)} requests more than came")
    for name, more in (("without", {}), ("20ms", {"hedge": {"after": "20ms"}}),
                       ("p95", {"hedge": {"after": "p95"}}),
                       ("20ms, 1%", {"hedge": {"after": "20ms", "max": 0.01}})):
        await play(name, lambda: [quick, quick, quick, pausing], more, 300, 5, 5, tell)


def takes(seconds):
    async def answer(_):
        await asyncio.sleep(seconds)
        return 200
    return answer


async def p2c():
    """Of eight upstreams that take 5 ms one takes 100 ms, and another pauses for 200 ms each second."""
    async def pausing(_):
        now = time.monotonic() % 1
        await asyncio.sleep(0.005 + (0.2 - now if now < 0.2 else 0))
        return 200

    for policy in ("random", "least_conn", "p2c_ewma"):
        await play(policy, lambda: [takes(0.1), pausing] + 6 * [takes(0.005)],
                   {"load_balancing": {"selection_policy": {"policy": policy}}}, 300, 4, 2)


async def budget():
    """Both upstreams fail for two seconds of four, with three retries each: what reaches them."""
    for name, more in (("without", {}), ("with", {"overload": {"retry_budget": {"share": 0.2}}})):
        begin = time.monotonic()

        async def failing(_):
            await asyncio.sleep(0.005)
            return 200 if time.monotonic() - begin > 2.2 else 0  # noqa: B023

        await play(name, lambda: [failing, failing], {  # noqa: B023
            "load_balancing": {"retries": 3, "try_interval": "20ms"}, **more}, 200, 4, 2,
            lambda us, _: f"; {sum(u.requests for u in us)} at the upstreams")


async def slow_start():
    """Of three upstreams one is out for a second, and comes back with empty caches: at first what it has at
    once takes 15 ms for each, until it has answered 150 requests."""
    for name, more in (("without", {}), ("with", {"overload": {"slow_start": "4s"}})):
        begin, back = time.monotonic(), []

        async def cold(u):
            if time.monotonic() - begin < 1:  # noqa: B023
                return 503
            back.append(0)  # noqa: B023
            await asyncio.sleep(0.005 + max(0, 1 - len(back) / 150) * 0.015 * u.under_way)  # noqa: B023
            return 200

        await play(name, lambda: [takes(0.005), takes(0.005), cold], {  # noqa: B023
            "load_balancing": {"selection_policy": {"policy": "round_robin"}},
            "health_checks": {"passive": {"fail_duration": "1s", "unhealthy_status": [503]}}, **more},
            400, 6, 3)


async def eject():
    """Of six upstreams one answers half of its requests with 500, and one takes ten times as long; 300 requests a
    second for six seconds."""
    async def flaky(_):
        await asyncio.sleep(0.005)
        return random.choice((200, 500))

    for name, more in (("without", {}), ("with", {"overload": {"eject": {
            "failure_rate": 0.3, "latency_factor": 3, "interval": "1s", "min_requests": 10}}})):
        await play(name, lambda: 4 * [takes(0.005)] + [flaky, takes(0.05)], more, 300, 6, 2,
                   lambda us, _: f"; {us[4].requests} at the failing one, {us[5].requests} at the slow one")


async def warm():
    """Two upstreams need 60 ms for a new connection, as a far one with TLS does; the first 60 requests after a
    start, within 0.2 seconds."""
    for name, more in (("without", {}), ("with", {"overload": {"warm_connections": 10}})):
        await play(name, lambda: 2 * [takes(0.005)], more, 300, 0.2, 2, greeting=0.06)


SCENES = {f.__name__: f for f in (
    queue, hedge, p2c, budget, slow_start, eject, warm)}


async def main():
    for name in sys.argv[2:] or SCENES:
        print(f"{name}: {' '.join(SCENES[name].__doc__.split())}")
        await SCENES[name]()


async def main_and_end():
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    await main()
    sys.stdout.flush()
    os._exit(0)  # whoever still talks need not end in order


asyncio.run(main_and_end())
