#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The commands, as TAP: flags, texts, exit statuses, and what they do to a running server.
Usage: cli_test.py PORTICO. Ports are free ones that the kernel names; everything started is ended."""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from server import free_port, has, run_tests, same  # noqa: E402 (beside this file)

PORTICO = os.path.abspath(sys.argv[1])


class Place:
    """A folder with its own HOME, and what runs in it."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="portico-cli-")
        self.path = self.folder.name
        self.env = dict(os.environ, HOME=self.path, PORTICO_WORKERS="1", PORTICO_IO="epoll")
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "CADDY_ADMIN", "NOTIFY_SOCKET"):
            self.env.pop(name, None)
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.folder.cleanup()

    def write(self, name, what):
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(what if isinstance(what, str) else json.dumps(what))
        return path

    def run(self, *arguments, program=PORTICO, status=0, stdin=subprocess.DEVNULL, **env):
        """Exit status checked; (stdout, stderr)."""
        more = {"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}
        # Through files: a server that `start` leaves behind would keep a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run([program, *arguments], cwd=self.path, env=dict(self.env, **env),
                                  stdout=out, stderr=err, text=True, timeout=60, check=False, **more)
            out.seek(0)
            err.seek(0)
            text, errors = out.read(), err.read()
        assert "Sanitizer" not in errors, errors
        assert done.returncode == status, f"{arguments}: status {done.returncode}: {text}{errors}"
        return text, errors

    def spawn(self, *arguments, program=PORTICO, stdin=subprocess.DEVNULL, **env):
        self.log = open(os.path.join(self.path, "log"), "w+b")
        process = subprocess.Popen([program, *arguments], cwd=self.path, env=dict(self.env, **env),
                                   stdin=stdin, stdout=self.log, stderr=subprocess.STDOUT)
        self.started.append(process)
        return process

    def text(self):
        with open(os.path.join(self.path, "log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait(self, condition, seconds=40):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                got = condition()
                if got:
                    return got
            except OSError:
                pass
            time.sleep(0.03)
        raise AssertionError("not reached; log: " + (self.text() if self.started else ""))

    def logged(self, *parts):
        """Lines are written a moment later than they are told."""
        for part in parts:
            self.wait(lambda: part in self.text())

    def end(self, process, how=signal.SIGTERM, status=0):
        process.send_signal(how)
        same(process.wait(60), status)
        assert "Sanitizer" not in self.text(), self.text()


def get(port, path="/", host="127.0.0.1", method="GET", headers=None, body=None):
    c = http.client.HTTPConnection(host, port, timeout=30)
    try:
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        return r.status, r.read().decode(), r.headers
    finally:
        c.close()


def document(port, admin, body="hello"):
    routes = [{"@id": "first", "handle": [{"handler": "static_response", "body": body}]}]
    return {"admin": {"listen": f"localhost:{admin}"},
            "apps": {"http": {"servers": {"srv0": {"listen": [f"127.0.0.1:{port}"],
                                                   "routes": routes}}}}}


# --- help, flags ---

def helps():
    with Place() as p:
        out, _ = p.run()
        has(out, "Usage:\n  portico [command]", "Available Commands:")
        same(p.run("help")[0], out)
        same(p.run("--help")[0], out)
        for name in re.findall(r"^  ([a-z-]+) +[A-Z]", out, re.M):
            text = p.run("help", name)[0]
            has(text, f"Usage:\n  portico {name} ", "Flags:\n", "--help")
            same(p.run(name, "--help")[0], text)
            same(p.run(name, "-h")[0], text)
        has(p.run("help", "run")[0], "  -c, --config string ", "      --pidfile string ",
            "  -r, --resume  ")


def refuses_flags():
    with Place() as p:
        for arguments, text in ((["nonsense"], 'unknown command "nonsense" for "portico"'),
                                (["help", "nonsense"], 'unknown command "nonsense"'),
                                (["run", "--nonsense"], "unknown flag: --nonsense"),
                                (["run", "-z"], "unknown shorthand flag: 'z' in -z"),
                                (["run", "--config"], "flag needs an argument: --config"),
                                (["run", "-c"], "flag needs an argument: 'c' in -c"),
                                (["run", "--watch=maybe"], 'invalid argument "maybe" for "--watch"'),
                                (["version", "x"], 'unexpected argument "x"')):
            _, err = p.run(*arguments, status=1)
            assert err.startswith("Error: ") and text in err, (arguments, err)


def versions():
    with Place() as p:
        out = p.run("version")[0]
        assert re.fullmatch(r"v\d+\.\d+\.\d+\n", out), out
        same(p.run("--version")[0], out)
        same(p.run("-v")[0], out)


def environs():
    with Place() as p:
        p.write("more.env", "# more\nADDED=one two\nexport QUOTED=\"a\nb\"\nHOME=/not/this\n")
        out = p.run("environ", "--envfile", "more.env", MARK="x=y")[0]
        has(out, f"portico.HomeDir={p.path}\n", f"portico.AppDataDir={p.path}/.local/share/portico\n",
            f"portico.ConfigAutosavePath={p.path}/.config/portico/autosave.json\n", "MARK=x=y\n",
            "ADDED=one two\n", "QUOTED=a\nb\n", f"HOME={p.path}\n")
        has(p.run("environ", XDG_CONFIG_HOME="/a", XDG_DATA_HOME="/b")[0],
            "portico.AppConfigDir=/a/portico\n", "portico.AppDataDir=/b/portico\n")
        has(p.run("environ", "--envfile", "none.env", status=1)[1], "none.env")
        p.write("bad.env", "NO VALUE\n")
        has(p.run("environ", "--envfile", "bad.env", status=1)[1], "parsing environment file")


def validates():
    with Place() as p:
        p.write("good.json", document(1, 2))
        p.write("bad.json", {"apps": {"http": {"nonsense": 1}}})
        same(p.run("validate", "--config", "good.json")[0], "Valid configuration\n")
        has(p.run("validate", "--config", "bad.json", status=1)[1], "nonsense")
        p.run("validate", "--config", "none.json", status=1)
        p.run("validate", status=1)
        twice = document(1, 2)
        twice["apps"]["http"]["servers"]["srv0"]["@id"] = "first"
        p.write("twice.json", twice)
        has(p.run("validate", "--config", "twice.json", status=1)[1], "duplicate ID 'first'")


# --- run, start, stop, reload ---

@contextlib.contextmanager
def running(place, *flags, program=PORTICO, **env):
    port, admin = free_port(), free_port()
    place.write("c.json", document(port, admin))
    process = place.spawn("run", "--config", "c.json", *flags, program=program, **env)
    place.wait(lambda: get(port)[1] == "hello")
    yield process, port, admin


def starts_and_stops():
    with Place() as p:
        port, admin = free_port(), free_port()
        p.write("c.json", document(port, admin))
        out, _ = p.run("start", "--config", "c.json", "--pidfile", "pid")
        found = re.search(r"Successfully started portico \(pid=(\d+)\) - portico is running in the "
                          r"background\n", out)
        assert found, out
        same(open(f"{p.path}/pid", encoding="ascii").read(), found[1] + "\n")
        same(get(port)[1], "hello")
        p.run("stop", "--address", f"localhost:{admin}")
        p.wait(lambda: not os.path.exists(f"/proc/{found[1]}"))
        assert not os.path.exists(f"{p.path}/pid")
        has(p.run("stop", "--address", f"localhost:{admin}", status=1)[1], "onnection refused")
        p.write("bad.json", {"nonsense": 1})
        out, err = p.run("start", "--config", "bad.json", status=1)
        has(err, "nonsense", "process exited with error: exit status 1")


def stops_by_config():
    with Place() as p, running(p) as (process, _, _):
        p.run("stop", "--config", "c.json")
        same(process.wait(60), 0)
        has(p.run("stop", "--config", "none.json", status=1)[1], "none.json")


def reloads():
    with Place() as p, running(p) as (process, port, admin):
        p.write("c.json", document(port, admin, "two"))
        p.run("reload", "--config", "c.json")
        same(get(port)[1], "two")
        p.run("reload", "--config", "c.json")
        p.logged("config is unchanged")
        p.run("reload", "--config", "c.json", "--force")
        process.send_signal(signal.SIGUSR1)
        p.logged("successfully reloaded config from file")
        bad = document(port, admin)
        bad["nonsense"] = 1
        p.write("c.json", bad)
        has(p.run("reload", "--config", "c.json", status=1)[1], "HTTP 400", "nonsense",
            "sending configuration to instance")
        same(get(port)[1], "two")
        p.write("moved.json", document(port, free_port(), "three"))
        p.run("reload", "--config", "moved.json", status=1)
        p.run("reload", "--config", "moved.json", "--address", f"localhost:{admin}")
        same(get(port)[1], "three")
        process.send_signal(signal.SIGUSR1)
        p.logged("last config unknown, ignored SIGUSR1")
        has(p.run("reload", status=1)[1], "no config file to load")
        p.end(process)


def resumes():
    with Place() as p, running(p) as (process, port, admin):
        saved = f"{p.path}/.config/portico/autosave.json"
        p.wait(lambda: os.path.exists(saved))  # behind the first answer
        same(json.load(open(saved, encoding="utf-8")), document(port, admin))
        same(os.stat(saved).st_mode & 0o777, 0o600)
        same(os.stat(os.path.dirname(saved)).st_mode & 0o777, 0o700)
        headers = {"Content-Type": "application/json"}
        same(get(admin, "/config/apps/http/servers/srv0/routes/0/handle/0/body", "localhost", "PATCH",
                 headers, '"changed"')[0], 200)
        p.end(process)
        process = p.spawn("run", "--resume", "--config", "c.json")
        p.wait(lambda: get(port)[1] == "changed")
        p.logged("ignoring --config")
        p.end(process)
        os.unlink(saved)
        process = p.spawn("run", "--resume", "--config", "c.json")
        p.wait(lambda: get(port)[1] == "hello")
        p.logged("no autosave file exists")
        p.end(process)
        quiet = document(port, admin)
        quiet["admin"]["config"] = {"persist": False}
        os.unlink(saved)
        p.write("c.json", quiet)
        process = p.spawn("run", "--config", "c.json")
        p.wait(lambda: get(port)[1] == "hello")
        assert not os.path.exists(saved)
        p.end(process)


def watches():
    with Place() as p, running(p, "--watch") as (process, port, admin):
        p.logged("watching config file for changes")
        p.write("c.json", "{")
        p.logged("unable to load latest config")
        p.write("c.json", document(port, admin, "seen"))
        p.wait(lambda: get(port)[1] == "seen")
        p.end(process)


def runs_with_environ():
    with Place() as p:
        p.write("one.env", "ONE=1\n")
        p.write("two.env", "TWO=2\n")
        with running(p, "--environ", "--envfile", "one.env", "--envfile", "two.env", "--pidfile",
                     "pid") as (process, _, _):
            p.logged("portico.Version=v", "\nONE=1\n", "\nTWO=2\n")
            same(int(open(f"{p.path}/pid", encoding="ascii").read()), process.pid)
            p.end(process)
            assert not os.path.exists(f"{p.path}/pid")


def runs_alone():
    with Place() as p:
        admin = free_port()
        process = p.spawn("run", CADDY_ADMIN=f"localhost:{admin}")
        p.wait(lambda: get(admin, "/config/", "localhost")[1] == "null\n")
        assert not os.path.exists(f"{p.path}/.config/portico/autosave.json")
        port = free_port()
        p.write("new.json", document(port, admin))
        p.run("reload", "--config", "new.json")
        same(get(port)[1], "hello")
        p.run("stop", CADDY_ADMIN=f"localhost:{admin}")
        same(process.wait(60), 0)


# --- servers made of flags ---

def served(place, process_arguments, **more):
    """Starts it; the addresses that `respond` prints."""
    process = place.spawn(*process_arguments, **more)
    place.wait(lambda: "Server address: " in place.text() or process.poll() is not None)
    return process, [int(a.rsplit(":", 1)[1]) for a in
                     re.findall(r"Server address: (\S+)", place.text())]


def responds():
    with Place() as p:
        process, ports = served(p, ["respond"])
        same(len(ports), 1)
        status, body, _ = get(ports[0])
        same((status, body), (200, ""))
        p.end(process)
        process, ports = served(p, ["respond", "-s", "201", "--header", "X-One: 1", "-H", "X-Two:a:b",
                                    "--listen", "127.0.0.1:0", "body {{.N}} {{ .Port }}"])
        status, body, fields = get(ports[0])
        same((status, body, fields["X-One"], fields["X-Two"]), (201, "body 0 0", "1", "a:b"))
        p.end(process)
        process, ports = served(p, ["respond", "404"])
        same(get(ports[0])[0], 404)
        p.end(process)
        process, ports = served(p, ["respond", "--status", "200", "404"])
        same(get(ports[0])[:2], (200, "404"))
        p.end(process)
        read, write = os.pipe()
        os.write(write, b"piped \xc3\xa9")
        os.close(write)
        process, ports = served(p, ["respond"], stdin=read)
        os.close(read)
        same(get(ports[0])[1], "piped é")
        os.kill(int(open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii")
                    .read().split()[0]), signal.SIGKILL)  # started again, with the same body
        p.wait(lambda: p.text().count("Server address") == 2 and get(ports[0])[1] == "piped é")
        p.end(process)
        assert not os.path.exists(f"{p.path}/.config/portico/autosave.json")


def responds_on_a_range():
    with Place() as p:
        for _ in range(20):
            first = free_port()
            process, ports = served(p, ["respond", "--listen", f"127.0.0.1:{first}-{first + 2}",
                                        "-b", "{{.N}} {{.Port}} {{.Address}}"])
            if process.poll() is None:
                break
        same(sorted(ports), [first, first + 1, first + 2])
        for i in range(3):
            same(get(first + i)[1], f"{i} {first + i} 127.0.0.1:{first + i}")
        p.end(process)


def responds_not():
    with Place() as p:
        for arguments, text in ((["--header", "nonsense"], 'header 0: invalid format "nonsense"'),
                                (["--body", "x", "--status", "200", "y"], "overridden by flags"),
                                (["--status", "x"], 'invalid argument "x" for "--status"'),
                                (["{{.Nonsense}}"], "{{.Nonsense}} is not known"),
                                (["--listen", ":x"], "x"), (["a", "b"], 'unexpected argument "b"')):
            has(p.run("respond", *arguments, status=1)[1], "Error: ", text)


def serves_files():
    with Place() as p:
        p.write("site/index.html", "<p>index</p>" * 200)
        p.write("site/a.txt", "file a")
        port = free_port()
        process = p.spawn("file-server", "--root", "site", "--listen", f"127.0.0.1:{port}",
                          "--access-log")
        p.wait(lambda: get(port, "/a.txt")[1] == "file a")
        same(get(port)[1], "<p>index</p>" * 200)
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        c.request("GET", "/", headers={"Accept-Encoding": "gzip"})
        same(c.getresponse().headers["Content-Encoding"], "gzip")
        c.close()
        same(get(port, "/none")[0], 404)
        p.wait(lambda: '"uri":"/none"' in p.text())
        p.end(process)
        process = p.spawn("file-server", "--listen", f"127.0.0.1:{port}", "--no-compress")
        p.wait(lambda: get(port, "/site/a.txt")[1] == "file a")
        p.end(process)
        for arguments, text in ((["--templates"], "not supported yet"),
                                (["--precompressed", "gzip,lzma"], "http.precompressed.lzma"),
                                (["--file-limit", "0"], "--file-limit")):
            has(p.run("file-server", *arguments, status=1)[1], text)


def browses():
    with Place() as p:
        p.write("site/folder/a.txt", "file a")
        port = free_port()
        process = p.spawn("file-server", "-b", "-r", "site", "-l", f"127.0.0.1:{port}")
        p.wait(lambda: "a.txt" in get(port, "/folder/")[1])
        p.end(process)


def proxies():
    with Place() as p:
        upstream, ports = served(p, ["respond", "-l", "127.0.0.1:0", "--header", "X-From: it",
                                     "host {http.request.host} {http.request.header.X-Up}"])
        port = free_port()
        process = p.spawn("reverse-proxy", "--from", f":{port}", "--to", f"127.0.0.1:{ports[0]}",
                          "--header-up", "X-Up: up", "--header-down", "X-Down: down",
                          "--change-host-header")
        p.wait(lambda: get(port)[0] == 200)
        _, body, fields = get(port)
        same((body, fields["X-From"], fields["X-Down"]), ("host 127.0.0.1 up", "it", "down"))
        p.end(process)
        p.end(upstream)


def proxies_not():
    with Place() as p:
        for arguments, text in (([], "--to is required"),
                                (["--to", ":1", "--from", "http://a/b"], "paths are not allowed"),
                                (["--to", ":1", "--header-up", "x"], "header-up 0: invalid format"),
                                (["--to", "http://a/b"], "invalid upstream address")):
            has(p.run("reverse-proxy", *arguments, status=1)[1], text)


# --- passwords, lists, scripts ---

def hashes():
    with Place() as p:
        cheap = ["--bcrypt-cost", "4"]
        for arguments, stdin in ((["--plaintext", "hello"], None), ([], "hello\n")):
            out = p.run("hash-password", *cheap, *arguments, stdin=stdin or subprocess.DEVNULL)[0]
            assert re.fullmatch(r"\$2[aby]\$04\$[./A-Za-z0-9]{53}\n", out), out
        has(p.run("hash-password", "-p", "x", "-a", "argon2id", "--argon2id-memory", "64")[0],
            "$argon2id$v=19$m=64,t=1,p=1$")
        for arguments, text in ((["-p", "x", "-a", "md5"], "unrecognized hash algorithm: md5"),
                                ([], "plaintext is required"), (["-p", "x" * 73], "72"),
                                (["-p", "x", "--bcrypt-cost", "a"], "--bcrypt-cost")):
            has(p.run("hash-password", *arguments, status=1)[1], text)


def asks_for_passwords():
    """On a terminal: twice, and nothing is shown."""
    import pty
    for answers, status in (("secret\nsecret\n", 0), ("secret\nother\n", 1)):
        pid, fd = pty.fork()
        if pid == 0:
            signal.alarm(30)
            os.execv(PORTICO, [PORTICO, "hash-password", "--bcrypt-cost", "4"])
        seen = b""
        for word, answer in zip((b"Enter password: ", b"Confirm password: "),
                                answers.splitlines(True)):
            while word not in seen:
                seen += os.read(fd, 1024)
            os.write(fd, answer.encode())
        try:
            while True:
                more = os.read(fd, 1024)
                if not more:
                    break
                seen += more
        except OSError:
            pass
        os.close(fd)
        same(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), status)
        assert b"secret" not in seen and b"other" not in seen, seen
        assert (b"$2b$04$" in seen or b"$2a$04$" in seen) if status == 0 else \
            b"password does not match" in seen, seen


def lists():
    with Place() as p:
        out = p.run("list-modules")[0]
        names = out.split("\n\n")[0].split("\n")
        same(names, sorted(names))
        has(out, "http.handlers.file_server\n", f"\n\n  Standard modules: {len(names)}\n")
        has(p.run("list-modules", "--versions", "--packages")[0], "http.handlers.file_server v")
        same(p.run("list-modules", "-s")[0], "")
        listed = json.loads(p.run("list-modules", "--json")[0])
        same([m["module_name"] for m in listed], names)
        has(p.run("build-info")[0], "portico\tv", "io_uring\t")


def completes():
    with Place() as p:
        p.write("done.sh", p.run("completion", "bash")[0] + """
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _portico; echo "${COMPREPLY[*]}"; }
ask portico rel
ask portico run --pid
ask portico run -
ask portico completion f
ask portico run --config done.
""")
        out = p.run("done.sh", program="/bin/bash")[0].split("\n")
        same([out[0], out[1], out[3], out[4]], ["reload", "--pidfile", "fish", "done.sh"])
        has(out[2], "--watch", "--help")
        has(p.run("completion", "zsh")[0], "#compdef portico", "'--config=[")
        has(p.run("completion", "fish")[0], "complete -c portico", "-l config -s c -r")
        p.run("completion", status=1)
        has(p.run("completion", "powershell", status=1)[1], "bash, zsh and fish")


def writes_manpages():
    with Place() as p:
        p.run("manpage", "--directory", "a/b")
        pages = sorted(os.listdir(f"{p.path}/a/b"))
        assert "portico.8" in pages and "portico-reverse-proxy.8" in pages, pages
        p.run("manpage", status=3)
        for page in pages:
            if os.path.exists("/usr/bin/groff"):
                _, err = p.run("-man", "-ww", "-z", "-Tutf8", f"a/b/{page}", program="/usr/bin/groff")
                same(err, "")


# --- as caddy, and the admin API ---

CADDY_UNIT = """ExecStart=/usr/bin/caddy run --environ --config /etc/caddy/Caddyfile
ExecReload=/usr/bin/caddy reload --config /etc/caddy/Caddyfile --force
"""


def acts_as_caddy():
    """The lines of Debian's unit, run through a link that is called caddy."""
    with Place() as p:
        unit = CADDY_UNIT
        if os.path.exists("/usr/lib/systemd/system/caddy.service"):
            with open("/usr/lib/systemd/system/caddy.service", encoding="utf-8") as f:
                unit = f.read()
        os.mkdir(f"{p.path}/bin")
        os.symlink(PORTICO, f"{p.path}/bin/caddy")

        def line(name):
            words = re.search(rf"^{name}=(.*)$", unit, re.M)[1].split()
            return [w.replace("/usr/bin/caddy", f"{p.path}/bin/caddy")
                    .replace("/etc/caddy", f"{p.path}/etc") for w in words]

        port, admin = free_port(), free_port()
        site = "http://127.0.0.1:%d {\n\trespond %s\n}\n"
        p.write("etc/Caddyfile", site % (port, "one"))
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(f"{p.path}/notify")
        notify.settimeout(60)
        env = {"CADDY_ADMIN": f"localhost:{admin}", "NOTIFY_SOCKET": f"{p.path}/notify"}
        program, *arguments = line("ExecStart")
        process = p.spawn(*arguments, program=program, **env)
        has(notify.recv(4096).decode(), "READY=1")
        same(get(port)[1], "one")
        p.logged(f"caddy.AppDataDir={p.path}/.local/share/caddy", f"HOME={p.path}",
                 f"{p.path}/.config/caddy/autosave.json")
        p.write("etc/Caddyfile", site % (port, "two"))
        program, *arguments = line("ExecReload")
        p.run(*arguments, program=program, CADDY_ADMIN=env["CADDY_ADMIN"])
        same(get(port)[1], "two")
        has(notify.recv(4096).decode(), "RELOADING=1")
        has(notify.recv(4096).decode(), "READY=1")
        p.write("etc/Caddyfile", "{\n")
        p.run(*arguments, program=program, status=1, CADDY_ADMIN=env["CADDY_ADMIN"])
        same(get(port)[1], "two")
        has(p.run("help", program=program)[0], "\n  caddy [command]\n")
        p.end(process)
        notify.close()
        out = p.run("start", "--config", p.write("etc/Caddyfile", site % (port, "three")),
                    program=program, CADDY_ADMIN=env["CADDY_ADMIN"])[0]
        has(out, "Successfully started Caddy (pid=", ") - Caddy is running in the background")
        p.run("stop", program=program, CADDY_ADMIN=env["CADDY_ADMIN"])


def send(port, method, path, value=None, **fields):
    headers = {k.replace("_", "-"): v for k, v in fields.items()}
    if value is not None:
        headers.setdefault("Content-Type", "application/json")
        value = value if isinstance(value, str) else json.dumps(value)
    status, body, got = get(port, path, "localhost", method, headers, value)
    return status, body, got


def admin_changes():
    with Place() as p, running(p) as (process, port, admin):
        listen = "/config/apps/http/servers/srv0/listen"
        for method, path, value, want, text in (
                ("GET", listen, None, 200, f'["127.0.0.1:{port}"]\n'),
                ("GET", listen + "/9", None, 400, f"[{listen}/9] array index out of bounds: 9"),
                ("GET", "/config/a/b/c", None, 400, "invalid traversal path at: config/a/b"),
                ("GET", listen + "/01", None, 400, "invalid array index '01'"),
                ("PATCH", "/config/apps/none", 1, 404, "key does not exist: none"),
                ("PUT", "/config/apps/http", 1, 409, "key already exists: http"),
                ("POST", "/config/apps/http/nonsense", 1, 500, "loading new config: "),
                ("POST", "/config/apps", "{", 400, "decoding request body"),
                ("POST", "/config/apps", {"a": {"@id": 1}, "b": {"@id": "1"}}, 400,
                 "indexing config: duplicate ID '1' found at /config/apps/a and /config/apps/b"),
                ("BREW", "/config/", None, 405, "method BREW not allowed"),
                ("GET", "/id/", None, 400, "request path is missing object ID"),
                ("GET", "/id/none", None, 404, "unknown object ID 'none'"),
                ("GET", "/id/first/handle/0/body", None, 200, '"hello"\n'),
                ("PATCH", "/id/first/handle/0/body", "\"changed\"", 200, ""),
                ("DELETE", "/id/first/handle/0/none", None, 404, "key does not exist"),
                ("GET", "/load", None, 405, "method not allowed"),
                ("GET", "/stop", None, 405, "method not allowed"),
                ("GET", "/debug/pprof/", None, 404, "404 page not found"),
                ("GET", "/none", None, 404, "404 page not found")):
            status, body, fields = send(admin, method, path, value)
            assert status == want and text in body, (method, path, status, body)
            if status in (400, 405, 409, 500):
                same(fields["Content-Type"], "application/json")
                same(list(json.loads(body)), ["error"])
        same(get(port)[1], "changed")
        same(send(admin, "POST", "/load", "{}", Content_Type="text/nonsense")[1],
             '{"error":"unrecognized config adapter \'nonsense\'"}\n')
        same(send(admin, "POST", "/load", "{}", Content_Type="nonsense")[1],
             '{"error":"malformed Content-Type"}\n')
        caddyfile = f"{{\n\tadmin localhost:{admin}\n}}\nhttp://127.0.0.1:{port} {{\n\trespond hi\n}}\n"
        status, body, _ = send(admin, "POST", "/adapt", caddyfile, Content_Type="text/caddyfile")
        same(status, 200)
        same(json.loads(body)["result"]["admin"], {"listen": f"localhost:{admin}"})
        same(send(admin, "POST", "/load", caddyfile, Content_Type="text/caddyfile")[0], 200)
        same(get(port)[1], "hi")
        status, body, _ = send(admin, "POST", "/load", "a {\n\tnonsense\n}\n",
                               Content_Type="text/caddyfile")
        same(status, 400)
        has(body, "Caddyfile:2", "nonsense")
        p.end(process)


def admin_matches():
    """If-Match: a change goes through only when nobody was faster."""
    with Place() as p, running(p) as (process, _, admin):
        path = "/config/apps/http/servers/srv0/routes"
        tag = send(admin, "GET", path)[2]["Etag"]
        assert tag.startswith(f'"{path} '), tag
        route = {"handle": [{"handler": "static_response"}]}
        same(send(admin, "POST", path, route, If_Match=tag)[0], 200)
        same(send(admin, "POST", path, route, If_Match=tag)[0], 412)
        same(send(admin, "POST", path, route, If_Match="x")[0], 400)
        same(send(admin, "POST", path, route, If_Match='"x"')[0], 400)
        p.end(process)


def admin_origins():
    with Place() as p, running(p) as (process, port, admin):
        for fields, want in (({"Host": "evil.example"}, 403), ({"Origin": "http://evil.example"}, 403),
                             ({"Origin": "null"}, 400), ({"Sec-Fetch-Mode": "no-cors"}, 400),
                             ({"Upgrade": "websocket"}, 400), ({"Sec-Fetch-Mode": "cors"}, 403),
                             ({"Referer": f"http://localhost:{admin}/x", "Sec-Fetch-Mode": "cors"}, 200),
                             ({"Origin": f"http://localhost:{admin}"}, 200),
                             ({"Origin": f"http://127.0.0.1:{admin}"}, 200)):
            same((fields, send(admin, "GET", "/config/", **fields)[0]), (fields, want))
        changed = document(port, admin)
        changed["admin"]["origins"] = ["https://tool.example"]
        changed["admin"]["enforce_origin"] = True
        same(send(admin, "POST", "/load", changed)[0], 200)  # the same address, other rules
        for fields, want in (({}, 403), ({"Host": "tool.example"}, 403),
                             ({"Host": "tool.example", "Origin": "http://tool.example"}, 403),
                             ({"Host": "tool.example", "Origin": "https://tool.example"}, 200)):
            p.wait(lambda f=fields, w=want: send(admin, "GET", "/config/", **f)[0] == w)
        p.end(process)


def admin_elsewhere():
    with Place() as p, running(p) as (process, port, admin):
        path = f"{p.path}/admin.sock"
        changed = document(port, admin, "socket")
        changed["admin"]["listen"] = f"unix/{path}|0600"
        p.write("c.json", changed)
        p.run("reload", "--config", "c.json", "--address", f"localhost:{admin}")
        same(get(port)[1], "socket")
        same(os.stat(path).st_mode & 0o777, 0o600)
        p.wait(lambda: refused(admin))
        changed["apps"]["http"]["servers"]["srv0"]["routes"] = []
        p.write("c.json", changed)
        p.run("reload", "--config", "c.json")
        same(get(port)[1], "")
        changed["admin"] = {"disabled": True}
        p.write("off.json", changed)
        p.run("reload", "--config", "off.json", "--address", f"unix/{path}")
        p.wait(lambda: not os.path.exists(path))
        p.logged("admin endpoint disabled")
        p.run("stop", "--address", f"unix/{path}", status=1)
        p.end(process)


def refused(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return False
    except ConnectionRefusedError:
        return True


def admin_is_patient():
    """Slow clients, and many, hold up nobody; what is too much is refused."""
    with Place() as p, running(p) as (process, _, admin):
        slow = [socket.create_connection(("127.0.0.1", admin), timeout=20) for _ in range(20)]
        for i, s in enumerate(slow):
            s.sendall((b"POST /load HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 100000\r\n\r\n{"
                       % admin)[:20 if i % 2 else None])
        began = time.monotonic()
        same(send(admin, "GET", "/config/")[0], 200)
        assert time.monotonic() - began < 4.5
        slow[1].settimeout(30)
        same(slow[1].recv(1000)[:12] in (b"", b"HTTP/1.1 408"), True)  # a head within 5 s
        big = socket.create_connection(("127.0.0.1", admin), timeout=20)
        big.sendall(b"GET /config/ HTTP/1.1\r\nHost: localhost:%d\r\nX: " % admin + b"a" * 70000)
        same(big.recv(1000)[:12], b"HTTP/1.1 431")
        for s in slow + [big]:
            s.close()
        deep = "[" * 5000 + "]" * 5000
        has(send(admin, "POST", "/load", deep)[1], "nested deeper")
        p.end(process)


TESTS = [
    ("help tells about every command", helps),
    ("wrong flags and commands are refused in Caddy's words", refuses_flags),
    ("version", versions),
    ("environ prints folders, variables and what --envfile adds", environs),
    ("validate", validates),
    ("start returns when the server runs, stop ends it; a start that fails says why", starts_and_stops),
    ("stop finds the admin address in the config", stops_by_config),
    ("reload, --force, --address, refusals; SIGUSR1 knows the file", reloads),
    ("the running configuration is saved, and --resume takes it", resumes),
    ("--watch takes over what changes, and lives through what is wrong", watches),
    ("run --environ --envfile --pidfile", runs_with_environ),
    ("run without a configuration, CADDY_ADMIN", runs_alone),
    ("the lines of Debian's caddy.service run through a link called caddy", acts_as_caddy),
    ("admin API: every method and error of /config/ and /id/, /load and /adapt", admin_changes),
    ("admin API: If-Match", admin_matches),
    ("admin API: hosts and origins, also after they have changed", admin_origins),
    ("admin API: on a Unix socket, and off", admin_elsewhere),
    ("admin API: slow and large requests", admin_is_patient),
    ("respond: status, headers, body by flag, argument and pipe; a crash keeps it", responds),
    ("respond on a range of ports fills its template in", responds_on_a_range),
    ("respond refuses what it cannot do", responds_not),
    ("file-server", serves_files),
    ("file-server --browse", browses),
    ("reverse-proxy", proxies),
    ("reverse-proxy refuses what it cannot do", proxies_not),
    ("hash-password", hashes),
    ("hash-password asks twice on a terminal and shows nothing", asks_for_passwords),
    ("list-modules, build-info", lists),
    ("completion: bash completes, zsh and fish have their scripts", completes),
    ("manpage: every command has a page that groff takes without a warning", writes_manpages),
]


if __name__ == "__main__":
    sys.exit(run_tests(TESTS) > 0)
