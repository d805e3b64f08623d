#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""dev/gdb_fibers.py finds the fibers of a running server and walks their stacks, as TAP.
Usage: gdb_test.py PORTICO."""
import os
import shutil
import socket
import subprocess
import sys

from server import Server, Skip, run_cases, same

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "dev",
                      "gdb_fibers.py")


def walks(io):
    if shutil.which("gdb") is None:
        raise Skip("gdb is not installed")
    s = Server(sys.argv[1], io, "hello", workers=1)
    try:
        with socket.create_connection(("127.0.0.1", s.port), 60) as c:
            c.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            same(c.recv(1000)[-5:], b"hello")  # its fiber waits for the rest of the body
            done = subprocess.run(["gdb", "-batch", "-nx", "-p", str(s.server_pid()), "-ex",
                                   f"source {SCRIPT}", "-ex", "fibers all"], timeout=100, check=False,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if "ptrace" in done.stdout and "not permitted" in done.stdout:
                raise Skip("this process may not be traced")
            if "No symbol" in done.stdout:
                raise Skip("the program has no debugging information")
            assert "1 live" in done.stdout, done.stdout[-3000:]
            for frame in ("serve_all", "h1_read_body", "await_recv", "fiber_suspend"):
                assert frame in done.stdout, frame + ": " + done.stdout[-3000:]
            c.sendall(b"123456789GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            same(c.recv(1000)[-5:], b"hello")  # it goes on as if nothing had been
    finally:
        same(s.end(), 0)


run_cases([("gdb walks the fibers of a running server and leaves it as it was", walks)], ("epoll",))
