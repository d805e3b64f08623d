/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS to upstreams: the member "tls" of the transport, and the handshake of a fresh connection.
 *
 *     {"ca": {"provider": "file", "pem_files": ["/etc/ca.pem"]}, "server_name": "app.internal",
 *      "client_certificate_automate": "gateway.example.com",
 *      "client_certificate_file": "c.pem", "client_certificate_key_file": "k.pem",
 *      "handshake_timeout": "5s", "except_ports": ["80"], "curves": ["x25519"]}
 *
 * Everything is read at load. Connections with other options, or for another server name, do not
 * stand for one another: both are part of a link's key. The options count by what they are, so that a
 * reload of the same configuration keeps the idle connections.
 */
#include "base/text.h"
#include "certs/automation.h"
#include "certs/cert_files.h"
#include "http/tls_modules.h"
#include "proxy/gateway.h"

enum { DER_MAX = 1 << 20, EXCEPT_MAX = 1024 };

static const char *const members[] = {
    "ca", "root_ca_pool", "root_ca_pem_files", "client_certificate_file",
    "client_certificate_key_file", "client_certificate_automate", "insecure_skip_verify",
    "handshake_timeout", "server_name", "renegotiation", "except_ports", "curves", NULL};

/* --- whom it trusts --- */

static enum err read_pool(struct tls_client_options *o, const json_t *json, struct provision *p)
{
    struct slice *texts;
    struct buffer der;
    size_t count;
    enum err e = OK;
    TRY(provision_texts(p, json, "root_ca_pool", &texts, &count));
    o->roots_der = ARENA_ARRAY(p->arena, struct slice, count);
    buffer_init(&der, DER_MAX);
    for (size_t i = 0; i < count && e == OK; i++) {
        buffer_clear(&der);
        if (base64_decode(&der, texts[i]) != OK || der.len == 0)
            e = provision_fail(p, "parsing CA certificate: \"root_ca_pool\"[%zu] is not base64", i);
        else
            o->roots_der[o->roots_der_count++] = arena_copy(p->arena, buffer_slice(&der));
    }
    buffer_deinit(&der);
    return e;
}

static enum err read_files(struct tls_client_options *o, const json_t *json, struct provision *p)
{
    struct slice *paths;
    TRY(provision_texts(p, json, "root_ca_pem_files", &paths, &o->roots_count));
    o->roots_pem = ARENA_ARRAY(p->arena, struct slice, o->roots_count);
    for (size_t i = 0; i < o->roots_count; i++) {
        TRY(cert_file_read(p, paths[i], &o->roots_pem[i]));
        if (slice_find_slice(o->roots_pem[i], SLICE("-----BEGIN CERTIFICATE-----")) == SIZE_MAX)
            return provision_fail(p, "no certificate in " SLICE_FMT, SLICE_ARG(paths[i]));
    }
    return OK;
}

static enum err read_roots(struct tls_client_options *o, const json_t *json, struct provision *p)
{
    struct certificate_list list = {0};
    const json_t *ca = json_object_get(json, "ca");
    TRY(read_pool(o, json, p));
    TRY(read_files(o, json, p));
    if (ca == NULL || json_is_null(ca))
        return OK;
    if (o->roots_count + o->roots_der_count > 0)
        return provision_fail(p, "conflicting config for Root CA pool");
    TRY(trust_pool_provision(&list, ca, p));
    if (list.count == 0 && !list.system)
        return provision_fail(p, "\"ca\" gives no certificate to trust");
    o->roots_der = list.ders;
    o->roots_der_count = list.count;
    return OK;
}

/* --- what it is --- */

/* A certificate that the manager obtains and renews: the present one, whenever a server asks. */
static enum err read_automate(struct tls_client_options *o, const json_t *json, struct provision *p)
{
    struct slice name;
    TRY(provision_text(p, json, "client_certificate_automate", SLICE(""), &name));
    if (name.len == 0)
        return OK;
    TRY(policy_ascii(p, slice_trim(name), &o->automate));
    provision_want_name(p, o->automate);
    return OK;
}

static enum err read_identity(struct tls_client_options *o, const json_t *json,
                              struct provision *p)
{
    struct slice chain, key;
    TRY(read_automate(o, json, p));
    TRY(provision_text(p, json, "client_certificate_file", SLICE(""), &chain));
    TRY(provision_text(p, json, "client_certificate_key_file", SLICE(""), &key));
    if (chain.len == 0 && key.len == 0)
        return OK;
    if (key.len == 0)
        return provision_fail(p, "client_certificate_file specified without "
                              "client_certificate_key_file");
    if (chain.len == 0)
        return provision_fail(p, "client_certificate_key_file specified without "
                              "client_certificate_file");
    TRY(cert_file_read(p, chain, &o->chain_pem));
    return cert_file_read(p, key, &o->key_pem);
}

static enum err read_renegotiation(struct tls_client_options *o, const json_t *json,
                                   struct provision *p)
{
    struct slice level;
    TRY(provision_text(p, json, "renegotiation", SLICE("never"), &level));
    o->renegotiate_once = slice_is(level, "once");
    o->renegotiate_freely = slice_is(level, "freely");
    if (o->renegotiate_once || o->renegotiate_freely || slice_is(level, "never") || level.len == 0)
        return OK;
    return provision_fail(p, "invalid TLS renegotiation level: " SLICE_FMT, SLICE_ARG(level));
}

static enum err read_name(struct http_transport *t, struct tls_client_options *o,
                          const json_t *json, struct provision *p)
{
    TRY(provision_template(p, json, "server_name", SLICE(""), &t->tls_name));
    if (t->tls_name.constant)
        o->server_name = t->tls_name.text;
    return OK;
}

static enum err read_except(struct http_transport *t, const json_t *json, struct provision *p)
{
    struct slice *texts;
    size_t count;
    uint64_t port;
    TRY(provision_texts(p, json, "except_ports", &texts, &count));
    if (count > EXCEPT_MAX)
        return provision_fail(p, "more than %d \"except_ports\"", EXCEPT_MAX);
    t->tls_except = ARENA_ARRAY(p->arena, uint16_t, count);
    for (size_t i = 0; i < count; i++) {
        if (!slice_to_u64(texts[i], UINT16_MAX, &port) || port == 0)
            return provision_fail(p, "\"except_ports\": invalid port \"" SLICE_FMT "\"",
                                  SLICE_ARG(texts[i]));
        t->tls_except[t->tls_except_count++] = (uint16_t)port;
    }
    return OK;
}

enum err transport_tls_provision(struct http_transport *t, const json_t *json, struct provision *p)
{
    static const char *const one[] = {"http/1.1", NULL}, *const both[] = {"h2", "http/1.1", NULL};
    struct tls_client_options o = {.alpn = t->h2_offered ? both : one};
    char why[256];
    int64_t ns;
    if (json == NULL || json_is_null(json))
        return OK;
    TRY(provision_members(p, json, members));
    TRY(read_roots(&o, json, p));
    TRY(read_identity(&o, json, p));
    TRY(read_renegotiation(&o, json, p));
    TRY(read_name(t, &o, json, p));
    TRY(read_except(t, json, p));
    TRY(provision_bool(p, json, "insecure_skip_verify", false, &o.insecure));
    TRY(provision_texts(p, json, "curves", &o.curves, &o.curves_count));
    TRY(provision_duration(p, json, "handshake_timeout", 0, &ns));
    t->handshake_ns = ns > 0 ? (uint64_t)ns : ns == 0 ? HANDSHAKE_NS : 0;
    if (tls_client_create(&o, &t->tls, why, sizeof why) != OK)
        return provision_fail(p, "making TLS client config: %s", why);
    if (!t->h2_offered)
        return OK;
    o.alpn = one;
    if (tls_client_create(&o, &t->tls_one, why, sizeof why) != OK)
        return provision_fail(p, "making TLS client config: %s", why);
    return OK;
}

/* --- connections --- */

bool transport_tls_for(const struct http_transport *t, uint16_t port)
{
    for (size_t i = 0; i < t->tls_except_count; i++) {
        if (t->tls_except[i] == port)
            return false;
    }
    return t->tls != NULL;
}

/* Whose certificate it must be; what the options say comes first. */
static struct slice server_name(const struct round *r)
{
    const struct http_transport *t = r->g->transport;
    if (!t->tls_name.constant)
        return r->tls_name;
    return r->address.is_unix ? SLICE_NONE : r->address.host;
}

void transport_tls_name(struct round *r)
{
    const struct http_transport *t = r->g->transport;
    if (!r->address.tls || t->tls_name.constant)
        return;
    r->tls_name = round_text(r, &t->tls_name);
    r->address.key = arena_join(r->x->arena,
                                (struct slice[]){r->address.key, SLICE("\n"), r->tls_name}, 3);
}

enum err transport_tls_handshake(struct round *r, char *why, size_t cap)
{
    const struct http_transport *t = r->g->transport;
    uint64_t now = loop_now_ns(loop_self());
    bool one = t->tls_one != NULL && !gateway_may_speak_h2(r); /* such as for an upgrade */
    gateway_watch(r); /* many round trips, and the other side's arithmetic */
    return await_link_tls(r->link, one ? t->tls_one : t->tls, server_name(r),
                          t->handshake_ns > 0 ? now + t->handshake_ns : 0, why, cap);
}
