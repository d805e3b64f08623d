#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The two processes and their sockets, as TAP: privileges, crashes, what systemd is told, sockets that
are handed over, a storm of clients over reloads. Usage: process_test.py PORTICO [TEXT]."""
import fcntl
import http.client
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from server import Server, Skip, free_port, run_cases, same

PORTICO = os.path.abspath(sys.argv[1])
OTHER = "nobody"


def start(io, awaited=True, **more):
    s = Server(PORTICO, io, awaited=awaited, **more)
    if awaited:
        s.api("GET", "/config/")  # answered behind the word to the keeper that it is ready
    return s


def need_root():
    if os.geteuid() != 0:
        raise Skip("only root can start it")


def status(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def rights(pid):
    s = status(pid)
    return (s["Uid"].split()[0], s["Gid"].split()[0], int(s["CapEff"], 16), int(s["CapPrm"], 16),
            s["NoNewPrivs"])


def open_to_all(s):
    """The folder of the test is root's own; the other user reads the file again after a crash."""
    os.chmod(s.folder.name, 0o755)


# --- ports that are taken ---

PYTHON = os.path.basename(os.path.realpath(sys.executable))
HOLDER = """import socket, sys, time
s = socket.socket()
s.bind((sys.argv[1], int(sys.argv[2])))
s.listen()
print("listens", flush=True)
time.sleep(1000)
"""


class Holder:
    """Another program that listens, in a control group such as systemd and container runtimes make."""

    def __init__(self, host, port, group=None):
        self.folders = []
        enter = ""
        if group is not None:
            with open("/proc/self/mounts", encoding="utf-8") as f:
                roots = [line.split()[1] for line in f if line.split()[2] == "cgroup2"]
            if not roots:
                raise Skip("no control groups of version 2 here")
            self.folders.append(f"{roots[0]}/portico{os.getpid()}x{port}.slice")
            self.folders.append(f"{self.folders[0]}/{group}")
            try:
                for folder in self.folders:
                    os.mkdir(folder)
            except OSError as e:
                raise Skip(f"no control group can be made here: {e}") from e
            enter = f"echo $$ > {self.folders[1]}/cgroup.procs; "
        self.process = subprocess.Popen(
            ["sh", "-ec", enter + 'exec setpriv --reuid nobody --regid nogroup --clear-groups "$@"', "sh",
             sys.executable, "-c", HOLDER, host, str(port)], stdout=subprocess.PIPE)
        same(self.process.stdout.readline(), b"listens\n")

    def __enter__(self):
        return self.process.pid

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        for folder in reversed(self.folders):
            os.rmdir(folder)


def told(io, hosts, group, *words):
    """What a start and a reload say of a port that the first of `hosts` is in the way of."""
    port = free_port()
    holders = [Holder(host, port, group if host == hosts[0] else None) for host in sorted(hosts)]
    s = start(io)
    try:
        pid = holders[sorted(hosts).index(hosts[0])].process.pid
        want = f"port {port} is held by {PYTHON} (pid {pid}, user nobody{''.join(words)}): stop it, or choose"
        listen = {**s.document, "apps": {"http": {"servers": {"srv0": {"listen": [f"{hosts[0]}:{port}"]}}}}}
        code, text = s.api("POST", "/load", listen)
        assert (code, want in text) == (400, True), f"{code}: {text}, not: {want}"
        same(s.get(), (200, b"one"))
        second = start(io, awaited=False, members={"listen": [f"{hosts[0]}:{port}"]})
        same(second.process.wait(60), 1)
        said = second.text()
        second.end(None)
        assert want in said, said
    finally:
        s.end()
        for holder in holders:
            holder.__exit__()


def told_of_units(io):
    need_root()
    told(io, ["127.0.0.1"], "database.service", ", unit database.service")


def told_of_containers(io):
    need_root()
    told(io, ["127.0.0.1"], "docker-" + "0123456789abcdef" * 4 + ".scope",
         ", unit docker-", "0123456789abcdef" * 4, ".scope, container 0123456789ab")


def told_of_the_right_one(io):
    need_root()
    told(io, ["127.0.0.3", "127.0.0.2", "127.0.0.4"], None)


# --- privileges ---

READ_SEARCH = 1 << 2


def keeps_root(io):
    need_root()
    s = start(io)
    try:
        same(rights(s.server_pid()), ("0", "0", READ_SEARCH, READ_SEARCH, "1"))
        same(int(status(s.server_pid())["CapBnd"], 16), READ_SEARCH)
    finally:
        same(s.end(), 0)


# CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_ADMIN,
# SYS_PTRACE, SYS_RESOURCE; and what the ledger's reader has besides: SYS_ADMIN.
KEEPERS = sum(1 << n for n in (0, 1, 2, 3, 5, 6, 7, 8, 10, 12, 19, 24))
HELPERS = 1 << 21


def capabilities(pid):
    """Effective, permitted, and what may be had by running a program: of all that root has here."""
    with open("/proc/self/status", encoding="ascii") as f:
        whole = int(re.search(r"CapPrm:\s+(\w+)", f.read()).group(1), 16)
    s = status(pid)
    return tuple(int(s[name], 16) & whole for name in ("CapEff", "CapPrm", "CapBnd")), whole


def free_low_port():
    for port in random.sample(range(600, 1000), 400):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise Skip("no low port is free")


def rights_sleep(io):
    """Of a server that is root's anything may be asked for later: nothing is bounded, all but the keeper's
    own is given up, and that is awake only while something is done."""
    need_root()
    s = start(io)
    try:
        (effective, permitted, bounding), whole = capabilities(s.process.pid)
        same((effective, permitted, bounding), (0, KEEPERS & whole, whole))
        low = free_low_port()
        s.document["apps"]["http"]["servers"]["srv0"]["listen"] += [f"127.0.0.1:{low}",
                                                                   f"unix/{s.folder.name}/socket"]
        same(s.api("POST", "/load", s.document)[0], 200)
        s.port, before = low, s.port
        same((s.get(), os.path.exists(f"{s.folder.name}/socket")), ((200, b"one"), True))
        s.port = before
        del s.document["apps"]["http"]["servers"]["srv0"]["listen"][1:]
        same(s.api("POST", "/load", s.document)[0], 200)
        s.wait(lambda: not os.path.exists(f"{s.folder.name}/socket"))
        same(capabilities(s.process.pid)[0][:2], (0, KEEPERS & whole))
    finally:
        same(s.end(), 0)


def rights_bounded(io):
    """No service can be root's beside a server that is not, so no program needs what portico does not."""
    need_root()
    s = start(io, top={"portico": {"user": OTHER}})
    open_to_all(s)
    try:
        whole = capabilities(s.process.pid)[1]
        s.wait(lambda: capabilities(s.process.pid)[0] == (0, KEEPERS & whole, (KEEPERS | HELPERS) & whole))
        first = s.server_pid()
        os.kill(first, signal.SIGKILL)
        s.wait(lambda: s.server_pid() != first and s.get() == (200, b"one"))
        same(rights(s.server_pid())[2:4], (0, 0))
        services = {"services": [{"name": "a", "user": OTHER, "run": ["sleep", "100"], "port": free_port()}]}
        code, text = s.api("POST", "/load", {**s.document, "apps": {**s.document["apps"], "services": services}})
        same((code, "restart portico" in text), (400, True))
        status_code, text = s.api("GET", "/ports")
        same((status_code, text if status_code != 200 else ""), (200, ""))
        same((status_code, [o["program"] for r in json.loads(text)["ports"] for o in r["owners"]
                            if r["port"] == s.port][:1]), (200, [os.path.basename(PORTICO)]))
    finally:
        same(s.end(), 0)


def becomes_user(io):
    need_root()
    user = pwd.getpwnam(OTHER)
    s = start(io, top={"portico": {"user": OTHER}})
    try:
        open_to_all(s)
        same(rights(s.server_pid()), (str(user.pw_uid), str(user.pw_gid), 0, 0, "1"))
        same(int(status(s.server_pid())["CapBnd"], 16), 0)
        same(status(s.process.pid)["Uid"].split()[0], "0")
        changed = {**s.document, "portico": {"user": "root"}}
        code, text = s.api("POST", "/load", changed)
        same(code, 400)
        assert "restart portico" in text and OTHER in text, text
        code, text = s.api("POST", "/load", {k: v for k, v in s.document.items() if k != "portico"})
        same(code, 400)
        path = f"{s.folder.name}/s.sock"
        s.document["apps"]["http"]["servers"]["srv0"]["listen"].append(f"unix/{path}|0600")
        same(s.api("POST", "/load", s.document)[0], 200)
        same((os.stat(path).st_uid, os.stat(path).st_mode & 0o777), (user.pw_uid, 0o600))
        os.kill(s.server_pid(), signal.SIGKILL)
        s.wait(lambda: s.get()[0] == 200 and rights(s.server_pid())[0] == str(user.pw_uid))
    finally:
        same(s.end(), 0)


def becomes_group(io):
    need_root()
    s = start(io, top={"portico": {"user": f"{OTHER}:daemon"}}, body="{env.HOME} {env.USER}")
    try:
        same(s.get()[1].decode(), f"{pwd.getpwnam(OTHER).pw_dir} {OTHER}")
        same(rights(s.server_pid())[:2], (str(pwd.getpwnam(OTHER).pw_uid), "1"))
        same(status(s.server_pid())["Groups"].split(), ["1"])
    finally:
        same(s.end(), 0)


def refuses_users(io):
    need_root()
    for user, want in (("no-such-user-here", "there is no such user"), (f"{OTHER}:no-such-group",
                       "there is no such group"), (":", "write NAME or NAME:GROUP"),
                       (7, "user")):
        s = start(io, top={"portico": {"user": user}}, awaited=False)
        s.process.wait(60)
        text = s.text()
        same(s.end(), 1)
        assert want in text, text


def run_as_nobody(doc):
    return subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                           "--bounding-set=-all", PORTICO, "run", "--config", "-"],
                          input=json.dumps(doc), text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, cwd="/")


def refuses_without_root(io):
    need_root()
    done = run_as_nobody({"admin": {"disabled": True}, "portico": {"user": "daemon"}})
    same(done.returncode, 1)
    assert "only a server that is started by root" in done.stdout, done.stdout


def low_port(io):
    need_root()
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as f:
        if int(f.read()) < 1024:
            raise Skip("low ports are free for everybody here")
    doc = {"admin": {"disabled": True},
           "apps": {"http": {"servers": {"s": {"listen": ["127.0.0.1:81"]}}}}}
    done = run_as_nobody(doc)
    same(done.returncode, 1)
    assert "port 81 is below 1024" in done.stdout and "setcap" in done.stdout, done.stdout


# --- crashes ---

def backs_off(io):
    s = start(io)
    try:
        pids = set()
        for _ in range(4):
            pid = s.server_pid()
            pids.add(pid)
            os.kill(pid, signal.SIGKILL)
            s.wait(lambda p=pid: s.get()[0] == 200 and s.server_pid() != p)
        same(len(pids), 4)
        again = r'started again, on the same sockets.*?"after": ?([0-9.e-]+)'
        s.wait(lambda: len(re.findall(again, s.text())) == 4)
        same([float(p) for p in re.findall(again, s.text())], [0, 0.1, 0.2, 0.4])
    finally:
        same(s.end(), 0)


def gives_up(io):
    """Each new server crashes as well; at last the keeper ends, with status 1."""
    s = start(io)
    over = time.monotonic() + 120
    while s.process.poll() is None and time.monotonic() < over:
        try:
            pid = s.server_pid()
            if "giving up" not in s.text():  # after it a child may be the leak sanitizer's
                os.kill(pid, signal.SIGKILL)
        except (IndexError, OSError):
            pass
        time.sleep(0.02)
    text = s.text()
    same(s.end(None), 1)
    assert "the server process keeps crashing: giving up" in text, text[-2000:]


def stops_in_pause(io):
    s = start(io)
    for n in range(7):
        pid = s.server_pid()
        os.kill(pid, signal.SIGKILL)
        if n < 6:
            s.wait(lambda p=pid: s.get()[0] == 200 and s.server_pid() != p)
    time.sleep(0.1)  # now it waits 3.2 s
    begin = time.monotonic()
    same(s.end(), 0)
    assert time.monotonic() - begin < 2.9


def dies_with_keeper(io):
    for hangs in (False, True):
        s = start(io)
        pid = s.server_pid()
        if hangs:
            os.kill(pid, signal.SIGSTOP)
        s.process.kill()
        s.process.wait()
        end = time.monotonic() + 30
        try:
            while os.path.exists(f"/proc/{pid}") and status(pid)["State"][0] != "Z":
                assert time.monotonic() < end, f"the server lives on; hangs: {hangs}"
                time.sleep(0.02)
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            raise
        except (FileNotFoundError, ProcessLookupError):
            pass  # between the two looks
        s.end(None)


def file_of_another(io):
    """`sudo ./portico`, built with a umask of 077, where only who built it may read and execute it."""
    need_root()
    with tempfile.TemporaryDirectory(prefix="portico-test-") as folder:
        program = shutil.copy(PORTICO, f"{folder}/portico")
        shutil.chown(program, OTHER)
        os.chmod(program, 0o700)
        s = Server(program, io)
        try:
            same(s.get(), (200, b"one"))
            same(s.api("GET", "/ports")[0], 200)
        finally:
            same(s.end(), 0)


def second_interrupt(io):
    """A request that never ends holds the drain; a second SIGINT does not wait."""
    s = start(io)
    with socket.create_connection(("127.0.0.1", s.port), 30) as c:
        c.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab")
        c.recv(65536)
        s.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        same(s.process.poll(), None)
        same(s.end(signal.SIGINT), 2)


# --- systemd ---

class Manager:
    """NOTIFY_SOCKET's other end."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("")  # the kernel names an abstract address
        self.socket.settimeout(30)
        self.name = "@" + self.socket.getsockname()[1:].decode()

    def next(self, key):
        """The next message that has the key, as a dictionary."""
        while True:
            got = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())
            if key in got:
                return got


def notifies(io):
    m = Manager()
    s = start(io, environment={"NOTIFY_SOCKET": m.name})
    same(m.next("READY")["MAINPID"], str(s.process.pid))
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    same(s.api("POST", "/load", {**s.document, "logging": {}})[0], 200)
    told = int(m.next("RELOADING")["MONOTONIC_USEC"])
    assert before <= told <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    same(m.next("READY")["STATUS"], "serving")
    same(s.api("POST", "/load", {"nonsense": 1})[0], 400)
    m.next("RELOADING")
    assert "nonsense" in m.next("READY")["STATUS"]
    s.process.send_signal(signal.SIGTERM)
    m.next("STOPPING")
    same(s.end(None), 0)


def watchdog(io):
    m = Manager()
    s = start(io, environment={"NOTIFY_SOCKET": m.name, "WATCHDOG_USEC": "400000"})
    try:
        for _ in range(3):
            m.next("WATCHDOG")
        os.kill(s.server_pid(), signal.SIGSTOP)
        s.wait(lambda: "the watchdog is not told" in s.text())
        os.kill(s.server_pid(), signal.SIGCONT)
        time.sleep(0.5)
        m.next("WATCHDOG")
    finally:
        same(s.end(), 0)


# --- sockets ---

def handed_over(io):
    """Socket activation: two descriptors from 3 on, asked for as fd/3 and fd/4."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [x.getsockname()[1] for x in listeners]
    with open("/dev/null", "rb") as null:
        high = [fcntl.fcntl(x, fcntl.F_DUPFD, 200) for x in listeners]  # another case does the same meanwhile
        s = start(io, awaited=False, members={"listen": ["fd/3", "fd/4"]},
                  prefix=["bash", "-c", 'LISTEN_PID=$$ LISTEN_FDS=2 exec "$@" 3<&%d 4<&%d %d<&- %d<&-' %
                          (*high, *high), "bash"], started={"pass_fds": high, "stdin": null})
    for x in listeners:
        x.close()
    for fd in high:
        os.close(fd)
    try:
        for port in ports:
            s.port = port
            s.wait(lambda: s.get()[1] == b"one")
        changed = {**s.document, "logging": {}}
        same(s.api("POST", "/load", changed)[0], 200)
        same(s.get()[1], b"one")
        pid = s.server_pid()
        os.kill(pid, signal.SIGKILL)
        s.wait(lambda: s.get()[1] == b"one" and s.server_pid() != pid)
        bad = {**s.document, "apps": {"http": {"servers": {"s": {"listen": ["fd/9"]}}}}}
        code, text = s.api("POST", "/load", bad)
        same(code, 400)
        assert "fd/9" in text and "handed over" in text, text
        env = open(f"/proc/{s.server_pid()}/environ", "rb").read()
        assert b"LISTEN_FDS" not in env
    finally:
        same(s.end(), 0)


def port_range(io):
    while True:
        first = free_port()
        try:
            for port in range(first, first + 3):
                socket.create_server(("127.0.0.1", port)).close()
            break
        except OSError:
            continue
    s = start(io)
    try:
        members = s.document["apps"]["http"]["servers"]["srv0"]
        members["listen"].append(f"127.0.0.1:{first}-{first + 2}")
        same(s.api("POST", "/load", s.document)[0], 200)
        for port in range(first, first + 3):
            s.port = port
            same(s.get()[1], b"one")
    finally:
        same(s.end(), 0)


def reached(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as c:
        c.settimeout(30)
        try:
            c.connect((host, port))
        except ConnectionRefusedError:
            return False
        c.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return c.makefile("rb").read().endswith(b"one")


def families(io):
    """One family, the other, or both."""
    if not os.path.exists("/proc/net/if_inet6") or not open("/proc/net/if_inet6").read():
        raise Skip("no IPv6 here")
    s = start(io)
    ports = [free_port() for _ in range(4)]
    listen = [f"[::1]:{ports[0]}", f"tcp4/:{ports[1]}", f"tcp6/:{ports[2]}", f":{ports[3]}"]
    try:
        s.document["apps"]["http"]["servers"]["srv0"]["listen"] = listen
        same(s.api("POST", "/load", s.document)[0], 200)
        same([(reached("127.0.0.1", p), reached("::1", p)) for p in ports],
             [(False, True), (True, False), (False, True), (True, True)])
    finally:
        same(s.end(), 0)


def shares_port(io):
    """":P" and "127.0.0.1:P" of one configuration are two sockets, the nearer one wins."""
    s = start(io)
    try:
        servers = s.document["apps"]["http"]["servers"]
        servers["all"] = {"listen": [f":{s.port}"], "routes": [
            {"handle": [{"handler": "static_response", "body": "all"}]}]}
        same(s.api("POST", "/load", s.document)[0], 200)
        same(s.get()[1], b"one")
        c = http.client.HTTPConnection("127.0.0.2", s.port, timeout=60)
        c.request("GET", "/")
        same(c.getresponse().read(), b"all")
        c.close()
    finally:
        same(s.end(), 0)


def networks(io):
    s = start(io)
    try:
        for listen in ("udp/127.0.0.1:1", "unixgram//tmp/x", "fdgram/3", "sctp/:80"):
            doc = {**s.document, "apps": {"http": {"servers": {"s": {"listen": [listen]}}}}}
            code, text = s.api("POST", "/load", doc)
            same((listen, code), (listen, 400))
            assert "not supported" in text, text
    finally:
        same(s.end(), 0)


def keepalive(io):
    """Read from the connection's end in the server, by ss."""
    def timers(s):
        with socket.create_connection(("127.0.0.1", s.port), 30) as c:
            c.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            c.recv(65536)
            with open("/proc/net/tcp", encoding="ascii") as f:
                local, peer = c.getpeername()[1], c.getsockname()[1]
                for line in f:
                    fields = line.split()
                    if fields[1].endswith(f":{local:04X}") and fields[2].endswith(f":{peer:04X}"):
                        kind, left = fields[5].split(":")
                        return int(kind), int(left, 16) / 100
        raise AssertionError("no such connection")

    s = start(io)
    try:
        kind, left = timers(s)
        same(kind, 2)
        assert 5 < left <= 15, left
        members = s.document["apps"]["http"]["servers"]["srv0"]
        members["keepalive_idle"] = "40s"
        same(s.api("POST", "/load", s.document)[0], 200)
        kind, left = timers(s)
        assert kind == 2 and 20 < left <= 40, (kind, left)
        members["keepalive_interval"] = -1
        same(s.api("POST", "/load", s.document)[0], 200)
        same(timers(s)[0], 0)
    finally:
        same(s.end(), 0)


def stop(pid):
    """Returns when each thread has stopped."""
    os.kill(pid, signal.SIGSTOP)
    for thread in os.listdir(f"/proc/{pid}/task"):
        while status(f"{pid}/task/{thread}")["State"][0] != "T":
            time.sleep(0.001)


def queue_survives_crash(io):
    """What is queued when the server dies is answered by the next one."""
    s = start(io)
    try:
        pid = s.server_pid()
        stop(pid)
        waiting = []
        for _ in range(40):
            c = socket.create_connection(("127.0.0.1", s.port), 30)
            c.sendall(b"GET / HTTP/1.0\r\n\r\n")
            waiting.append(c)
        time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
        lost = 0
        for c in waiting:
            c.settimeout(30)
            try:
                answer = b""
                while piece := c.recv(65536):
                    answer += piece
                lost += not answer.endswith(b"one")
            except OSError:
                lost += 1
            c.close()
        # A ring that is torn down runs what is due, and may accept one more connection as it dies.
        assert lost <= (2 if io == "uring" else 0), lost
    finally:
        same(s.end(), 0)


def queue_survives_removal(io):
    """An address that goes: who is in its queue is answered all the same."""
    s = start(io)
    try:
        old = s.port
        moved = free_port()
        s.document["apps"]["http"]["servers"]["srv0"]["listen"] = [f"127.0.0.1:{moved}"]
        pid = s.server_pid()
        answers = []

        def load():
            answers.append(s.api("POST", "/load", s.document)[0])

        stop(pid)
        loader = threading.Thread(target=load)
        loader.start()
        waiting = []
        for _ in range(40):
            c = socket.create_connection(("127.0.0.1", old), 60)
            c.sendall(b"GET / HTTP/1.0\r\n\r\n")
            waiting.append(c)
        os.kill(pid, signal.SIGCONT)
        loader.join()
        same(answers, [200])
        for c in waiting:
            c.settimeout(30)
            answer = b""
            while piece := c.recv(65536):
                answer += piece
            same(answer[-3:], b"one")
            c.close()
        s.port = moved
        same(s.get()[1], b"one")
    finally:
        same(s.end(), 0)


def reload_amid_a_body(io):
    """The rest of a body that nobody wants is read away by the limits of the configuration that it came to."""
    s = start(io)
    try:
        for framing in (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"Content-Length: 20\r\n\r\nabc"):
            c = socket.create_connection(("127.0.0.1", s.port), 60)
            c.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
            assert b"one" in c.recv(65536)
            for n in range(3):
                s.document["apps"]["http"]["servers"]["srv0"]["idle_timeout"] = f"{100 + n}s"
                same(s.api("POST", "/load", s.document)[0], 200)
            more = b"3\r\nabc\r\n0\r\nX-A: b\r\n\r\n" if b"chunked" in framing else b"x" * 17
            for part in (more[:8], more[8:] + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
                c.sendall(part)
                same(s.get()[1], b"one")  # a turn or two later
            assert b"one" in c.recv(65536)
            c.close()
    finally:
        same(s.end(), 0)


def storm(io):
    """New connections all the while: over reloads none fails, over crashes none is refused."""
    s = start(io)
    over, wrong, refused, asked = threading.Event(), [], [], [0]
    crashing = threading.Event()

    def client():
        while not over.is_set():
            try:
                asked[0] += 1
                if s.get()[1] not in (b"one", b"two"):
                    wrong.append("another body")
            except ConnectionRefusedError as e:
                refused.append(repr(e))
            except (OSError, http.client.HTTPException) as e:
                if not crashing.is_set():
                    wrong.append(repr(e))

    threads = [threading.Thread(target=client) for _ in range(6)]
    routes = s.document["apps"]["http"]["servers"]["srv0"]["routes"]
    try:
        for t in threads:
            t.start()
        for i in range(15):
            routes[0]["handle"][0]["body"] = "two" if i % 2 else "one"
            same(s.api("POST", "/load", s.document)[0], 200)
        crashing.set()
        for _ in range(3):
            pid = s.server_pid()
            os.kill(pid, signal.SIGKILL)
            s.wait(lambda p=pid: s.server_pid() != p and s.api("GET", "/config/")[0] == 200)
            time.sleep(0.1)
        over.set()
        for t in threads:
            t.join()
        same((wrong, refused), ([], []))
        assert asked[0] > 50, asked
    finally:
        over.set()
        same(s.end(), 0)


# --- the end ---

def hold_request(s):
    """A connection whose request has begun and does not end."""
    c = socket.create_connection(("127.0.0.1", s.port), 30)
    c.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab")
    same(c.recv(65536)[-3:], b"one")
    return c


def grace_period(io):
    """A request that does not end is cut off when the grace period is over, not before."""
    s = start(io, grace_period="400ms")
    with hold_request(s):
        begin = time.monotonic()
        same(s.end(), 0)
        took = time.monotonic() - begin
    assert 0.4 <= took < 15, took


def delayed_shutdown(io):
    """Served on for shutdown_delay; placeholders tell; then new connections are refused."""
    body = "{http.shutting_down} {http.time_until_shutdown}"
    s = start(io, body=body, shutdown_delay="2s")
    same(s.get()[1], b"false ")
    begin = time.monotonic()
    s.process.send_signal(signal.SIGTERM)
    s.wait(lambda: s.get()[1].startswith(b"true "))
    left = s.get()[1].decode().split()[1]
    assert re.fullmatch(r"[0-9.]+m?s", left) and 0 < float(left[:-2]) <= 2000, left
    while s.process.poll() is None and time.monotonic() - begin < 1:
        same(s.get()[0], 200)
    same(s.end(None), 0)
    assert time.monotonic() - begin >= 2


def idle_ends(io):
    """A kept connection without a request does not hold the drain."""
    s = start(io)
    with socket.create_connection(("127.0.0.1", s.port), 30) as c:
        c.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert c.recv(65536).endswith(b"one")
        same(s.end(), 0)
        same(c.recv(1), b"")


# --- the environment ---

SECCOMP = r"""
import ctypes, os, platform, struct, sys
calls = {"x86_64": 425, "aarch64": 425}
# io_uring_setup answers EPERM, everything else is allowed.
rows = [(0x20, 0, 0, 0), (0x15, 0, 1, calls[platform.machine()]), (6, 0, 0, 0x00050001),
        (6, 0, 0, 0x7fff0000)]
code = b"".join(struct.pack("HBBI", *row) for row in rows)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxQ", len(rows), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def uring_forbidden(io):
    """A container's seccomp profile: epoll is chosen, and one line says so."""
    s = start(io, prefix=["/usr/bin/python3", "-c", SECCOMP], environment={"PORTICO_IO": ""})
    try:
        same(s.get()[1], b"one")
        s.wait(lambda: "is not allowed here" in s.text())  # another thread writes them
        s.wait(lambda: '"io":"epoll"' in s.text().replace(" ", ""))
        s.process.send_signal(signal.SIGTERM)
        s.process.wait(60)
        same(s.text().count("io_uring is not allowed here: using epoll"), 1)
    finally:
        same(s.end(), 0)
    s = start(io, prefix=["/usr/bin/python3", "-c", SECCOMP], environment={"PORTICO_IO": "uring"},
              awaited=False)
    s.process.wait(60)
    text = s.text()
    same(s.end(), 1)
    assert "PORTICO_IO=uring: io_uring is not to be had here" in text, text


def wrong_environment(io):
    for name, value, want in (("PORTICO_IO", "kqueue", "write uring or epoll"),
                              ("PORTICO_WORKERS", "0", "write a number from 1 to 128"),
                              ("PORTICO_WORKERS", "many", "write a number from 1 to 128"),
                              ("PORTICO_WORKERS", "129", "write a number from 1 to 128")):
        s = start(io, environment={name: value}, awaited=False)
        s.process.wait(60)
        text = s.text()
        same(s.end(), 1)
        assert f"{name}={value}" in text and want in text, text


BOTH = [
    ("started by root, the server keeps root and CAP_DAC_READ_SEARCH alone", keeps_root),
    ("the keeper's rights sleep, and wake for what a reload asks for", rights_sleep),
    ("beside a server of another user no program can have more than portico's own rights", rights_bounded),
    ("`user` is whom the server becomes, for good", becomes_user),
    ("a queue outlives the server that dies", queue_survives_crash),
    ("a queue outlives its address", queue_survives_removal),
    ("sockets that systemd hands over are served, kept and checked", handed_over),
    ("keep-alive options of a server are on its connections, and change with a reload", keepalive),
    ("a reload while a body is read away", reload_amid_a_body),
    ("a storm of clients over reloads and crashes: none is refused", storm),
    ("a second SIGINT does not wait for the drain and ends with status 2", second_interrupt),
    ("a request that does not end is cut off after the grace period", grace_period),
    ("a delayed shutdown serves on, and placeholders tell when it begins", delayed_shutdown),
    ("a kept connection without a request does not hold the end", idle_ends),
]
ONE = [
    ("`user NAME:GROUP` takes that group alone", becomes_group),
    ("a user that is not there or not written well is refused", refuses_users),
    ("`user` without root is refused", refuses_without_root),
    ("a low port without rights is refused with what to do", low_port),
    ("a server that crashes is started again, with longer and longer pauses", backs_off),
    ("a server that keeps crashing is given up", gives_up),
    ("a stop during such a pause ends at once", stops_in_pause),
    ("the server ends with a keeper that is killed, one that hangs, too", dies_with_keeper),
    ("root runs a file that is another user's alone", file_of_another),
    ("systemd is told: ready, reloading, status, stopping", notifies),
    ("the watchdog is told while the server answers, and only then", watchdog),
    ("a range of ports is listened on", port_range),
    ("IPv4, IPv6 and both are listened on as they are written", families),
    ("a port of all addresses and of one stand side by side", shares_port),
    ("networks that are no streams are refused by name", networks),
    ("where a seccomp filter forbids io_uring, epoll is chosen and one line says so",
     uring_forbidden),
    ("who holds a taken port is told with its user and unit, at a start and a reload", told_of_units),
    ("… and with its container", told_of_containers),
    ("of several on one port the one that is in the way is told", told_of_the_right_one),
    ("wrong values of PORTICO_IO and PORTICO_WORKERS are refused", wrong_environment),
]
run_cases([(name, case, ("epoll", "uring")) for name, case in BOTH]
          + [(name, case, ("epoll",)) for name, case in ONE], at_once=2)
