# The front of the build: Meson and Ninja do the work, this file holds the names that people type.
# SPDX-License-Identifier: Apache-2.0
#
#   make            a release build in build/portico
#   make run        the first example: a site, two services behind it; Ctrl-C ends it
#   make test       every test of every variant        make test-long   and the long rounds
#   make bench      side by side with other servers
#   make install    DESTDIR= PREFIX=/usr               make uninstall
PREFIX ?= /usr
DESTDIR ?=
NINJA ?= ninja

.PHONY: all setup run test test-long bench install uninstall clean

all: build/build.ninja
	@$(NINJA) -C build portico

build/build.ninja: | setup
	meson setup build --buildtype=release -Db_lto=true --prefix=$(PREFIX)

# Installs the Debian packages that are missing; says nothing when there are none.
setup:
	@dev/setup build

run:
	@dev/setup run
	@$(MAKE) --no-print-directory all
	@exec python3 examples/first/run.py build/portico

test:
	@dev/setup test
	@dev/test

# The second tier, an hour or more: fuzzers, a million requests, storms.
test-long:
	@dev/setup test
	@dev/test --long

bench: all
	@dev/setup bench
	@bench/run build/portico

# `make` first, then `sudo make install`: nothing is built here, so that nothing in build/ is root's.
install:
	@test -x build/portico || { echo "build/portico is not there: run make first" >&2; exit 1; }
	@packaging/install build/portico "$(DESTDIR)" "$(PREFIX)"

# The configuration and what the server keeps stay.
uninstall:
	@packaging/install --remove "$(DESTDIR)" "$(PREFIX)"

clean:
	rm -rf build build-asan build-clang build-release build-tsan build-aarch64
