# The front of the build: Meson and Ninja do the work, this file holds the names that people type.
# SPDX-License-Identifier: Apache-2.0
PREFIX ?= /usr
DESTDIR ?=
NINJA ?= ninja

.PHONY: all setup test clean

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

clean:
	rm -rf build build-asan build-clang
