#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Programs under the keeper, as TAP: started, stopped, adopted, and none left over after any death.
The server process is a stand-in that this test drives message by message.
Usage: supervise_test.py SUPERVISE_DRIVER [TEXT]."""
import array
import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

from server import Skip, free_port, run_tests, same

DRIVER = os.path.abspath(sys.argv[1])
OTHER = "nobody"
START, STOP, SIGNAL, LIST, EXEC, ALLOW, RELEASE = range(1, 8)
STARTED, FAILED, EXITED, LISTED, END = range(64, 69)
KEEPER_LISTEN, KEEPER_READY = 1, 3
PATH = "PATH=/usr/local/bin:/usr/bin:/bin"

# A program of many arts, told by its arguments.
PROGRAM = r"""
import os, signal, socket, subprocess, sys, time
art, marks = sys.argv[1], sys.argv[2:]
def sleep():
    os.write(1, b"ready\n")
    time.sleep(1000)
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep()
def leave():                  # a new session, two forks, deaf: as daemons do
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            deaf()
        os._exit(0)
def polite():
    def end(*_):
        os.write(1, b"bye %f\n" % time.monotonic())
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
    sleep()
def tree():
    leave()
    for _ in range(2):
        if os.fork() == 0:
            if os.fork() == 0:
                deaf()
            sleep()
    deaf()
def orphaned():               # the first process ends when it is told to, what it started stays
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    leave()
    os.wait()
    os.write(1, b"ready\n")
    signal.sigwait({signal.SIGUSR1})
def chatter():
    n = 0
    while True:
        os.write(1, b"x" * 4095 + b"\n")
        n += 1
        if n % 16 == 0:
            with open(marks[0], "w") as f:
                f.write(str(n))
def listen():
    port, other = int(marks[0]), int(marks[1])
    for wanted in (port, 0, other):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", wanted))
                print("bound", wanted == 0 or s.getsockname()[1] == wanted, flush=True)
            except OSError as e:
                print("refused", e.strerror, flush=True)
    sleep()
def facts():
    status = dict(l.rstrip("\n").split(":\t", 1) for l in open("/proc/self/status") if ":\t" in l)
    print(repr({"fds": sorted(int(f) for f in os.listdir("/proc/self/fd")),
                "links": {f: os.readlink(f"/proc/self/fd/{f}") for f in ("0", "1", "2")},
                "session": os.getsid(0) == os.getpid(), "cwd": os.getcwd(), "env": dict(os.environ),
                "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
                "caps": [status[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
                "nnp": status["NoNewPrivs"], "ignored": status["SigIgn"], "blocked": status["SigBlk"],
                "files": __import__("resource").getrlimit(7)}), flush=True)
def serve():
    s = socket.socket(fileno=3)
    assert os.environ["LISTEN_FDS"] == "1" and os.environ["LISTEN_PID"] == str(os.getpid())
    print("ready", os.getpid(), flush=True)
    while True:
        c, _ = s.accept()
        c.recv(100)
        c.sendall(str(os.getpid()).encode())
        c.close()
globals()[art]()
"""


PATIENCE = 30  # seconds: what is waited for takes as long as the machine is busy with other things


def stat(pid):
    """State, parent, and what follows in /proc/PID/stat; empty: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rsplit(")", 1)[1].split()
    except OSError:
        return []


def alive(pid):
    return stat(pid)[:1] not in ([], ["Z"], ["X"])


def until(condition, what="not reached", seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(0.005)


class Keeper:
    """The keeper and its driven server; `marks` is in the environment of all programs."""

    def __init__(self, user="", prefix=(), **more):
        self.folder = tempfile.TemporaryDirectory(prefix="portico-test-")
        os.chmod(self.folder.name, 0o755)
        self.mark = f"PORTICO_TEST_MARK={os.path.basename(self.folder.name)}"
        self.program = f"{self.folder.name}/program.py"
        with open(self.program, "w", encoding="ascii") as f:
            f.write(PROGRAM)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(f"{self.folder.name}/test.sock")
        os.chmod(f"{self.folder.name}/test.sock", 0o777)
        self.listener.listen()
        self.listener.settimeout(PATIENCE)
        self.log = open(f"{self.folder.name}/log", "w+b")
        self.process = subprocess.Popen(
            [*prefix, DRIVER, f"{self.folder.name}/test.sock", *([user] if user else [])],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **more)
        self.instance = 0
        self.outputs = {}
        self.accept()

    def accept(self):
        self.wire = self.listener.accept()[0]
        self.wire.settimeout(PATIENCE)
        self.server, = [p for p in self.children() if name_of(p) != "guardhouse"]

    def children(self, pid=None):
        """By the parents of all: /proc/PID/task/PID/children skips some while others end."""
        parent = [str(pid or self.process.pid)]
        return [int(p) for p in os.listdir("/proc") if p.isdigit() and stat(p)[1:2] == parent]

    def guardhouse(self):
        return next((p for p in self.children() if name_of(p) == "guardhouse"), None)

    def wardens(self):
        return [p for p in self.children(self.guardhouse()) if name_of(p) == "warden"]

    def warden_of(self, pid):
        return int(stat(pid)[1])

    def send(self, fds=(), **message):
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.wire.sendmsg([json.dumps(message).encode()], control)

    def hear(self, kind=None):
        try:
            data, control, _, _ = self.wire.recvmsg(1 << 16, socket.CMSG_SPACE(8 * 4))
        except OSError as why:
            raise AssertionError(f"nothing was told: {why}; {self.family()} {self.text()}") from why
        assert data, f"the server is gone; {self.family()} {self.text()}"
        message = json.loads(data)
        fds = array.array("i")
        for level, form, content in control:
            if (level, form) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content)
        message["fds"] = list(fds)
        if kind is not None:
            assert message["kind"] == kind, (message, self.text())
        return message

    def launch(self, *arts, run=None, env=(), **more):
        return {"service": "s", "run": run if run is not None else ["/usr/bin/python3", self.program, *map(str, arts)],
                "env": [PATH, self.mark, *env], **more}

    def begin(self, *arts, kind=START, fds=(), timeout_ms=300, **more):
        self.instance += 1
        self.send(fds, kind=kind, instance=self.instance, signal=signal.SIGTERM,
                  timeout_ms=timeout_ms, launch=self.launch(*arts, **more))
        return self.instance

    def start(self, *arts, **more):
        """Started, and with the first line of its output."""
        self.begin(*arts, **more)
        message = self.hear(STARTED)
        same(message["instance"], self.instance)
        if message["fds"]:
            self.outputs[self.instance] = os.fdopen(message["fds"][0], "rb", buffering=0)
            for fd in message["fds"][1:]:
                os.close(fd)
        return message

    def line(self, instance=None):
        out = self.outputs[instance or self.instance]
        text = b""
        while not text.endswith(b"\n"):
            assert select.select([out], [], [], PATIENCE)[0], (text, self.family(), self.text())
            piece = out.read(1)
            if not piece:
                break
            text += piece
        return text.decode().rstrip("\n")

    def grow(self, **more):
        """A tree of six, when all of it is deaf to SIGTERM."""
        m = self.start("tree", **more)
        for _ in range(6):
            same(self.line(), "ready")
        return m

    def orphan(self):
        """The first process of "orphaned" ends, and leaves a daemon."""
        same([self.line(), self.line()], ["ready"] * 2)
        same(len(self.marked()), 2)
        self.send(kind=SIGNAL, instance=self.instance, signal=signal.SIGUSR1)

    def ready(self):
        """The server is; the keeper has heard it."""
        self.send(keeper=KEEPER_READY)
        self.send(kind=LIST)
        while (m := self.hear())["kind"] != END:
            for fd in m["fds"]:
                os.close(fd)

    def marked(self):
        """All processes of the test's programs, wherever they went."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if self.mark.encode() in f.read().split(b"\0") and alive(int(pid)):
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def family(self):
        """For what a failure tells: names and states of the keeper's descendants, and of what is marked."""
        found, rest = {}, [self.process.pid, *self.marked()]
        while rest:
            pid = rest.pop()
            found[pid] = (name_of(pid), *stat(pid)[:2])
            rest += [p for p in self.children(pid) if p not in found]
        return found

    def text(self):
        with open(f"{self.folder.name}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def groups(self):
        """Control groups of this keeper's that are left, where there are any: by namespace and number."""
        own = ["portico", str(os.stat("/proc/self/ns/pid").st_ino), str(self.process.pid)]
        with open("/proc/self/mountinfo", encoding="ascii") as f:
            mounts = [line.split()[4] for line in f if " - cgroup2 " in line]
        return [name for folder in mounts for _, names, _ in os.walk(folder) for name in names
                if name.split(".")[:3] == own]

    def end(self, how=signal.SIGTERM, status=0):
        try:
            if self.process.poll() is None:
                if how:
                    self.process.send_signal(how)
                same(self.process.wait(PATIENCE), status)
            elif how is None and status:
                same(self.process.wait(PATIENCE), status)
            until(lambda: not self.marked(), lambda: f"left over: {self.family()}")
            text = self.text()
            left = self.groups() if self.process.returncode >= 0 else []
            assert not left, (left, self.family(), text)
            assert "Sanitizer" not in text and "assertion failed" not in text, text[-6000:]
        finally:
            self.process.kill()
            self.process.wait()
            for pid in self.marked():
                subprocess.run(["kill", "-KILL", str(pid)], stderr=subprocess.DEVNULL, check=False)
            for f in (*self.outputs.values(), self.wire, self.listener, self.log):
                f.close()
            self.folder.cleanup()


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return ""


def need_root():
    if os.geteuid() != 0:
        raise Skip("only root can start it")


# --- starting ---

def ignore_kernel_signal(number):
    """As a parent that is no glibc program passes it on; glibc itself refuses 32 and 33."""
    call = {"x86_64": 13, "aarch64": 134}[os.uname().machine]  # rt_sigaction
    action = (ctypes.c_ulong * 4)(1)  # SIG_IGN
    same(ctypes.CDLL(None, use_errno=True).syscall(call, number, action, None, 8), 0)


def starts():
    for number in (32, 33, 40):
        ignore_kernel_signal(number)
    k = Keeper()
    try:
        with open("/etc/passwd", "rb") as leak:
            pass
        m = k.start("facts", dir=k.folder.name, env=["NODE_ENV=production"])
        assert m["pid"] > 0 and len(m["fds"]) == 3, m
        facts = eval(k.line())
        same(facts["fds"], [0, 1, 2, 3])  # 3: the folder that it reads just now
        same(facts["links"]["0"], "/dev/null")
        assert facts["links"]["1"].startswith("pipe:") and facts["links"]["2"].startswith("pipe:"), facts
        assert facts["links"]["1"] != facts["links"]["2"], facts
        same((facts["session"], facts["cwd"]), (True, k.folder.name))
        same({n: v for n, v in facts["env"].items() if n not in ("LC_CTYPE",)},
             dict(e.split("=", 1) for e in (PATH, k.mark, "NODE_ENV=production")))
        same(int(facts["ignored"], 16) & ~(1 << 12 | 1 << 24), 0)  # python's own: PIPE, XFSZ
        same(facts["blocked"], "0" * 16)
        same(facts["files"], resource.getrlimit(resource.RLIMIT_NOFILE))
        m = k.hear(EXITED)
        same((m["status"], m["pid"] > 0), (0, True))
        until(lambda: not k.wardens())
    finally:
        k.end()


def fails():
    k = Keeper()
    plain, script = f"{k.folder.name}/plain", f"{k.folder.name}/script"
    for path, text in ((plain, "echo no"), (script, "#!/no/such/interpreter\n")):
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
    os.chmod(script, 0o755)
    try:
        for more, want in (({"run": ["no-such-program"]}, "run: no-such-program: there is no such "
                            "program in its PATH"), ({"run": ["./no"]}, "run: ./no: no such file"),
                           ({"run": [script]}, "interpreter"),
                           ({"run": [plain]}, "may not execute it"),
                           ({"run": ["/"]}, "run: /"),
                           ({"run": ["true"], "dir": "/no/such"}, "dir: /no/such: there is no such"),
                           ({"run": ["true"], "user": "no-such-user-here"}, "there is no such user"),
                           ({"run": []}, "nothing to run"), ({"run": ["true"], "service": "a/b"},
                           "name")):
            k.begin(**more)
            m = k.hear(FAILED)
            same(m["instance"], k.instance)
            assert want in m["text"], m
        os.chmod(plain, 0o755)
        k.begin(run=[plain])
        assert "no first line" in k.hear(FAILED)["text"]
        until(lambda: not k.wardens())
        k.start("sleep")
        k.line()
    finally:
        k.end()


def tells_status():
    k = Keeper()
    try:
        k.start(run=["sh", "-c", "exit 7"])
        same(os.waitstatus_to_exitcode(k.hear(EXITED)["status"]), 7)
        k.start(run=["sh", "-c", "kill -SEGV $$"])
        same(os.WTERMSIG(k.hear(EXITED)["status"]), signal.SIGSEGV)
    finally:
        k.end()


def leaks_nothing():
    k = Keeper()
    count = lambda: len(os.listdir(f"/proc/{k.process.pid}/fd"))
    try:
        k.start(run=["true"])
        k.hear(EXITED)
        until(lambda: not k.wardens())
        before = count()
        for _ in range(30):
            k.start(run=["true"])
            k.hear(EXITED)
            k.begin(run=["no-such-program"])
            k.hear(FAILED)
        until(lambda: count() <= before and not k.wardens(), "descriptors stayed")
    finally:
        k.end()


def limits_files():
    k = Keeper()
    try:
        k.start("facts", files=123)
        same(eval(k.line())["files"], (123, 123))
    finally:
        k.end()


# --- stopping ---

def stops():
    k = Keeper()
    try:
        k.start("polite")
        k.line()
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=20000)
        same(k.hear(EXITED)["status"], 0)
        assert k.line().startswith("bye")
        k.grow()
        begin = time.monotonic()
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=200)
        same(os.WTERMSIG(k.hear(EXITED)["status"]), signal.SIGKILL)
        assert 0.2 <= time.monotonic() - begin < 10
        same(k.marked(), [])
        k.send(kind=STOP, instance=12345, signal=signal.SIGTERM, timeout_ms=5000)
        m = k.hear(EXITED)
        same((m["instance"], m["status"]), (12345, 0))
    finally:
        k.end()


def stops_stopped():
    """One that SIGSTOP holds hears SIGTERM all the same."""
    k = Keeper()
    try:
        pid = k.start("polite")["pid"]
        k.line()
        os.kill(pid, signal.SIGSTOP)
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=20000)
        same(k.hear(EXITED)["status"], 0)
    finally:
        k.end()


def signals():
    k = Keeper()
    try:
        k.start(run=["sh", "-c", "trap 'echo hup' HUP; echo ready; while :; do sleep 0.01; done"])
        same(k.line(), "ready")
        k.send(kind=SIGNAL, instance=k.instance, signal=signal.SIGHUP)
        same(k.line(), "hup")
        k.send(kind=SIGNAL, instance=999, signal=signal.SIGKILL)
    finally:
        k.end()


def rest_is_killed():
    """The first process ends: a daemon that it left behind goes with it, before EXITED is told."""
    k = Keeper()
    try:
        k.start("orphaned")
        k.orphan()
        same(k.hear(EXITED)["status"], 0)
        same(k.marked(), [])
    finally:
        k.end()


def hidden_rest():
    """A /proc that hides the processes of others from who may not trace them, as wardens may not, and no
    control groups."""
    need_root()
    hide = ("mount -t proc -o hidepid=2,gid=4242 proc /proc && mount -t tmpfs none /sys/fs/cgroup && "
            "exec \"$@\"")
    if subprocess.run(["unshare", "--mount", "sh", "-c", hide, "sh", "true"], capture_output=True,
                      check=False).returncode != 0:
        raise Skip("/proc cannot be mounted here")
    k = Keeper(prefix=["unshare", "--mount", "sh", "-c", hide, "sh"])
    try:
        k.start("orphaned", user=OTHER)
        k.orphan()
        same(k.hear(EXITED)["status"], 0)
        same(k.marked(), [])
        k.grow(user=OTHER)
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=100)
        k.hear(EXITED)
        same(k.marked(), [])
    finally:
        k.end()


def bomb():
    """Forks faster than it is killed, in one session; each generation ends at once."""
    k = Keeper()
    code = "import os\nwhile True:\n    if os.fork() > 0: os._exit(0)\n"
    try:
        k.start(run=["/usr/bin/python3", "-c", code])
        m = k.hear(EXITED)
        same(m["status"], 0)
        same(k.marked(), [])
    finally:
        k.end()


# --- deaths ---

DEATHS = [(), ("keeper",), ("server",), ("warden",), ("keeper", "server"), ("keeper", "warden"),
          ("server", "warden"), ("keeper", "server", "warden"), ("guardhouse",),
          ("guardhouse", "warden"), ("keeper", "guardhouse"), ("keeper", "server", "guardhouse")]


def kill_parts(k, pid, parts):
    victims = {"keeper": k.process.pid, "server": k.server, "warden": k.warden_of(pid),
               "guardhouse": k.guardhouse()}
    pids = [victims[p] for p in parts]
    for p in pids:
        os.kill(p, signal.SIGSTOP)  # none sees the other's end before its own
    for p in pids:
        with contextlib.suppress(ProcessLookupError):  # some end with their parents
            os.kill(p, signal.SIGKILL)


def no_orphans():
    for parts in DEATHS:
        k = Keeper()
        try:
            k.ready()
            pid = k.grow()["pid"]
            kill_parts(k, pid, parts)
            if parts and parts != ("server",):
                until(lambda: not k.marked(), lambda: f"{parts}: left over: {k.family()} {k.text()}")
            if "keeper" in parts:
                k.process.wait(PATIENCE)
            elif "server" in parts:
                k.accept()
                same(alive(pid), "warden" not in parts)
        finally:
            k.end()


def predecessor():
    """All guards are killed at once: the next keeper ends what they left in control groups."""
    k, after = Keeper(), None
    try:
        k.ready()
        pid = k.grow()["pid"]
        if not k.groups():
            raise Skip("no control group of version 2 is delegated here")
        kill_parts(k, pid, ("keeper", "server", "warden", "guardhouse"))
        k.process.wait(PATIENCE)
        after = Keeper()
        until(lambda: not k.marked(), "left over")
        until(lambda: not k.groups(), "a control group was left over")  # removed behind its last process
    finally:
        if after:
            after.end()
        k.end(how=None)


def delegated():
    """A keeper that is not root, in a control group that was given to its user."""
    need_root()
    with open("/proc/self/mountinfo", encoding="ascii") as f:
        mount = next((line.split()[4] for line in f if " - cgroup2 " in line), None)
    with open("/proc/self/cgroup", encoding="ascii") as f:
        own = next((line[3:].strip() for line in f if line.startswith("0::")), None)
    if not mount or not own or os.path.exists("/run/systemd/system"):
        raise Skip("no control group of version 2 to be had here")
    group = f"{mount}{own}/test-{os.getpid()}"
    try:
        os.mkdir(group)
    except OSError as why:
        raise Skip(f"no control group can be made here: {why}") from why
    k = None
    try:
        for path in (group, f"{group}/cgroup.procs", f"{group}/cgroup.subtree_control"):
            os.chown(path, 65534, 65534)
        k = Keeper(prefix=["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", "setpriv",
                           "--reuid=65534", "--regid=65534", "--clear-groups"], cwd="/")
        k.grow()
        name, = [n for n in os.listdir(group) if n.startswith("portico.")]

        def inside():
            with open(f"{group}/{name}/cgroup.procs", encoding="ascii") as f:
                return sorted(map(int, f))
        until(lambda: inside() == sorted(k.marked()), lambda: (inside(), k.marked()))
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=50)
        k.hear(EXITED)
        same((k.marked(), [n for n in os.listdir(group) if n.startswith("portico.")]), ([], []))
    finally:
        if k:
            k.end()
        for inner in os.listdir(group):
            if os.path.isdir(f"{group}/{inner}"):
                os.rmdir(f"{group}/{inner}")
        os.rmdir(group)


TASKS = """
import os, time
started = 0
for _ in range(40):
    try:
        if os.fork() == 0:
            time.sleep(1000)
    except OSError as why:
        print(started, why.strerror, flush=True)
        break
    started += 1
else:
    print(started, "all", flush=True)
time.sleep(1000)
"""
BUSY = """
import os, time
print("ready", flush=True)
while True:
    pass
"""


def in_group(k, service, file):
    name, = [n for n in k.groups() if f".{service}.0." in n]
    with open("/proc/self/mountinfo", encoding="ascii") as f:
        mount = next(line.split()[4] for line in f if " - cgroup2 " in line)
    path = next(f"{folder}/{name}" for folder, names, _ in os.walk(mount) if name in names)
    with open(f"{path}/{file}", encoding="ascii") as f:
        return f.read()


def limits():
    """In force: Debian's own kernel has the controllers where this machine's has not (dev/vm)."""
    k = Keeper()
    try:
        k.begin(run=["/usr/bin/python3", "-c", "x = b'x' * (1 << 28)"], memory=1 << 25)
        m = k.hear()
        if m["kind"] == FAILED:
            assert "limits: memory is not to be had here: " in m["text"], m
            for more in ({"tasks": 5}, {"cpu": 0.5}):
                k.begin(run=["true"], **more)
                assert "not to be had here" in k.hear(FAILED)["text"]
            raise Skip("no controllers here: refused, as it should be")
        m = k.hear(EXITED)
        same(os.WTERMSIG(m["status"]), signal.SIGKILL)
        assert "more memory than its limit" in m["text"], m
        k.start(run=["/usr/bin/python3", "-c", TASKS], tasks=7, service="many")
        same(k.line(), "6 Resource temporarily unavailable")  # and it itself
        k.start(run=["/usr/bin/python3", "-c", BUSY], cpu=0.25, service="busy")
        same((k.line(), in_group(k, "busy", "cpu.max")), ("ready", "25000 100000\n"))

        def throttled():
            return int(in_group(k, "busy", "cpu.stat").split("nr_throttled ")[1].split()[0])
        until(lambda: throttled() >= 3, "it has the whole processor")
    finally:
        k.end()


def warden_dies():
    k = Keeper()
    try:
        pid = k.grow(replica=3)["pid"]
        with open(f"/proc/{k.warden_of(pid)}/cmdline", encoding="ascii") as f:
            same(f.read().rstrip("\0"), "warden of s.3")
        os.kill(k.warden_of(pid), signal.SIGKILL)
        m = k.hear(EXITED)
        same((m["instance"], m["status"]), (k.instance, signal.SIGKILL))
        assert "warden" in m["text"], m
        same(k.marked(), [])
        same(sorted(k.children()), sorted([k.server, k.guardhouse()]))
        k.start("sleep")
        k.line()
        k.grow()
        os.kill(k.guardhouse(), signal.SIGKILL)
        for _ in range(2):
            same(k.hear(EXITED)["status"], signal.SIGKILL)
        same((k.marked(), k.children()), ([], [k.server]))
        k.start("sleep")
        k.line()
    finally:
        k.end()


def guards_hang():
    """A warden, then the guardhouse, is held by SIGSTOP: stops and ends are bounded all the same."""
    k = Keeper()
    try:
        pid = k.grow()["pid"]
        os.kill(k.warden_of(pid), signal.SIGSTOP)
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=50)
        same(k.hear(EXITED)["status"], signal.SIGKILL)
        same(k.marked(), [])
        pid = k.grow(timeout_ms=50)["pid"]
        os.kill(k.guardhouse(), signal.SIGSTOP)
    finally:
        begin = time.monotonic()
        k.end()
    assert time.monotonic() - begin < 25


def end_waits_for_strays():
    """The guardhouse and the server are killed, the keeper is told to end: it ends behind the last stray."""
    k = Keeper()
    try:
        k.grow()
        k.process.send_signal(signal.SIGSTOP)
        k.process.send_signal(signal.SIGTERM)
        for pid in (k.guardhouse(), k.server):
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not alive(pid))
        k.process.send_signal(signal.SIGCONT)
        same(k.process.wait(PATIENCE), 1)
        same((k.marked(), k.groups()), ([], []))
    finally:
        k.end()


# --- a server that comes again ---

def crash_server(k):
    os.kill(k.server, signal.SIGKILL)
    k.wire.close()
    k.accept()


def adopted():
    k = Keeper()
    try:
        first = k.start("sleep", service="a", replica=2, port=3000, digest=77)
        k.line()
        second = k.start(run=["sh", "-c", "echo ready; read x < /dev/zero || sleep 0.3; exit 9"],
                         service="b")
        k.line()
        third = k.start("sleep", service="c")
        k.line()
        k.ready()
        os.kill(k.server, signal.SIGKILL)
        k.wire.close()
        k.accept()
        os.kill(third["pid"], signal.SIGKILL)  # not before: it might be told to the one that is gone
        until(lambda: not alive(third["pid"]))
        k.send(kind=LIST)
        a, b, c = k.hear(LISTED), k.hear(LISTED), k.hear(LISTED)
        same([(m["name"], m["pid"], m["instance"]) for m in (a, b, c)],
             [("a", first["pid"], 1), ("b", second["pid"], 2), ("c", third["pid"], 3)])
        same((a["replica"], a["port"], a["digest"], len(a["fds"])), (2, 3000, 77, 3))
        assert abs(a["started_ns"] / 1e9 - time.time()) < 30
        for m in (a, b, c):
            for fd in m["fds"]:
                os.close(fd)
        k.hear(END)
        m = k.hear(EXITED)
        same((m["instance"], m["name"], os.WTERMSIG(m["status"])), (3, "c", signal.SIGKILL))
        k.send(kind=STOP, instance=2, signal=signal.SIGKILL, timeout_ms=1000)
        same(k.hear(EXITED)["instance"], 2)
        k.send(kind=LIST)
        for fd in k.hear(LISTED)["fds"]:
            os.close(fd)
        k.hear(END)
        assert alive(first["pid"])
    finally:
        k.end()


def ended_is_listed_once():
    """The guardhouse is slow to say that nothing of a program is left."""
    k = Keeper()

    def listed():
        k.send(kind=LIST)
        names = []
        while (m := k.hear())["kind"] == LISTED:
            names.append(m["name"])
            for fd in m["fds"]:
                os.close(fd)
        same(m["kind"], END)
        return names
    try:
        warden = k.warden_of(k.start("sleep", service="a")["pid"])
        k.start("sleep", service="b")
        os.kill(k.guardhouse(), signal.SIGSTOP)
        k.send(kind=STOP, instance=1, signal=signal.SIGKILL, timeout_ms=1000)
        until(lambda: not alive(warden))
        for _ in range(3):
            same(listed(), ["a", "b"])
        os.kill(k.guardhouse(), signal.SIGCONT)
        m = k.hear(EXITED)
        same((m["instance"], os.WTERMSIG(m["status"])), (1, signal.SIGKILL))
        same(listed(), ["b"])
    finally:
        k.end()


def unclaimed():
    """A new server that does not ask for the list does not want them."""
    k = Keeper()
    try:
        pid = k.start("sleep")["pid"]
        k.line()
        k.ready()
        crash_server(k)
        assert alive(pid)
        k.send(keeper=KEEPER_READY)
        until(lambda: not alive(pid))
    finally:
        k.end()


def output_is_drained():
    """A program that writes all the while is not held up by a server that is away."""
    k = Keeper()
    mark = f"{k.folder.name}/count"
    count = lambda: int("0" + open(mark, encoding="ascii").read()) if os.path.exists(mark) else 0
    try:
        k.ready()
        k.start("chatter", mark)
        out = k.outputs.pop(k.instance)
        out.read(100)
        out.close()
        os.kill(k.server, signal.SIGKILL)
        k.wire.close()
        k.accept()  # and it does not take the program over yet
        before = count()
        until(lambda: count() > before + 500, "held up")  # 2 MB: more than the pipe holds
        k.send(kind=LIST)
        m = k.hear(LISTED)
        k.hear(END)
        assert os.read(m["fds"][0], 10)
        for fd in m["fds"]:
            os.close(fd)
        until(lambda: "output was lost" in k.text())
    finally:
        k.end()


# --- the keeper's own end ---

def reverse_order():
    k = Keeper()
    try:
        for name in ("a", "b", "c"):
            for replica in (0, 1):
                k.start("polite", service=name, replica=replica, timeout_ms=20000)
                k.line()
        k.process.send_signal(signal.SIGTERM)
        same(k.process.wait(PATIENCE), 0)
        times = [float(k.line(i).split()[1]) for i in range(1, 7)]
        assert max(times[4:6]) <= min(times[2:4]) and max(times[2:4]) <= min(times[0:2]), times
    finally:
        k.end()


def end_is_bounded():
    """Each has its own timeout; a second signal does not wait."""
    k = Keeper()
    begin = time.monotonic()
    try:
        for name in ("a", "b"):
            k.grow(service=name, timeout_ms=150)
    finally:
        begin = time.monotonic()
        k.end()
    assert 0.3 <= time.monotonic() - begin < 20
    k = Keeper()
    try:
        k.grow(timeout_ms=60000)
        k.process.send_signal(signal.SIGTERM)
        until(lambda: not alive(k.server))
        time.sleep(0.1)
        same(k.process.poll(), None)
        begin = time.monotonic()
    finally:
        k.end()
    assert time.monotonic() - begin < 20


# --- users ---

def other_user():
    need_root()
    k = Keeper()
    user = pwd.getpwnam(OTHER)
    try:
        k.start("facts", user=OTHER)
        facts = eval(k.line())
        same((facts["uid"], facts["gid"]), ((user.pw_uid,) * 3, (user.pw_gid,) * 3))
        same(facts["groups"], os.getgrouplist(OTHER, user.pw_gid))
        same(facts["caps"], ["0" * 16] * 5)
        k.hear(EXITED)
        k.start("facts", user=OTHER, group="daemon")
        facts = eval(k.line())
        same((facts["gid"][0], facts["groups"]), (1, [1]))
        k.hear(EXITED)
        k.grow(user=OTHER)
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=100)
        k.hear(EXITED)
        same(k.marked(), [])
    finally:
        k.end()


def servers_rights():
    """Without a user a program has the server's rights; root by name is root."""
    need_root()
    k = Keeper()
    read_search = f"{1 << 2:016x}"
    try:
        k.start("facts")
        facts = eval(k.line())
        same((facts["uid"][0], facts["nnp"]), (0, "1"))
        same(facts["caps"][1:4], [read_search] * 3)
        k.hear(EXITED)
        k.start("facts", user="root")
        facts = eval(k.line())
        same((facts["uid"][0], facts["nnp"]), (0, "0"))
        assert int(facts["caps"][2], 16) & 1 << 7, facts  # SETUID
    finally:
        k.end()


def bounds_server():
    """A server of another user names only whom its first configuration named, and never root."""
    need_root()
    k = Keeper(user=OTHER)
    try:
        k.send(kind=ALLOW, text="daemon")
        k.send(kind=ALLOW, text="root")
        k.send(kind=ALLOW, text="bin:root")
        k.send(keeper=KEEPER_LISTEN)
        k.send(kind=ALLOW, text="www-data")
        k.start("facts", user="daemon")
        same(eval(k.line())["uid"][0], 1)
        k.hear(EXITED)
        k.start("facts")
        facts = eval(k.line())
        same((facts["uid"][0], facts["caps"]), (pwd.getpwnam(OTHER).pw_uid, ["0" * 16] * 5))
        k.hear(EXITED)
        for user, group, want in (("www-data", "", "restart portico"), ("root", "", "root's only"),
                                  ("bin", "root", "root's only"), ("daemon", "root", "restart"),
                                  ("1", "", "restart"), ("", "root", "group without")):
            k.begin("facts", user=user, group=group)
            m = k.hear(FAILED)
            assert want in m["text"], m
        os.kill(k.server, signal.SIGKILL)  # it was never ready: the keeper ends
    finally:
        k.end(how=None, status=1)


def few_capabilities():
    """Those that SECURITY.md names for users are enough."""
    need_root()
    k = Keeper(user=OTHER, prefix=["setpriv", "--bounding-set=-all,+setuid,+setgid,+setpcap,+kill"])
    try:
        k.send(kind=ALLOW, text="daemon")
        k.send(keeper=KEEPER_LISTEN)
        k.start("facts", user="daemon")
        facts = eval(k.line())
        same((facts["uid"], facts["caps"]), ((1, 1, 1), ["0" * 16] * 5))
        k.hear(EXITED)
        k.grow(user="daemon")
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=100)
        k.hear(EXITED)
        same(k.marked(), [])
        warden = k.warden_of(k.start("sleep", user="daemon")["pid"])
        with open(f"/proc/{warden}/status", encoding="ascii") as f:
            caps = dict(line.split(":\t") for line in f if line.startswith("Cap"))
        same(int(caps["CapEff"], 16), 1 << 5)  # KILL
        k.ready()
    finally:
        k.end()


def guardhouse_sleeps():
    """Its rights are there, and asleep but while a program begins or ends; also behind the last one."""
    need_root()
    k = Keeper(user=OTHER)

    def sets():
        with open(f"/proc/{k.guardhouse()}/status", encoding="ascii") as f:
            caps = dict(line.split(":\t") for line in f if line.startswith("Cap"))
        return int(caps["CapPrm"], 16) != 0, int(caps["CapEff"], 16)
    try:
        k.ready()
        k.grow()
        until(lambda: sets() == (True, 0), sets)
        pid = k.guardhouse()
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=50)
        k.hear(EXITED)
        same(k.marked(), [])
        until(lambda: sets() == (True, 0), sets)
        k.grow()  # and they wake again: it is the other user's
        os.kill(k.warden_of(k.start("sleep")["pid"]), signal.SIGKILL)  # so do those that kill what is left
        same(os.WTERMSIG(k.hear(EXITED)["status"]), signal.SIGKILL)
        same(k.guardhouse(), pid)
        until(lambda: sets() == (True, 0), sets)
    finally:
        k.end()


def without_root():
    need_root()
    k = Keeper(prefix=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], cwd="/")
    try:
        k.start("facts")
        same(eval(k.line())["uid"][0], 65534)
        k.hear(EXITED)
        k.start("facts", user="65534", group="65534")
        same(eval(k.line())["uid"][0], 65534)
        k.hear(EXITED)
        k.begin("facts", user="daemon")
        assert "only a portico that root started" in k.hear(FAILED)["text"]
    finally:
        k.end()


# --- confinement ---

def confined():
    k = Keeper()
    port, other = free_port(), free_port()
    try:
        m = k.start("listen", port, other, port=port, confine=True)
        if m["text"]:
            raise Skip(m["text"])
        same([k.line() for _ in range(3)], ["bound True", "bound True", "refused Permission denied"])
        k.start("listen", port, other, port=port)
        same([k.line() for _ in range(3)], ["bound True"] * 3)
        k.start("facts", confine=True)
        same(eval(k.line())["nnp"], "1")
    finally:
        k.end()


# --- sockets ---

def ask(port):
    with socket.create_connection(("127.0.0.1", port), 30) as c:
        c.sendall(b"?")
        return int(c.makefile("rb").read())


def socket_is_kept():
    """A client that comes while the program is away is answered by the next one."""
    k = Keeper()
    port = free_port()
    more = {"socket": True, "host": "127.0.0.1", "port": port, "env": ["LISTEN_FDS=1"]}
    try:
        first = k.start("serve", **more)["pid"]
        k.line()
        same(ask(port), first)
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=1000)
        k.hear(EXITED)
        with socket.create_connection(("127.0.0.1", port), 30) as c:
            c.sendall(b"?")
            second = k.start("serve", **more)["pid"]
            same(int(c.makefile("rb").read()), second)
        k.send(kind=STOP, instance=k.instance, signal=signal.SIGTERM, timeout_ms=1000)
        k.hear(EXITED)
        k.send(kind=RELEASE, name="s", replica=0)
        k.start(run=["true"])
        k.hear(EXITED)
        try:
            ask(port)
            raise AssertionError("still held")
        except ConnectionRefusedError:
            pass
        with socket.create_server(("127.0.0.1", port)):
            k.begin("serve", **more)
            assert "already in use" in k.hear(FAILED)["text"]
    finally:
        k.end()


# --- exec ---

def executes():
    k = Keeper()
    try:
        read, write = os.pipe()
        with open("/dev/null", "r+b") as null:
            k.begin(run=["sh", "-c", "echo out; echo err >&2; exit 3"], kind=EXEC,
                    fds=[null.fileno(), write, write])
        os.close(write)
        m = k.hear(STARTED)
        for fd in m["fds"]:
            os.close(fd)
        same(os.waitstatus_to_exitcode(k.hear(EXITED)["status"]), 3)
        with os.fdopen(read, "rb") as out:
            same(out.read(), b"out\nerr\n")
        with open("/dev/null", "r+b") as null:
            k.begin("deaf", kind=EXEC, fds=[null.fileno()] * 3)
        pid = k.hear(STARTED)["pid"]
        k.ready()
        crash_server(k)
        until(lambda: not alive(pid))
    finally:
        k.end()


def enter(k, m, *command, port=0, confine=0, prefix=()):
    return subprocess.run([*prefix, DRIVER, "enter", str(m["pid"]), str(port), str(confine), *command],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, timeout=60)


def enters():
    need_root()
    k = Keeper()
    port = free_port()
    try:
        m = k.start("sleep", user=OTHER, dir=k.folder.name, env=["COLOUR=red"], confine=True,
                    port=port)
        k.line()
        done = enter(k, m, "sh", "-c", "echo $(id -u) $PWD $COLOUR $HOME; exit 4", port=port, confine=1)
        same((done.returncode, done.stdout),
             (4, f"{pwd.getpwnam(OTHER).pw_uid} {k.folder.name} red\n"))
        done = enter(k, m, "/usr/bin/python3", k.program, "facts")
        facts = eval(done.stdout)
        same((facts["nnp"], facts["caps"]), ("1", ["0" * 16] * 5))
        assert "no such program" in enter(k, m, "no-such-program").stdout
        m = k.start("sleep")
        done = enter(k, m, "id", prefix=["setpriv", "--reuid=1", "--regid=1", "--clear-groups"])
        assert done.returncode == 125 and "only root and its own user" in done.stdout, done
    finally:
        k.end()


# --- a server that was taken over ---

def sealed(content):
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 15)
    return fd


def says_anything():
    """Messages that make no sense: each START is refused, none of the rest does anything."""
    k = Keeper()
    count = lambda: len(os.listdir(f"/proc/{k.process.pid}/fd"))
    rng = random.Random(1)
    try:
        k.start(run=["true"])
        k.hear(EXITED)
        pid = k.start("sleep")["pid"]
        k.line()
        own, before = k.instance, count()
        read, write = os.pipe()
        plain = os.memfd_create("x")
        strange = [[], [read], [write], [plain], [0] * 8, [sealed(b"")], [sealed(b"LAUN" * 50)],
                   [sealed(rng.randbytes(5000))], [sealed(b"\0" * (1 << 20))],
                   [sealed(b"x" * ((1 << 20) + 1))]]
        for n, fds in enumerate(strange):
            for kind in (START, EXEC):
                k.send(fds, kind=kind, instance=1000 + 2 * n + (kind == EXEC), signal=-(1 << 31),
                       timeout_ms=(1 << 32) - 1)
                same(k.hear(FAILED)["instance"], 1000 + 2 * n + (kind == EXEC))
        k.send([sealed(b"")], kind=START, instance=own)  # used already
        k.hear(FAILED)
        for number in (0, -1, -(1 << 31), 65, 1 << 30):
            k.send(kind=SIGNAL, instance=own, signal=number)
        for _ in range(300):
            k.send([read] * rng.randrange(8), kind=rng.choice([0, 8, 63, 64, 65, 66, 67, 68, 1 << 31]),
                   instance=rng.choice([0, own, 7]), signal=rng.randrange(-100, 100))
        k.send(kind=STOP, instance=1 << 40, signal=9, again=2500)  # answers that nobody reads yet
        for _ in range(2000):
            k.hear(EXITED)
        k.send(kind=LIST)
        while (m := k.hear())["kind"] != LISTED:
            same(m["kind"], EXITED)
        for fd in m["fds"]:
            os.close(fd)
        while k.hear()["kind"] != END:
            pass
        assert alive(pid)
        for fd in {fd for fds in strange for fd in fds if fd > 2} | {write}:
            os.close(fd)
        until(lambda: count() <= before, "descriptors stayed")
        for _ in range(100):  # the table is full until all is told
            k.begin(run=["true"])
            while (m := k.hear())["instance"] != k.instance:
                pass
            if m["kind"] == STARTED:
                break
            assert "programs already" in m["text"], m
            time.sleep(0.02)
        same(m["kind"], STARTED)
    finally:
        k.end()


CASES = [
    ("whatever the server says, the keeper goes on and keeps nothing", says_anything),
    ("a program gets its words, environment, folder, session, and no descriptor of portico's", starts),
    ("what cannot be started is told in a sentence, and leaves nothing", fails),
    ("how a program ended is told", tells_status),
    ("a hundred starts leave no descriptor and no zombie", leaks_nothing),
    ("a limit of files is kept", limits_files),
    ("a stop is a signal, then the timeout, then SIGKILL to the whole tree", stops),
    ("a program that was stopped by SIGSTOP hears a stop", stops_stopped),
    ("a signal goes to the first process", signals),
    ("daemons that a program leaves behind end with it", rest_is_killed),
    ("so do those that /proc hides from their warden", hidden_rest),
    ("a chain of forks is ended", bomb),
    ("no process is left over when keeper, server, warden or several of them are killed", no_orphans),
    ("what all guards together left is ended by the next keeper, in control groups", predecessor),
    ("a keeper of another user divides the control group that was given to it", delegated),
    ("limits of memory, tasks and cpu are kept, or refused with a sentence", limits),
    ("a warden that is killed takes its program with it, and the keeper goes on", warden_dies),
    ("guards that hang hold neither a stop nor the end", guards_hang),
    ("the keeper's end waits for what a guardhouse that was killed has left", end_waits_for_strays),
    ("a new server lists what runs, and hears of what ended meanwhile", adopted),
    ("an end is told once nothing is left of the program, and it is not listed any more", ended_is_listed_once),
    ("what a new server does not ask for is stopped", unclaimed),
    ("a program's output never waits for a server that is down", output_is_drained),
    ("the keeper stops services in the reverse order of their starts", reverse_order),
    ("the keeper's end is bounded by the timeouts, and a second signal does not wait", end_is_bounded),
    ("a program's user, groups and capabilities are those that were named", other_user),
    ("without a user a program has the server's rights", servers_rights),
    ("a server of another user cannot become anybody, nor root", bounds_server),
    ("SETUID, SETGID, SETPCAP and KILL are all that services of other users need", few_capabilities),
    ("rights of the process that starts programs sleep, with programs and without", guardhouse_sleeps),
    ("without root a program is nobody else's", without_root),
    ("a confined program binds its own port and port 0 only", confined),
    ("a socket outlives its program, and no client is refused", socket_is_kept),
    ("a command runs with the stdio that it was given, and ends with the server", executes),
    ("a command beside a program has its user, environment, folder and confinement", enters),
]


sys.exit(run_tests(CASES) > 0)
