/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   "listener_wrappers": [{"wrapper": "proxy_protocol", "timeout": "5s", "allow": ["10.0.0.0/8"],
 *                          "deny": ["192.0.2.0/24"], "fallback_policy": "REQUIRE"},
 *                         {"wrapper": "http_redirect", "max_header_bytes": 65536},
 *                         {"wrapper": "tls"}]
 *
 * Without "tls" among them all stand behind it, as in Caddy; these two make no sense there.
 * "deny" comes before "allow", and both before "fallback_policy" (IGNORE when nothing is said). Peers
 * on Unix sockets are believed. The policy is the listener's, so it is asked once a connection.
 */
#include "http/proxy_policy.h"

#include <netinet/in.h>

#include "base/clock.h"

enum { RANGES_MAX = 4096, REDIRECT_HEAD_MAX = 64 << 10 };

static enum err read_set(struct provision *p, const json_t *json, const char *key, struct ip_set *out)
{
    struct slice *texts;
    size_t count;
    TRY(provision_texts(p, json, key, &texts, &count));
    if (count > RANGES_MAX)
        return provision_fail(p, "\"%s\" has more than %d ranges", key, RANGES_MAX);
    struct ip_range *ranges = ARENA_ARRAY(p->arena, struct ip_range, count + 1);
    for (size_t i = 0; i < count; i++) {
        if (!ip_range_parse(texts[i], &ranges[i]))
            return provision_fail(p, "\"%s\": " SLICE_FMT " is no range of addresses such as "
                                  "10.0.0.0/8", key, SLICE_ARG(slice_take(texts[i], 100)));
    }
    *out = ip_set_build(ranges, count);
    return OK;
}

static enum err read_fallback(struct provision *p, const json_t *json, enum proxy_use *out)
{
    static const char *const names[] = {"IGNORE", "USE", "REJECT", "REQUIRE", "SKIP"};
    struct slice name;
    TRY(provision_text(p, json, "fallback_policy", SLICE("IGNORE"), &name));
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (slice_eq_nocase(name, slice_from(names[i]))) {
            *out = (enum proxy_use)i;
            return OK;
        }
    }
    return provision_fail(p, "\"fallback_policy\": " SLICE_FMT " is none of IGNORE, USE, REJECT, "
                          "REQUIRE, SKIP", SLICE_ARG(slice_take(name, 60)));
}

static enum err provision_proxy(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"wrapper", "timeout", "allow", "deny", "fallback_policy",
                                        NULL};
    struct proxy_policy *policy = cfg;
    int64_t timeout;
    TRY(provision_members(p, json, known));
    TRY(provision_duration(p, json, "timeout", 0, &timeout));
    policy->timeout_ns = timeout > 0 ? (uint64_t)timeout : timeout == 0 ? 5 * NS_PER_S : 0;
    TRY(read_set(p, json, "allow", &policy->allow));
    TRY(read_set(p, json, "deny", &policy->deny));
    return read_fallback(p, json, &policy->fallback);
}

static enum err provision_tls(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"wrapper", NULL};
    (void)cfg;
    return provision_members(p, json, known);
}

const struct module listener_proxy_protocol = {
    .id = "caddy.listeners.proxy_protocol",
    .cfg_size = sizeof(struct proxy_policy),
    .provision = provision_proxy,
};

const struct module listener_tls = {
    .id = "caddy.listeners.tls",
    .cfg_size = 1,
    .provision = provision_tls,
};

struct http_redirect {
    uint32_t max;
};

static enum err provision_redirect(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"wrapper", "max_header_bytes", NULL};
    int64_t max;
    TRY(provision_members(p, json, known));
    TRY(provision_int(p, json, "max_header_bytes", 0, 0, 1 << 30, &max));
    ((struct http_redirect *)cfg)->max = max > 0 ? (uint32_t)max : REDIRECT_HEAD_MAX;
    return OK;
}

const struct module listener_http_redirect = {
    .id = "caddy.listeners.http_redirect",
    .cfg_size = sizeof(struct http_redirect),
    .provision = provision_redirect,
};

static enum err read_wrapper(struct listener_wrappers *out, const json_t *json, bool *tls, size_t i,
                             struct provision *p)
{
    const struct module *m;
    void *cfg;
    const char *name = json_string_value(json_object_get(json, "wrapper"));
    if (name == NULL)
        return provision_fail(p, "\"wrapper\" must name the listener wrapper");
    TRY(provision_module(p, "caddy.listeners", name, json, &m, &cfg));
    if (m == &listener_tls && i == 0)
        return provision_fail(p, "it is unnecessary to specify the TLS listener wrapper in the first "
                              "position because that is the default");
    if (m == &listener_tls && *tls)
        return provision_fail(p, "TLS listener wrapper can only be specified once");
    if (m != &listener_tls && *tls)
        return provision_fail(p, "%s has no meaning behind tls: put it before", name);
    if (m == &listener_proxy_protocol && out->proxy != NULL)
        return provision_fail(p, "proxy_protocol is there twice");
    *tls |= m == &listener_tls;
    if (m == &listener_proxy_protocol)
        out->proxy = cfg;
    if (m == &listener_http_redirect)
        out->redirect_max = ((const struct http_redirect *)cfg)->max;
    return OK;
}

enum err listener_wrappers_provision(struct listener_wrappers *out, const json_t *server,
                                     bool encrypted, struct provision *p)
{
    const json_t *list = json_object_get(server, "listener_wrappers"), *one;
    bool tls = false;
    size_t i;
    if (list == NULL || json_is_null(list))
        return OK;
    if (!json_is_array(list))
        return provision_fail(p, "\"listener_wrappers\" must be an array");
    struct slice outer = p->path;
    json_array_foreach(list, i, one)
    {
        p->path = arena_printf(p->arena, SLICE_FMT ".listener_wrappers[%zu]", SLICE_ARG(outer), i);
        TRY(read_wrapper(out, one, &tls, i, p));
    }
    p->path = outer;
    if (encrypted && !tls && (out->proxy != NULL || out->redirect_max > 0))
        return provision_fail(p, "\"listener_wrappers\": without the wrapper \"tls\" behind them they "
                              "would stand inside of TLS, where nobody speaks to them: add tls as the "
                              "last one");
    return OK;
}

static struct ip_address address_of(const struct sockaddr_storage *peer)
{
    struct ip_address a = {0};
    const struct in6_addr *six = &((const struct sockaddr_in6 *)peer)->sin6_addr;
    if (peer->ss_family == AF_INET) {
        memcpy(a.bytes, &((const struct sockaddr_in *)peer)->sin_addr, 4);
    } else if (IN6_IS_ADDR_V4MAPPED(six)) {
        memcpy(a.bytes, six->s6_addr + 12, 4);
    } else {
        a.is_six = 1;
        memcpy(a.bytes, six, 16);
    }
    return a;
}

enum proxy_use proxy_policy_for(const struct proxy_policy *policy,
                                const struct sockaddr_storage *peer)
{
    if (peer->ss_family != AF_INET && peer->ss_family != AF_INET6)
        return PROXY_USE;
    struct ip_address a = address_of(peer);
    if (ip_set_has(&policy->deny, &a))
        return PROXY_REJECT;
    return ip_set_has(&policy->allow, &a) ? PROXY_USE : policy->fallback;
}
