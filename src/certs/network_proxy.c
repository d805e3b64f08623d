/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No modules of their own in the table: there are these two, and both are data only.
 */
#include "certs/network_proxy.h"

#include "client/forward_proxy.h"
#include "http/template.h"

enum err network_proxy_read(struct provision *p, const json_t *json, struct network_proxy *out)
{
    static const char *const url_members[] = {"from", "url", NULL};
    static const char *const none_members[] = {"from", NULL};
    struct slice from;
    *out = (struct network_proxy){.url = SLICE("")};
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_text(p, json, "from", SLICE(""), &from));
    if (slice_is(from, "none")) {
        out->none = true;
        return provision_members(p, json, none_members);
    }
    if (!slice_is(from, "url"))
        return provision_fail(p, "unknown module: caddy.network_proxy." SLICE_FMT, SLICE_ARG(from));
    TRY(provision_members(p, json, url_members));
    TRY(provision_text(p, json, "url", SLICE(""), &out->url));
    return out->url.len > 0 ? OK : provision_fail(p, "\"network_proxy\" has no \"url\"");
}

enum err network_proxy_provision(struct provision *p, const json_t *json, struct network_proxy *out)
{
    struct forward_proxy proxy;
    const char *why = "empty after its placeholders are replaced";
    TRY(network_proxy_read(p, json, out));
    if (out->url.len == 0)
        return OK;
    struct slice written = out->url;
    out->url = template_expand_now(written, p->arena);
    if (out->url.len > 0 && forward_proxy_parse(out->url, &proxy, p->arena, &why) == OK)
        return OK;
    return provision_fail(p, "network proxy \"" SLICE_FMT "\": %s",
                          SLICE_ARG(forward_proxy_shown(written, p->arena)), why);
}
