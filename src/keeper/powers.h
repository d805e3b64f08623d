/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the keeper and its helpers may do beyond what any process of their user may. A later reload may
 * want what the present configuration does not, so rights are not thrown away but sleep: the keeper's
 * effective set is empty except for the moment of an operation that needs it.
 */
#pragma once

#include <stdbool.h>

/* At the start: what no configuration needs of this process goes for good, the rest sleeps. */
void powers_init(void);

/* Around what needs rights; they nest. In a child that is forked in between, they are awake. */
void powers_raise(void);
void powers_lower(void);
void powers_wake(bool awake); /* the one or the other, for rooms before this one */

/* No service may be root's, so no program is to get by running what none of portico's needs: out of
 * the bounding set, for good. */
void powers_bound(void);

/* Who starts services' programs: it has no other any more, and these sleep as the keeper's do. */
void powers_of_guardhouse(void);

/* Each for its process, awake and for good: who writes the firewall's rules, who reads the ledger. */
void powers_of_firewall(void);
void powers_of_reader(void);
