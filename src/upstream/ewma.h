/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long an upstream takes of late: an average in which older requests count less and less, shared by
 * all workers. Without news it falls to nothing, so that one that was slow is tried again.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A float of nanoseconds, and when it was right, in steps of about a millisecond. 0: nothing is known. */
struct ewma {
    _Atomic uint64_t state;
};

/* `decay_ns`: after that long without news a third is left of what was known. A failure counts as at
 * least a second. */
void ewma_note(struct ewma *, uint64_t latency_ns, bool failed, uint64_t decay_ns, uint64_t now_ns);

/* Nanoseconds; 0: nothing is known. */
float ewma_read(const struct ewma *, uint64_t decay_ns, uint64_t now_ns);
