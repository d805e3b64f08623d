/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operator's own name server, changed by signed messages over TCP (RFC 2136, RFC 8945): BIND,
 * Knot, PowerDNS and others.
 *
 *     {"name": "rfc2136", "key_name": "…", "key_alg": "hmac-sha256", "key": "BASE64", "server": "host:53"}
 */
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/text.h"
#include "certs/dns_api.h"
#include "certs/dns_update.h"
#include "loop/await.h"
#include "net/dial.h"

#define EXCHANGE_NS (20 * NS_PER_S)
enum { SECRET_MAX = 1024, ANSWER_MAX = 65535, TTL_S = 60, DNS_PORT = 53 };

struct rfc2136 {
    struct tsig_key key;
    struct slice server, host;
    uint16_t port;
};

static enum err read_key(struct rfc2136 *c, const json_t *json, struct provision *p)
{
    struct slice text, algorithm;
    struct buffer raw;
    TRY(dns_secret(p, json, "key_name", &c->key.name));
    TRY(dns_secret(p, json, "key_alg", &algorithm));
    TRY(dns_secret(p, json, "key", &text));
    if (c->key.name.len == 0 || text.len == 0)
        return provision_fail(p, "key_name and key must be given");
    if (tsig_algorithm(algorithm, &c->key) != OK)
        return provision_fail(p, "key_alg \"" SLICE_FMT "\" is none of hmac-sha256, hmac-sha512, "
                              "hmac-sha384, hmac-sha224, hmac-sha1, hmac-md5", SLICE_ARG(algorithm));
    buffer_init(&raw, SECRET_MAX);
    enum err e = base64_decode(&raw, text);
    c->key.secret = arena_copy(p->arena, buffer_slice(&raw));
    buffer_deinit(&raw);
    return e == OK ? OK : provision_fail(p, "key is not base64");
}

/* "host:port", "host", "[::1]:53". */
static enum err read_server(struct rfc2136 *c, const json_t *json, struct provision *p)
{
    uint64_t port = DNS_PORT;
    TRY(dns_secret(p, json, "server", &c->server));
    size_t colon = slice_find_last(c->server, ':'), bracket = slice_find_last(c->server, ']');
    bool has_port = colon != SIZE_MAX && (bracket == SIZE_MAX ? slice_find(c->server, ':') == colon
                                                              : colon > bracket);
    c->host = has_port ? slice_take(c->server, colon) : c->server;
    if (slice_starts(c->host, SLICE("[")) && slice_ends(c->host, SLICE("]")))
        c->host = slice_of(c->host.ptr + 1, c->host.len - 2);
    if (has_port && !slice_to_u64(slice_skip(c->server, colon + 1), 65535, &port))
        return provision_fail(p, "server " SLICE_FMT ": not a port", SLICE_ARG(c->server));
    c->port = (uint16_t)port;
    return c->host.len > 0 ? OK : provision_fail(p, "server must be given as host:port");
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"name", "key_name", "key_alg", "key", "server", NULL};
    TRY(provision_members(p, json, known));
    TRY(read_key(cfg, json, p));
    return read_server(cfg, json, p);
}

/* --- on a fiber --- */

static enum err await_all(int fd, char *out, size_t len, uint64_t deadline_ns)
{
    for (size_t n; len > 0; out += n, len -= n) {
        TRY(await_recv(fd, out, len, deadline_ns, &n));
        if (n == 0)
            return ERR_CLOSED;
    }
    return OK;
}

/* A message over TCP has its length in front. */
static enum err await_exchange(int fd, struct slice question, struct arena *a, struct slice *answer)
{
    uint64_t deadline = loop_now_ns(loop_self()) + EXCHANGE_NS;
    char length[2] = {(char)(question.len >> 8), (char)question.len};
    struct iovec parts[] = {{length, 2}, {(void *)(uintptr_t)question.ptr, question.len}};
    size_t sent;
    TRY(await_send(fd, parts, 2, 0, deadline, &sent));
    TRY(await_all(fd, length, 2, deadline));
    size_t len = (size_t)(unsigned char)length[0] << 8 | (unsigned char)length[1];
    char *bytes = arena_alloc(a, len + 1);
    *answer = slice_of(bytes, len);
    return await_all(fd, bytes, len, deadline);
}

static enum err ask(const struct rfc2136 *c, struct slice question, struct arena *a,
                    struct slice *answer, struct dns_why *why)
{
    struct resolved to;
    struct dialed out;
    struct dial_options options = {.deadline_ns = loop_now_ns(loop_self()) + EXCHANGE_NS};
    enum err e = await_resolve(c->host, c->port, options.deadline_ns, &to);
    if (e != OK)
        return dns_fail(why, "lookup " SLICE_FMT ": %s", SLICE_ARG(c->host),
                        to.why != NULL ? to.why : err_text(e));
    e = await_dial(&to, &options, &out);
    if (e != OK)
        return dns_fail(why, "connecting to " SLICE_FMT ": %s", SLICE_ARG(c->server),
                        out.error != 0 ? strerrordesc_np(out.error) : err_text(e));
    e = await_exchange(out.fd, question, a, answer);
    loop_close(loop_self(), out.fd);
    return e == OK ? OK : dns_fail(why, SLICE_FMT ": %s", SLICE_ARG(c->server), err_text(e));
}

static enum err change(const struct rfc2136 *c, const struct dns_record *record, bool remove,
                       struct arena *a, struct dns_why *why)
{
    uint16_t id;
    unsigned code;
    const char *phrase = "";
    struct slice answer;
    struct tsig_mac mac;
    struct buffer question;
    struct dns_record r = *record;
    int64_t now_s = (int64_t)(clock_wall_ns() / (int64_t)NS_PER_S);
    r.ttl_s = r.ttl_s > 0 ? r.ttl_s : TTL_S;
    if (getrandom(&id, sizeof id, 0) != sizeof id)
        return dns_fail(why, "no random numbers are to be had");
    buffer_init(&question, DNS_UPDATE_MAX);
    enum err e = dns_update_build(&question, &r, remove, id, now_s, &c->key, &mac);
    if (e == OK)
        e = ask(c, buffer_slice(&question), a, &answer, why);
    else
        (void)!dns_fail(why, "no message can be made for " SLICE_FMT " in " SLICE_FMT ": %s",
                        SLICE_ARG(r.name), SLICE_ARG(r.zone), err_text(e));
    buffer_deinit(&question);
    TRY(e);
    if (dns_update_answer(answer, id, now_s, &c->key, &mac, &code, &phrase) != OK)
        return dns_fail(why, SLICE_FMT ": %s", SLICE_ARG(c->server), phrase);
    return code == 0 ? OK : dns_fail(why, SLICE_FMT " refused the change: %s (%u)",
                                     SLICE_ARG(c->server), dns_code_name(code), code);
}

static enum err append(const void *cfg, const struct dns_record *r, struct arena *a,
                       struct dns_why *why)
{
    return change(cfg, r, false, a, why);
}

static enum err remove_record(const void *cfg, const struct dns_record *r, struct arena *a,
                              struct dns_why *why)
{
    return change(cfg, r, true, a, why);
}

const struct module dns_provider_rfc2136 = {
    .id = "dns.providers.rfc2136",
    .cfg_size = sizeof(struct rfc2136),
    .provision = provision,
    .face = &(const struct dns_provider_type){append, remove_record},
};
