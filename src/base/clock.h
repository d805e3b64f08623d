/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time: monotonic nanoseconds for deadlines, wall-clock nanoseconds since 1970 (UTC) for people.
 */
#pragma once

#include "base/slice.h"

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

uint64_t clock_mono_ns(void);
int64_t clock_wall_ns(void);
int64_t clock_file_ns(void); /* the wall clock that files' times come from: no test moves it */

#ifdef LOOP_FAULTS /* debug builds: tests move the wall clock */
#include <stdatomic.h>
extern _Atomic int64_t clock_shift_ns;
#endif

enum { HTTP_DATE_LEN = 29 };

/* IMF-fixdate (RFC 9110 §5.6.7), `Sun, 06 Nov 1994 08:49:37 GMT`; exactly HTTP_DATE_LEN bytes, no
 * NUL. Seconds outside the years 0 … 9999 are clamped. */
void clock_http_date(int64_t seconds, char out[HTTP_DATE_LEN]);

/* All three forms of RFC 9110 §5.6.7. False when malformed or out of range. */
bool clock_parse_http_date(struct slice, int64_t *seconds);
