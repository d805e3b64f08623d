/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In order: what is bound, whose it is, who can reach it; then what each number is for, what the
 * configuration says, what is wrong.
 */
#include "ports/ledger.h"

#include <time.h>
#include <unistd.h>

#include "ports/declared.h"
#include "ports/enforce.h"
#include "ports/published.h"
#include "ports/reach.h"

enum err ledger_look(const struct socket_options *options, struct arena *arena, struct port_table *t,
                     char *error, size_t cap)
{
    char host[256] = "";
    struct timespec now;
    (void)gethostname(host, sizeof host - 1);
    (void)clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct port_table){.arena = arena, .host = arena_copy(arena, slice_from(host)),
                             .time_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec};
    TRY(sockets_collect(t, options, error, cap));
    (void)owners_collect(t, options);
    table_published(t, "");
    table_reach(t);
    table_reach_published(t);
    return OK;
}

enum err ledger_judge(const struct ledger_request *r, struct port_table *t, char *error, size_t cap)
{
    struct port_facts facts = {.memory = r->memory, .memory_count = r->memory_count};
    const struct port_declaration *list;
    struct ports_policy policy;
    size_t count;
    enum err e = ports_declared(r->document, r->origins, t->arena, &list, &count, error, cap);
    if (e != OK && e != ERR_EXISTS) /* a table is worth having in spite of a conflict */
        return e;
    table_services(t, r->services);
    declarations_settle(r->services, t->arena, &list, &count);
    table_declare(t, list, count);
    table_count(t);
    table_name(t);
    port_facts_read(&facts, t->arena);
    facts.declares = r->document != NULL && !json_is_null(r->document);
    e = ports_policy_read(json_object_get(json_object_get(r->document, "apps"), "ports"), NULL, t->arena,
                          &policy, error, cap);
    facts.others = e == OK ? policy.others : REACH_UNKNOWN;
    table_find(t, &facts);
    return OK;
}

enum err ledger_read(const struct ledger_request *r, struct arena *arena, struct port_table *t,
                     char *error, size_t cap)
{
    TRY(ledger_look(&r->sockets, arena, t, error, cap));
    return ledger_judge(r, t, error, cap);
}
