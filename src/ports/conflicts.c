/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a configuration excludes itself, before anything is bound: two services, or a service and a
 * site, that want one port; something bound for everybody on a port that is declared for the device,
 * or for nobody.
 */
#include <stdio.h>

#include "ports/declared.h"

struct slice declaration_text(const struct port_declaration *d, struct arena *arena)
{
    static const char *const kinds[] = {"the site ", "the service ", "the declaration of ",
                                        "the upstream ", "the "};
    char numbers[24];
    snprintf(numbers, sizeof numbers, d->first == d->last ? "port %u" : "ports %u-%u", d->first,
             d->last);
    struct slice name = d->name.len > 0 && d->by != DECLARED_PORTS ? d->name : slice_from(numbers);
    if (d->file.len == 0)
        return arena_printf(arena, "%s" SLICE_FMT, kinds[d->by], SLICE_ARG(slice_take(name, 200)));
    return arena_printf(arena, "%s" SLICE_FMT " (" SLICE_FMT ":%u)", kinds[d->by],
                        SLICE_ARG(slice_take(name, 200)), SLICE_ARG(slice_take(d->file, 400)),
                        d->line);
}

static bool shares_port(const struct port_declaration *a, const struct port_declaration *b)
{
    bool protocol = a->any_protocol || b->any_protocol || a->protocol == b->protocol;
    return protocol && a->first != 0 && b->first != 0 && a->first <= b->last && b->first <= a->last;
}

static bool shares_address(const struct port_declaration *a, const struct port_declaration *b)
{
    return a->host.len == 0 || b->host.len == 0 || slice_eq(a->host, b->host) ||
           (host_is_loopback(a->host) && host_is_loopback(b->host) &&
            (slice_is(a->host, "localhost") || slice_is(b->host, "localhost")));
}

static bool is_listener(const struct port_declaration *d)
{
    return d->by == DECLARED_SITE || d->by == DECLARED_SERVICE || d->by == DECLARED_ADMIN;
}

/* Two listeners of which one is a service; of sites, the server itself sees to it. */
static bool collide(const struct port_declaration *a, const struct port_declaration *b)
{
    bool service = a->by == DECLARED_SERVICE || b->by == DECLARED_SERVICE;
    return service && is_listener(a) && is_listener(b) && shares_port(a, b) && shares_address(a, b);
}

/* A listener beyond what is declared for its port. */
static bool too_wide(const struct port_declaration *policy, const struct port_declaration *d)
{
    if (policy->by != DECLARED_PORTS || !is_listener(d) || !shares_port(policy, d))
        return false;
    if (policy->reach == REACH_NOBODY)
        return true;
    return policy->reach == REACH_DEVICE && policy->from_count == 0 && !host_is_loopback(d->host);
}

static void tell_wide(const struct port_declaration *policy, const struct port_declaration *d,
                      struct arena *arena, char *error, size_t cap)
{
    struct slice who = declaration_text(d, arena), what = declaration_text(policy, arena);
    bool nobody = policy->reach == REACH_NOBODY;
    snprintf(error, cap, SLICE_FMT " listens on port %u of %s" SLICE_FMT ", but " SLICE_FMT
             " says that %s may reach it: %s",
             SLICE_ARG(who), d->first, d->host.len > 0 ? "" : "every address", SLICE_ARG(d->host),
             SLICE_ARG(what), nobody ? "nobody" : "only this device",
             nobody ? "take one of them away" : "bind it to 127.0.0.1, or declare it for more");
}

static void tell_collision(const struct port_declaration *a, const struct port_declaration *b,
                           struct arena *arena, char *error, size_t cap)
{
    struct slice first = declaration_text(a, arena), second = declaration_text(b, arena);
    snprintf(error, cap, SLICE_FMT " and " SLICE_FMT " both want port %u: give one of them another",
             SLICE_ARG(first), SLICE_ARG(second), a->first > b->first ? a->first : b->first);
}

/* Of one listener, with all that stands before it, and with what is declared for its port. */
static bool conflicts(const struct port_declaration *list, size_t count, size_t at,
                      struct arena *arena, char *error, size_t cap)
{
    const struct port_declaration *d = &list[at];
    for (size_t i = 0; i < count; i++) {
        if (too_wide(&list[i], d)) {
            tell_wide(&list[i], d, arena, error, cap);
            return true;
        }
        if (i < at && collide(&list[i], d)) {
            tell_collision(&list[i], d, arena, error, cap);
            return true;
        }
    }
    return false;
}

enum err declarations_conflict(const struct port_declaration *list, size_t count, char *error,
                               size_t cap)
{
    struct arena arena;
    bool found = false;
    arena_init(&arena, 4096);
    for (size_t i = 0; i < count && !found; i++)
        found = is_listener(&list[i]) && conflicts(list, count, i, &arena, error, cap);
    arena_deinit(&arena);
    return found ? ERR_EXISTS : OK;
}
