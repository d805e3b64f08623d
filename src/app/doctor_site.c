/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The links in the order in which a request meets them: the name, the firewall, the port, the
 * certificate, the route, the upstreams. The port is asked on this machine itself, so that a firewall
 * or a router in between does not hide what the server answers. Behind a link that is broken, those
 * that hang on it are skipped.
 */
#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "app/doctor.h"
#include "base/clock.h"
#include "net/address.h"
#include "pki/certificate.h"
#include "ports/declared.h"
#include "tls/tls_probe.h"

enum { CONNECT_MS = 3000, ANSWER_S = 10, ADDRESSES_MAX = 16 };

struct visit {
    const struct doctor_site *site;
    struct ports_view *view;
    struct arena *arena;
    json_t *chain;
    bool public;   /* the name is one of the internet's */
    bool foreign;  /* another program has the port */
    bool listening;
};

/* --- the document's sites --- */

static struct slice text_of(const json_t *v)
{
    return slice_of(json_string_value(v), json_string_length(v));
}

static bool known_already(const struct doctor_site *list, size_t count, struct slice host, unsigned port)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(list[i].host, host) && list[i].port == port)
            return true;
    }
    return false;
}

static bool serves_tls(const json_t *server, const struct network_address *a, struct slice host,
                       unsigned http_port)
{
    const json_t *automatic = json_object_get(server, "automatic_https");
    if (json_array_size(json_object_get(server, "tls_connection_policies")) > 0)
        return true;
    const json_t *skip = json_object_get(automatic, "skip");
    for (size_t i = 0; i < json_array_size(skip); i++) {
        if (slice_eq(text_of(json_array_get(skip, i)), host))
            return false;
    }
    return a->first_port != http_port && !json_is_true(json_object_get(automatic, "disable"));
}

static void add_host(struct doctor_site *list, size_t *count, const struct network_address *a,
                     struct slice host, const json_t *server, unsigned http_port)
{
    if (*count == DOCTOR_SITES_MAX || known_already(list, *count, host, a->first_port))
        return;
    bool named = host.len > 0;
    list[(*count)++] = (struct doctor_site){named ? host : SLICE("localhost"), a->first_port, a->host,
                                            named && serves_tls(server, a, host, http_port), server};
}

static void add_server(struct doctor_site *list, size_t *count, const json_t *server,
                       struct slice only, unsigned http_port, struct arena *arena)
{
    const json_t *listen = json_object_get(server, "listen"), *routes = json_object_get(server, "routes");
    for (size_t i = 0; i < json_array_size(listen); i++) {
        struct network_address a;
        struct address_error why;
        size_t hosts = 0;
        if (address_parse(text_of(json_array_get(listen, i)), SLICE("tcp"), 0, &a, arena, &why) != OK ||
            network_is_unix(a.network) || network_is_fd(a.network))
            continue;
        for (size_t r = 0; r < json_array_size(routes); r++) {
            const json_t *match = json_object_get(json_array_get(routes, r), "match"), *h;
            for (size_t m = 0; m < json_array_size(match); m++) {
                h = json_object_get(json_array_get(match, m), "host");
                for (size_t k = 0; k < json_array_size(h); k++, hosts++) {
                    struct slice host = text_of(json_array_get(h, k));
                    if (only.len == 0 || slice_eq_nocase(only, host))
                        add_host(list, count, &a, host, server, http_port);
                }
            }
        }
        if (hosts == 0 && (only.len == 0 || slice_is(only, "localhost")))
            add_host(list, count, &a, SLICE_NONE, server, http_port);
    }
}

size_t doctor_sites(const json_t *document, struct slice only, struct arena *arena,
                    struct doctor_site **out)
{
    const json_t *http = json_object_get(json_object_get(document, "apps"), "http");
    json_t *servers = json_object_get(http, "servers"), *server;
    json_int_t port = json_integer_value(json_object_get(http, "http_port"));
    const char *name;
    size_t count = 0;
    *out = ARENA_ARRAY(arena, struct doctor_site, DOCTOR_SITES_MAX);
    json_object_foreach(servers, name, server)
        add_server(*out, &count, server, only, port > 0 ? (unsigned)port : 80, arena);
    return count;
}

/* --- DNS --- */

static bool is_private_name(struct slice host)
{
    struct ip_address ip;
    return ip_parse(host, &ip) || slice_is(host, "localhost") || slice_find(host, '.') == SIZE_MAX ||
           slice_ends(host, SLICE(".localhost")) || slice_ends(host, SLICE(".local")) ||
           slice_ends(host, SLICE(".internal")) || slice_ends(host, SLICE(".test")) ||
           slice_ends(host, SLICE(".home.arpa"));
}

static bool from_sockaddr(const struct sockaddr *sa, struct ip_address *out)
{
    *out = (struct ip_address){0};
    if (sa == NULL || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6))
        return false;
    out->is_six = sa->sa_family == AF_INET6;
    if (out->is_six)
        memcpy(out->bytes, &((const struct sockaddr_in6 *)sa)->sin6_addr, 16);
    else
        memcpy(out->bytes, &((const struct sockaddr_in *)sa)->sin_addr, 4);
    return true;
}

static bool is_loopback(const struct ip_address *ip)
{
    static const uint8_t one[16] = {[15] = 1};
    return ip->is_six ? memcmp(ip->bytes, one, 16) == 0 : ip->bytes[0] == 127;
}

static bool is_ours(const struct ip_address *ip)
{
    struct ifaddrs *list, *at;
    struct ip_address own;
    bool found = is_loopback(ip);
    if (found || getifaddrs(&list) != 0)
        return found;
    for (at = list; at != NULL; at = at->ifa_next)
        found = found || (from_sockaddr(at->ifa_addr, &own) && memcmp(&own, ip, sizeof own) == 0);
    freeifaddrs(list);
    return found;
}

static bool has_public_address(void)
{
    static const char *const own[] = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10",
                                      "169.254.0.0/16", "127.0.0.0/8", "::1/128", "fe80::/10",
                                      "fc00::/7"};
    struct ifaddrs *list, *at;
    struct ip_address ip;
    struct ip_range range;
    bool found = false;
    if (getifaddrs(&list) != 0)
        return false;
    for (at = list; at != NULL; at = at->ifa_next) {
        bool within = !from_sockaddr(at->ifa_addr, &ip);
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
            within = within || (ip_range_parse(slice_from(own[i]), &range) && ip_range_has(&range, &ip));
        found = found || !within;
    }
    freeifaddrs(list);
    return found;
}

static void judge_addresses(struct visit *v, const struct addrinfo *found)
{
    struct slice all = SLICE_NONE;
    unsigned ours = 0, others = 0, inner = 0;
    for (const struct addrinfo *a = found; a != NULL && ours + others < ADDRESSES_MAX; a = a->ai_next) {
        struct ip_address ip;
        char text[IP_TEXT_MAX];
        if (!from_sockaddr(a->ai_addr, &ip))
            continue;
        bool own = is_ours(&ip);
        ours += own;
        others += !own;
        inner += is_loopback(&ip);
        size_t len = ip_text(&ip, text);
        all = arena_printf(v->arena, SLICE_FMT "%s%.*s", SLICE_ARG(all), all.len > 0 ? ", " : "",
                           (int)len, text);
    }
    if (v->public && inner > 0 && inner == ours && others == 0)
        chain_add(v->chain, "DNS", LINK_NOTE, "See on another machine which address it gets: getent ahosts "
                  "NAME.", "here the name is this device itself (" SLICE_FMT ", of /etc/hosts?), so what "
                  "others get is not seen", SLICE_ARG(all));
    else if (others == 0)
        chain_add(v->chain, "DNS", LINK_OK, NULL, "the name has this machine's address (" SLICE_FMT ")",
                  SLICE_ARG(all));
    else if (ours > 0)
        chain_add(v->chain, "DNS", LINK_NOTE, "Take the other address out of the zone, unless another "
                  "machine serves the site as well.", "of its addresses (" SLICE_FMT "), %u are not this "
                  "machine's", SLICE_ARG(all), others);
    else if (!has_public_address())
        chain_add(v->chain, "DNS", LINK_NOTE, "See that the router forwards the port to this machine.",
                  "the name has " SLICE_FMT "; this machine is behind a router, which should have that "
                  "address", SLICE_ARG(all));
    else
        chain_add(v->chain, "DNS", LINK_BROKEN, "Let the name's A and AAAA records be addresses of this "
                  "machine, unless something in front forwards to it.", "the name has " SLICE_FMT
                  ", which is no address of this machine", SLICE_ARG(all));
}

static void check_name(struct visit *v)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    struct slice host = v->site->host;
    v->public = !is_private_name(host) && slice_find(host, '*') == SIZE_MAX;
    if (slice_find(host, '*') != SIZE_MAX) {
        chain_add(v->chain, "DNS", LINK_SKIPPED, NULL, "a wildcard has no address of its own");
        return;
    }
    int code = getaddrinfo(arena_str(v->arena, host), NULL, &hints, &found);
    if (code == 0) {
        judge_addresses(v, found);
        freeaddrinfo(found);
    } else if (code == EAI_AGAIN || code == EAI_SYSTEM) {
        chain_add(v->chain, "DNS", v->public ? LINK_BROKEN : LINK_NOTE,
                  "See that the name servers of /etc/resolv.conf can be reached from here.",
                  "the name could not be asked for: %s", gai_strerror(code));
    } else {
        chain_add(v->chain, "DNS", v->public ? LINK_BROKEN : LINK_NOTE,
                  "Add an A or AAAA record with this machine's address to the zone, and wait until it "
                  "is known.", "the name has no address: %s", gai_strerror(code));
    }
}

/* --- the port --- */

static const struct port_entry *find_entry(const struct visit *v)
{
    const struct port_entry *best = NULL;
    for (size_t i = 0; i < v->view->table.count; i++) {
        const struct port_entry *e = &v->view->table.entries[i];
        if (e->port != v->site->port || e->protocol != PORT_TCP || e->netns != v->view->table.netns ||
            (e->inode == 0 && !e->listening))
            continue;
        if (best == NULL || address_is_any(&e->address))
            best = e;
    }
    return best;
}

/* Meant for this device alone: nobody misses others. */
static bool is_own_name(struct slice host)
{
    struct ip_address ip;
    return slice_is(host, "localhost") || slice_ends(host, SLICE(".localhost")) ||
           (ip_parse(host, &ip) && is_loopback(&ip));
}

static void check_firewall(struct visit *v, const struct port_entry *e)
{
    static const char open_it[] = "Let the site listen on every address, and open the port in the firewall "
                                  "(portico ports explain tells the rule).";
    enum link_state shut = v->public ? LINK_BROKEN : is_own_name(v->site->host) ? LINK_OK : LINK_NOTE;
    switch (e->reach) {
    case REACH_WORLD:
        chain_add(v->chain, "firewall", LINK_OK, NULL, "everybody can reach port %u", e->port);
        break;
    case REACH_NETWORK:
        chain_add(v->chain, "firewall", LINK_NOTE, "Open the port for others, if they are meant to come "
                  "(portico ports explain tells the rule).", "only some networks can reach port %u",
                  e->port);
        break;
    case REACH_UNKNOWN:
        chain_add(v->chain, "firewall", LINK_NOTE, geteuid() != 0
                  ? "Run this as root to have the rules followed."
                  : "portico ports explain tells which rule was not followed: try it from another machine.",
                  "who can reach port %u could not be worked out%s" SLICE_FMT, e->port,
                  e->reach_why.len > 0 ? ": " : "", SLICE_ARG(e->reach_why));
        break;
    case REACH_NOBODY:
        chain_add(v->chain, "firewall", LINK_BROKEN, "Open the port in the firewall (portico ports explain "
                  "tells the rule).", "nobody can reach port %u", e->port);
        break;
    default:
        chain_add(v->chain, "firewall", shut, open_it, "only this device can reach port %u", e->port);
    }
}

static void check_port(struct visit *v, const struct port_entry *e)
{
    const struct port_owner *o = e != NULL ? e->owners : NULL;
    struct port_facts facts = {0};
    port_facts_read(&facts, v->arena);
    v->listening = e != NULL;
    if (e == NULL) {
        chain_add(v->chain, "port", LINK_BROKEN, "Start portico (portico run, systemctl start portico), "
                  "or give it this configuration (portico reload).", "nobody listens on port %u",
                  v->site->port);
    } else if (o == NULL || o->program.len == 0) {
        chain_add(v->chain, "port", LINK_NOTE, "Run this as root to see whose it is.",
                  "a program that cannot be seen listens on port %u", e->port);
    } else if (!program_is_own(&facts, o->program)) {
        v->foreign = true;
        chain_add(v->chain, "port", LINK_BROKEN, "Stop that program, or let the site listen elsewhere.",
                  SLICE_FMT " (pid %d%s" SLICE_FMT ") listens on port %u", SLICE_ARG(o->program),
                  (int)o->pid, o->unit.len > 0 ? ", unit " : "", SLICE_ARG(o->unit), e->port);
    } else {
        chain_add(v->chain, "port", LINK_OK, NULL, SLICE_FMT " (pid %d) listens on port %u",
                  SLICE_ARG(o->program), (int)o->pid, e->port);
    }
}

/* --- connecting --- */

static int connect_to(const struct addrinfo *a)
{
    int reason = 0, fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t len = sizeof reason;
    struct pollfd p = {fd, POLLOUT, 0};
    if (fd < 0)
        return -1;
    if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
        reason = errno;
        if (reason == EINPROGRESS && poll(&p, 1, CONNECT_MS) <= 0)
            reason = ETIMEDOUT;
        else if (reason == EINPROGRESS)
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &len);
    }
    if (reason != 0) {
        close(fd);
        errno = reason;
        return -1;
    }
    return fd;
}

/* -1 and a sentence's end in `why`. */
static int dial(struct arena *arena, struct slice host, unsigned port, const char **why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char number[8];
    int fd = -1;
    snprintf(number, sizeof number, "%u", port);
    int code = getaddrinfo(arena_str(arena, host), number, &hints, &found);
    if (code != 0) {
        *why = gai_strerror(code);
        return -1;
    }
    *why = "no address";
    unsigned tried = 0;
    for (const struct addrinfo *a = found; a != NULL && fd < 0 && tried < ADDRESSES_MAX;
         a = a->ai_next, tried++) {
        errno = 0;
        fd = connect_to(a);
        if (fd < 0)
            *why = strerror(errno);
    }
    freeaddrinfo(found);
    return fd;
}

static bool await_bytes(int fd, uint64_t deadline_ns)
{
    struct pollfd p = {fd, POLLIN, 0};
    uint64_t now = clock_mono_ns();
    return now < deadline_ns && poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) > 0;
}

/* A fresh connection takes a request of this length at once. */
static struct slice plain_head(int fd, struct slice request, uint64_t deadline_ns, struct arena *arena)
{
    char *head = arena_alloc(arena, 4096);
    size_t used = 0;
    ssize_t n = send(fd, request.ptr, request.len, MSG_NOSIGNAL);
    while (n > 0 && used < 4096 && await_bytes(fd, deadline_ns)) {
        n = recv(fd, head + used, 4096 - used, 0);
        used += n > 0 ? (size_t)n : 0;
        if (slice_find_slice(slice_of(head, used), SLICE("\r\n\r\n")) != SIZE_MAX)
            break;
    }
    return slice_of(head, used);
}

/* --- the certificate and the route --- */

static struct slice names_of(const struct certificate_facts *facts, struct arena *arena)
{
    struct slice all = SLICE_NONE;
    for (size_t i = 0; i < facts->names_count && i < 8; i++)
        all = arena_printf(arena, SLICE_FMT "%s" SLICE_FMT, SLICE_ARG(all), i > 0 ? ", " : "",
                           SLICE_ARG(facts->names[i]));
    return all.len > 0 ? all : SLICE("no name");
}

static const char *day_of(int64_t seconds, char text[16])
{
    struct tm tm;
    time_t at = (time_t)seconds;
    text[0] = '\0';
    if (gmtime_r(&at, &tm) != NULL)
        strftime(text, 16, "%Y-%m-%d", &tm);
    return text;
}

/* In days, or hours of the last two. */
static struct slice span_text(int64_t seconds, struct arena *arena)
{
    int64_t days = seconds / 86400, hours = seconds / 3600;
    return days >= 2 ? arena_printf(arena, "%lld days", (long long)days)
                     : arena_printf(arena, "%lld hour%s", (long long)hours, hours == 1 ? "" : "s");
}

/* By its dates; false: there is nothing to be said of them. */
static bool tell_dates(struct visit *v, const struct certificate_facts *facts)
{
    char from[16], to[16];
    int64_t now = clock_wall_ns() / (int64_t)NS_PER_S, left = facts->not_after_s - now;
    struct slice issuer = facts->issuer_common_name;
    if (now < facts->not_before_s)
        chain_add(v->chain, "TLS", LINK_BROKEN, "Set this machine's clock (timedatectl), if it is that which "
                  "is wrong; else take a certificate that is valid already.", "the certificate of " SLICE_FMT
                  " is valid from %s on, and it is %s here", SLICE_ARG(issuer),
                  day_of(facts->not_before_s, from), day_of(now, to));
    else if (left < 0)
        chain_add(v->chain, "TLS", LINK_BROKEN, "See the log for why it was not renewed: DNS and port 80 "
                  "or 443 must be reachable for its authority. One of files (tls CERT KEY) is yours to "
                  "renew.", "the certificate of " SLICE_FMT " is over since %s", SLICE_ARG(issuer),
                  day_of(facts->not_after_s, to));
    else if (left < (facts->not_after_s - facts->not_before_s) / 6)
        chain_add(v->chain, "TLS", LINK_NOTE, "See the log for why it is not renewed yet. One of files (tls "
                  "CERT KEY) is yours to renew.", "the certificate of " SLICE_FMT " is over in " SLICE_FMT
                  " (%s)", SLICE_ARG(issuer), SLICE_ARG(span_text(left, v->arena)),
                  day_of(facts->not_after_s, to));
    else
        return false;
    return true;
}

static void tell_certificate(struct visit *v, const struct tls_probe *p)
{
    struct certificate_facts facts;
    char why[256], day[16];
    if (certificate_read(p->certificate, v->arena, &facts, why, sizeof why) != OK) {
        chain_add(v->chain, "TLS", LINK_BROKEN, "See the log for what went wrong with the certificate.",
                  "no certificate was shown");
        return;
    }
    struct slice issuer = facts.issuer_common_name;
    day_of(facts.not_after_s, day);
    if (!p->named)
        chain_add(v->chain, "TLS", LINK_BROKEN, "Give the site a certificate for its name, or leave `tls` "
                  "out to have one obtained.", "the certificate of " SLICE_FMT " is for " SLICE_FMT
                  ", not for " SLICE_FMT, SLICE_ARG(issuer), SLICE_ARG(names_of(&facts, v->arena)),
                  SLICE_ARG(v->site->host));
    else if (tell_dates(v, &facts))
        return;
    else if (!p->trusted)
        chain_add(v->chain, "TLS", LINK_NOTE, "For a local authority: portico trust. Else see why the "
                  "public one gave none.", "the certificate of " SLICE_FMT " (until %s) is not trusted "
                  "here: " SLICE_FMT, SLICE_ARG(issuer), day, SLICE_ARG(p->why));
    else
        chain_add(v->chain, "TLS", LINK_OK, NULL, "%s, certificate of " SLICE_FMT " until %s (" SLICE_FMT
                  ")", p->version, SLICE_ARG(issuer), day,
                  SLICE_ARG(span_text(facts.not_after_s - clock_wall_ns() / (int64_t)NS_PER_S, v->arena)));
}

static void tell_route(struct visit *v, struct slice head)
{
    uint64_t status;
    if (!slice_starts(head, SLICE("HTTP/1.")) || head.len < 12 ||
        !slice_to_u64(slice_of(head.ptr + 9, 3), 999, &status)) {
        chain_add(v->chain, "route", LINK_BROKEN, "See the log of that moment.",
                  "no answer to a request for /");
        return;
    }
    bool gateway = status >= 502 && status <= 504;
    if (gateway)
        chain_add(v->chain, "route", LINK_NOTE, "The upstream is the broken link: see below.",
                  "GET / is answered %u", (unsigned)status);
    else if (status >= 500)
        chain_add(v->chain, "route", LINK_BROKEN, "See the log of that moment.", "GET / is answered %u",
                  (unsigned)status);
    else
        chain_add(v->chain, "route", LINK_OK, NULL, "GET / is answered %u", (unsigned)status);
}

static void check_answer(struct visit *v)
{
    const char *why;
    struct slice host = v->site->host;
    struct slice to = v->site->bind.len > 0 && !slice_is(v->site->bind, "0.0.0.0") &&
                              !slice_is(v->site->bind, "::")
                          ? v->site->bind
                          : SLICE("localhost");
    if (slice_starts(host, SLICE("*.")))
        host = arena_printf(v->arena, "doctor" SLICE_FMT, SLICE_ARG(slice_skip(host, 1)));
    struct slice request = arena_printf(v->arena, "GET / HTTP/1.1\r\nHost: " SLICE_FMT "\r\n"
                                        "User-Agent: portico-doctor\r\nConnection: close\r\n\r\n",
                                        SLICE_ARG(host));
    int fd = dial(v->arena, to, v->site->port, &why);
    if (fd < 0) {
        chain_add(v->chain, v->site->tls ? "TLS" : "route", LINK_BROKEN,
                  "See what holds the connection up: a firewall's rule, or a server that does not accept.",
                  "connecting to port %u failed: %s", v->site->port, why);
        return;
    }
    uint64_t deadline_ns = clock_mono_ns() + ANSWER_S * NS_PER_S;
    struct tls_probe p = {.version = ""};
    if (!v->site->tls) {
        tell_route(v, plain_head(fd, request, deadline_ns, v->arena));
    } else if (tls_probe(fd, host, request, deadline_ns, v->arena, &p) == OK && p.shaken) {
        tell_certificate(v, &p);
        tell_route(v, p.head);
    } else {
        chain_add(v->chain, "TLS", LINK_BROKEN, "See the log for why there is no certificate for the "
                  "name.", "no handshake: " SLICE_FMT, SLICE_ARG(p.why));
        chain_add(v->chain, "route", LINK_SKIPPED, NULL, "not asked without TLS");
    }
    close(fd);
}

/* --- upstreams --- */

static int dial_unix(struct slice path, const char **why)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = -1;
    *why = "its path is too long";
    if (path.len < sizeof a.sun_path)
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    memcpy(a.sun_path, path.ptr, path.len);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1);
    if (path.ptr[0] == '@') { /* an abstract one has no NUL at its end */
        a.sun_path[0] = '\0';
        len--;
    }
    if (connect(fd, (struct sockaddr *)&a, len) == 0 || errno == EAGAIN) /* its queue is full: it is there */
        return fd;
    *why = strerror(errno);
    close(fd);
    return -1;
}

static void check_upstream(struct visit *v, struct slice dial_text)
{
    struct network_address a;
    struct address_error ignored;
    const char *why;
    if (slice_find(dial_text, '{') != SIZE_MAX ||
        address_parse(dial_text, SLICE("tcp"), 0, &a, v->arena, &ignored) != OK ||
        (a.first_port == 0 && !(network_is_unix(a.network) && a.host.len > 0))) {
        chain_add(v->chain, "upstream", LINK_SKIPPED, NULL, SLICE_FMT " is not asked",
                  SLICE_ARG(dial_text));
        return;
    }
    int fd = network_is_unix(a.network)
                 ? dial_unix(a.host, &why)
                 : dial(v->arena, a.host.len > 0 ? a.host : SLICE("localhost"), a.first_port, &why);
    if (fd < 0) {
        chain_add(v->chain, "upstream", LINK_BROKEN, "Start the program that shall answer there, or "
                  "correct the address.", SLICE_FMT ": %s", SLICE_ARG(dial_text), why);
        return;
    }
    close(fd);
    chain_add(v->chain, "upstream", LINK_OK, NULL, SLICE_FMT " accepts connections",
              SLICE_ARG(dial_text));
}

static const json_t *find_service(const json_t *list, struct slice name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (slice_eq(text_of(json_object_get(json_array_get(list, i), "name")), name))
            return json_array_get(list, i);
    }
    return NULL;
}

static void check_service(struct visit *v, struct slice name)
{
    const json_t *s = find_service(v->view->services, name);
    int ready = (int)json_integer_value(json_object_get(s, "ready"));
    int wanted = (int)json_integer_value(json_object_get(s, "wanted"));
    struct slice trouble = service_trouble(s, v->arena);
    if (!v->view->running)
        chain_add(v->chain, "upstream", LINK_SKIPPED, NULL, "service " SLICE_FMT ": nothing runs with "
                  "this configuration", SLICE_ARG(name));
    else if (s == NULL)
        chain_add(v->chain, "upstream", LINK_BROKEN, "Give portico the configuration that has it "
                  "(portico reload).", "service " SLICE_FMT ": it does not run", SLICE_ARG(name));
    else if (trouble.len > 0)
        chain_add(v->chain, "upstream", LINK_BROKEN, "See why: portico service logs NAME. Then: portico "
                  "service start NAME.", "service " SLICE_FMT ": no replica is ready (" SLICE_FMT ")",
                  SLICE_ARG(name), SLICE_ARG(clean_text(trouble, v->arena)));
    else if (ready == 0)
        chain_add(v->chain, "upstream", LINK_OK, NULL, "service " SLICE_FMT ": %s", SLICE_ARG(name),
                  json_is_true(json_object_get(s, "on_demand")) ? "starts at the first request"
                                                                : "is starting");
    else
        chain_add(v->chain, "upstream", ready < wanted ? LINK_NOTE : LINK_OK,
                  ready < wanted ? "See why: portico service list, portico service logs." : NULL,
                  "service " SLICE_FMT ": %d of %d replicas ready", SLICE_ARG(name), ready, wanted);
}

static bool route_is_for(const json_t *route, struct slice host)
{
    const json_t *match = json_object_get(route, "match");
    if (json_array_size(match) == 0)
        return true;
    for (size_t m = 0; m < json_array_size(match); m++) {
        const json_t *hosts = json_object_get(json_array_get(match, m), "host");
        if (hosts == NULL)
            return true;
        for (size_t i = 0; i < json_array_size(hosts); i++) {
            if (slice_eq_nocase(text_of(json_array_get(hosts, i)), host))
                return true;
        }
    }
    return false;
}

/* Depth is bounded by what a document may have; this is a command's own large stack. */
static void walk_upstreams(struct visit *v, const json_t *value, unsigned *count)
{
    const char *key;
    json_t *child;
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++)
            walk_upstreams(v, json_array_get(value, i), count);
        return;
    }
    const json_t *upstreams = json_object_get(value, "upstreams");
    if (slice_is(text_of(json_object_get(value, "source")), "service") && *count < 64) {
        check_service(v, text_of(json_object_get(value, "name")));
        ++*count;
    }
    for (size_t i = 0; i < json_array_size(upstreams) && *count < 64; i++, ++*count)
        check_upstream(v, text_of(json_object_get(json_array_get(upstreams, i), "dial")));
    json_object_foreach((json_t *)value, key, child) {
        if (child != upstreams)
            walk_upstreams(v, child, count);
    }
}

static void check_upstreams(struct visit *v)
{
    const json_t *routes = json_object_get(v->site->server, "routes");
    unsigned count = 0;
    for (size_t i = 0; i < json_array_size(routes); i++) {
        const json_t *route = json_array_get(routes, i);
        if (route_is_for(route, v->site->host))
            walk_upstreams(v, json_object_get(route, "handle"), &count);
    }
}

json_t *doctor_site(const struct doctor_site *site, struct ports_view *view)
{
    struct visit v = {.site = site, .view = view, .arena = &view->arena};
    char port[8] = "";
    if (site->port != (site->tls ? 443 : 80))
        snprintf(port, sizeof port, ":%u", site->port);
    v.chain = chain_new(arena_printf(v.arena, "%s" SLICE_FMT "%s", site->tls ? "https://" : "http://",
                                     SLICE_ARG(site->host), port));
    const struct port_entry *e = find_entry(&v);
    check_name(&v);
    if (e != NULL)
        check_firewall(&v, e);
    else
        chain_add(v.chain, "firewall", LINK_SKIPPED, NULL, "nobody listens, so nobody is let in");
    check_port(&v, e);
    if (v.listening && !v.foreign)
        check_answer(&v);
    else
        chain_add(v.chain, site->tls ? "TLS" : "route", LINK_SKIPPED, NULL,
                  v.foreign ? "another program answers" : "nobody answers");
    check_upstreams(&v);
    return v.chain;
}
