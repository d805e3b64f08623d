#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Upstreams that refuse, reset, hang, trickle and lie, at any byte, and clients that leave, by seed:
thousands of rounds of the fault driver (tests/fault.h) through a portico, reloads in between, as TAP.
Each client gets one well-formed answer that is its own, or a clean failure; afterwards nothing is left.
Usage: fault_test.py PORTICO DRIVER [TEXT]. FAULT_ROUNDS: rounds for each case (700); FAULT_SEED: the
seed of all of them; a case prints the one that it took."""
import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
from certificates import Authority  # noqa: E402 (beside this file)
from server import Server, free_port, run_cases, same  # noqa: E402 (beside this file)

PORTICO, DRIVER = sys.argv[1:3]
del sys.argv[2]
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "700"))
FIXED = int(os.environ.get("FAULT_SEED", "0"))
SEED = FIXED or random.randrange(1, 4000)
SLOTS = 48

# Groups of upstreams as the driver knows them: its kind, and how many there are.
GROUPS = [("1", 2), ("1", 2), ("1", 2), ("f", 1), ("f", 2), ("2", 1), ("2", 2), ("f", 1), ("f", 2),
          ("s", 1), ("s", 2), ("t", 1), ("t", 2), ("2", 2), ("t", 1)]
TIMES = {"dial_timeout": "5s", "response_header_timeout": "2s", "read_timeout": "2s", "write_timeout": "2s"}
PATIENT = {name: "25s" for name in TIMES}  # of upstreams that behave, however slow the machine is


def by_http(**more):
    return {"transport": {"protocol": "http", **TIMES, **more}}


def fastcgi(seconds, **more):
    return {"transport": {"protocol": "fastcgi", "root": "/nowhere", "read_timeout": f"{seconds}s",
                          "write_timeout": f"{seconds}s", **more}}


def asked(timeout):
    """For their health, often."""
    return {"health_checks": {"active": {"uri": "/health", "interval": "50ms", "timeout": timeout}}}


AUTHORITY = Authority()
PEM = AUTHORITY.path("upstream.both")
with open(PEM, "w", encoding="ascii") as both:
    for part in AUTHORITY.leaf("upstream", "DNS:fault.example"):
        with open(part, encoding="ascii") as text:
            both.write(text.read())


def over_tls(timeout):
    return {"tls": {"ca": {"provider": "file", "pem_files": [AUTHORITY.root]}, "server_name": "fault.example",
                    "handshake_timeout": timeout}}


BUFFERS = {"request_buffers": 65536, "response_buffers": 65536}


def again(n):
    return {"load_balancing": {"retries": n, "try_interval": "2ms", "selection_policy": {"policy": "random"}}}


# Letters (small ones: paths are matched without regard to case) as the driver knows them: the group, the gateway's options.
GATEWAYS = {
    "c": (0, by_http(**PATIENT)),
    "d": (0, {**by_http(**PATIENT), **BUFFERS}),
    "f": (1, by_http()),
    "n": (1, {**by_http(keep_alive={"enabled": False}), "flush_interval": -1}),
    "r": (2, {**by_http(), **again(3)}),
    "b": (2, {**by_http(), **again(2), **BUFFERS}),
    "p": (3, fastcgi(25)),
    "q": (4, {**fastcgi(4), **again(1)}),
    "w": (0, {**by_http(**PATIENT), "stream_close_delay": "100s"}),
    "v": (1, {**by_http(), "stream_close_delay": "100s"}),
    "h": (5, by_http(**PATIENT, versions=["h2c"])),
    "i": (6, by_http(versions=["h2c"])),
    "j": (6, {**by_http(versions=["h2c"]), **again(2)}),
    "g": (5, {**by_http(**PATIENT, versions=["h2c"]), "stream_close_delay": "100s"}),
    "e": (6, {**by_http(versions=["h2c"]), "stream_close_delay": "100s"}),
    "k": (7, {**fastcgi(25, keepalive=4), **asked("25s")}),
    "l": (8, {**fastcgi(4, keepalive=4), **asked("2s"), **again(1)}),
    "s": (9, by_http(**PATIENT, **over_tls("25s"))),
    "a": (9, {**by_http(**PATIENT, **over_tls("25s")), "stream_close_delay": "100s"}),
    "t": (10, {**by_http(**over_tls("2s")), **again(1)}),
    "u": (10, {**by_http(**over_tls("2s")), "stream_close_delay": "100s"}),
    "x": (11, by_http(**PATIENT, **over_tls("25s"))),
    "y": (12, {**by_http(**over_tls("2s")), **again(1)}),
    "m": (13, {**by_http(**PATIENT, versions=["h2c"]), "request_buffers": 65536}),
    "z": (13, {**by_http(**PATIENT, versions=["h2c"]), "stream_close_delay": "100s"}),
    "o": (14, {**by_http(**PATIENT, **over_tls("25s")), "request_buffers": 65536}),
}


class Field:
    """A portico with a gateway for each letter, and the ports for the driver."""

    def __init__(self, io, letters):
        self.letters = letters
        self.ports = [[free_port() for _ in range(n)] for _, n in GROUPS]
        refusing = free_port()
        routes = []
        for letter in letters:
            group, options = GATEWAYS[letter]
            ports = self.ports[group] + ([refusing] if group == 2 else [])
            routes.append({"match": [{"path": [f"/{letter}/*"]}], "handle": [
                {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{p}"} for p in ports], **options}]})
        routes.append({"handle": [{"handler": "static_response", "body": "base"}]})
        self.server = Server(PORTICO, io, routes=routes, members={"protocols": ["h1", "h2c"]},
                             top={"logging": {"logs": {"default": {"level": "ERROR"}}}})

    def drive(self, seed, rounds, slots=SLOTS):
        used = {GATEWAYS[letter][0] for letter in self.letters}
        words = [f"{g}:{GROUPS[g][0]}:{p}" for g in used for p in self.ports[g]]
        done = subprocess.run([DRIVER, str(seed), str(rounds), str(slots), str(self.server.port), self.letters, PEM,
                               *words], stdout=subprocess.PIPE, text=True, errors="replace", check=False)
        lines = done.stdout.splitlines()
        assert done.returncode == 0, f"seed {seed}, status {done.returncode}\n" + "\n".join(lines[-24:])
        return json.loads(lines[-1])

    def reload(self, n):
        self.server.document["apps"]["http"]["servers"]["srv0"]["idle_timeout"] = f"{200 + n % 7}s"
        same(self.server.api("POST", "/load", self.server.document)[0], 200)

    def requests(self):
        return sum(u["num_requests"] for u in json.loads(self.server.api("GET", "/reverse_proxy/upstreams")[1]))


def nothing_left(field, before):
    s = field.server
    s.get()

    def back():
        now = s.live()
        return field.requests() == 0 and all(now[k] <= before[k] for k in before)
    try:
        s.wait(back, 20)
    except AssertionError:
        same((s.live(), field.requests()), (before, 0))


def rounds(letters, seed, reloads):
    def case(io):
        field = Field(io, letters)
        s = field.server
        over = threading.Event()

        def storm():
            n = 0
            while not over.wait(0.15) and s.process.poll() is None:
                n += 1
                with contextlib.suppress(OSError, http.client.HTTPException):  # the driver tells of a crash
                    field.reload(n)
        thread = threading.Thread(target=storm)
        try:
            s.get()
            s.wait(lambda: s.live()["connections"] == 0)
            before = s.live()
            if reloads:
                thread.start()
            begun = time.monotonic()
            try:
                told = field.drive(seed, ROUNDS)
            finally:
                over.set()
                if reloads:
                    thread.join()
            print(f"# seed {seed}: {told} in {time.monotonic() - begun:.1f} s", flush=True)
            nothing_left(field, before)
        finally:
            same(s.end(), 0)
    return case


run_cases([
    ("upstreams that behave answer every round, over reloads", rounds("cdpwhgksaxmzo", FIXED or 1, True)),
    ("upstreams that do not: an answer of one's own or a clean failure", rounds("fnrbqvijeltuy", FIXED or 2, False)),
    ("both, over reloads, with a random seed", rounds("cdfnrbpqwvhijgeklsatuxymzo", SEED, True)),
], at_once=3)
