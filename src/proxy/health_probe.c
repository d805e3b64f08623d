/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An active health check of an upstream that does not speak HTTP/1: a request that nobody has sent, by
 * the transport's own protocol. With FastCGI its path is the script, below the transport's `root`;
 * php-fpm answers to its own `ping.path` without any script. There is no client, so that placeholders of
 * a request are empty, and a site's `root` is not known.
 */
#include "client/url.h"
#include "http/uri.h"
#include "proxy/gateway.h"
#include "proxy/health_check.h"
#include "wire/h1_head.h"

/* The exchange and the round as a request's would be. */
static void prepare(struct round *r, const struct fetch_request *q, const struct url *url)
{
    struct exchange *x = r->x;
    struct slice authority;
    fields_init(&r->fields, x->arena);
    for (size_t i = 0; i < q->fields_count; i++)
        if (h1_name_ok(q->fields[i].name) && h1_value_ok(q->fields[i].value))
            fields_add(&r->fields, q->fields[i].name, q->fields[i].value);
    x->req.major = x->req.minor = 1;
    x->req.method = r->method = q->method;
    x->req.target = r->target = url->target;
    (void)!uri_parse(url->target, &r->uri, &authority, x->arena);
    x->req.uri = x->req.original_uri = r->uri;
    x->remote_host = x->client_ip = SLICE("127.0.0.1");
    x->remote_port = SLICE("0");
    r->body = q->body;
    r->body_length = (int64_t)q->body.len;
    r->has_body = r->body_whole = q->body.len > 0;
    r->to_head = slice_is(q->method, "HEAD");
}

static enum err read_body(struct round *r, const struct fetch_request *q, struct fetch_answer *out)
{
    const struct protocol *protocol = r->protocol;
    struct buffer b;
    enum err e = OK;
    buffer_init(&b, q->answer_max);
    while (e == OK && !r->answer->done && b.len < q->answer_max) {
        struct slice piece;
        e = protocol->read_body(r->answer, 0, &piece);
        if (e == OK)
            e = buffer_append(&b, slice_take(piece, q->answer_max - b.len));
    }
    out->body = arena_copy(r->x->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return e;
}

static void take_head(struct round *r, struct fetch_answer *out)
{
    const struct h1_head *h = &r->answer->head;
    out->status = h->status;
    fields_init(&out->fields, r->x->arena);
    for (unsigned i = 0; i < h->count; i++)
        fields_add(&out->fields, h->fields[i].name, h->fields[i].value);
}

static enum err read_head(struct round *r)
{
    enum { INTERIM_MAX = 16 };
    for (unsigned n = 0; n <= INTERIM_MAX; n++) {
        TRY(r->protocol->read_head(r->answer, r->to_head, 0)); /* the check's limit cancels */
        if (r->answer->head.status >= 200)
            return OK;
    }
    r->answer->why = "too many interim answers";
    return ERR_LIMIT;
}

static enum err converse(struct round *r, const struct fetch_request *q, struct fetch_answer *out)
{
    const struct protocol *protocol = r->protocol;
    if (protocol->prepare != NULL)
        TRY(protocol->prepare(r));
    TRY(protocol->send(r));
    r->answer = protocol->begin(r);
    enum err e = read_head(r);
    if (e == OK) {
        take_head(r, out);
        if (!q->head_only)
            e = read_body(r, q, out);
    }
    if (e != OK)
        r->why = r->answer->why != NULL ? r->answer->why : err_text(e);
    protocol->end(r);
    r->answer = NULL;
    return e;
}

static enum err ask_once(struct round *r, const struct fetch_request *q, const struct url *url,
                         struct fetch_answer *out)
{
    prepare(r, q, url);
    enum err e = r->call != NULL ? OK : gateway_connect(r, r->g->transport->protocol != &protocol_http);
    if (e == OK)
        e = converse(r, q, out);
    if (r->link != NULL)
        link_close(r->link);
    if (r->call != NULL)
        h2_call_end(r->call);
    r->link = NULL;
    r->call = NULL;
    if (e != OK)
        snprintf(out->why, sizeof out->why, "%s",
                 fiber_self()->cancelled == ERR_TIMEOUT ? "timed out"
                 : r->why != NULL && r->why[0] != '\0'   ? r->why
                                                         : err_text(e));
    return e;
}

/* Where a redirect leads to, on the same upstream whatever host it names. */
static bool find_next(const struct fetch_answer *a, struct url *url, struct arena *arena)
{
    struct slice location;
    struct url next;
    const char *why;
    if (a->status < 301 || a->status > 308 || (a->status > 303 && a->status < 307) ||
        !fields_get(&a->fields, SLICE("Location"), &location) ||
        url_resolve(url, location, &next, arena, &why) != OK)
        return false;
    *url = next;
    return true;
}

enum err health_probe(struct round *r, const struct fetch_request *q, struct fetch_answer *out)
{
    struct url url;
    const char *why;
    if (url_parse(q->url, &url, r->x->arena, &why) != OK) {
        snprintf(out->why, sizeof out->why, "%s", why);
        return ERR_INVALID;
    }
    for (unsigned n = 0;; n++) {
        TRY(ask_once(r, q, &url, out));
        if (n >= q->redirects || !find_next(out, &url, r->x->arena))
            return OK;
    }
}
