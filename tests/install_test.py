#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""packaging/install into a folder, as TAP: what is there, with which modes; that the unit, the manual
page, the completions and the default configuration are good.
Usage: install_test.py PORTICO SOURCE."""
import os
import shutil
import stat
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from server import Skip, run_tests  # noqa: E402 (beside this file)

PORTICO, SOURCE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
PREFIX = "/usr"
WANTED = {
    "/usr/bin/portico": 0o755,
    "/usr/share/man/man8/portico.8": 0o644,
    "/usr/share/portico/index.html": 0o644,
    "/usr/lib/systemd/system/portico.service": 0o644,
    "/usr/lib/systemd/system/portico-ports.service": 0o644,
    "/usr/lib/sysusers.d/portico.conf": 0o644,
    "/etc/portico/Caddyfile": 0o644,
    "/usr/share/bash-completion/completions/portico": 0o644,
    "/usr/share/zsh/site-functions/_portico": 0o644,
    "/usr/share/fish/vendor_completions.d/portico.fish": 0o644,
}


def run(*command, status=0, **env):
    done = subprocess.run(command, env=dict(os.environ, **env), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=60,
                          check=False)
    assert done.returncode == status, f"{command}: {done.returncode}: {done.stdout}"
    return done.stdout


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def install(dest, prefix=PREFIX, program=PORTICO):
    return run(f"{SOURCE}/packaging/install", program, dest, prefix)


def places(dest):
    install(dest)
    for path, mode in WANTED.items():
        st = os.stat(dest + path)
        assert stat.S_IMODE(st.st_mode) == mode and st.st_size > 0, (path, oct(st.st_mode))
    found = {os.path.join(folder, name)[len(dest):] for folder, _, names in os.walk(dest)
             for name in names}
    assert found == set(WANTED), found ^ set(WANTED)
    for path in found - {"/usr/bin/portico"}:
        assert "@PREFIX@" not in read(dest + path) and "@ETC@" not in read(dest + path), path


def keeps(dest):
    with open(f"{dest}/etc/portico/Caddyfile", "a", encoding="utf-8") as f:
        f.write("# mine\n")
    assert "kept" in install(dest)
    assert read(f"{dest}/etc/portico/Caddyfile").endswith("# mine\n")


def configuration(dest):
    assert "Valid configuration" in run(PORTICO, "validate", "--config",
                                        f"{dest}/etc/portico/Caddyfile")
    text = read(f"{SOURCE}/packaging/Caddyfile")
    assert f"root * {PREFIX}/share/portico" in read(f"{dest}/etc/portico/Caddyfile"), text


def unit(dest):
    if not shutil.which("systemd-analyze"):
        raise Skip("no systemd-analyze here")
    path = "/usr/lib/systemd/system/portico.service"
    text = read(dest + path)
    assert "ExecStart=/usr/bin/portico run --environ --config /etc/portico/Caddyfile\n" in text
    # Checked with the program's place in the folder, since nothing is installed on this machine.
    copy = f"{dest}/portico.service"
    with open(copy, "w", encoding="utf-8") as f:
        f.write(text.replace("/usr/bin/portico", f"{dest}/usr/bin/portico"))
    out = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", copy)
    os.unlink(copy)
    assert "portico.service" not in out, out


def manual(dest):
    page = f"{dest}/usr/share/man/man8/portico.8"
    if shutil.which("groff"):
        out = run("groff", "-man", "-ww", "-z", "-Tutf8", page)
        assert out == "", out
    text = read(page).replace("\\-", "-")
    for name in run(PORTICO, "help").split("Available Commands:\n")[1].split("\n\n")[0].split("\n"):
        assert name.split()[0] in text, f"{name.split()[0]} is not in the manual"
    if not shutil.which("groff"):
        raise Skip("no groff here: only the commands were looked for")


def completion(dest):
    run("/bin/bash", "-n", f"{dest}/usr/share/bash-completion/completions/portico")
    if shutil.which("zsh"):
        run("zsh", "-n", f"{dest}/usr/share/zsh/site-functions/_portico")


def elsewhere(dest):
    install(dest, "/home/x/.local")
    assert "root * /home/x/.local/share/portico" in read(f"{dest}/home/x/.local/etc/portico/Caddyfile")
    assert "--config /home/x/.local/etc/portico/Caddyfile" in \
        read(f"{dest}/home/x/.local/lib/systemd/system/portico.service")
    run(f"{SOURCE}/packaging/install", PORTICO, dest, "relative", status=2)


def removes(dest):
    run(f"{SOURCE}/packaging/install", "--remove", dest, PREFIX)
    for path in WANTED:
        assert os.path.exists(dest + path) == path.startswith("/etc/"), path


TESTS = [("everything is in its place with its mode, and nothing else", places),
         ("a configuration that is there stays", keeps),
         ("the default configuration is valid", configuration),
         ("the unit passes systemd-analyze verify", unit),
         ("the manual names every command, without a warning of groff", manual),
         ("the completions are scripts", completion),
         ("another prefix", elsewhere),
         ("uninstall leaves the configuration", removes)]


def main():
    with tempfile.TemporaryDirectory(prefix="portico-install-") as dest:
        os.chmod(dest, 0o755)
        return run_tests([(name, lambda test=test: test(dest)) for name, test in TESTS], "") > 0


sys.exit(main())
