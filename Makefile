# The front of the build: Meson and Ninja do the work, this file holds the names that people type.
# SPDX-License-Identifier: Apache-2.0
PREFIX ?= /usr
DESTDIR ?=
NINJA ?= ninja

.PHONY: all setup test test-long clean

all: build/build.ninja
	@$(NINJA) -C build

build/build.ninja: | setup
	meson setup build --buildtype=release -Db_lto=true --prefix=$(PREFIX)

# Installs the Debian packages that are missing; says nothing when there are none.
setup:
	@dev/setup build

test:
	@dev/setup test
	@dev/test

# The second tier, an hour or more: fuzzers, a million requests, storms.
test-long:
	@dev/setup test
	@dev/test --long

clean:
	rm -rf build build-asan build-clang
