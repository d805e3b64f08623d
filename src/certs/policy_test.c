/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection policies: Caddy's published rows of their matchers, and what their members become.
 */
#include <arpa/inet.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/test.h"
#include "config/table_testing.h"
#include "http/tls_modules.h"
#include "http/tls_policies.h"

static const struct module *const modules[] = {
    &hello_match_sni, &hello_match_sni_regexp, &hello_match_remote_ip, &hello_match_local_ip,
    &trust_inline, &trust_file, &trust_combined, &trust_system, &leaf_loader_pem,
    &leaf_loader_folder, &client_verifier_leaf, NULL};

static struct arena arena;
static struct provision provision;
static bool client_auth;

static void begin(void)
{
    arena_deinit(&arena);
    arena_init(&arena, 16384);
    provision = (struct provision){.arena = &arena, .modules = modules, .path = SLICE("srv0")};
    log_set_threshold(LOG_FATAL);
}

static void end(void)
{
    for (struct provision_release *r = provision.releases; r != NULL; r = r->next)
        r->release(r->cfg);
    provision.releases = NULL;
}

static enum err read_json(const char *text, struct tls_server *server)
{
    begin();
    *server = (struct tls_server){.h1 = true};
    json_t *json = json_loads(text, 0, NULL);
    CHECK(json != NULL);
    enum err e = tls_policies_provision(server, json, &provision, &client_auth);
    json_decref(json);
    return e;
}

static const struct tls_policy *read_one(const char *text)
{
    static struct tls_server server;
    if (read_json(text, &server) != OK)
        test_fail(__FILE__, __LINE__, "%s", provision.error);
    CHECK_INT(server.count, 1);
    return &server.policies[0];
}

static void refuse(const char *text, const char *sentence)
{
    struct tls_server server;
    CHECK_INT(read_json(text, &server), ERR_INVALID);
    if (slice_find_slice(slice_from(provision.error), slice_from(sentence)) == SIZE_MAX)
        test_fail(__FILE__, __LINE__, "%s", provision.error);
    end();
}

/* --- Caddy's rows --- */

static bool matches(const char *name, const json_t *config, const struct tls_hello *hello)
{
    const struct module *m;
    void *cfg;
    begin();
    CHECK_OK(provision_module(&provision, "tls.handshake_match", name, config, &m, &cfg));
    bool yes = ((const struct hello_match *)m->face)->matches(cfg, hello);
    end();
    return yes;
}

static void expect(const json_t *row, bool got)
{
    if (json_is_true(json_object_get(row, "expect")) == got)
        return;
    test_fail(__FILE__, __LINE__, "gives %d: %s", got, json_dumps(row, 0));
}

static void lower(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        ((char *)(uintptr_t)s.ptr)[i] = ascii_lower(s.ptr[i]);
}

TEST("names are matched as in Caddy's rows")
{
    size_t i;
    json_t *row, *table = table_load("match-sni");
    json_array_foreach(json_object_get(table, "cases"), i, row)
    {
        char *name = strdup(json_string_value(json_object_get(row, "input")));
        struct tls_hello hello = {.server_name = slice_from(name)};
        lower(hello.server_name);
        expect(row, matches("sni", json_object_get(row, "names"), &hello));
        free(name);
    }
    json_decref(table);
    table = table_load("match-sni-regexp");
    json_array_foreach(json_object_get(table, "cases"), i, row)
    {
        struct tls_hello hello = {
            .server_name = slice_from(json_string_value(json_object_get(row, "input")))};
        json_t *config = json_pack("{s:O}", "pattern", json_object_get(row, "pattern"));
        expect(row, matches("sni_regexp", config, &hello));
        json_decref(config);
    }
    json_decref(table);
}

static struct sockaddr_storage address(const json_t *row)
{
    struct sockaddr_storage a = {0};
    struct slice host, port;
    slice_cut(slice_from(json_string_value(json_object_get(row, "input"))), ':', &host, &port);
    char *text = slice_dup(host);
    if (inet_pton(AF_INET, text, &((struct sockaddr_in *)&a)->sin_addr) == 1)
        a.ss_family = AF_INET;
    free(text);
    return a;
}

TEST("addresses are matched as in Caddy's rows")
{
    static const char *const names[] = {"remote_ip", "local_ip"};
    static const char *const tables[] = {"match-tls-remote-ip", "match-tls-local-ip"};
    for (int which = 0; which < 2; which++) {
        size_t i;
        json_t *row, *table = table_load(tables[which]);
        json_array_foreach(json_object_get(table, "cases"), i, row)
        {
            struct sockaddr_storage a = address(row);
            struct tls_hello hello = {.remote = &a, .local = &a};
            json_t *config = json_deep_copy(row);
            json_object_del(config, "input");
            json_object_del(config, "expect");
            expect(row, matches(names[which], config, &hello));
            json_decref(config);
        }
        json_decref(table);
    }
}

/* --- members --- */

TEST("an empty policy has the defaults")
{
    const struct tls_policy *policy = read_one("[{}]");
    CHECK_INT(policy->matchers_count, 0);
    CHECK(policy->selection == NULL && policy->client_auth == TLS_CLIENT_NONE);
    CHECK_INT(policy->min_version, 0);
    CHECK_INT(policy->alpn_count, 0);
    CHECK(!client_auth);
    end();
}

TEST("versions, suites, curves and ALPN are read, once each")
{
    const struct tls_policy *policy = read_one(
        "[{\"protocol_min\":\"tls1.2\",\"protocol_max\":\"tls1.3\",\"curves\":[\"x25519\",\"x25519\"],"
        "\"cipher_suites\":[\"TLS_AES_128_GCM_SHA256\",\"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"],"
        "\"alpn\":[\"h2\",\"http/1.1\",\"x\"],\"default_sni\":\"a\",\"fallback_sni\":\"b\","
        "\"drop\":true}]");
    CHECK_INT(policy->min_version, TLS_1_2);
    CHECK_INT(policy->max_version, TLS_1_3);
    CHECK_INT(policy->curves_count, 1);
    CHECK_INT(policy->ciphers_count, 1);
    CHECK_TEXT(policy->ciphers[0], "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
    CHECK_INT(policy->alpn_count, 2);
    CHECK_TEXT(policy->alpn[0], "http/1.1"); /* h2 is not spoken */
    CHECK_TEXT(policy->default_sni, "a");
    CHECK_TEXT(policy->fallback_sni, "b");
    CHECK(policy->drop);
    end();
    policy = read_one("[{\"cipher_suites\":[\"TLS_AES_128_GCM_SHA256\"]}]");
    CHECK_INT(policy->min_version, TLS_1_3);
    end();
}

TEST("a certificate is selected by serial number, organization, algorithm and tags")
{
    const struct tls_policy *policy = read_one(
        "[{\"certificate_selection\":{\"serial_number\":[\"0017\"],\"public_key_algorithm\":\"ECDSA\","
        "\"subject_organization\":[\"o\"],\"any_tag\":[\"a\"],\"all_tags\":[\"b\",\"c\"]}}]");
    CHECK_TEXT(policy->selection->serials[0], "17");
    CHECK_INT(policy->selection->key_algorithm, 3);
    CHECK_INT(policy->selection->all_tags_count, 2);
    end();
}

TEST("the mode of client authentication follows from what is trusted")
{
    CHECK_INT(read_one("[{\"client_authentication\":{}}]")->client_auth, TLS_CLIENT_NONE);
    CHECK(!client_auth);
    end();
    const struct tls_policy *policy =
        read_one("[{\"client_authentication\":{\"trusted_ca_certs\":[\"AAEC\"]}}]");
    CHECK_INT(policy->client_auth, TLS_CLIENT_REQUIRE_AND_VERIFY);
    CHECK_INT(policy->client_cas[0].len, 3);
    CHECK(client_auth);
    end();
    policy = read_one("[{\"client_authentication\":{\"mode\":\"verify_if_given\",\"ca\":{\"provider\":"
                      "\"combined\",\"sources\":[{\"provider\":\"inline\",\"trusted_ca_certs\":"
                      "[\"AAEC\",\"AwQF\"]}]}}}]");
    CHECK_INT(policy->client_auth, TLS_CLIENT_VERIFY_IF_GIVEN);
    CHECK_INT(policy->client_cas_count, 2);
    end();
}

TEST("several verifiers let in what all of them know")
{
    const struct tls_policy *policy = read_one(
        "[{\"client_authentication\":{\"trusted_leaf_certs\":[\"AAEC\",\"AwQF\"],\"verifiers\":["
        "{\"verifier\":\"leaf\",\"leaf_certs_loaders\":[{\"loader\":\"pem\",\"certificates\":["
        "\"-----BEGIN CERTIFICATE-----\\nAwQF\\n-----END CERTIFICATE-----\\n\"]}]}]}}]");
    CHECK_INT(policy->client_auth, TLS_CLIENT_REQUIRE_AND_VERIFY);
    CHECK_INT(policy->client_leafs_count, 1);
    CHECK_INT(policy->client_leafs[0].ptr[0], 3);
    end();
    policy = read_one("[{\"client_authentication\":{\"verifiers\":[{\"verifier\":\"leaf\"}]}}]");
    CHECK_INT(policy->client_auth, TLS_CLIENT_REQUIRE);
    CHECK_INT(policy->client_leafs_count, 1);
    CHECK_INT(policy->client_leafs[0].len, 0); /* equal to none */
    end();
}

TEST("what cannot be meant is refused with a sentence")
{
    refuse("[{\"x\":1}]", "srv0.tls_connection_policies[0]: unknown member \"x\"");
    refuse("[{\"curves\":[\"p256\"]}]", "unsupported curve: p256");
    refuse("[{\"cipher_suites\":[\"RC4\"]}]", "unsupported cipher suite: RC4");
    refuse("[{\"protocol_min\":\"ssl3\"}]", "unsupported protocol version");
    refuse("[{\"protocol_min\":\"tls1.3\",\"protocol_max\":\"tls1.2\"}]", "cannot be greater");
    refuse("[{\"match\":{\"sni2\":[]}}]", "unknown module: tls.handshake_match.sni2");
    refuse("[{\"match\":{\"remote_ip\":{\"ranges\":[\"x\"]}}}]", "invalid IP address");
    refuse("[{\"client_authentication\":{\"mode\":\"x\"}}]", "client auth mode not recognized: x");
    refuse("[{\"client_authentication\":{\"trusted_ca_certs\":[\"?\"]}}]", "at index 0");
    refuse("[{\"client_authentication\":{\"ca\":{\"provider\":\"file\",\"pem_files\":[\"/no\"]}}}]",
           "open /no: No such file or directory");
    refuse("[{\"certificate_selection\":{\"serial_number\":[\"x\"]}}]", "not a valid big integer");
    refuse("{}", "must be an array");
}
