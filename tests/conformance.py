# SPDX-License-Identifier: Apache-2.0
"""Caddy's published cases, run against portico: a Caddyfile and the JSON, the error or the formatted
text that Caddy gives for it. Texts are compared byte for byte, errors must hold Caddy's words.
tests/conformance_test.py prints the outcome as TAP, dev/conformance writes docs/conformance.md."""
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
DASHES = "----------"
NEEDS_MOCKS = ("mock", "dummy")


def run(command, folder):
    env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(folder), "TZ": "UTC"}
    env.update({k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")})
    return subprocess.run(command, cwd=folder, env=env, timeout=60, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)


def difference(want, got):
    at = next((i for i, (w, g) in enumerate(zip(want, got)) if w != g), min(len(want), len(got)))
    lo = max(0, at - 30)
    return f"differs at byte {at}: want {want[lo:at + 40]!r}, got {got[lo:at + 40]!r}"


def judge_error(want, answer):
    said = answer.stderr.decode(errors="replace")
    if answer.returncode != 1:
        return f"exit status {answer.returncode}, want 1"
    if " ".join(want.split()) in " ".join(said.split()):
        return None
    return f"says {said.strip()!r}, want {want!r}"


def adapt_case(portico, mocks, path):
    """None when it passes, else what is wrong."""
    parts = path.read_text("utf-8").replace("\r\n", "\n").split(DASHES)
    text, want = parts[0].strip() + "\n", parts[1].strip()
    program = mocks if any(word in text for word in NEEDS_MOCKS) else portico
    with tempfile.TemporaryDirectory(prefix="portico-adapt-") as top:
        folder = pathlib.Path(top) / "integration"
        shutil.copytree(DATA / "adapt" / "testdata", folder / "testdata")
        shutil.copy(DATA / "adapt" / "caddy.ca.cer", top)
        (folder / "Caddyfile").write_text(text, "utf-8")
        answer = run([program, "adapt", "--config", "Caddyfile", "--adapter", "caddyfile",
                      "--pretty"], folder)
    if not want.startswith("{"):
        return judge_error(want, answer)
    got = answer.stdout.decode(errors="replace").strip()
    if answer.returncode != 0:
        return f"exit status {answer.returncode}: {answer.stderr.decode(errors='replace').strip()}"
    return None if got == want else difference(want, got)


def fmt_case(portico, _mocks, path):
    want = path.with_suffix(".out").read_bytes()
    with tempfile.TemporaryDirectory(prefix="portico-fmt-") as top:
        folder = pathlib.Path(top)
        shutil.copy(path, folder / "Caddyfile")
        shown = run([portico, "fmt", "Caddyfile"], folder)
        written = run([portico, "fmt", "--overwrite", "Caddyfile"], folder)
        text = (folder / "Caddyfile").read_bytes()
    formatted = path.read_bytes().replace(b"\r\n", b"\n") == want
    if shown.stdout != want:
        return difference(want, shown.stdout)
    if shown.returncode != (0 if formatted else 1) or written.returncode != 0:
        return f"exit status {shown.returncode}, and {written.returncode} for --overwrite"
    return None if text == want else "--overwrite writes something else"


def input_case(portico, mocks, row):
    program = mocks if any(word in row["input"] for word in NEEDS_MOCKS) else portico
    with tempfile.TemporaryDirectory(prefix="portico-input-") as top:
        folder = pathlib.Path(top)
        testdata = DATA / "tables" / "httpcaddyfile-testdata"
        if testdata.exists():
            shutil.copytree(testdata, folder / "testdata")
        (folder / "Caddyfile").write_text(row["input"], "utf-8")
        answer = run([program, "adapt", "--config", "Caddyfile"], folder)
    if row["error"]:
        return judge_error(row["contains"] or "", answer)
    if answer.returncode != 0:
        return f"exit status {answer.returncode}: {answer.stderr.decode(errors='replace').strip()}"
    if row["output"] is not None and json.loads(row["output"]) != json.loads(answer.stdout):
        return f"gives {answer.stdout.decode(errors='replace').strip()}"
    return None


def cases():
    """(group, name, function, argument) of every case."""
    for path in sorted((DATA / "adapt" / "caddyfile_adapt").iterdir()):
        yield "adapt", path.name.rpartition(".")[0], adapt_case, path
    for path in sorted((DATA / "fmt").glob("*.in")):
        yield "fmt", path.stem, fmt_case, path
    for row in json.loads((DATA / "tables" / "adapt-inputs.json").read_text("utf-8"))["cases"]:
        yield "inputs", row["name"], input_case, row


def run_all(portico, mocks):
    """[(group, name, problem or None)] in a fixed order."""
    todo = list(cases())
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        found = list(pool.map(lambda c: c[2](portico, mocks, c[3]), todo))
    return [(group, name, problem) for (group, name, _, _), problem in zip(todo, found)]


TITLES = {
    "adapt": ("Caddyfile to JSON", "`portico adapt --pretty` against Caddy's text, byte for byte; "
              "errors must hold Caddy's words."),
    "fmt": ("Formatting", "`portico fmt` and `fmt --overwrite`, byte for byte, with exit statuses."),
    "inputs": ("Small inputs", "Caddyfiles of Caddy's unit tests of its adapter."),
}


def document(outcome):
    """The text of docs/conformance.md."""
    lines = ["# Conformance with Caddy's published cases", "",
             "Generated by `dev/conformance`; a test says when it is stale. The cases are those of "
             "Caddy's source,", "commit 0cf03d32f7d9 (see `tests/data/README.md`).", "",
             "| cases | pass | of |", "| --- | ---: | ---: |"]
    for group, (title, _) in TITLES.items():
        mine = [problem for g, _, problem in outcome if g == group]
        lines.append(f"| {title} | {sum(p is None for p in mine)} | {len(mine)} |")
    for group, (title, how) in TITLES.items():
        mine = [(name, problem) for g, name, problem in outcome if g == group]
        lines += ["", f"## {title}", "", how, ""]
        missing = [name for name, problem in mine if problem is not None]
        if missing:
            lines += ["Not passing:", ""] + [f"- `{name}`" for name in missing] + [""]
        lines += ["Passing:", ""] + [f"- `{name}`" for name, problem in mine if problem is None]
    return "\n".join(lines) + "\n"


def known_missing():
    """(group, name) of the cases that docs/conformance.md lists as not passing."""
    titles = {title: group for group, (title, _) in TITLES.items()}
    group, missing, found = None, False, set()
    for line in (ROOT / "docs" / "conformance.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            group = titles.get(line[3:])
        elif line.endswith("assing:"):
            missing = line.startswith("Not")
        elif missing and line.startswith("- `"):
            found.add((group, line[3:-1]))
    return found
