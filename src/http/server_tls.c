/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protocols are a server's, or one address's of it ("listen_protocols", where "" stands for those of
 * the server). HTTP/3 is accepted and left out: it is not there yet.
 */
#include "http/server_tls.h"

#include "base/log.h"
#include "http/tls_policies.h"
#include "http/uri.h"
#include "tls/tls_stream.h"

enum { PROTOCOLS_BY_DEFAULT = HTTP_1 | HTTP_2 | HTTP_3 };

static enum err read_protocols(const json_t *list, unsigned inherited, unsigned *out,
                               struct provision *p)
{
    static const char *const names[] = {"h1", "h2", "h2c", "h3", NULL};
    size_t i;
    json_t *v;
    *out = 0;
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return provision_fail(p, "\"protocols\" must be an array of strings");
    json_array_foreach((json_t *)(uintptr_t)list, i, v)
    {
        const char *text = json_string_value(v);
        unsigned n = 0;
        while (text != NULL && names[n] != NULL && strcmp(text, names[n]) != 0)
            n++;
        if (text == NULL)
            return provision_fail(p, "\"protocols\" must be an array of strings");
        if (names[n] == NULL && text[0] != '\0')
            return provision_fail(p, "unknown protocol \"%.40s\": h1, h2, h2c and h3 are there", text);
        *out |= names[n] != NULL ? 1u << n : inherited;
    }
    if (i == 0)
        *out = inherited;
    return OK;
}

/* Of each address, and of all of them together. */
static enum err read_listen_protocols(struct http_server *s, const json_t *lists,
                                      struct provision *p)
{
    if (lists != NULL && !json_is_null(lists) && !json_is_array(lists))
        return provision_fail(p, "\"listen_protocols\" must be an array");
    if (json_is_array(lists) && json_array_size(lists) != s->listen_count)
        return provision_fail(p, "listener protocols count does not match address count: %zu != %zu",
                              json_array_size(lists), s->listen_count);
    s->listen_protocols = ARENA_ARRAY(p->arena, unsigned, s->listen_count + 1);
    unsigned all = 0;
    for (size_t i = 0; i < s->listen_count; i++) {
        TRY(read_protocols(json_array_get(lists, i), s->protocols, &s->listen_protocols[i], p));
        all |= s->listen_protocols[i];
    }
    s->protocols = s->listen_count > 0 ? all : s->protocols;
    return OK;
}

static enum err read_policies(struct http_server *s, const json_t *policies, struct provision *p,
                              bool *client_auth)
{
    *client_auth = false;
    if (policies == NULL || json_is_null(policies) ||
        (json_is_array(policies) && json_array_size(policies) == 0))
        return OK;
    s->tls = ARENA_NEW(p->arena, struct tls_server);
    s->tls->h1 = (s->protocols & HTTP_1) != 0;
    s->tls->h2 = HTTP_2_IS_THERE && (s->protocols & HTTP_2) != 0;
    return tls_policies_provision(s->tls, policies, p, client_auth);
}

enum err server_tls_provision(struct http_server *s, const json_t *json, struct provision *p)
{
    bool client_auth, early_data; /* 0-RTT belongs to HTTP/3 */
    const json_t *strict = json_object_get(json, "strict_sni_host");
    TRY(read_protocols(json_object_get(json, "protocols"), PROTOCOLS_BY_DEFAULT, &s->protocols, p));
    TRY(read_listen_protocols(s, json_object_get(json, "listen_protocols"), p));
    TRY(provision_bool(p, json, "allow_0rtt", true, &early_data));
    TRY(read_policies(s, json_object_get(json, "tls_connection_policies"), p, &client_auth));
    TRY(provision_bool(p, json, "strict_sni_host", client_auth, &s->strict_sni_host));
    if (client_auth && (strict == NULL || json_is_null(strict)))
        LOG(LOG_WARN, "http",
            "enabling strict SNI-Host enforcement because TLS client auth is configured",
            LOG_STR("server_id", s->name));
    return OK;
}

enum err server_check_host(const struct http_server *s, struct exchange *x)
{
    struct tls_facts facts;
    struct slice host, port;
    if (!s->strict_sni_host || x->tls == NULL)
        return OK;
    tls_stream_facts(x->tls, &facts);
    host_split(x->req.host, &host, &port);
    if (slice_eq_nocase(host, facts.server_name))
        return OK;
    x->close_after = true;
    return exchange_fail_f(x, 421, "strict host matching: TLS ServerName (" SLICE_FMT ") and HTTP "
                           "Host (" SLICE_FMT ") values differ",
                           SLICE_ARG(slice_take(facts.server_name, 255)),
                           SLICE_ARG(slice_take(host, 255)));
}
