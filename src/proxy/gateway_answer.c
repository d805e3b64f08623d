/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer on its way down. Its head becomes the response's, without the fields that belong to
 * the upstream's connection; its body goes through piece by piece, each sent before the next is
 * read, so that a slow client holds one buffer and no more. An answer that came whole in one read
 * gives its connection back before the client is served, and leaves in one send.
 *
 * An answer that breaks off is a cut connection for the client, too: never a clean end.
 */
#include <errno.h>

#include "base/clock.h"
#include "loop/await.h"
#include "proxy/gateway.h"
#include "proxy/proxy.h"

#define LOGGER "http.handlers.reverse_proxy"
#define LOOK_NS NS_PER_S             /* while its body still comes, which mostly tells as well */

enum { INTERIM_MAX = 16 };

/* --- waiting --- */

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

void gateway_watch(struct round *r)
{
    if (r->watching || (r->has_body && !r->body_whole))
        return;
    r->watching = true;
    r->x->carrier->watch(r->x, true);
}

/* Until then a wait needs no look at the client. */
static uint64_t next_look(struct round *r, uint64_t now)
{
    if (r->watching)
        return 0;
    if (r->upload != NULL && !r->upload->ended) { /* which may wait for the upstream to take more */
        if (r->x->carrier->has_left(r->x))
            fiber_cancel(fiber_self(), ERR_CLOSED);
        return now + LOOK_NS;
    }
    r->watching = true;
    r->x->carrier->watch(r->x, true);
    return 0;
}

static bool client_failed(const struct round *r)
{
    return r->upload != NULL && r->upload->ended && r->upload->client_failed;
}

/* One read of head or body. A wait that lasts turns the watch on. */
static enum err read_patiently(struct round *r, uint64_t deadline, bool head, struct slice *piece)
{
    const struct protocol *protocol = r->protocol;
    uint64_t look = r->watching ? 0 : loop_now_ns(loop_self()) + PATIENCE_NS;
    for (;;) {
        uint64_t until = sooner(deadline, look);
        if (client_failed(r))
            return ERR_CANCELLED;
        enum err e = head ? protocol->read_head(r->answer, r->to_head, until)
                          : protocol->read_body(r->answer, until, piece);
        uint64_t now = loop_now_ns(loop_self());
        if (e != ERR_TIMEOUT || (deadline > 0 && now >= deadline))
            return e;
        look = next_look(r, now);
    }
}

/* --- heads --- */

static const char *tls_trouble(struct round *r)
{
    char text[300] = "tls: ";
    (void)link_tls_why(r->link, text + 5, sizeof text - 5);
    return arena_str(r->x->arena, slice_from(text));
}

static enum err fail_answer(struct round *r, enum err e)
{
    const struct client_answer *a = r->answer;
    if (client_failed(r)) {
        r->error = r->upload->result;
        return gateway_round_error(r, FAILURE_CLIENT, 0, "the request's body failed");
    }
    if (fiber_self()->cancelled != OK) {
        r->error = fiber_self()->cancelled;
        return gateway_round_error(r, FAILURE_CLIENT, 499, "context canceled");
    }
    if (r->call != NULL)
        return gateway_h2_failed(r, e);
    if (e == ERR_TIMEOUT)
        return gateway_round_error(r, FAILURE_UPSTREAM, 504,
                                   "timeout awaiting response headers");
    if (a->why != NULL)
        return gateway_round_error(r, FAILURE_UPSTREAM, 502, a->why);
    enum failure kind = r->link->reused && !a->began ? FAILURE_STALE : FAILURE_UPSTREAM;
    if (e == ERR_CLOSED && (r->link->end == 0 || r->link->end == -ECONNABORTED))
        return gateway_round_error(r, kind, 502,
                                   a->began || r->link->end < 0 ? "unexpected EOF" : "EOF");
    if (e != ERR_CLOSED && r->link->stream.tls != NULL)
        return gateway_round_error(r, kind, 502, tls_trouble(r));
    return gateway_round_error(r, kind, 502, "read: connection reset by peer");
}

/* Behind fields: what Connection names, and the hop-by-hop ones. */
static void strip(struct fields *fs)
{
    struct slice list, token, rest;
    uint32_t at = 0;
    for (struct field *f; (f = fields_find(fs, SLICE("Connection"), &at)) != NULL;) {
        for (list = f->value; list.len > 0; list = rest) {
            slice_cut(list, ',', &token, &rest);
            token = slice_trim(token);
            if (token.len > 0 && !slice_eq_nocase(token, SLICE("Connection")))
                at -= fields_remove(fs, token) > 0 ? at : 0; /* the places have moved */
        }
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < fs->count; i++) {
        if (!is_hop_by_hop(fs->items[i].name))
            fs->items[kept++] = fs->items[i];
    }
    fs->count = kept;
}

static void take_fields(struct round *r, struct fields *fs)
{
    const struct h1_head *h = &r->answer->head;
    fields_init(fs, r->x->arena);
    for (unsigned i = 0; i < h->count; i++)
        fields_add(fs, h->fields[i].name, h->fields[i].value);
}

static enum err pass_interim(struct round *r)
{
    struct exchange *x = r->x;
    struct fields fs;
    int status = r->answer->head.status;
    if (status == 100 || r->probe) /* said by this server itself, when the body was asked for */
        return OK;
    take_fields(r, &fs);
    strip(&fs);
    enum err e = x->sink->type->inform(x->sink, status, &fs);
    if (e == OK)
        return OK;
    r->error = e;
    return gateway_round_error(r, FAILURE_CLIENT, 499, "context canceled");
}

static bool has_expectation(const struct round *r)
{
    return r->has_body && !r->body_whole && r->g->transport->continue_ns > 0 &&
           fields_has(&r->fields, SLICE("Expect"));
}

static bool is_interim(int status)
{
    return status < 200 && status != 101;
}

/* The body waits for the upstream's word, for a while. True when the final answer came instead. */
static enum err await_continue(struct round *r, bool *final)
{
    uint64_t deadline = loop_now_ns(loop_self()) + r->g->transport->continue_ns;
    *final = false;
    for (unsigned n = 0; n < INTERIM_MAX; n++) {
        enum err e = read_patiently(r, deadline, true, NULL);
        if (e == ERR_TIMEOUT)
            return OK;
        if (e != OK)
            return fail_answer(r, e);
        *final = !is_interim(r->answer->head.status);
        if (*final || r->answer->head.status == 100)
            return OK;
        TRY(pass_interim(r));
    }
    return OK;
}

static void stop_watching(struct round *r)
{
    if (r->watching)
        r->x->carrier->watch(r->x, false);
    r->watching = false;
}

enum err gateway_await_answer(struct round *r)
{
    struct http_transport const *t = r->g->transport;
    bool final = false;
    if (has_expectation(r)) {
        TRY(await_continue(r, &final));
        stop_watching(r);
    }
    if (r->has_body && !r->body_whole && !final)
        upload_begin(r, r->upload_room);
    uint64_t pause = t->header_ns > 0 ? t->header_ns : t->read_ns;
    uint64_t deadline = pause > 0 ? loop_now_ns(loop_self()) + pause : r->read_by;
    for (unsigned n = 0; !final; n++) {
        enum err e = read_patiently(r, deadline, true, NULL);
        if (e != OK)
            return fail_answer(r, e);
        final = !is_interim(r->answer->head.status);
        if (final)
            break;
        if (n == INTERIM_MAX)
            return gateway_round_error(r, FAILURE_UPSTREAM, 502, "too many 1xx responses");
        if (r->contends && r->answer->head.status != 100) {
            r->interim = true;
            return OK;
        }
        TRY(pass_interim(r));
    }
    r->status = r->answer->head.status;
    return OK;
}

enum err gateway_go_on(struct round *r)
{
    r->interim = false;
    TRY(pass_interim(r));
    return gateway_await_answer(r);
}

/* --- the end of a link's use --- */

void gateway_drop_link(struct round *r)
{
    struct link *l = r->link;
    struct h2_call *k = r->call;
    bool keep = l != NULL && r->g->transport->keep_alive && r->answer != NULL &&
                client_answer_reusable(r->answer);
    if (l == NULL && k == NULL)
        return;
    bool cut = r->upload != NULL && (!r->upload->ended || r->upload->result != OK);
    if (r->upload != NULL) {
        keep = keep && !cut;
        upload_end(r);
    } else {
        keep = keep && (!r->has_body || r->body_whole);
    }
    if (r->answer != NULL)
        r->protocol->end(r);
    r->answer = NULL;
    r->link = NULL;
    r->call = NULL;
    if (k != NULL)
        h2_call_end(k);
    else if (keep)
        link_give(l, &r->g->transport->limits);
    else if (cut) /* what is stuck before a slow upstream would keep it from hearing of the end */
        link_abort(l);
    else
        link_close(l);
}

/* --- bodies --- */

static bool is_event_stream(const struct fields *fs)
{
    struct slice type, rest;
    if (!fields_get(fs, SLICE("Content-Type"), &type))
        return false;
    slice_cut(type, ';', &type, &rest);
    return slice_eq_nocase(slice_trim(type), SLICE("text/event-stream"));
}

static int64_t flush_interval(const struct round *r)
{
    if (is_event_stream(&r->answer_fields) || r->x->res.content_length < 0)
        return -1;
    return r->g->flush_ns;
}

static enum err break_off(struct round *r, enum err e)
{
    const char *why = r->answer->why != NULL ? r->answer->why
                      : e == ERR_CLOSED      ? "unexpected EOF"
                                             : err_text(e);
    if (fiber_self()->cancelled == OK)
        LOG(LOG_WARN, LOGGER, "aborting with incomplete response",
            LOG_STR("upstream", r->address.text),
            LOG_DUR("duration", loop_now_ns(loop_self()) - r->attempt_ns), LOG_CSTR("error", why));
    r->error = ERR_CLOSED;
    return gateway_round_error(r, FAILURE_HANDLED, 0, why);
}

static enum err to_client(struct round *r, struct slice piece, enum lend lend)
{
    VERBOSE(r, "writing to downstream", LOG_NUM("read", (int64_t)piece.len));
    enum err e = exchange_data(r->x, piece, lend);
    if (e == OK) {
        r->passed += piece.len;
        VERBOSE(r, "wrote to downstream", LOG_NUM("written", (int64_t)piece.len),
                LOG_NUM("written_total", (int64_t)r->passed));
        return OK;
    }
    r->error = e;
    return gateway_round_error(r, FAILURE_HANDLED, 0, "the client has left");
}

static enum err flush(struct round *r)
{
    VERBOSE(r, "flushing");
    enum err e = exchange_flush(r->x);
    if (e == OK)
        return OK;
    r->error = e;
    return gateway_round_error(r, FAILURE_HANDLED, 0, "the client has left");
}

static uint64_t read_deadline(const struct round *r)
{
    uint64_t pause = r->g->transport->read_ns;
    return pause > 0 ? loop_now_ns(loop_self()) + pause : r->read_by;
}

/* Pieces until the end. With an interval, what was written, the head and what came with it included,
 * is flushed that long after it. */
static enum err stream(struct round *r, int64_t interval)
{
    struct client_answer *a = r->answer;
    uint64_t due = interval > 0 ? loop_now_ns(loop_self()) + (uint64_t)interval : 0;
    while (!a->done) {
        struct slice piece;
        uint64_t deadline = read_deadline(r);
        VERBOSE(r, "waiting to read from upstream");
        enum err e = read_patiently(r, sooner(deadline, due), false, &piece);
        uint64_t now = loop_now_ns(loop_self());
        if (e == ERR_TIMEOUT && due > 0 && now >= due) {
            TRY(flush(r));
            due = 0;
            continue;
        }
        if (e != OK)
            return break_off(r, e);
        if (piece.len == 0)
            continue;
        TRY(to_client(r, piece, LEND_BORROWED));
        if (interval < 0)
            TRY(flush(r));
        else if (interval > 0 && due == 0)
            due = now + (uint64_t)interval;
    }
    return OK;
}

static void keep_trailers(struct round *r)
{
    const struct fields *from = &r->answer->trailers;
    struct fields *fs;
    if (from->count == 0)
        return;
    fs = ARENA_NEW(r->x->arena, struct fields);
    fields_init(fs, r->x->arena);
    for (uint32_t i = 0; i < from->count; i++) {
        struct slice name = from->items[i].name;
        if (!is_hop_by_hop(name) && !slice_eq_nocase(name, SLICE("Content-Length")) &&
            !slice_eq_nocase(name, SLICE("Set-Cookie")))
            fields_add(fs, name, from->items[i].value);
    }
    r->x->res.trailers = fs;
}

static void free_held(struct exchange *x, void *arg)
{
    (void)x;
    buffer_deinit(arg);
}

#define SMALL_NS (100 * NS_PER_MS)

enum { SMALL_MAX = 16384 };

/* As much as response_buffers allows, before the client gets the first byte. */
static enum err hold_answer(struct round *r, struct slice *held)
{
    struct client_answer *a = r->answer;
    size_t limit = (size_t)r->g->response_buffers;
    struct buffer *b = ARENA_NEW(r->x->arena, struct buffer);
    buffer_init(b, limit + (1 << 20));
    exchange_on_end(r->x, free_held, b);
    while (!a->done && b->len < limit) {
        struct slice piece;
        enum err e = read_patiently(r, read_deadline(r), false, &piece);
        if (e == OK)
            e = buffer_append(b, piece);
        if (e != OK)
            return break_off(r, e);
    }
    *held = buffer_slice(b);
    return OK;
}

/* Where another upstream could be asked, a small body is waited for, for a moment: many programs write
 * it behind the head, and may end in between. Nothing has left yet, so that is a failure like one
 * before the head. */
static enum err hold_small(struct round *r)
{
    struct client_answer *a = r->answer;
    const struct h1_head *h = &a->head;
    r->small = SLICE_NONE;
    if (r->g->repeat_ns == 0 || a->done || h->status == 101 || h->body != H1_BODY_LENGTH ||
        h->content_length > SMALL_MAX || h->content_length <= a->in.len)
        return OK;
    char *held = arena_alloc(r->x->arena, (size_t)h->content_length);
    size_t len = 0;
    uint64_t by = loop_now_ns(loop_self()) + SMALL_NS;
    while (!a->done) {
        struct slice piece;
        enum err e = read_patiently(r, by, false, &piece);
        if (e == ERR_TIMEOUT)
            break;
        if (e != OK)
            return fail_answer(r, e);
        memcpy(held + len, piece.ptr, piece.len); /* at most the length */
        len += piece.len;
    }
    r->small = slice_of(held, len);
    return OK;
}

static enum err copy_held(struct round *r)
{
    struct slice held;
    TRY(hold_answer(r, &held));
    if (r->answer->done) { /* the upstream is free, however slow the client is */
        keep_trailers(r);
        gateway_drop_link(r);
        return to_client(r, held, LEND_STABLE);
    }
    TRY(to_client(r, held, LEND_BORROWED));
    return OK;
}

static enum err copy_body(struct round *r)
{
    struct client_answer *a = r->answer;
    struct slice piece = SLICE_NONE;
    int64_t interval = flush_interval(r);
    if (r->small.len > 0)
        TRY(to_client(r, r->small, LEND_STABLE));
    if (a->done) {
        keep_trailers(r);
        gateway_drop_link(r);
        return OK;
    }
    if (r->g->response_buffers > 0) {
        TRY(copy_held(r));
        if (r->answer == NULL)
            return OK;
    } else if (a->in.len > 0) { /* costs no wait */
        enum err e = r->protocol->read_body(a, 1, &piece);
        if (e != OK && e != ERR_TIMEOUT)
            return break_off(r, e);
        if (a->done && a->stable) { /* not if more was read, into the link's buffer */
            keep_trailers(r);
            gateway_drop_link(r);
            return to_client(r, piece, LEND_STABLE);
        }
        TRY(to_client(r, piece, LEND_BORROWED));
    }
    if (interval < 0) /* the head, at least: the body may take its time */
        TRY(flush(r));
    TRY(stream(r, interval));
    keep_trailers(r);
    gateway_drop_link(r);
    return OK;
}

/* --- the response --- */

static void set_head(struct round *r)
{
    struct exchange *x = r->x;
    const struct h1_head *h = &r->answer->head;
    struct fields *to = &x->res.fields;
    struct slice trailer;
    bool announced = fields_get(&r->answer_fields, SLICE("Trailer"), &trailer);
    strip(&r->answer_fields);
    fields_remove(to, SLICE("Server")); /* the upstream's, if any: this one stands in Via */
    fields_add(to, SLICE("Via"), r->answer->fastcgi != NULL ? SLICE("0.0 portico")
                                 : r->answer->h2 != NULL    ? SLICE("2.0 portico")
                                 : h->minor == 0 ? SLICE("1.0 portico") : SLICE("1.1 portico"));
    if (r->g->has_response_ops &&
        (!r->g->has_require || response_match(&r->g->require, r->status, &r->answer_fields)))
        field_ops_apply_response(&r->g->response_ops, &r->answer_fields, x);
    for (uint32_t i = 0; i < r->answer_fields.count; i++) {
        const struct field *f = &r->answer_fields.items[i];
        if (f->name.len != 14 || !slice_eq_nocase(f->name, SLICE("Content-Length")))
            fields_add(to, f->name, f->value);
    }
    if (announced && h->body == H1_BODY_CHUNKED)
        fields_add(to, SLICE("Trailer"), trailer);
    x->res.status = r->status;
    x->res.content_length = h->has_length ? (int64_t)h->content_length : -1;
    x->res.length_told = h->has_length;
    if (h->body == H1_BODY_NONE && !h->has_length && !exchange_bodiless(x, r->status))
        x->res.content_length = 0;
}

/* To an extended CONNECT a success says that the tunnel is there (RFC 8441 §5), which of HTTP/1.1 only
 * a 101 means. */
static bool feigns_tunnel(const struct round *r)
{
    return r->status / 100 == 2 && r->x->req.method_id == METHOD_CONNECT;
}

/* Also what copy_response calls. */
static enum err finalize(struct round *r)
{
    r->finalized = true;
    if (r->answer->head.status == 101)
        return gateway_upgrade(r);
    if (feigns_tunnel(r)) {
        r->error = exchange_fail(r->x, 502, "backend answered instead of switching protocols");
        return gateway_round_error(r, FAILURE_HANDLED, 0, "no tunnel");
    }
    set_head(r);
    VERBOSE(r, "wrote header", LOG_NUM("status", r->status));
    bool bodiless = r->answer->done && r->small.len == 0;
    enum err e = bodiless ? OK : copy_body(r);
    if (bodiless)
        gateway_drop_link(r);
    r->upstream_ns = loop_now_ns(loop_self()) - r->attempt_ns;
    VERBOSE(r, e == OK ? "response finalized" : "response broke off");
    return e;
}

static enum err run_handler(struct round *r, const struct response_handler *h,
                            const struct chain *next)
{
    r->answered = true;
    enum err e = route_list_run(&h->routes, r->x, next);
    r->answered = false;
    if (e == OK || r->failure != FAILURE_NONE)
        return e;
    r->error = e;
    return gateway_round_error(r, FAILURE_HANDLED, 0, "a handler of the response failed");
}

enum err gateway_finish(struct round *r, const struct chain *next)
{
    take_fields(r, &r->answer_fields);
    if (r->g->answer_match_count > 0)
        TRY(retry_match_answer(r));
    TRY(hold_small(r));
    for (size_t i = 0; i < r->g->handlers_count; i++) {
        const struct response_handler *h = &r->g->handlers[i];
        if (!response_match(&h->match, r->status, &r->answer_fields))
            continue;
        if (!h->has_status) {
            LOG(LOG_DEBUG, LOGGER, "handling response", LOG_NUM("handler", (int64_t)i));
            return run_handler(r, h, next);
        }
        if (!template_status(&h->status, r->x, &r->status)) {
            r->error = exchange_fail(r->x, 500, "handle_response: status_code is no status");
            return gateway_round_error(r, FAILURE_HANDLED, 0, "no status");
        }
        break;
    }
    return finalize(r);
}

/* --- what handle_response's routes may use --- */

static struct round *round_of(struct exchange *x)
{
    struct round *r = (struct round *)x->gateway;
    return r != NULL && r->answered && r->answer != NULL ? r : NULL;
}

struct copy_response {
    struct template status;
    bool has_status;
};

static enum err provision_copy(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"status_code", NULL};
    struct copy_response *c = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_template(p, json, "status_code", SLICE(""), &c->status));
    c->has_status = !c->status.constant || c->status.text.len > 0;
    return OK;
}

static enum err serve_copy(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct copy_response *c = cfg;
    struct round *r = round_of(x);
    (void)next;
    if (r == NULL || r->finalized)
        return exchange_fail(x, 500, "cannot use 'copy_response' outside of reverse_proxy's "
                                     "handle_response routes");
    if (c->has_status && !template_status(&c->status, x, &r->status))
        return exchange_fail(x, 500, "copy_response: status_code is no status");
    return finalize(r);
}

const struct module handler_copy_response = {
    .id = "http.handlers.copy_response",
    .cfg_size = sizeof(struct copy_response),
    .provision = provision_copy,
    .serve = serve_copy,
};

struct copy_headers {
    struct slice *include, *exclude;
    size_t include_count, exclude_count;
};

static enum err provision_copy_headers(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const members[] = {"include", "exclude", NULL};
    struct copy_headers *c = cfg;
    TRY(provision_members(p, json, members));
    TRY(provision_texts(p, json, "include", &c->include, &c->include_count));
    TRY(provision_texts(p, json, "exclude", &c->exclude, &c->exclude_count));
    if (c->include_count > 0 && c->exclude_count > 0)
        return provision_fail(p, "cannot define both 'exclude' and 'include' lists at the same "
                                 "time");
    return OK;
}

static bool named_in(const struct slice *names, size_t count, struct slice name)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq_nocase(names[i], name))
            return true;
    }
    return false;
}

static enum err serve_copy_headers(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct copy_headers *c = cfg;
    const struct round *r = round_of(x);
    if (r == NULL)
        return exchange_fail(x, 500, "cannot use 'copy_response_headers' outside of "
                                     "reverse_proxy's handle_response routes");
    for (uint32_t i = 0; i < r->answer_fields.count; i++) {
        const struct field *f = &r->answer_fields.items[i];
        if (c->include_count > 0 && !named_in(c->include, c->include_count, f->name))
            continue;
        if (!named_in(c->exclude, c->exclude_count, f->name))
            fields_add(&x->res.fields, f->name, f->value);
    }
    return chain_next(x, next);
}

const struct module handler_copy_response_headers = {
    .id = "http.handlers.copy_response_headers",
    .cfg_size = sizeof(struct copy_headers),
    .provision = provision_copy_headers,
    .serve = serve_copy_headers,
};
