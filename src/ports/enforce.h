/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeping ports shut: what is declared, as one nftables table of our own, `inet portico`, replaced in
 * one transaction. Making the script is pure; `nft -f -` is run by the privileged side only (the
 * keeper's helper process, or `portico ports apply` as root). The table's design: docs/decisions/0018.
 *
 * A trial is rolled back by the kernel's own timer: the new rules stand beside those in force, and
 * are chosen by a set whose elements expire.
 */
#pragma once

#include <jansson.h>

#include "base/buffer.h"
#include "base/err.h"
#include "ports/port.h"

enum { ENFORCE_TRIAL_MAX_S = 24 * 3600, ENFORCE_NAMES_MAX = 4096 };

/* What shall hold. Declarations of sites and services count too: what nothing was said of is open to
 * the world if its address is, unless the app "ports" says otherwise of that port. */
struct enforce_rules {
    const struct port_declaration *items;
    size_t count;
    enum port_reach others; /* REACH_UNKNOWN: nothing was said, so they stay as they are */
};

/* What is in force. */
struct enforce_state {
    bool present;         /* the table is there */
    char current, trial;  /* 'a' or 'b'; 0: none */
    char current_mark[17], trial_mark[17]; /* fingerprints of their rules */
    unsigned trial_left_s; /* 0: it is over, or there is none */
    struct slice *chains, *sets; /* of the table */
    size_t chains_count, sets_count;
};

/* What a source may reach. */
enum enforce_verdict { ENFORCE_PASS, ENFORCE_SHUT, ENFORCE_FROM };

/* The plan: each protocol's ports in intervals of one group. */
struct enforce_group {
    enum enforce_verdict verdict;
    const struct ip_range *from; /* of ENFORCE_FROM; sorted */
    size_t from_count;
};

struct enforce_interval {
    uint16_t first, last;
    uint16_t group;
};

struct enforce_plan {
    const struct enforce_group *groups;
    size_t groups_count;
    const struct enforce_interval *intervals[PORT_PROTOCOLS]; /* sorted, neighbours merged */
    size_t intervals_count[PORT_PROTOCOLS];
    const struct enforce_interval *by_group[PORT_PROTOCOLS]; /* the same, each group's together */
    const uint32_t *group_starts[PORT_PROTOCOLS]; /* of each group there, and the end */
    enum enforce_verdict others;
};

/* ERR_LIMIT: more different groups than a table bears. A sentence in `error`. */
enum err enforce_plan_make(const struct enforce_rules *, struct arena *, struct enforce_plan *,
                           char *error, size_t cap);
bool enforce_allows(const struct enforce_plan *, enum port_protocol, uint16_t port,
                    const struct ip_address *from);

/* The text for nft which puts the plan in force, instead of `now`. `trial_s`: seconds after which the
 * kernel itself goes back to what was in force (0: at once and for good). */
enum err enforce_script(const struct enforce_plan *, const struct enforce_state *now, unsigned trial_s,
                        struct buffer *);

/* The fingerprint of a plan, as in a state. */
void enforce_mark(const struct enforce_plan *, char out[17]);

/* Keeps a trial's rules, or goes back to those before it. The state must have a trial. */
enum err enforce_confirm_script(const struct enforce_state *, struct buffer *);
enum err enforce_rollback_script(const struct enforce_state *, struct buffer *);

/* Of `nft -j -t list table inet portico` and `nft -j list set inet portico trial` (NULL: none). */
enum err enforce_state_parse(const json_t *table, const json_t *trial, struct arena *,
                             struct enforce_state *, char *error, size_t cap);

/* Asks the kernel. ERR_DENIED without CAP_NET_ADMIN, ERR_NOT_FOUND without nft. Blocking. */
enum err enforce_state_read(struct arena *, struct enforce_state *, char *error, size_t cap);

/* Runs nft; its errors are told by `error`. Blocking. */
enum err enforce_apply(struct slice script, char *error, size_t cap);

/* Takes the table away, and nothing else; OK when there is none. */
enum err enforce_remove(char *error, size_t cap);

/* The counters of a ruleset as nft lists it in JSON; none where there is no table of ours. */
void port_counts_read(const json_t *ruleset, struct arena *, struct port_count **, size_t *count);

/* Gives the entries of our own namespace what was counted for them. */
void table_count(struct port_table *);

/* Established connections into this machine that the plan would not let in again: a sentence each,
 * SSH first. */
enum err enforce_would_cut(const struct enforce_plan *, struct arena *, struct slice **sentences,
                           size_t *n);
