/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules are those of Go's ProxyFromEnvironment, for people set these variables for all their
 * programs alike. Of NO_PROXY, separated by commas: "*" is everything; "10.0.0.0/8", "::1" and
 * "10.0.0.1:80" are addresses; "example.com" is that name and all below it, ".example.com" and
 * "*.example.com" only those below; each may have a port. This machine itself is never asked by a
 * proxy.
 */
#include "client/forward_proxy.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "client/client_answer.h"
#include "client/relay.h"
#include "client/socks.h"
#include "net/ip_set.h"

enum { HEAD_MAX = 65536, INTERIM_MAX = 16, SOCKS_PORT = 1080 };

/* --- one proxy --- */

static enum err make_credentials(struct forward_proxy *p, struct arena *arena)
{
    struct buffer text;
    struct slice pair = arena_join(arena, (struct slice[]){p->url.user, SLICE(":"),
                                                           p->url.password}, 3);
    buffer_init(&text, 4 * URL_MAX);
    enum err e = base64_encode(&text, pair);
    p->credentials = arena_join(arena, (struct slice[]){SLICE("Basic "), buffer_slice(&text)}, 2);
    buffer_deinit(&text);
    return e;
}

/* The same as a URL of HTTP; but its port, where none is written, is 1080. */
static enum err parse_socks(struct slice text, struct forward_proxy *p, struct arena *arena,
                            const char **why)
{
    struct slice scheme, rest;
    struct url other;
    size_t at = slice_find_slice(text, SLICE("://"));
    scheme = slice_take(text, at != SIZE_MAX ? at : 0);
    if (!slice_eq_nocase(scheme, SLICE("socks5")) && !slice_eq_nocase(scheme, SLICE("socks5h"))) {
        *why = "of SOCKS only version 5 is supported, as socks5://";
        return ERR_UNSUPPORTED;
    }
    rest = slice_skip(text, at);
    TRY(url_parse(arena_join(arena, (struct slice[]){SLICE("http"), rest}, 2), &p->url, arena, why));
    TRY(url_parse(arena_join(arena, (struct slice[]){SLICE("https"), rest}, 2), &other, arena, why));
    p->socks = true;
    if (p->url.port == other.port)
        return OK;
    p->url.port = SOCKS_PORT;
    p->url.hostport = arena_printf(arena, SLICE_FMT ":%d",
                                   SLICE_ARG(slice_take(p->url.hostport,
                                                        slice_find_last(p->url.hostport, ':'))),
                                   SOCKS_PORT);
    return OK;
}

struct slice forward_proxy_key(const struct forward_proxy *p, struct arena *arena)
{
    return arena_join(arena, (struct slice[]){p->socks ? SLICE("socks5 ") : SLICE(""),
                                              p->url.tls ? SLICE("tls ") : SLICE(""),
                                              p->url.hostport, SLICE(" "), p->credentials,
                                              p->url.user, SLICE(":"), p->url.password}, 8);
}

enum err forward_proxy_parse(struct slice text, struct forward_proxy *p, struct arena *arena,
                             const char **why)
{
    *p = (struct forward_proxy){0};
    if (slice_starts_nocase(text, SLICE("socks")))
        return parse_socks(text, p, arena, why);
    if (slice_find_slice(text, SLICE("://")) == SIZE_MAX)
        text = arena_join(arena, (struct slice[]){SLICE("http://"), text}, 2);
    TRY(url_parse(text, &p->url, arena, why));
    return p->url.has_user ? make_credentials(p, arena) : OK;
}

/* Of what may be no URL at all: up to the last "@" anything may be secret. */
struct slice forward_proxy_shown(struct slice text, struct arena *arena)
{
    size_t at = text.len, scheme = slice_find_slice(text, SLICE("://"));
    while (at > 0 && text.ptr[at - 1] != '@')
        at--;
    if (at == 0)
        return text;
    size_t begin = scheme != SIZE_MAX && scheme + 3 < at ? scheme + 3 : 0;
    struct slice secret = slice_of(text.ptr + begin, at - 1 - begin);
    size_t colon = slice_find(secret, ':');
    struct slice user = colon != SIZE_MAX ? slice_take(secret, colon + 1) : SLICE_NONE;
    return arena_join(arena, (struct slice[]){slice_take(text, begin), user, SLICE("xxxxx@"),
                                              slice_skip(text, at)}, 4);
}

/* --- the environment --- */

static struct proxy_rules of_process;

static struct slice variable(const char *name, const char *lower)
{
    const char *v = getenv(name);
    if (v == NULL || *v == '\0')
        v = getenv(lower);
    return slice_from(v != NULL ? slice_dup(slice_from(v)) : "");
}

static void read_environment(void)
{
    const char *method = getenv("REQUEST_METHOD");
    of_process = (struct proxy_rules){
        .http = variable("HTTP_PROXY", "http_proxy"),
        .https = variable("HTTPS_PROXY", "https_proxy"),
        .no = variable("NO_PROXY", "no_proxy"),
        .cgi = method != NULL && *method != '\0',
    };
}

const struct proxy_rules *proxy_rules_of_process(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_environment);
    return &of_process;
}

/* --- who goes straight --- */

struct target {
    struct slice host;
    struct ip_address ip;
    bool is_ip;
    uint16_t port;
};

static bool is_loopback(const struct ip_address *ip)
{
    static const uint8_t one[16] = {[15] = 1};
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (!ip->is_six)
        return ip->bytes[0] == 127;
    return memcmp(ip->bytes, one, 16) == 0 ||
           (memcmp(ip->bytes, mapped, 12) == 0 && ip->bytes[12] == 127);
}

/* "host:port" and "[address]:port" apart; false: no port. */
static bool split_port(struct slice s, struct slice *host, struct slice *port)
{
    size_t at = slice_find_last(s, ':');
    *host = s;
    *port = SLICE_NONE;
    if (at == SIZE_MAX)
        return false;
    struct slice front = slice_take(s, at);
    bool bracketed = front.len > 1 && front.ptr[0] == '[' && front.ptr[front.len - 1] == ']';
    if (!bracketed && slice_find(front, ':') != SIZE_MAX)
        return false; /* an address without brackets */
    *host = bracketed ? slice_of(front.ptr + 1, front.len - 2) : front;
    *port = slice_skip(s, at + 1);
    return true;
}

static bool is_port(struct slice text, uint16_t port)
{
    uint64_t n;
    return text.len == 0 || (slice_to_u64(text, UINT16_MAX, &n) && n == port);
}

static bool name_is_below(struct slice name, struct slice domain)
{
    return name.len > domain.len && name.ptr[name.len - domain.len - 1] == '.' &&
           slice_eq_nocase(slice_skip(name, name.len - domain.len), domain);
}

static bool domain_matches(struct slice domain, const struct target *t)
{
    if (slice_starts(domain, SLICE("*.")))
        domain = slice_skip(domain, 1);
    bool only_below = domain.len > 0 && domain.ptr[0] == '.';
    domain = slice_skip(domain, only_below);
    if (t->is_ip || domain.len == 0)
        return false;
    return name_is_below(t->host, domain) || (!only_below && slice_eq_nocase(t->host, domain));
}

static bool item_matches(struct slice item, const struct target *t)
{
    struct ip_range range;
    struct ip_address ip;
    struct slice host, port;
    if (item.len == 0)
        return false;
    if (slice_is(item, "*"))
        return true;
    if (slice_find(item, '/') != SIZE_MAX)
        return t->is_ip && ip_range_parse(item, &range) && ip_range_has(&range, &t->ip);
    (void)split_port(item, &host, &port);
    if (!is_port(port, t->port))
        return false;
    if (ip_parse(host, &ip))
        return t->is_ip && memcmp(&ip, &t->ip, sizeof ip) == 0;
    return domain_matches(host, t);
}

static bool goes_straight(const struct proxy_rules *rules, const struct target *t)
{
    struct slice item, rest = rules->no;
    if (slice_is(t->host, "localhost") || (t->is_ip && is_loopback(&t->ip)))
        return true;
    while (rest.len > 0) {
        slice_cut(rest, ',', &item, &rest);
        if (item_matches(slice_trim(item), t))
            return true;
    }
    return false;
}

enum err proxy_rules_choose(const struct proxy_rules *rules, bool tls, struct slice host,
                            uint16_t port, struct slice *proxy, const char **why)
{
    struct target t = {.host = host, .port = port};
    struct slice zone, address;
    *proxy = SLICE_NONE;
    struct slice chosen = tls ? rules->https : rules->http;
    if (chosen.len == 0)
        return OK;
    slice_cut(host, '%', &address, &zone);
    t.is_ip = ip_parse(address, &t.ip);
    if (goes_straight(rules, &t))
        return OK;
    if (!tls && rules->cgi) {
        *why = "HTTP_PROXY is not used in a CGI environment";
        return ERR_DENIED;
    }
    *proxy = chosen;
    return OK;
}

/* --- the way through --- */

static enum err send_connect(struct link *l, const struct forward_proxy *p, struct slice target,
                             struct arena *arena, uint64_t deadline_ns)
{
    bool known = p->credentials.len > 0;
    struct slice head = arena_join(
        arena,
        (struct slice[]){SLICE("CONNECT "), target, SLICE(" HTTP/1.1\r\nHost: "), target,
                         known ? SLICE("\r\nProxy-Authorization: ") : SLICE(""), p->credentials,
                         SLICE("\r\n\r\n")}, 7);
    struct iovec part = {(char *)(uintptr_t)head.ptr, head.len};
    size_t sent;
    return stream_send(&l->stream, &part, 1, 0, deadline_ns, &sent);
}

static enum err read_verdict(struct client_answer *a, uint64_t deadline_ns, char *why, size_t cap)
{
    unsigned heads = 0;
    do
        TRY(client_read_head(a, true, deadline_ns)); /* as to HEAD: nothing of it is a body */
    while (a->head.status < 200 && a->head.status != 101 && ++heads <= INTERIM_MAX);
    if (a->head.status < 200 || a->head.status > 299) {
        snprintf(why, cap, "the proxy answers %d " SLICE_FMT, a->head.status,
                 SLICE_ARG(a->head.reason));
        return ERR_DENIED;
    }
    if (a->in.len > 0) {
        snprintf(why, cap, "the proxy sends what nobody asked for");
        return ERR_DENIED;
    }
    return OK;
}

static enum err pass_socks(struct link *l, const struct forward_proxy *p, struct slice target,
                           uint64_t deadline_ns, char *why, size_t cap)
{
    struct slice host, digits;
    uint64_t port = 0;
    if (!split_port(target, &host, &digits) || !slice_to_u64(digits, UINT16_MAX, &port)) {
        snprintf(why, cap, "the upstream has no port");
        return ERR_DENIED;
    }
    return await_socks(l, &p->url, host, (uint16_t)port, deadline_ns, why, cap);
}

static enum err pass_http(struct link *l, const struct forward_proxy *p, struct slice target,
                          struct arena *arena, uint64_t deadline_ns, char *why, size_t cap)
{
    enum err e = send_connect(l, p, target, arena, deadline_ns);
    if (e == OK) {
        struct client_answer *a = client_answer_begin(l, arena, HEAD_MAX);
        e = read_verdict(a, deadline_ns, why, cap);
        if (e != OK && e != ERR_DENIED)
            snprintf(why, cap, "proxy: %s", a->why != NULL ? a->why : err_text(e));
        client_answer_end(a);
    } else {
        snprintf(why, cap, "proxy: %s", err_text(e));
    }
    return e;
}

enum err await_proxy_tunnel(struct link *l, const struct forward_proxy *p, struct slice target,
                            struct arena *arena, uint64_t deadline_ns, char *why, size_t cap)
{
    if (p->socks)
        return pass_socks(l, p, target, deadline_ns, why, cap);
    TRY(pass_http(l, p, target, arena, deadline_ns, why, cap));
    if (l->stream.tls == NULL || link_relay(l) == OK)
        return OK;
    snprintf(why, cap, "too many connections by proxies that are asked by TLS");
    return ERR_LIMIT;
}
