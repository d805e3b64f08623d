#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Caddy's published cases as TAP, one line a case. Usage: conformance_test.py PORTICO MOCKS, where
MOCKS is portico with the two modules that exist in Caddy's tests only."""
import sys

sys.dont_write_bytecode = True
import conformance  # noqa: E402 (beside this file)


def main():
    portico, mocks = sys.argv[1:3]
    known, failed, number = conformance.known_missing(), 0, 0
    outcome = conformance.run_all(portico, mocks)
    for number, (group, name, problem) in enumerate(outcome, 1):
        if problem is None:
            print(f"ok {number} - {group}: {name}")
        elif (group, name) in known:
            print(f"ok {number} - {group}: {name} # SKIP listed in docs/conformance.md")
        else:
            failed += 1
            print(f"not ok {number} - {group}: {name}\n# {problem}")
    number += 1
    path = conformance.ROOT / "docs" / "conformance.md"
    fresh = path.read_text("utf-8") == conformance.document(outcome)
    print(f"{'ok' if fresh else 'not ok'} {number} - docs/conformance.md is fresh "
          "(dev/conformance writes it)")
    print(f"1..{number}")
    return 1 if failed or not fresh else 0


sys.exit(main())
