#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A storage on a disk that is really full (a small tmpfs, mounted in a mount namespace of the test's own),
as TAP: what fails is told, nothing is corrupt, and it goes on when there is room. Needs root.
Usage: full_disk_test.py PORTICO [TEXT]."""
import ctypes
import os
import sys

sys.dont_write_bytecode = True
from acme_server import Authority  # noqa: E402 (beside this file)
from certs_test import Instance, acme, asked, folder, is_debug, is_there, is_whole  # noqa: E402
from server import Skip, run_cases, same  # noqa: E402

NAME = "a.example.com"
SITE = f"{NAME} {{\n\trespond a\n}}\n"
PAGE = 4096
FULL = "No space left on device"
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 1 << 18, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def alone():
    """A mount namespace of this process's own; False where that is not allowed."""
    return os.geteuid() == 0 and LIBC.unshare(CLONE_NEWNS) == 0 and \
        LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0


class Disk:
    """The storage's folder, as a disk of a megabyte, with the local authority made already."""

    def __init__(self, io, f):
        self.path, self.ballast = f"{f}/storage", f"{f}/storage/ballast"
        os.mkdir(self.path, 0o700)
        if LIBC.mount(b"tmpfs", self.path.encode(), b"tmpfs", 0, b"size=1m,mode=0700") != 0:
            raise Skip(f"no tmpfs may be mounted: {os.strerror(ctypes.get_errno())}")
        first = Instance(io, f, "http://a.test {\n\trespond a\n}\n", name="first")
        first.wait(lambda: "serving initial" in first.text())
        first.end()

    def fill(self, pages_left):
        self.make_room()
        room = os.statvfs(self.path)
        with open(self.ballast, "wb") as f:
            f.write(bytes(room.f_bavail * room.f_frsize - pages_left * PAGE))

    def make_room(self):
        if os.path.exists(self.ballast):
            os.unlink(self.ballast)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        LIBC.umount2(self.path.encode(), MNT_DETACH)


def environment(f, clock=0):
    with open(f"{f}/clock.new", "w", encoding="ascii") as c:
        c.write(str(clock))
    os.rename(f"{f}/clock.new", f"{f}/clock")
    return {"PORTICO_TEST_HURRY": "300", "PORTICO_TEST_CLOCK": f"{f}/clock"}


def needs():
    if not MAY_MOUNT:
        raise Skip("only root may mount a small disk")
    if not is_debug():
        raise Skip("a release build does not hurry to its next try")


def stage(authority, failed):
    if not failed:
        return "not at all"
    return "after" if asked(authority, NAME) else "account" if authority.accounts else "before"


def obtaining(io):
    """Each write on the way, from the storage check over the account's to the certificate's, fails once."""
    needs()
    stages = set()
    for pages in range(0, 18, 2 if io == "epoll" else 3):
        authority = Authority(validate=False).start()
        with folder() as f, Disk(io, f) as disk:
            disk.fill(pages)
            p = Instance(io, f, SITE, acme(authority), environment=environment(f))
            p.wait(lambda: FULL in p.text() or is_whole(f, NAME))
            stages.add(stage(authority, FULL in p.text()))
            disk.make_room()
            p.wait(lambda: is_whole(f, NAME) and is_there(p, NAME))
            p.wait(lambda: not os.path.exists(f"{f}/storage/pending/{NAME}"))
            same((pages, asked(authority, NAME), len(authority.accounts)), (pages, 1, 1))
            p.end()
            left = [x for _, _, files in os.walk(disk.path) for x in files
                    if x.startswith((".portico-new-", "rw_test_"))]
            same((pages, left), (pages, []))
        authority.stop()
    print(f"# failed {sorted(stages)} ({io})")
    assert len(stages & {"before", "account", "after"}) >= 2, stages


def renewing(io):
    needs()
    authority = Authority(validate=False).start()
    for pages in (0, 4, 8):
        with folder() as f, Disk(io, f) as disk:
            before = asked(authority, NAME)
            p = Instance(io, f, SITE, acme(authority), environment=environment(f))
            p.wait(lambda: is_there(p, NAME) and is_whole(f, NAME))
            old = p.shown(NAME)
            p.end()
            disk.fill(pages)
            p = Instance(io, f, SITE, acme(authority), environment=environment(f, 70 * 86400), name="again")
            p.wait(lambda: FULL in p.text())
            p.wait(lambda: is_there(p, NAME))
            disk.make_room()
            p.wait(lambda: asked(authority, NAME) == before + 2 and p.shown(NAME) != old and is_whole(f, NAME))
            p.end()
            same(asked(authority, NAME), before + 2)
    authority.stop()


CASES = [
    ("a full disk at each write of an issuance: told, and gone on with when there is room", obtaining),
    ("a full disk at a renewal: the old certificate is served on", renewing),
]

if __name__ == "__main__":
    MAY_MOUNT = alone()
    run_cases(CASES, at_once=2)
