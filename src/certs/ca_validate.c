/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name is the client's choice: no proxy is asked on the way, answers are short, and what is
 * fetched is only compared, never told, so that nobody learns of the inside of a network by it but
 * whether something answered.
 */
#include "certs/ca_validate.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "base/clock.h"
#include "certs/dns_query.h"
#include "certs/jose.h"
#include "certs/solver.h"
#include "client/fetch.h"
#include "loop/await.h"
#include "net/dial.h"
#include "pki/jose_verify.h"
#include "tls/stream.h"
#include "tls/trust.h"

enum { HTTP_S = 10, TLS_S = 10, ANSWER_MAX = 4096, REDIRECTS = 10, SERVERS_MAX = 16, TLS_PORT = 443 };

__attribute__((format(printf, 3, 4))) static enum err refuse(struct ca_proof *p, const char *type,
                                                             const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->why, sizeof p->why, format, args);
    va_end(args);
    p->error_type = type;
    return ERR_FAILED;
}

static struct slice host_of(const struct ca_proof *p, struct arena *a)
{
    bool six = slice_find(p->name, ':') != SIZE_MAX;
    return six ? arena_join(a, (struct slice[]){SLICE("["), p->name, SLICE("]")}, 3) : p->name;
}

/* --- HTTP-01 --- */

static enum err check_http(struct ca_proof *p, struct arena *a)
{
    struct fetch_request request = {.timeout_ns = HTTP_S * NS_PER_S, .answer_max = ANSWER_MAX,
                                    .redirects = REDIRECTS, .no_proxy = true};
    struct fetch_answer *answer = ARENA_NEW(a, struct fetch_answer);
    request.url = arena_printf(a, "http://" SLICE_FMT "/.well-known/acme-challenge/" SLICE_FMT,
                               SLICE_ARG(host_of(p, a)), SLICE_ARG(p->token));
    enum err e = fetch(&request, a, answer);
    if (e != OK)
        return refuse(p, e == ERR_NOT_FOUND ? "dns" : "connection", SLICE_FMT ": %.300s",
                      SLICE_ARG(request.url), answer->why);
    if (answer->status != 200)
        return refuse(p, "unauthorized", SLICE_FMT " answered with status %d", SLICE_ARG(request.url),
                      answer->status);
    if (!slice_eq(slice_trim(answer->body), p->key_authorization))
        return refuse(p, "unauthorized", SLICE_FMT " did not answer with the key authorization",
                      SLICE_ARG(request.url));
    return OK;
}

/* --- DNS-01 --- */

static enum err check_dns(struct ca_proof *p, struct arena *a)
{
    struct slice servers[SERVERS_MAX];
    struct slice name = arena_join(a, (struct slice[]){SLICE("_acme-challenge."), p->name}, 2);
    struct slice wanted = dns01_value(p->key_authorization, a);
    struct dns_reply *reply;
    char why[256];
    size_t count = p->resolvers_count < SERVERS_MAX ? p->resolvers_count : SERVERS_MAX;
    for (size_t i = 0; i < count; i++)
        servers[i] = p->resolvers[i];
    if (count == 0)
        count = dns_system_servers(a, servers, SERVERS_MAX);
    if (dns_query(servers, count, name, DNS_TXT, a, &reply, why, sizeof why) != OK)
        return refuse(p, "dns", "%s", why);
    for (size_t i = 0; i < reply->count; i++)
        if (reply->records[i].type == DNS_TXT && slice_eq(reply->records[i].data, wanted))
            return OK;
    return refuse(p, reply->count == 0 ? "dns" : "unauthorized", "no TXT record of " SLICE_FMT
                  " has the digest of the key authorization", SLICE_ARG(name));
}

/* --- TLS-ALPN-01 --- */

static enum err look_at_peer(struct ca_proof *p, struct tls_stream *tls, struct arena *a)
{
    struct tls_facts facts;
    struct slice *chain;
    char why[256];
    tls_stream_facts(tls, &facts);
    if (!slice_is(facts.alpn, "acme-tls/1"))
        return refuse(p, "unauthorized", SLICE_FMT " does not speak acme-tls/1", SLICE_ARG(p->name));
    if (tls_stream_peer_chain(tls, a, &chain) == 0)
        return refuse(p, "unauthorized", SLICE_FMT " showed no certificate", SLICE_ARG(p->name));
    if (alpn_certificate_check(chain[0], p->name, p->key_authorization, why, sizeof why) != OK)
        return refuse(p, "unauthorized", SLICE_FMT ": %s", SLICE_ARG(p->name), why);
    return OK;
}

static enum err shake_hands(struct ca_proof *p, int fd, struct tls_client *client, uint64_t deadline,
                            struct arena *a)
{
    struct acme_identifier id = {p->kind, p->name};
    struct stream stream = {.fd = fd};
    if (tls_client_begin(client, solving_name(&id, true, a), &stream.tls, p->why, sizeof p->why) != OK)
        return refuse(p, "serverInternal", "no handshake could be begun");
    enum err e = stream_handshake(&stream, deadline);
    e = e == OK ? look_at_peer(p, stream.tls, a) :
                  refuse(p, e == ERR_INVALID ? "tls" : "connection", "the handshake with " SLICE_FMT
                         " failed: %s", SLICE_ARG(p->name), err_text(e));
    stream_shutdown(&stream);
    tls_stream_free(stream.tls);
    return e;
}

static enum err check_tls(struct ca_proof *p, struct arena *a)
{
    static const char *const alpn[] = {"acme-tls/1", NULL};
    struct tls_client_options options = {.alpn = alpn, .insecure = true};
    struct dial_options dial = {.deadline_ns = clock_mono_ns() + TLS_S * NS_PER_S};
    struct resolved *r = ARENA_NEW(a, struct resolved);
    struct tls_client *client;
    struct dialed d;
    enum err e = await_resolve(p->name, TLS_PORT, dial.deadline_ns, r);
    if (e != OK)
        return refuse(p, "dns", "looking up " SLICE_FMT ": %s", SLICE_ARG(p->name),
                      r->why != NULL ? r->why : err_text(e));
    e = await_dial(r, &dial, &d);
    if (e != OK)
        return refuse(p, "connection", "connecting to " SLICE_FMT ": %s", SLICE_ARG(p->name),
                      err_text(e));
    if (tls_client_create(&options, &client, p->why, sizeof p->why) != OK) {
        e = refuse(p, "serverInternal", "no handshake could be begun");
    } else {
        e = shake_hands(p, d.fd, client, dial.deadline_ns, a);
        tls_client_unref(client);
    }
    loop_close(loop_self(), d.fd);
    return e;
}

enum err ca_validate(struct slice type, struct ca_proof *p, struct arena *a)
{
    if (slice_is(type, "http-01"))
        return check_http(p, a);
    if (slice_is(type, "dns-01"))
        return check_dns(p, a);
    if (slice_is(type, "tls-alpn-01"))
        return check_tls(p, a);
    return refuse(p, "malformed", "no such challenge");
}
