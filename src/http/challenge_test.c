/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Challenges are answered by the server itself, those of others are not.
 */
#include "base/log.h"
#include "base/test.h"
#include "http/challenge_answer.h"
#include "http/server.h"
#include "http/uri.h"
#include "tls/challenge.h"

static struct arena arena;
static struct exchange x;
static struct slice body;
static int aborted;

static enum err take_head(struct sink *s, struct response *res)
{
    (void)s;
    res->head_sent = true;
    return OK;
}

static enum err take_data(struct sink *s, struct slice data, enum lend lend)
{
    (void)s;
    (void)lend;
    body = data;
    return OK;
}

static enum err take_end(struct sink *s, const struct fields *trailers)
{
    (void)s;
    (void)trailers;
    return OK;
}

static void take_abort(struct sink *s, enum err why)
{
    (void)s;
    (void)why;
    aborted++;
}

static const struct sink_type bottom_type = {.head = take_head, .data = take_data, .end = take_end,
                                             .abort = take_abort};
static struct sink bottom;

static int get(const char *method, const char *path)
{
    static const struct http_server server;
    struct slice ignored;
    arena_deinit(&arena);
    arena_init(&arena, 16384);
    log_set_threshold(LOG_FATAL);
    bottom = (struct sink){.type = &bottom_type, .exchange = &x};
    x = (struct exchange){.arena = &arena, .sink = &bottom, .server = &server};
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    x.req.method = slice_from(method);
    x.req.method_id = method_parse(x.req.method);
    x.req.host = SLICE("example.com");
    CHECK_OK(uri_parse(slice_from(path), &x.req.uri, &ignored, &arena));
    body = SLICE("");
    http_server_serve(&server, &x);
    return (int)body.len;
}

TEST("a challenge that is on is answered with its key authorization, and the connection ends")
{
    struct slice type;
    challenge_http_set(SLICE("tok-en_1"), SLICE("old"));
    challenge_http_set(SLICE("tok-en_1"), SLICE("tok-en_1.thumb"));
    CHECK_INT(get("GET", "/.well-known/acme-challenge/tok-en_1"), 14);
    CHECK_INT(x.res.status, 200);
    CHECK(fields_get(&x.res.fields, SLICE("Content-Type"), &type) && slice_is(type, "text/plain"));
    CHECK(x.close_after);
    challenge_http_remove(SLICE("tok-en_1"));
    CHECK_INT(get("GET", "/.well-known/acme-challenge/tok-en_1"), 0);
}

TEST("other paths, methods and tokens go on to the routes")
{
    challenge_http_set(SLICE("t"), SLICE("t.x"));
    CHECK_INT(get("POST", "/.well-known/acme-challenge/t"), 0);
    CHECK_INT(get("GET", "/.well-known/acme-challenge/t/"), 0);
    CHECK_INT(get("GET", "/.well-known/acme-challenge/"), 0);
    CHECK_INT(get("GET", "/.well-known/acme-challenge/T"), 0);
    CHECK_INT(get("GET", "/x/.well-known/acme-challenge/t"), 0);
    CHECK(!x.close_after);
    challenge_http_remove(SLICE("t"));
    challenge_http_remove(SLICE("t"));
    CHECK_INT(aborted, 0);
}

static enum err from_storage(struct exchange *e, struct slice host, struct slice token,
                             struct slice *key_authorization)
{
    (void)e;
    if (!slice_is(host, "example.com") || !slice_is(token, "far"))
        return ERR_NOT_FOUND;
    *key_authorization = SLICE("far.x");
    return OK;
}

TEST("a challenge of another instance is looked up in the storage")
{
    challenge_stored_hook = from_storage;
    CHECK_INT(get("GET", "/.well-known/acme-challenge/far"), 5);
    CHECK_INT(get("GET", "/.well-known/acme-challenge/near"), 0);
    challenge_stored_hook = NULL;
}
