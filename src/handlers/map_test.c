/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map handler against Caddy's table, the values of vars, and JSON values as text.
 */
#include "base/test.h"
#include "config/table_testing.h"
#include "handlers/handlers.h"
#include "handlers/json_text.h"
#include "http/route.h"
#include "http/uri.h"

static const struct module *const modules[] = {&handler_map, &handler_vars, NULL};

static struct arena arena;
static struct exchange x;
static struct provision provision;

static enum err use(const char *name, json_t *config, struct slice target)
{
    struct route_list list = {0};
    struct slice ignored;
    arena_init(&arena, 16384);
    provision = (struct provision){.arena = &arena, .modules = modules, .path = SLICE("test")};
    json_object_set_new(config, "handler", json_string(name));
    json_t *routes = json_pack("[{s:[o]}]", "handle", config);
    enum err e = route_list_provision(&list, routes, &provision);
    json_decref(routes);
    if (e != OK)
        return e;
    x = (struct exchange){.arena = &arena};
    fields_init(&x.req.fields, &arena);
    x.req.method = SLICE("GET");
    CHECK_OK(uri_parse(target, &x.req.uri, &ignored, &arena));
    exchange_set_var(&x, SLICE("testvar"), SLICE("testing"));
    return route_list_run(&list, &x, NULL);
}

static void unuse(void)
{
    for (struct provision_release *r = provision.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    arena_deinit(&arena);
}

static struct slice get(const char *name)
{
    struct slice value;
    return placeholder_get(&x, slice_from(name), &value) ? value : SLICE("unknown");
}

TEST("inputs are mapped as the table says")
{
    size_t i;
    const char *name;
    json_t *row, *want, *cases = table_rows("map");
    CHECK_INT(json_array_size(cases), 7);
    json_array_foreach(cases, i, row)
    {
        CHECK_OK(use("map", json_deep_copy(json_object_get(row, "handler")),
                     slice_from(json_string_value(json_object_get(row, "target")))));
        json_object_foreach(json_object_get(row, "expect"), name, want)
            CHECK_TEXT(get(name), json_string_value(want));
        unuse();
    }
    json_decref(cases);
}

TEST("the first mapping with an output counts, null and what is not there fall through")
{
    static const char config[] =
        "{\"source\":\"{http.request.uri.path}\",\"destinations\":[\"{a}\",\"{b}\",\"{self}\"],"
        "\"mappings\":[{\"input_regexp\":\"^/x(.*)\",\"outputs\":[\"re$1\",null,null]},"
        "{\"input\":\"/xy\",\"outputs\":[\"text\",7,\"{self}\"]},"
        "{\"input_regexp\":\"y$\",\"outputs\":[\"late\",true,\"no\"]},"
        "{\"input\":\"/q\",\"outputs\":[\"{testvar} \\\\{brace\\\\}\",1.5,null]}],"
        "\"defaults\":[\"{testvar}\",\"none\",\"\"]}";
    CHECK_OK(use("map", json_loads(config, 0, NULL), SLICE("/xy")));
    CHECK_TEXT(get("a"), "rey");
    CHECK_TEXT(get("b"), "7");
    CHECK_TEXT(get("self"), ""); /* asks for itself: not known to itself */
    CHECK_TEXT(get("c"), "unknown");
    unuse();
    CHECK_OK(use("map", json_loads(config, 0, NULL), SLICE("/zy")));
    CHECK_TEXT(get("a"), "late");
    CHECK_TEXT(get("b"), "true");
    x.req.uri.path = SLICE("/q"); /* looked up when it is asked for */
    CHECK_TEXT(get("a"), "testing {brace}");
    CHECK_TEXT(get("b"), "1.5");
    x.req.uri.path = SLICE("/other");
    CHECK_TEXT(get("a"), "testing");
    CHECK_TEXT(get("b"), "none");
    unuse();
}

TEST("ambiguous maps are refused in Caddy's words")
{
    static const struct {
        const char *config, *error;
    } cases[] = {
        {"{\"destinations\":[\"a\"]}", "destination must be a placeholder and only a placeholder"},
        {"{\"destinations\":[\"{a}{b}\"]}", "destination must be a placeholder and only a placeholder"},
        {"{\"destinations\":[\"{a}\"],\"defaults\":[\"1\",\"2\"]}", "1 destinations != 2 defaults"},
        {"{\"destinations\":[\"{a}\"],\"mappings\":[{\"input\":\"x\",\"input_regexp\":\"y\","
         "\"outputs\":[1]}]}",
         "mapping 0 has both input and input_regexp fields specified, which is confusing"},
        {"{\"destinations\":[\"{a}\"],\"mappings\":[{\"input\":\"x\",\"outputs\":[1]},{\"input\":"
         "\"x\",\"outputs\":[1]}]}",
         "mapping 1 has a duplicate input 'x' previously used with mapping 0"},
        {"{\"destinations\":[\"{a}\"],\"mappings\":[{\"input\":\"x\",\"outputs\":[]}]}",
         "mapping 0 has 0 outputs but there are 1 destinations defined"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_INT(use("map", json_loads(cases[i].config, 0, NULL), SLICE("/")), ERR_INVALID);
        struct slice error = slice_from(provision.error);
        CHECK(slice_ends(error, slice_from(cases[i].error)));
        unuse();
    }
}

TEST("variables keep their values as text, and two names reach the server itself")
{
    CHECK_OK(use("vars", json_loads("{\"a\":\"{http.request.method}\",\"n\":42,\"f\":2.50,\"big\":1e6,"
                                    "\"t\":true,\"z\":null,\"o\":{\"k\":[1]},"
                                    "\"http.auth.user.id\":\"eve\",\"client_ip\":\"192.0.2.9\"}", 0,
                                    NULL), SLICE("/")));
    CHECK_TEXT(get("http.vars.a"), "GET");
    CHECK_TEXT(get("http.vars.n"), "42");
    CHECK_TEXT(get("http.vars.f"), "2.5");
    CHECK_TEXT(get("http.vars.big"), "1000000");
    CHECK_TEXT(get("http.vars.t"), "true");
    CHECK_TEXT(get("http.vars.z"), "");
    CHECK_TEXT(get("http.vars.o"), "{\"k\":[1]}");
    CHECK_TEXT(get("http.auth.user.id"), "eve");
    CHECK_TEXT(x.log_user, "eve");
    CHECK_TEXT(x.client_ip, "192.0.2.9");
    unuse();
}
