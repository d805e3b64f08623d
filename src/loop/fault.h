/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a test makes operations fail. In release builds there is no such place. System calls that
 * are made directly are replaced by the test program itself (app/sweep_test.c).
 */
#pragma once

#include "loop/loop.h"

#ifdef LOOP_FAULTS
/* Called at each completion, if set: gives what the operation shall be told instead. */
extern int (*loop_fault)(const struct op *, int result);
#define FAULT(op, result) (loop_fault != NULL ? loop_fault((op), (result)) : (result))
#else
#define FAULT(op, result) (result)
#endif
