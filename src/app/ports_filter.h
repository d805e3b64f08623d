/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words that choose rows of the ledger: ports and ranges, protocols, reaches, and anything else a
 * program, unit, container, service, user, namespace or declared name has in it. Words of one kind
 * add up; different kinds must all fit.
 */
#pragma once

#include "ports/port.h"

struct ports_filter {
    const char *const *words;
    size_t count;
};

bool filter_fits(const struct ports_filter *, const struct port_entry *);

/* Leaves only the rows that fit. */
void filter_apply(const struct ports_filter *, struct port_table *);

/* "3000", "8000-8010", "3000/tcp". `any` stays true without a protocol. */
bool port_word_parse(struct slice, uint16_t *first, uint16_t *last, enum port_protocol *, bool *any);
