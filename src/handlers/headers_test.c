/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The headers handler against Caddy's table, and what that does not say.
 */
#include "base/test.h"
#include "config/table_testing.h"
#include "handlers/handlers.h"
#include "http/route.h"

static struct arena arena;
static struct exchange x;
static struct provision provision;
static const json_t *answer_fields;
static int answer_status;

static enum err take_head(struct sink *s, struct response *res)
{
    res->head_sent = true;
    return OK;
}

static enum err take_end(struct sink *s, const struct fields *trailers)
{
    return OK;
}

static const struct sink_type bottom_type = {.head = take_head, .end = take_end};

static void put(struct fields *fs, const json_t *json)
{
    const char *name;
    json_t *values, *v;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)json, name, values)
        json_array_foreach(values, i, v)
            fields_add(fs, slice_from(name), slice_from(json_string_value(v)));
}

/* The handler behind: sets the row's fields and answers with its status. */
static enum err serve_answer(const void *cfg, struct exchange *e, const struct chain *next)
{
    put(&e->res.fields, answer_fields);
    e->res.status = answer_status;
    return exchange_head(e);
}

static enum err provision_answer(void *cfg, const json_t *json, struct provision *p)
{
    return OK;
}

static const struct module answer_module = {
    .id = "http.handlers.answer",
    .cfg_size = 1,
    .provision = provision_answer,
    .serve = serve_answer,
};

static const struct module *const modules[] = {&handler_headers, &answer_module, NULL};

static struct sink bottom;

static enum err run(const json_t *handler, const json_t *request, const char *host)
{
    struct route_list list = {0};
    json_t *config = json_deep_copy(handler), *routes;
    arena_init(&arena, 16384);
    provision = (struct provision){.arena = &arena, .modules = modules, .path = SLICE("test")};
    json_object_set_new(config, "handler", json_string("headers"));
    routes = json_pack("[{s:[o,{s:s}]}]", "handle", config, "handler", "answer");
    enum err e = route_list_provision(&list, routes, &provision);
    json_decref(routes);
    if (e != OK)
        return e;
    x = (struct exchange){.arena = &arena, .sink = &bottom};
    bottom = (struct sink){.type = &bottom_type, .exchange = &x};
    x.req.host = slice_from(host);
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    put(&x.req.fields, request);
    return route_list_run(&list, &x, NULL);
}

static void over(void)
{
    for (struct provision_release *r = provision.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    arena_deinit(&arena);
}

/* All values of all names, and no other name. */
static bool same(const struct fields *fs, const json_t *want)
{
    const char *name;
    json_t *values, *v;
    size_t i, total = 0;
    json_object_foreach((json_t *)(uintptr_t)want, name, values)
    {
        uint32_t at = 0;
        json_array_foreach(values, i, v)
        {
            struct field *f = fields_find(fs, slice_from(name), &at);
            if (f == NULL || !slice_is(f->value, json_string_value(v)))
                return false;
            total++;
        }
    }
    return total == fs->count;
}

TEST("fields change as the table says")
{
    size_t i;
    json_t *row, *cases = table_rows("headers");
    CHECK_INT(json_array_size(cases), 10);
    json_array_foreach(cases, i, row)
    {
        const json_t *request = json_object_get(row, "expect_request");
        const json_t *response = json_object_get(row, "expect_response");
        answer_fields = json_object_get(row, "response");
        answer_status = (int)json_integer_value(json_object_get(row, "status"));
        CHECK_OK(run(json_object_get(row, "handler"), json_object_get(row, "request"), "h"));
        fields_remove(&x.req.fields, SLICE("Host"));
        if (!json_is_null(request) && !same(&x.req.fields, request))
            test_fail(__FILE__, __LINE__, "row %zu: request", i);
        if (!json_is_null(response) && !same(&x.res.fields, response))
            test_fail(__FILE__, __LINE__, "row %zu: response", i);
        over();
    }
    json_decref(cases);
}

static void check(const char *handler, const char *request, const char *host, const char *want_host,
                  const char *want_request, const char *want_response)
{
    json_t *h = json_loads(handler, 0, NULL), *q = json_loads(request, 0, NULL);
    json_t *wq = json_loads(want_request, 0, NULL), *wr = json_loads(want_response, 0, NULL);
    CHECK(h != NULL && q != NULL && wq != NULL && wr != NULL);
    answer_fields = NULL;
    answer_status = 200;
    CHECK_OK(run(h, q, host));
    CHECK_TEXT(x.req.host, want_host);
    fields_remove(&x.req.fields, SLICE("Host"));
    bool fine = same(&x.req.fields, wq) && same(&x.res.fields, wr);
    over();
    json_decref(h);
    json_decref(q);
    json_decref(wq);
    json_decref(wr);
    if (!fine)
        test_fail(__FILE__, __LINE__, "%s", handler);
}

TEST("Host is the authority, the last of several counts")
{
    check("{\"request\":{\"set\":{\"X\":[\"1\"]}}}", "{\"Host\":[\"field\"]}", "authority",
          "authority", "{\"X\":[\"1\"]}", "{}");
    check("{\"request\":{\"set\":{\"host\":[\"new\"]}}}", "{}", "old", "new", "{}", "{}");
    check("{\"request\":{\"add\":{\"Host\":[\"new\"]}}}", "{}", "old", "new", "{}", "{}");
    check("{\"request\":{\"delete\":[\"Host\"]}}", "{}", "old", "", "{}", "{}");
    check("{\"request\":{\"replace\":{\"Host\":[{\"search\":\"o\",\"replace\":\"0\"}]}}}", "{}", "foo",
          "f00", "{}", "{}");
}

TEST("several values of set are joined, names get their usual form")
{
    check("{\"response\":{\"set\":{\"x-multi\":[\"a\",\"b\"]},\"add\":{\"x-two\":[\"1\",\"2\"]}}}", "{}",
          "h", "h", "{}", "{\"X-Multi\":[\"a,b\"],\"X-Two\":[\"1\",\"2\"]}");
    json_t *h = json_loads("{\"response\":{\"set\":{\"x-lower\":[\"a\"]}}}", 0, NULL);
    answer_fields = NULL;
    CHECK_OK(run(h, NULL, "h"));
    CHECK_TEXT(x.res.fields.items[0].name, "X-Lower");
    over();
    json_decref(h);
}

TEST("what a client made of a name or a value cannot split a head or a line of the log")
{
    check("{\"request\":{\"set\":{\"X-{http.request.host}\":[\"1\"],\"Y\":[\"2\"]}},"
          "\"response\":{\"add\":{\"{http.request.host}\":[\"1\"]}}}", "{}", "a\": b", "", "{\"Y\":[\"2\"]}",
          "{}");
    check("{\"request\":{\"set\":{\"X\":[\"a{http.request.host}b\"]}}}", "{}", "\r\n", "",
          "{}", "{}");
}

TEST("replacing: every match, all fields, patterns with placeholders and with repetitions")
{
    check("{\"request\":{\"replace\":{\"*\":[{\"search\":\"a\",\"replace\":\"b\"}]}}}",
          "{\"One\":[\"aXa\"],\"Two\":[\"a\"]}", "h", "h", "{\"One\":[\"bXb\"],\"Two\":[\"b\"]}", "{}");
    check("{\"request\":{\"replace\":{\"One\":[{\"search_regexp\":\"a{2}(b)\",\"replace\":\"<$1>\"}]}}}",
          "{\"One\":[\"aab ab\"]}", "h", "h", "{\"One\":[\"<b> ab\"]}", "{}");
    check("{\"request\":{\"replace\":{\"One\":[{\"search_regexp\":\"{http.request.header.What}+\","
          "\"replace\":\"-\"}]}}}",
          "{\"One\":[\"xyyz\"],\"What\":[\"y\"]}", "h", "h", "{\"One\":[\"x-z\"],\"What\":[\"y\"]}", "{}");
    check("{\"request\":{\"replace\":{\"One\":[{\"search_regexp\":\"{http.request.header.What}\","
          "\"replace\":\"-\"}]}}}",
          "{\"One\":[\"xyyz\"],\"What\":[\"(\"]}", "h", "h", "{\"One\":[\"xyyz\"],\"What\":[\"(\"]}", "{}");
}

TEST("search and search_regexp exclude each other, bad patterns are refused")
{
    static const char *const bad[] = {
        "{\"request\":{\"replace\":{\"A\":[{\"search\":\"x\",\"search_regexp\":\"y\"}]}}}",
        "{\"request\":{\"replace\":{\"A\":[{\"search_regexp\":\"(\"}]}}}",
        "{\"response\":{\"require\":{\"status\":[1]}}}",
        "{\"request\":{\"deferred\":true}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *h = json_loads(bad[i], 0, NULL);
        CHECK_INT(run(h, NULL, "h"), ERR_INVALID);
        over();
        json_decref(h);
    }
}
