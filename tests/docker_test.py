#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real container runtime, as TAP: a dockerd of the test's own, in namespaces of its own (network, mounts,
processes) above empty folders, so that no other is touched and nothing of it is left; a container with a
published port, in the ledger and by packets. Usage: docker_test.py PORTICO [TEXT]."""
import glob
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

import network as net
from server import run_tests

PORTICO = os.path.abspath(sys.argv[1])
NAME, OUTSIDE, INSIDE, OWN = "shop", 8080, 8000, 7000
DEVICE, WORLD = "192.0.2.1", "192.0.2.2"
NEEDED = ("dockerd", "docker", "containerd", "runc", "iptables", "gcc", "nft", "ip")
SOURCE = r"""
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(8000)};
    char word[64];
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(s, (struct sockaddr *)&a, sizeof a) != 0 || listen(s, 10) != 0)
        return 1;
    for (int c; (c = accept(s, 0, 0)) >= 0; close(c))
        if (read(c, word, sizeof word) > 0 && write(c, "8000", 4) < 0)
            return 1;
}
"""
# The host lets nobody in.
FIREWALL = "table inet fw {\n chain input {\n type filter hook input priority filter; policy drop;\n" \
           " iif lo accept\n ct state established,related accept\n }\n}\n"


class Missing(Exception):
    """This machine cannot run it; says why."""


def same(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not in time")
        time.sleep(0.05)


def run(*command, check=True, text=True, **more):
    done = subprocess.run(command, capture_output=True, text=text, check=False, timeout=120, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


class Docker:
    """Below /var/lib/docker and /run, which are empty folders in here: its names are looked for there."""

    def __init__(self, folder):
        self.folder = folder
        self.log = open(f"{folder}/dockerd.log", "w+", encoding="utf-8")
        # The daemon's proxy variables are for pulling images, which it does not do here.
        with open(f"{folder}/daemon.json", "w", encoding="ascii") as f:
            f.write("{}")  # not the machine's own settings, which may gainsay these
        self.process = subprocess.Popen(
            ["dockerd", "--config-file", f"{folder}/daemon.json", "--host", "unix:///run/docker.sock",
             "--storage-driver", "vfs", "--data-root", "/var/lib/docker", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 30
        while subprocess.run(["docker", "--host", "unix:///run/docker.sock", "version"], capture_output=True,
                             check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                said = self.log.read().strip().splitlines()[-1:]
                self.end()
                raise Missing(f"dockerd does not run here: {' '.join(said)[-200:]}")
            time.sleep(0.1)

    def __call__(self, *arguments):
        return run("docker", "--host", "unix:///run/docker.sock", *arguments).strip()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def image(docker, folder):
    with open(f"{folder}/serve.c", "w", encoding="ascii") as f:
        f.write(SOURCE)
    try:
        run("gcc", "-static", "-O1", "-o", f"{folder}/serve", f"{folder}/serve.c")
    except AssertionError as e:
        raise Missing(f"no static program can be made here: {str(e)[-200:]}") from e
    with tarfile.open(f"{folder}/image.tar", "w") as tar:
        tar.add(f"{folder}/serve", "serve")
        about = tarfile.TarInfo("etc/passwd")
        about.size = len(b"root:x:0:0::/:/serve\n")
        tar.addfile(about, io.BytesIO(b"root:x:0:0::/:/serve\n"))
    docker("import", f"{folder}/image.tar", "serve:latest")


def ports(*arguments, status=0):
    done = subprocess.run([PORTICO, "ports", *arguments], capture_output=True, text=True, check=False,
                          cwd="/run", env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "HOME": "/run"})
    if done.returncode != status:
        raise AssertionError(f"ports {arguments}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def rows(port, *arguments, **more):
    return [r for r in json.loads(ports(*arguments, **more))["ports"] if r["port"] == port]


def named(docker, world):
    """the ledger names the container's own port and the published one"""
    del docker, world
    inner = rows(INSIDE, "--json")
    same([(r["namespace"], r["owners"][0]["program"], r["owners"][0]["container"]) for r in inner],
         [(NAME, "serve", NAME)])
    same(inner[0]["reach"], rows(OUTSIDE, "--json")[0]["reach"])
    outer = [r for r in rows(OUTSIDE, "--json") if r["family"] != "ip6"]
    same([(r["namespace"], r["owners"][0]["program"], r["owners"][0]["container"]) for r in outer],
         [(None, "docker-proxy", NAME)])
    if "whose only ways out lead to this machine (veth)" not in ports("explain", str(INSIDE)):
        raise AssertionError(ports("explain", str(INSIDE)))
    text = ports()
    if f"(container {NAME})" not in text or "docker-proxy" not in text:
        raise AssertionError(text)


def walks_round(docker, world):
    """its published port lets the world in past the host's rules, and the finding says so"""
    del docker
    with socket.socket() as own:
        own.bind(("0.0.0.0", OWN))
        own.listen()
        same(world.probe([("tcp", WORLD, DEVICE, OUTSIDE), ("tcp", WORLD, DEVICE, OWN)], 1.5), [INSIDE, 0])
        same(rows(OWN, "--json")[0]["reach"] in ("world", "network"), False)
    found = {(f["name"], f["severity"]): f["text"] for r in rows(OUTSIDE, "check", "--format", "json", status=1)
             for f in r["findings"]}
    text = found[("container-published", "warning")]
    if "before rules for this machine's own ports" not in text or f"of the container {NAME}," not in text:
        raise AssertionError(text)


def on_loopback(docker, world):
    """one that is published on 127.0.0.1 is for the device only, and no finding"""
    docker("run", "--detach", "--name", "inner", "--publish", "127.0.0.1:8081:8000", "serve:latest", "/serve")
    until(lambda: rows(8081, "--json"), "the second container listens")
    same([r["reach"] for r in rows(8081, "--json")], ["device"])
    same(world.probe([("tcp", WORLD, DEVICE, 8081)], 0.5), [0])
    found = [f["name"] for r in rows(8081, "check", "--format", "json", status=1) for f in r["findings"]]
    same("container-published" in found, False)


CASES = (named, walks_round, on_loopback)


def inside(folder):
    docker = Docker(folder)
    world = net.Room()
    try:
        run("sh", "-ec", f"ip link add out type veth peer name wire netns {world.pid}; ip link set out up;"
                         f"ip addr add {DEVICE}/24 dev out; ip route add default via {WORLD}")
        world.sh(f"ip addr add {WORLD}/24 dev wire", "ip link set wire up")
        run("nft", "-f", "-", input=FIREWALL)
        image(docker, folder)
        try:
            docker("run", "--detach", "--name", NAME, "--publish", f"{OUTSIDE}:{INSIDE}", "serve:latest", "/serve")
        except AssertionError as e:
            raise Missing(f"no container can be started here: {str(e)[-200:]}") from e
        until(lambda: rows(INSIDE, "--json"), "the container listens")
        return each(docker, world)
    finally:
        for container in docker("ps", "--all", "--quiet").split():
            docker("rm", "--force", container)
        docker.end()
        world.end()


def each(docker, world):
    return run_tests([(case.__doc__, lambda case=case: case(docker, world)) for case in CASES]) > 0


def groups():
    return set(glob.glob("/sys/fs/cgroup/docker") + glob.glob("/sys/fs/cgroup/*/docker"))


def outside():
    why = "only root can" if os.geteuid() != 0 else net.may()
    missing = [p for p in NEEDED if shutil.which(p) is None]
    if why is None and missing:
        why = f"not installed: {', '.join(missing)}"
    if why is not None:
        print(f"1..0 # SKIP {why}")
        return 0
    before = groups()
    folder = tempfile.mkdtemp(prefix="portico-docker-")
    try:
        return subprocess.run(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec",
             'mount -t tmpfs tmpfs /var/lib; mount -t tmpfs tmpfs /run; ip link set lo up; exec "$@"', "sh",
             sys.executable, *sys.argv], check=False, env={**os.environ, "DOCKER_TEST_FOLDER": folder}).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for group in groups() - before:
            try:
                os.rmdir(group)
            except OSError:
                pass


def main():
    folder = os.environ.get("DOCKER_TEST_FOLDER")
    if folder is None:
        return outside()
    try:
        return inside(folder)
    except Missing as why:
        print(f"1..0 # SKIP {why}")
        return 0


if __name__ == "__main__":
    sys.exit(main())
