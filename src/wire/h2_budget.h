/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How often a peer may do what costs it less than it costs this server. Each kind has a number that
 * is always allowed, grows back with time, and with what the peer asks for in earnest, so that only
 * who does nothing else is stopped. Against: rapid reset (CVE-2023-44487) and streams that are made
 * to be reset from here ("MadeYouReset", CVE-2025-8671), floods of PING, SETTINGS, PRIORITY (CVE-2019-9512,
 * 9515, 9513), of empty frames (9518), of window updates of one byte.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum h2_budget {
    H2_RESETS,  /* streams that the client reset, or that its errors did */
    H2_CONTROL, /* PING, SETTINGS, PRIORITY, frames that are unknown or too late */
    H2_WINDOWS, /* WINDOW_UPDATE */
    H2_EMPTY,   /* DATA and CONTINUATION without a byte */
    H2_BUDGETS
};

struct h2_budgets {
    uint64_t at_ns; /* when it last grew with time */
    uint16_t left[H2_BUDGETS];
};

void h2_budgets_init(struct h2_budgets *, uint64_t now_ns);

/* False when it is used up. */
bool h2_spend(struct h2_budgets *, enum h2_budget, uint64_t now_ns);

/* Something in earnest has been done. */
void h2_refund(struct h2_budgets *, enum h2_budget, unsigned n);

/* Its name in the log. */
const char *h2_budget_name(enum h2_budget);
