/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caddy's rules for automatic HTTPS, as far as they decide between clear and encrypted: connection
 * policies ask for TLS by themselves; a server on the HTTPS port always means TLS; host matchers of
 * the top-level routes mean it on every port but the HTTP port, unless automatic HTTPS is disabled
 * or the names are skipped.
 */
#include "http/auto_https.h"

#include "net/address.h"

static bool has_text(const json_t *array, const char *text)
{
    size_t i;
    json_t *v;
    json_array_foreach((json_t *)(uintptr_t)array, i, v)
    {
        if (json_is_string(v) && strcmp(json_string_value(v), text) == 0)
            return true;
    }
    return false;
}

/* The first host name of the routes' matchers that is not skipped; NULL when there is none. */
static const char *first_host(const json_t *routes, const json_t *skip)
{
    size_t r, m, h;
    json_t *route, *set, *host;
    json_array_foreach((json_t *)(uintptr_t)routes, r, route)
    {
        json_array_foreach(json_object_get(route, "match"), m, set)
        {
            json_array_foreach(json_object_get(set, "host"), h, host)
            {
                const char *name = json_string_value(host);
                if (name != NULL && strchr(name, '{') == NULL && !has_text(skip, name))
                    return name;
            }
        }
    }
    return NULL;
}

/* Whether any address has another port than the HTTP port, and whether one has the HTTPS port. */
static void look_ports(const json_t *listen, const struct auto_https_ports *ports,
                       struct arena *arena, bool *beside_http, const char **https)
{
    size_t i;
    json_t *v;
    struct network_address a;
    struct address_error why;
    *beside_http = false;
    *https = NULL;
    json_array_foreach((json_t *)(uintptr_t)listen, i, v)
    {
        if (!json_is_string(v) || address_parse(slice_from(json_string_value(v)), SLICE("tcp"), 0,
                                                &a, arena, &why) != OK)
            continue;
        if (a.first_port != ports->http || a.last_port != ports->http)
            *beside_http = true;
        if (a.first_port <= ports->https && ports->https <= a.last_port)
            *https = json_string_value(v);
    }
}

bool auto_https_wants_tls(const json_t *server, const struct auto_https_ports *ports,
                          struct arena *arena, struct slice *host)
{
    bool beside_http;
    const char *https;
    const json_t *automatic = json_object_get(server, "automatic_https");
    look_ports(json_object_get(server, "listen"), ports, arena, &beside_http, &https);
    const char *name = first_host(json_object_get(server, "routes"),
                                  json_object_get(automatic, "skip"));
    *host = slice_from(name != NULL ? name : https != NULL ? https : "the server");
    *host = arena_copy(arena, *host);
    if (json_array_size(json_object_get(server, "tls_connection_policies")) > 0)
        return true;
    if (json_is_true(json_object_get(automatic, "disable")))
        return false;
    return https != NULL || (name != NULL && beside_http);
}
