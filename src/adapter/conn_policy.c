/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first policy that matches a handshake decides, so order is meaning here: a site without
 * settings must not fall to the client authentication of a wildcard site, and one that matches all
 * comes last.
 */
#include "adapter/conn_policy.h"

#include <stdlib.h>

const char *const conn_policy_keys[] = {
    "match", "certificate_selection", "cipher_suites", "curves", "alpn", "protocol_min",
    "protocol_max", "drop", "client_authentication", "default_sni", "fallback_sni",
    "insecure_secrets_log", NULL,
};

void conn_policies_init(struct adapt *a, struct conn_policies *c)
{
    *c = (struct conn_policies){.list = j_array(a), .plain = j_array(a)};
}

static int by_text(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

static void put_match(struct adapt *a, json_t *policy, struct slice *hosts, size_t count)
{
    json_t *match = j_object(a);
    qsort(hosts, count, sizeof *hosts, by_text);
    j_set(a, match, "sni", j_strings(a, hosts, count));
    j_set(a, policy, "match", match);
}

/* A site that is the default one also serves handshakes without a name. */
static size_t put_defaults(struct adapt *a, json_t *policy, struct slice *hosts, size_t count)
{
    const struct options *o = &a->options;
    for (size_t i = 0; i < count; i++) {
        bool is_default = slice_eq(hosts[i], o->default_sni);
        if (!is_default && !slice_eq(hosts[i], o->fallback_sni))
            continue;
        j_put_text(a, policy, is_default ? "default_sni" : "fallback_sni",
                   is_default ? o->default_sni : o->fallback_sni);
        hosts[count] = SLICE("");
        return count + 1;
    }
    return count;
}

static void plain_site(struct adapt *a, struct conn_policies *c, const struct slice *hosts,
                       size_t count)
{
    struct slice *specific = ARENA_ARRAY(a->arena, struct slice, count + 1);
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (hosts[i].len > 0 && slice_find(hosts[i], '*') == SIZE_MAX)
            specific[n++] = hosts[i];
    if (n == 0)
        return;
    qsort(specific, n, sizeof *specific, by_text);
    j_append(c->plain, j_strings(a, specific, n));
}

size_t conn_policies_of_site(struct adapt *a, struct conn_policies *c, const struct placed_site *p,
                             struct slice *hosts, size_t count)
{
    const struct values *tls = &p->site->tls;
    bool forced = false, extended = false;
    for (size_t i = 0; i < tls->count; i++)
        forced = forced || tls->items[i].tls->force_automate;
    if (tls->count == 0)
        plain_site(a, c, hosts, count);
    for (size_t i = 0; i < tls->count; i++) {
        json_t *policy = keep(a, json_copy(tls->items[i].tls->policy));
        size_t before = count;
        count = extended ? count : put_defaults(a, policy, hosts, count);
        extended = extended || count > before;
        if (count > 0) {
            put_match(a, policy, hosts, count);
        } else {
            j_put_text(a, policy, "default_sni", a->options.default_sni);
            j_put_text(a, policy, "fallback_sni", a->options.fallback_sni);
        }
        policy = j_ordered(a, policy, conn_policy_keys);
        size_t settings = json_object_size(policy) -
                          (json_object_get(policy, "match") != NULL) -
                          (json_object_get(policy, "drop") != NULL);
        if (settings > 0 || (forced && count > 0)) {
            j_append(c->list, policy);
            c->catches_all = count == 0;
        } else if (count > 0) {
            j_append(c->plain, json_object_get(json_object_get(policy, "match"), "sni"));
        }
    }
    return count;
}

/* --- shields: names that a wildcard's client authentication must not reach --- */

static struct slice text_of(const json_t *j)
{
    return slice_of(json_string_value(j), json_string_length(j));
}

bool wildcard_matches(struct slice name, struct slice wildcard, struct arena *arena)
{
    if (slice_eq_nocase(name, wildcard))
        return true;
    if (slice_find(wildcard, '*') == SIZE_MAX)
        return false;
    /* The labels from the front become stars, one more at a time. */
    struct slice stars = SLICE_NONE, rest = name, label;
    bool more = true;
    while (more) {
        more = slice_cut(rest, '.', &label, &rest);
        struct slice parts[] = {stars, label.len > 0 ? SLICE("*") : SLICE_NONE,
                                more ? SLICE(".") : SLICE_NONE};
        stars = arena_join(arena, parts, 3);
        if (label.len > 0 && wildcard.len == stars.len + rest.len &&
            slice_eq_nocase(slice_take(wildcard, stars.len), stars) &&
            slice_eq_nocase(slice_skip(wildcard, stars.len), rest))
            return true;
    }
    return false;
}

static const json_t *names_of(const json_t *policy)
{
    return json_object_get(json_object_get(policy, "match"), "sni");
}

/* Only a wildcard reaches names of others. */
static bool has_shield(const json_t *policy)
{
    const json_t *sni = names_of(policy);
    bool wild = false;
    for (size_t i = 0; i < json_array_size(sni) && !wild; i++)
        wild = slice_find(text_of(json_array_get(sni, i)), '*') != SIZE_MAX;
    return wild && json_object_get(policy, "client_authentication") != NULL;
}

static bool shielded_by(struct adapt *a, const json_t *policy, struct slice host)
{
    const json_t *sni = names_of(policy);
    for (size_t i = 0; i < json_array_size(sni); i++) {
        struct slice name = text_of(json_array_get(sni, i));
        if (slice_find(name, '*') != SIZE_MAX && wildcard_matches(host, name, a->arena))
            return true;
    }
    return false;
}

static json_t *shield_of(struct adapt *a, json_t *policy, struct slice *hosts, size_t count)
{
    json_t *shield = keep(a, json_copy(policy));
    size_t n = 0;
    qsort(hosts, count, sizeof *hosts, by_text);
    for (size_t i = 0; i < count; i++)
        if (n == 0 || !slice_eq(hosts[n - 1], hosts[i]))
            hosts[n++] = hosts[i];
    json_object_del(shield, "client_authentication");
    put_match(a, shield, hosts, n);
    return shield;
}

static void put_shields(struct adapt *a, struct conn_policies *c)
{
    json_t *out = j_array(a);
    size_t total = 0;
    for (size_t i = 0; i < json_array_size(c->plain); i++)
        total += json_array_size(json_array_get(c->plain, i));
    struct slice *all = ARENA_ARRAY(a->arena, struct slice, total + 1);
    struct slice *mine = ARENA_ARRAY(a->arena, struct slice, total + 1);
    size_t left = 0;
    for (size_t i = 0; i < json_array_size(c->plain); i++)
        for (size_t k = 0; k < json_array_size(json_array_get(c->plain, i)); k++)
            all[left++] = text_of(json_array_get(json_array_get(c->plain, i), k));
    for (size_t i = 0; i < json_array_size(c->list); i++) {
        json_t *policy = json_array_get(c->list, i);
        size_t n = 0, others = 0;
        if (!has_shield(policy)) {
            j_append(out, policy);
            continue;
        }
        for (size_t k = 0; k < left; k++)
            if (shielded_by(a, policy, all[k]))
                mine[n++] = all[k];
            else
                all[others++] = all[k];
        left = others;
        if (n > 0)
            j_append(out, shield_of(a, policy, mine, n));
        j_append(out, policy);
    }
    c->list = out;
}

enum err conn_policies_finish(struct adapt *a, struct conn_policies *c, bool qualifies,
                              bool auto_https_adds_one)
{
    const struct options *o = &a->options;
    put_shields(a, c);
    if (qualifies && !c->catches_all &&
        (json_array_size(c->list) > 0 || !auto_https_adds_one || o->default_sni.len > 0 ||
         o->fallback_sni.len > 0)) {
        json_t *last = j_object(a);
        j_put_text(a, last, "default_sni", o->default_sni);
        j_put_text(a, last, "fallback_sni", o->fallback_sni);
        j_append(c->list, last);
    }
    return conn_policies_merge(a, c);
}
