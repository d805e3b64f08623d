#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments while certificates come from Pebble, and while they are renewed, as TAP:
none is lost, none is asked for twice, none is corrupt, and in the end nothing is left over.
Usage: crash_test.py PORTICO [TEXT]; ROUNDS (of each case; default 4) in the environment.
dev/test --long runs 100 on each back end."""
import glob
import json
import os
import random
import re
import signal
import sys
import time

sys.dont_write_bytecode = True
from pebble import PEBBLE, World, same, wait_for  # noqa: E402 (beside this file)
from server import Skip, run_cases  # noqa: E402

if PEBBLE is None:
    print("1..0 # SKIP pebble or python3-cryptography is missing")
    sys.exit(0)
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import serialization  # noqa: E402

PORTICO = sys.argv[1]
ROUNDS = int(os.environ.get("ROUNDS", "4"))
DUE = 1300 * 86400  # of the five years that Pebble's certificates live
AFTER_DAYS = 2 * 86400
with open(PORTICO, "rb") as program:
    IS_DEBUG = b"PORTICO_TEST_CLOCK" in program.read()


class Crashes(World):
    """A folder that outlives many processes; what Pebble says it has issued."""

    def __init__(self, io):
        # A validation that a kill has spoilt is tried again after a minute, which only a debug build hurries.
        more = {} if IS_DEBUG else {"PEBBLE_VA_ALWAYS_VALID": "1"}
        super().__init__(PORTICO, **more)
        self.env = {"PORTICO_IO": io, "PORTICO_WORKERS": "1", "PORTICO_TEST_HURRY": "600",
                    "PORTICO_TEST_CLOCK": self.folder + "/clock"}
        self.clock(0)

    def clock(self, seconds):
        with open(self.folder + "/clock", "w", encoding="ascii") as f:
            f.write(str(seconds))

    def go(self, names):
        return self.start(names, env=self.env)

    def kill(self, server):
        self.stop(server, signal.SIGKILL)
        for path in glob.glob(self.folder + "/storage/locks/*"):
            age(path)
        for path in glob.glob(self.folder + "/storage/**/*.*", recursive=True):
            check_whole(path)

    def issued(self):
        with open(self.folder + "/pebble.log", encoding="utf-8") as f:
            return re.findall(r"Issued certificate serial (\w+)", f.read())

    def place(self, name, ending):
        found = glob.glob(self.folder + "/storage/certificates/*/%s/%s%s" % (name, name, ending))
        return found[0] if found else None

    def stored(self, name):
        """The serial of the certificate in its place, when its key is there and is its own."""
        crt, key = self.place(name, ".crt"), self.place(name, ".key")
        if not crt or not key or not self.place(name, ".json"):
            return None
        with open(crt, "rb") as c, open(key, "rb") as k:
            leaf = x509.load_pem_x509_certificate(c.read())
            own = serialization.load_pem_private_key(k.read(), None)
        same(leaf.subject.rfc4514_string() in ("", "CN=" + name), True)
        pairs = leaf.public_key().public_numbers() == own.public_key().public_numbers()
        return "%x" % leaf.serial_number if pairs else None

    def notes(self):
        return glob.glob(self.folder + "/storage/pending/*")

    def check_nothing_left(self, names):
        """Once more, as if days had passed: what only age makes rubbish is gone then, too."""
        for at, folders, files in os.walk(self.folder + "/storage"):
            for name in folders + files:
                os.utime(os.path.join(at, name), (time.time() - AFTER_DAYS,) * 2)
        os.unlink(self.folder + "/storage/last_clean.json")  # it may tell a time that was moved
        self.clock(0)
        before = self.portico_log().count("finished cleaning")
        server = self.go(names)
        wait_for(lambda: self.portico_log().count("finished cleaning") > before, 60, self.portico_log)
        self.stop(server)
        expected = re.compile(r"certificates/[^/]+/([^/]+)/\1\.(crt|key|json)$|acme/[^/]+/users/|"
                              r"last_clean.json$|pki/authorities/local/\w+\.(crt|key)$")
        root = self.folder + "/storage/"
        left = [os.path.join(at, f)[len(root):] for at, _, files in os.walk(root) for f in files]
        same([f for f in left if not expected.match(f)], [])


def age(path):
    """As if the killed holder's lock had lain there for its ten seconds."""
    with open(path, "r+", encoding="ascii") as f:
        text = f.read()
        f.seek(0)
        f.write(re.sub(r'"updated":"\d{4}', '"updated":"2001', text))


def check_whole(path):
    if os.path.basename(path).startswith(".portico-new-") or not os.path.isfile(path):
        return
    with open(path, encoding="utf-8") as f:
        if path.endswith((".key", ".crt", ".pem")):
            assert f.read().endswith("-----\n"), path
            same(oct(os.stat(path).st_mode & 0o777), "0o600")
        elif path.endswith(".json"):
            json.load(f)


def serial_of(text):
    return text.lower().lstrip("0")


def issuance(io):
    with Crashes(io) as w:
        names = []
        for i in range(ROUNDS):
            names.append("n%d.example" % i)
            server = w.go(names[-2:])
            if random.random() < 0.6:  # most of what can go wrong is after this
                wait_for(lambda: w.notes() or w.stored(names[-1]), 30, w.portico_log)
            time.sleep(random.uniform(0, 0.5))
            w.kill(server)
        server = w.go(names)
        wait_for(lambda: all(w.stored(n) for n in names) and not w.notes(), 60 + ROUNDS,
                 lambda: "%s; %s" % (w.notes(), w.portico_log()[-3000:]))
        for name in names:
            w.await_served(name)
        w.stop(server)
        same(sorted(map(serial_of, w.issued())), sorted(w.stored(n) for n in names))
        same(w.accounts(), 1)
        w.check_nothing_left(names)
        same((len(w.issued()), w.accounts()), (len(names), 1))


def renewal(io):
    if not IS_DEBUG:
        raise Skip("a release build's clock cannot be moved")
    with Crashes(io) as w:
        name = "a.example"
        server = w.go([name])
        w.await_served(name)
        w.stop(server)
        for i in range(ROUNDS):
            before, count = w.stored(name), len(w.issued())
            w.clock(DUE)
            server = w.go([name])
            if random.random() < 0.7:
                wait_for(lambda: w.notes() or w.stored(name) not in (None, before), 30, w.portico_log)
            time.sleep(random.uniform(0, 0.5))
            w.kill(server)
            has_come = w.stored(name) != before or glob.glob(w.folder + "/storage/pending/*/issuer")
            w.clock(0 if has_come else DUE)
            server = w.go([name])
            wait_for(lambda: w.stored(name) not in (None, before) and not w.notes(), 60,
                     lambda: "renewal %d, %s; %s" % (i, w.notes(), w.portico_log()[-3000:]))
            w.await_served(name)
            w.stop(server)
            same((len(w.issued()), serial_of(w.issued()[-1])), (count + 1, w.stored(name)))
        same(w.accounts(), 1)
        w.check_nothing_left([name])


run_cases([
    ("killed while certificates come from Pebble: each comes once, and nothing is left", issuance),
    ("killed while Pebble renews: each renewal comes once, and nothing is left", renewal),
], at_once=2)
