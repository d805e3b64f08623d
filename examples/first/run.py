#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Starts the first example: portico, which starts the two services behind it. `portico run` in this
folder does the same; here ports that are taken are told with their holders, and the log goes to a file.
Usage: run.py PORTICO. Ctrl-C ends it; so does the end of portico, which is told.

portico dies with this process, whatever happens to it (PR_SET_PDEATHSIG), and the services with
portico."""
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PORTS = {8080: "the site", 8081: "the listing", 3000: "the api service", 4000: "the clock service",
         2019: "portico's admin API"}
START_S = 15
END_S = 15


def die_with_parent():
    """In a child, before it becomes another program. Ctrl-C is for the parent alone: it ends the
    children in their order."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
    os.setpgid(0, 0)


def holder(port):
    """Who listens on a port: ", held by NAME (pid N)", or nothing where that cannot be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as f:
                for line in f.readlines()[1:]:
                    word = line.split()
                    if word[3] == "0A" and int(word[1].rsplit(":", 1)[1], 16) == port:
                        inodes.add(f"socket:[{word[9]}]")
        except OSError:
            continue
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                    with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
                        return f", held by {f.read().strip()} (pid {pid})"
        except OSError:
            continue
    return ""


def taken_ports():
    for port, what in PORTS.items():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                yield f"port {port} ({what}) is taken{holder(port)}"


class Example:
    def __init__(self, portico):
        self.children = []  # (name, process), in the order of their start
        self.log = tempfile.NamedTemporaryFile("w+", prefix="portico-first-", suffix=".log",
                                               delete=False)
        self.portico = portico

    def start(self, name, *command):
        env = dict(os.environ)
        env.pop("CADDY_ADMIN", None)
        process = subprocess.Popen(command, cwd=HERE, env=env, stdin=subprocess.DEVNULL,
                                   stdout=self.log, stderr=self.log, preexec_fn=die_with_parent)
        self.children.append((name, process))

    def ended(self):
        """The name of a child that has ended, and how."""
        for name, process in self.children:
            if process.poll() is not None:
                code = process.returncode
                return f"{name} has ended with " + (f"status {code}" if code >= 0 else
                                                    f"signal {signal.Signals(-code).name}")
        return None

    def start_all(self):
        self.start("portico", self.portico, "run", "--config", "Caddyfile")

    def wait_ready(self):
        """None when all answer, else what is wrong."""
        missing = ["http://127.0.0.1:8080/", "http://127.0.0.1:8080/api/hello",
                   "http://127.0.0.1:8080/time/now", "http://127.0.0.1:8081/"]
        end = time.monotonic() + START_S
        while missing:
            gone = self.ended()
            if gone or time.monotonic() > end:
                return gone or f"{missing[0]} does not answer"
            try:
                with urllib.request.urlopen(missing[0], timeout=2):
                    missing.pop(0)
            except OSError:
                time.sleep(0.05)
        return None

    def end_all(self):
        for _, process in reversed(self.children):  # portico first: its requests are finished
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def tail(self):
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return "".join("    " + line for line in f.readlines()[-12:])


def banner(log):
    print(f"""
  portico is running the first example.

    http://localhost:8080/            the site; open this one
    http://localhost:8080/api/hello   answered by the service on port 3000
    http://localhost:8080/time/now    answered by the service on port 4000
    http://localhost:8081/            the same files, as a listing
    http://localhost:2019/config/     the running configuration

  Its log: {log}
  Ctrl-C ends all of it.
""", flush=True)


def main():
    if len(sys.argv) != 2:
        print("usage: run.py PORTICO", file=sys.stderr)
        return 2
    taken = list(taken_ports())
    if taken:
        print("The example cannot start:", *taken, sep="\n  ", file=sys.stderr)
        print("End what holds it, then try again.", file=sys.stderr)
        return 1
    asked = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.append(True))
    example = Example(os.path.abspath(sys.argv[1]))
    try:
        example.start_all()
        wrong = example.wait_ready()
        if not wrong and not asked:
            banner(example.log.name)
        while not wrong and not asked:
            time.sleep(0.2)
            wrong = None if asked else example.ended()
    finally:
        example.end_all()
    if wrong and not asked:
        print(f"{wrong}; the rest was ended. The last lines of the log:\n{example.tail()}",
              file=sys.stderr)
        return 1
    print("\nAll ended.", flush=True)
    os.unlink(example.log.name)
    return 0


sys.exit(main())
