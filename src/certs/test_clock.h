/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests move the clock: in debug builds the wall clock is shifted by as many seconds as the file
 * PORTICO_TEST_CLOCK holds, looked at ten times a second, and PORTICO_TEST_HURRY=N makes the waits
 * between tries N times shorter. Release builds know neither.
 */
#pragma once

#include <stdint.h>

void test_clock_start(void);
void test_clock_stop(void);
uint64_t test_clock_wait(uint64_t ns);
void test_clock_hurry(unsigned times); /* for unit tests */
