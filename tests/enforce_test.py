#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`enforce nftables` and `sandbox` of a running portico, as TAP. Usage: enforce_test.py PORTICO [TEXT]."""
import copy
import json
import os
import subprocess
import sys
import time

import network as net
from server import Server, Skip, run_cases, same

PORTICO = os.path.abspath(sys.argv[1])
# The tracer by which leaks are looked for at the end is refused in the sandbox, as it should be.
NO_LEAKS = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
PORTS = {"declarations": [{"ports": ["80"], "reach": "world"}, {"ports": ["3000"], "reach": "device"}],
         "others": "device", "enforce": "nftables", "@id": "ports"}


def need_nft():
    if net.may() is not None:
        raise Skip(net.may())
    if subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout:
        raise Skip("this namespace has rules of its own")


def table():
    return subprocess.run(["nft", "list", "table", "inet", "portico"], capture_output=True, text=True,
                          check=False).stdout


def clean():
    subprocess.run([PORTICO, "ports", "unapply"], capture_output=True, check=False)


def keeps(io):
    need_nft()
    s = Server(PORTICO, io, apps={"ports": copy.deepcopy(PORTS)})
    try:
        s.wait(lambda: "goto a" in table())
        same("3000" in table(), True)
        same([r["tried"] for r in json.loads(s.api("GET", "/ports")[1])["ports"] if r["port"] == 3000][:1],
             [0])
        s.document["apps"]["ports"]["declarations"][1]["ports"] = ["3001"]
        same(s.api("POST", "/load", s.document)[0], 200)
        s.wait(lambda: "3001" in table())
        before = table()
        s.document["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"][0]["body"] = "two"
        same(s.api("POST", "/load", s.document)[0], 200)
        same(s.get(), (200, b"two"))
        same(table(), before)
        s.document["apps"]["ports"]["enforce"] = "observe"
        same(s.api("POST", "/load", s.document)[0], 200)
        s.wait(lambda: not table())
    finally:
        s.end()
        clean()


def stays(io):
    need_nft()
    s = Server(PORTICO, io, apps={"ports": copy.deepcopy(PORTS)})
    try:
        s.wait(lambda: "goto a" in table())
    finally:
        s.end()
    try:
        same("goto a" in table(), True)
    finally:
        clean()
    same(table(), "")


def comes_back(io):
    """Whoever flushes the ruleset does not open the ports; who unapplies does."""
    need_nft()
    s = Server(PORTICO, io, apps={"ports": copy.deepcopy(PORTS)})
    restored = lambda: s.text().count("had been removed")
    try:
        s.wait(lambda: "goto a" in table() and s.text().count("ports are kept as") == 1)
        for times in (1, 2, 3):
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            s.wait(lambda n=times: restored() == n and "goto a" in table())
        # A table that somebody makes in its place, and what is unapplied, stay as they are.
        subprocess.run(["nft", "flush ruleset; add table inet portico"], check=True)
        clean()
        same(table(), "")
        s.document["apps"]["ports"]["declarations"][1]["ports"] = ["3001"]
        same(s.api("POST", "/load", s.document)[0], 200)
        s.wait(lambda: "3001" in table())
        same(restored(), 3)
        s.document["apps"]["ports"]["enforce"] = "observe"
        same(s.api("POST", "/load", s.document)[0], 200)
        s.wait(lambda: "is gone" in s.text())
        same((restored(), table()), (3, ""))
        # Now nothing is kept, and nothing of others' is taken away: the helper looks after a flush.
        for line in ("add table inet portico", "flush ruleset", "add table inet portico"):
            subprocess.run(["nft", line], check=True)
        time.sleep(1)
        same("table inet portico" in table(), True)
    finally:
        s.end()
        clean()


AS_UNIT = """chown -R nobody "$(dirname "$4")"
exec setpriv --reuid nobody --regid nogroup --clear-groups --bounding-set -all,+net_bind_service,+net_admin \
  --inh-caps -all,+net_bind_service,+net_admin --ambient-caps -all,+net_bind_service,+net_admin "$@" """


def as_unit(io):
    need_nft()
    s = Server(PORTICO, io, apps={"ports": copy.deepcopy(PORTS)}, prefix=("sh", "-c", AS_UNIT, "sh"),
               environment=NO_LEAKS)
    try:
        s.wait(lambda: "goto a" in table())
        with open(f"/proc/{s.process.pid}/status", encoding="ascii") as f:
            sets = {x.split(":\t")[0]: int(x.split()[1], 16) for x in f if x.startswith("Cap")}
        unit = 1 << 10 | 1 << 12
        same((sets["CapEff"], sets["CapPrm"], sets["CapAmb"]), (0, unit, unit))
        s.document["apps"]["ports"]["declarations"][1]["ports"] = ["3001"]
        same(s.api("POST", "/load", s.document)[0], 200)
        s.wait(lambda: "3001" in table())
    finally:
        s.end()
        clean()


def leaves_trials(io):
    need_nft()
    s = Server(PORTICO, io, apps={"ports": copy.deepcopy(PORTS)})
    try:
        s.wait(lambda: "goto a" in table())
        done = subprocess.run([PORTICO, "ports", "apply", "--config", s.file, "--confirm", "60s"],
                              capture_output=True, text=True, check=False)
        same((done.returncode, done.stderr), (0, ""))
        s.document["apps"]["ports"]["declarations"][1]["ports"] = ["3001"]
        same(s.api("POST", "/load", s.document)[0], 200)
        s.wait(lambda: "a trial is running" in s.text())
        same("3001" in table(), False)
    finally:
        s.end()
        clean()


def sandboxed(io):
    s = Server(PORTICO, io, top={"portico": {"sandbox": True}}, environment=NO_LEAKS)
    try:
        with open(f"/proc/{s.server_pid()}/status", encoding="ascii") as f:
            same("\nSeccomp:\t2\n" in f.read(), True)
        with open(f"/proc/{s.process.pid}/status", encoding="ascii") as f:
            same("\nSeccomp:\t0\n" in f.read(), True)
        s.document["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"][0]["body"] = "two"
        same(s.api("POST", "/load", s.document)[0], 200)
        same(s.get(), (200, b"two"))
        code, text = s.api("POST", "/load", {**s.document, "portico": {"sandbox": False}})
        same((code, "restart portico" in text), (400, True))
        tls = {"automation": {"policies": [{"issuers": [{"module": "acme", "challenges": {"dns": {
            "provider": {"name": "exec", "command": ["/bin/true"]}}}}]}]}}
        code, text = s.api("POST", "/load", {**s.document, "apps": {**s.document["apps"], "tls": tls}})
        same((code, "in its sandbox" in text), (400, True))
        same(s.get(), (200, b"two"))
    finally:
        same(s.end(), 0)


def in_own_namespace():
    """Rules and ports of the machine itself are left alone."""
    if os.geteuid() != 0 or "ENFORCE_TEST_INSIDE" in os.environ:
        return
    os.environ["ENFORCE_TEST_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable,
                          *sys.argv])


in_own_namespace()
run_cases([
    ("ports are kept as the configuration says, at start and reload, until it says so no more", keeps,
     ("epoll",)),
    ("the rules stay when portico ends, and ports unapply takes them away", stays, ("epoll",)),
    ("a flush of the whole ruleset does not open ports, ports unapply does", comes_back, ("epoll",)),
    ("with the rights that a unit gives ports are kept as well, and they sleep", as_unit, ("epoll",)),
    ("a trial that runs is left alone by a reload", leaves_trials, ("epoll",)),
    ("a server in its sandbox serves and reloads; programs are refused when a configuration is loaded",
     sandboxed),
])
