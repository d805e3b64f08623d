/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's address behind trusted proxies, as Caddy's own tests have it and beyond.
 */
#include "base/test.h"
#include "http/server.h"
#include "http/template.h"

static const struct module *const modules[] = {&ip_source_static, NULL};
static struct arena arena;
static struct http_server server;
static struct provision provision;
static struct exchange x;
static const char *peer;
static unsigned asked;

static void on_addresses(struct exchange *e)
{
    asked++;
    e->remote_host = slice_from(peer);
    e->remote_port = SLICE("12345");
}

static const struct carrier_type carrier = {.addresses = on_addresses};

static enum err use(const char *json)
{
    json_t *config = json_loads(json, 0, NULL);
    CHECK(config != NULL);
    arena_deinit(&arena);
    arena_init(&arena, 4096);
    provision = (struct provision){.arena = &arena, .modules = modules};
    memset(&server, 0, sizeof server);
    enum err e = http_server_provision(&server, SLICE("srv0"), config, &provision);
    json_decref(config);
    x = (struct exchange){.arena = &arena, .carrier = &carrier, .server = &server};
    fields_init(&x.req.fields, &arena);
    asked = 0;
    return e;
}

#define TRUSTED "{\"trusted_proxies\":{\"source\":\"static\",\"ranges\":[\"127.0.0.1/8\","             \
                "\"10.0.0.0/8\",\"fd00::/8\"]}"
#define FIELDS ",\"client_ip_headers\":[\"CF-Connecting-IP\",\"X-Forwarded-For\"]"
#define STRICT ",\"trusted_proxies_strict\":1"

static const struct {
    const char *config, *peer, *connecting, *forwarded;
    bool proxy;
    const char *want;
} cases[] = {
    {"{}", "192.0.2.1", NULL, "31.40.0.10", false, "192.0.2.1"},
    {"{}", "::1", NULL, NULL, false, "::1"},
    {"{}", "fe80::1%eth2", NULL, NULL, false, "fe80::1"},
    {"{}", "@", NULL, "2.2.2.2", false, ""},
    {TRUSTED "}", "127.0.0.1", NULL, "31.40.0.10", true, "31.40.0.10"},
    {TRUSTED "}", "127.0.0.1", NULL, NULL, true, "127.0.0.1"},
    {TRUSTED "}", "127.0.0.1", NULL, "", true, "127.0.0.1"},
    {TRUSTED "}", "127.0.0.1", NULL, "not, an, ip", true, "127.0.0.1"},
    {TRUSTED "}", "11.0.0.1", NULL, "31.40.0.10", false, "11.0.0.1"},
    {TRUSTED "}", "10.0.0.1", NULL, "1.1.1.1, 2.2.2.2", true, "1.1.1.1"},
    {TRUSTED "}", "10.0.0.1", NULL, "1.1.1.1:1234", true, "1.1.1.1"},
    {TRUSTED "}", "10.0.0.1", NULL, "[2001:db8::1]:80", true, "2001:db8::1"},
    {TRUSTED "}", "10.0.0.1", NULL, "bad, [2001:DB8:0::1]:80", true, "2001:db8::1"},
    {TRUSTED "}", "10.0.0.1", NULL, "fe80::1%eth0", true, "fe80::1"},
    {TRUSTED "}", "10.0.0.1", NULL, "not an ip, bad bad, 10.0.0.9", true, "10.0.0.9"},
    {TRUSTED "}", "10.0.0.1", "1.1.1.1", "2.2.2.2", true, "2.2.2.2"},
    {TRUSTED FIELDS "}", "10.0.0.1", "1.1.1.1, 2.2.2.2", "3.3.3.3", true, "1.1.1.1"},
    {TRUSTED FIELDS "}", "fd01::1", NULL, "3.3.3.3", true, "3.3.3.3"},
    {TRUSTED STRICT "}", "10.0.0.1", NULL, "30.30.30.30, 45.54.45.54, 10.0.0.1", true, "45.54.45.54"},
    {TRUSTED STRICT "}", "10.0.0.1", NULL, "10.0.0.2,10.0.0.3", true, "10.0.0.1"},
    {TRUSTED STRICT FIELDS "}", "10.0.0.1", "not a real IP", "30.30.30.30, bad, 45.54.45.54, no", true,
     "45.54.45.54"},
    {TRUSTED STRICT FIELDS "}", "10.0.0.1", "10.0.0.1, 10.0.0.2", "3.3.3.3, 4.4.4.4, 10.0.0.4", true,
     "4.4.4.4"},
    {"{\"trusted_proxies_unix\":true}", "@", NULL, "2.2.2.2, 3.3.3.3", true, "2.2.2.2"},
    {"{\"trusted_proxies_unix\":true}", "@", NULL, NULL, true, "@"},
    {"{\"trusted_proxies_unix\":true" STRICT "}", "@", NULL, "2.2.2.2, 3.3.3.3", true, "3.3.3.3"},
    {"{\"trusted_proxies_unix\":true}", "10.0.0.1", NULL, "2.2.2.2", false, "10.0.0.1"},
};

TEST("the client is who a trusted proxy names, else the peer")
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_OK(use(cases[i].config));
        peer = cases[i].peer;
        if (cases[i].connecting != NULL)
            fields_add(&x.req.fields, SLICE("cf-connecting-ip"), slice_from(cases[i].connecting));
        if (cases[i].forwarded != NULL)
            fields_add(&x.req.fields, SLICE("X-Forwarded-For"), slice_from(cases[i].forwarded));
        CHECK_INT(asked, 0);
        exchange_addresses(&x);
        exchange_addresses(&x);
        CHECK_INT(asked, 1);
        if (!slice_is(x.client_ip, cases[i].want) || x.client_is_proxy != cases[i].proxy)
            test_fail(__FILE__, __LINE__, "case %zu: " SLICE_FMT, i, SLICE_ARG(x.client_ip));
    }
}

TEST("several fields of one name count as one list")
{
    CHECK_OK(use(TRUSTED STRICT "}"));
    peer = "10.0.0.1";
    fields_add(&x.req.fields, SLICE("X-Forwarded-For"), SLICE("1.1.1.1"));
    fields_add(&x.req.fields, SLICE("X-Forwarded-For"), SLICE("2.2.2.2, 10.0.0.2"));
    exchange_addresses(&x);
    CHECK_TEXT(x.client_ip, "2.2.2.2");
}

TEST("the address is found before fields change, and only where they count")
{
    struct slice value;
    CHECK_OK(use(TRUSTED "}"));
    peer = "10.0.0.1";
    fields_add(&x.req.fields, SLICE("X-Forwarded-For"), SLICE("1.1.1.1"));
    client_ip_settle(&x);
    fields_set(&x.req.fields, SLICE("X-Forwarded-For"), SLICE("6.6.6.6"));
    CHECK(placeholder_get(&x, SLICE("http.vars.client_ip"), &value));
    CHECK_TEXT(value, "1.1.1.1");
    CHECK(placeholder_get(&x, SLICE("http.vars.trusted_proxy"), &value));
    CHECK_TEXT(value, "true");
    CHECK_OK(use("{}"));
    client_ip_settle(&x);
    CHECK_INT(asked, 0);
}

TEST("bad ranges and sources are refused with their place")
{
    CHECK_INT(use("{\"trusted_proxies\":{\"source\":\"static\",\"ranges\":[\"10.0.0.0/33\"]}}"),
              ERR_INVALID);
    CHECK_TEXT(slice_from(provision.error), "apps.http.servers.srv0.trusted_proxies: invalid IP "
               "address or CIDR range: '10.0.0.0/33'");
    CHECK_INT(use("{\"trusted_proxies\":{\"source\":\"dns\"}}"), ERR_INVALID);
    CHECK_TEXT(slice_from(provision.error), "apps.http.servers.srv0.trusted_proxies: unknown module: "
               "http.ip_sources.dns");
    CHECK_INT(use("{\"trusted_proxies\":{}}"), ERR_INVALID);
    CHECK_INT(use("{\"trusted_proxies_strict\":\"yes\"}"), ERR_INVALID);
}
