/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A name is a record in a map: asked for (with the calls that wait for it) or known (with addresses or
 * an error, until it expires). Who asks for a name that is being asked for joins it; who asks for a
 * known one is answered at once. A question that nobody waits for any more still ends, for its answer
 * is worth remembering; c-ares' own time-outs bound it. When the records are too many, the known ones
 * that were used longest ago go.
 *
 * /etc/hosts and /etc/resolv.conf are looked at once a second at most: when one has changed, what is
 * known is forgotten; when it is the second, the channel is closed as well, and what was open is asked
 * again of the new servers.
 *
 * c-ares runs on the loop's own stack only: a fiber's call leaves a task. Answers to callers are
 * deferred too, so no caller's code ever runs inside c-ares.
 */
#include "net/resolver.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "loop/await.h"

struct stamp { /* enough of a file to see that it is another one */
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified;
};

struct resolver {
    struct loop *loop;
    struct dns_channel *channel; /* NULL: to be opened at the next question */
    struct map names;
    struct list known; /* least recently used first */
    unsigned asking;
    bool ending;
    char *servers, *resolv_conf; /* of the options; may be NULL */
    unsigned timeout_ms, tries;
    uint64_t look_ns; /* when the files are looked at again */
    struct stamp hosts_stamp, conf_stamp;
};

struct name {
    struct resolver *resolver;
    struct list node;  /* of `known`; alone while asked for */
    struct list calls; /* waiting */
    struct task ask;
    enum err error;
    const char *why;
    uint64_t expires_ns;
    bool asked;
    size_t count;
    union {
        struct sockaddr address;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } *addresses;
    struct slice key;
    char text[]; /* in lower case, with a NUL */
};

/* --- answers --- */

static enum err fail(struct resolved *out, enum err e, const char *why)
{
    out->count = 0;
    out->why = why;
    return e;
}

static void put_address(struct resolved *out, const void *address, socklen_t len, uint16_t port)
{
    if (out->count == RESOLVED_MAX)
        return;
    struct sockaddr_storage *a = &out->addresses[out->count];
    memcpy(a, address, len);
    if (a->ss_family == AF_INET)
        ((struct sockaddr_in *)a)->sin_port = htons(port);
    else
        ((struct sockaddr_in6 *)a)->sin6_port = htons(port);
    out->lengths[out->count++] = len;
}

static void put_loopback(struct resolved *out, uint16_t port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    put_address(out, &six, sizeof six, port);
    put_address(out, &four, sizeof four, port);
}

/* --- what needs no question --- */

static bool literal_six(char *text, struct resolved *out, uint16_t port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    char *zone = strchr(text, '%');
    if (zone != NULL) {
        uint64_t number;
        *zone++ = '\0';
        six.sin6_scope_id = if_nametoindex(zone);
        if (six.sin6_scope_id == 0 && slice_to_u64(slice_from(zone), UINT32_MAX, &number))
            six.sin6_scope_id = (uint32_t)number;
        if (six.sin6_scope_id == 0)
            return false;
    }
    if (inet_pton(AF_INET6, text, &six.sin6_addr) != 1)
        return false;
    put_address(out, &six, sizeof six, port);
    return true;
}

static bool literal(struct slice host, struct resolved *out, uint16_t port)
{
    struct sockaddr_in four = {.sin_family = AF_INET};
    char text[80];
    if (host.len >= sizeof text)
        return false;
    memcpy(text, host.ptr, host.len);
    text[host.len] = '\0';
    if (slice_find(host, ':') != SIZE_MAX)
        return literal_six(text, out, port);
    if (inet_pton(AF_INET, text, &four.sin_addr) != 1)
        return false;
    put_address(out, &four, sizeof four, port);
    return true;
}

bool is_host_name(struct slice host)
{
    size_t label = 0;
    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    if (host.len == 0 || host.len > 253)
        return false;
    for (size_t i = 0; i < host.len; i++) {
        char c = ascii_lower(host.ptr[i]);
        bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (c == '.' ? label == 0 : !fits || ++label > 63)
            return false;
        if (c == '.')
            label = 0;
    }
    return label > 0;
}

static bool is_localhost(struct slice host)
{
    if (slice_ends(host, SLICE(".")))
        host.len--;
    return slice_is(host, "localhost") || slice_ends(host, SLICE(".localhost"));
}

/* --- names --- */

static void forget(struct name *n)
{
    map_remove(&n->resolver->names, n->key);
    list_remove(&n->node);
    mem_free(n->addresses);
    mem_free(n);
}

static void forget_known(struct resolver *r)
{
    LIST_FOR_SAFE(node, &r->known)
        forget(CONTAINER_OF(node, struct name, node));
}

static void answer_call(struct resolve_call *call, const struct name *n)
{
    struct resolved *out = call->out;
    out->count = 0;
    out->why = n->why;
    for (size_t i = 0; i < n->count; i++)
        put_address(out, &n->addresses[i],
                    n->addresses[i].address.sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                                                 : sizeof(struct sockaddr_in6),
                    call->port);
    call->result = n->error;
    loop_defer(n->resolver->loop, &call->task);
}

/* It is known now: everyone who waits is told. */
static void settle_name(struct name *n, uint64_t ttl_s)
{
    struct resolver *r = n->resolver;
    n->asked = false;
    r->asking--;
    n->expires_ns = clock_mono_ns() + ttl_s * NS_PER_S;
    list_append(&r->known, &n->node);
    for (struct list *c; (c = list_pop(&n->calls)) != NULL;)
        answer_call(CONTAINER_OF(c, struct resolve_call, node), n);
}

static void settle_failed(struct name *n, enum err e, const char *why, uint64_t ttl_s)
{
    n->error = e;
    n->why = why;
    settle_name(n, ttl_s);
}

static void keep_address(struct name *n, const struct sockaddr *a)
{
    if (n->count == RESOLVED_MAX || (a->sa_family != AF_INET && a->sa_family != AF_INET6))
        return;
    n->addresses = mem_resize(n->addresses, n->count + 1, sizeof *n->addresses);
    memset(&n->addresses[n->count], 0, sizeof *n->addresses);
    memcpy(&n->addresses[n->count++], a,
           a->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
}

static uint64_t lower_ttl(uint64_t so_far, int ttl)
{
    uint64_t t = ttl > 0 ? (uint64_t)ttl : 0;
    return t < so_far ? t : so_far;
}

static const struct {
    int status;
    enum err error;
    unsigned ttl_s;
    const char *why;
} failures[] = {
    {ARES_ENOTFOUND, ERR_NOT_FOUND, RESOLVER_TTL_NEGATIVE_S, "no such host"},
    {ARES_ENODATA, ERR_NOT_FOUND, RESOLVER_TTL_NEGATIVE_S, "the host has no address"},
    {ARES_EBADNAME, ERR_INVALID, RESOLVER_TTL_NEGATIVE_S, "not a host name"},
    {ARES_ETIMEOUT, ERR_TIMEOUT, RESOLVER_TTL_FAILED_S, "no answer from the DNS servers"},
    {ARES_ECONNREFUSED, ERR_IO, RESOLVER_TTL_FAILED_S, "the DNS servers cannot be reached, or fail"},
    {ARES_ESERVFAIL, ERR_IO, RESOLVER_TTL_FAILED_S, "the DNS servers failed"},
    {ARES_EREFUSED, ERR_IO, RESOLVER_TTL_FAILED_S, "the DNS servers refuse to answer"},
    {ARES_EDESTRUCTION, ERR_CANCELLED, 0, "the resolver ends"},
};

static enum err failure(int status, const char **why, unsigned *ttl_s)
{
    for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++) {
        if (failures[i].status == status) {
            *why = failures[i].why;
            *ttl_s = failures[i].ttl_s;
            return failures[i].error;
        }
    }
    *why = "the DNS servers answer with what cannot be read";
    *ttl_s = RESOLVER_TTL_FAILED_S;
    return ERR_IO;
}

static void settle_status(struct name *n, int status)
{
    const char *why;
    unsigned ttl_s;
    enum err e = failure(status, &why, &ttl_s);
    settle_failed(n, e, why, ttl_s);
}

enum err resolver_failure(int status, const char **why)
{
    unsigned ttl_s;
    *why = NULL;
    return status == ARES_SUCCESS ? OK : failure(status, why, &ttl_s);
}

static void on_answer(void *arg, int status, struct ares_addrinfo *ai)
{
    struct name *n = arg;
    uint64_t ttl = RESOLVER_TTL_MAX_S;
    if (status == ARES_EDESTRUCTION && !n->resolver->ending) {
        loop_defer(n->resolver->loop, &n->ask); /* the servers have changed */
        return;
    }
    if (status != ARES_SUCCESS) {
        settle_status(n, status);
        return;
    }
    for (const struct ares_addrinfo_cname *c = ai->cnames; c != NULL; c = c->next)
        ttl = lower_ttl(ttl, c->ttl);
    for (const struct ares_addrinfo_node *a = ai->nodes; a != NULL; a = a->ai_next) {
        keep_address(n, a->ai_addr);
        ttl = lower_ttl(ttl, a->ai_ttl);
    }
    ares_freeaddrinfo(ai);
    if (n->count == 0)
        settle_status(n, ARES_ENODATA);
    else
        settle_name(n, ttl > RESOLVER_TTL_MIN_S ? ttl : RESOLVER_TTL_MIN_S);
}

/* A name of this machine is never asked of DNS (RFC 6761 §6.3). */
static void ask_localhost(struct name *n)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct dns_channel *c = n->resolver->channel;
    bool has_six = dns_ask_hosts(c, n->text, AF_INET6, &six.sin6_addr);
    bool has_four = dns_ask_hosts(c, n->text, AF_INET, &four.sin_addr);
    if (has_six || !has_four)
        keep_address(n, (const struct sockaddr *)&six);
    if (has_four || !has_six)
        keep_address(n, (const struct sockaddr *)&four);
    settle_name(n, RESOLVER_TTL_MAX_S); /* a change of the file is seen */
}

static enum err open_channel(struct resolver *r)
{
    struct dns_options o = {.servers = r->servers, .resolv_conf = r->resolv_conf,
                            .timeout_ms = r->timeout_ms, .tries = r->tries};
    return r->channel != NULL ? OK : dns_channel_open(r->loop, &o, &r->channel);
}

static void on_ask(struct task *t)
{
    struct name *n = CONTAINER_OF(t, struct name, ask);
    if (open_channel(n->resolver) != OK)
        settle_failed(n, ERR_LIMIT, "no DNS channel can be opened", RESOLVER_TTL_FAILED_S);
    else if (is_localhost(n->key))
        ask_localhost(n);
    else
        dns_ask(n->resolver->channel, n->text, on_answer, n);
}

/* --- files that change --- */

static bool has_changed(const char *path, struct stamp *stamp)
{
    struct stat s;
    struct stamp now = {0};
    if (stat(path, &s) == 0)
        now = (struct stamp){s.st_dev, s.st_ino, s.st_size, s.st_mtim};
    bool same = now.device == stamp->device && now.inode == stamp->inode &&
                now.size == stamp->size && now.modified.tv_sec == stamp->modified.tv_sec &&
                now.modified.tv_nsec == stamp->modified.tv_nsec;
    *stamp = now;
    return !same;
}

static void look_at_files(struct resolver *r)
{
    uint64_t now = clock_mono_ns();
    if (now < r->look_ns)
        return;
    r->look_ns = now + NS_PER_S;
    bool hosts = has_changed("/etc/hosts", &r->hosts_stamp);
    bool conf = has_changed(r->resolv_conf != NULL ? r->resolv_conf : "/etc/resolv.conf",
                            &r->conf_stamp);
    if (hosts || conf)
        forget_known(r);
    if (conf && r->channel != NULL) {
        dns_channel_close(r->channel);
        r->channel = NULL;
    }
}

enum err resolver_channel(struct resolver *r, struct dns_channel **out)
{
    look_at_files(r);
    TRY(open_channel(r));
    *out = r->channel;
    return OK;
}

/* --- asking --- */

static struct name *new_name(struct resolver *r, struct slice key)
{
    struct name *n = mem_zalloc(sizeof *n + key.len + 1);
    n->resolver = r;
    memcpy(n->text, key.ptr, key.len);
    n->key = slice_of(n->text, key.len);
    list_init(&n->node);
    list_init(&n->calls);
    list_init(&n->ask.node);
    n->ask.run = on_ask;
    n->asked = true;
    r->asking++;
    map_put(&r->names, n->key, n);
    loop_defer(r->loop, &n->ask);
    return n;
}

static struct name *find_name(struct resolver *r, struct slice key)
{
    struct name *n = map_get(&r->names, key);
    if (n != NULL && !n->asked && clock_mono_ns() >= n->expires_ns) {
        forget(n);
        n = NULL;
    }
    if (n == NULL && r->names.count >= RESOLVER_NAMES_MAX && !list_empty(&r->known))
        forget(CONTAINER_OF(r->known.next, struct name, node));
    return n;
}

static void on_call_turn(struct task *t)
{
    struct resolve_call *call = CONTAINER_OF(t, struct resolve_call, task);
    call->on_done(call, call->result);
}

/* OK: answered, or `call` waits for the name. */
static enum err join(struct resolver *r, struct slice host, struct resolve_call *call)
{
    char lower[256];
    for (size_t i = 0; i < host.len; i++)
        lower[i] = ascii_lower(host.ptr[i]);
    struct slice key = slice_of(lower, host.len);
    look_at_files(r);
    struct name *n = find_name(r, key);
    if (n == NULL && r->asking >= RESOLVER_LOOKUPS_MAX)
        return fail(call->out, ERR_LIMIT, "too many names are being looked up");
    if (n == NULL)
        n = new_name(r, key);
    if (n->asked) {
        list_append(&n->calls, &call->node);
        return OK;
    }
    list_remove(&n->node);
    list_append(&r->known, &n->node);
    answer_call(call, n);
    return OK;
}

void resolver_start(struct resolver *r, struct slice host, uint16_t port, struct resolve_call *call)
{
    enum err e = OK;
    list_init(&call->node);
    list_init(&call->task.node);
    call->task.run = on_call_turn;
    call->port = port;
    call->out->count = 0;
    call->out->why = NULL;
    if (host.len == 0)
        put_loopback(call->out, port);
    else if (literal(host, call->out, port))
        e = OK;
    else if (!is_host_name(host))
        e = fail(call->out, ERR_INVALID, "not a host name");
    else if ((e = join(r, host, call)) == OK)
        return;
    call->result = e;
    loop_defer(r->loop, &call->task);
}

void resolve_cancel(struct resolve_call *call)
{
    list_remove(&call->node);
    list_remove(&call->task.node);
}

struct waiting_call {
    struct resolve_call call;
    struct waiter waiter;
};

static void on_await_done(struct resolve_call *call, enum err result)
{
    waiter_wake(&CONTAINER_OF(call, struct waiting_call, call)->waiter, result);
}

enum err resolver_await(struct resolver *r, struct slice host, uint16_t port, uint64_t deadline_ns,
                        struct resolved *out)
{
    struct waiting_call w = {.call = {.on_done = on_await_done, .out = out}};
    out->count = 0;
    out->why = NULL;
    if (literal(host, out, port))
        return OK;
    waiter_init(&w.waiter);
    resolver_start(r, host, port, &w.call);
    enum err e = await_wake(&w.waiter, deadline_ns);
    resolve_cancel(&w.call);
    if (e != OK && out->why == NULL)
        return fail(out, e, e == ERR_TIMEOUT ? "no answer from the DNS servers in time"
                                             : err_text(e));
    return e;
}

/* --- lifetimes --- */

enum err resolver_create(struct loop *l, const struct dns_options *o, struct resolver **out)
{
    struct resolver *r = NEW(struct resolver);
    r->loop = l;
    r->servers = o->servers != NULL ? slice_dup(slice_from(o->servers)) : NULL;
    r->resolv_conf = o->resolv_conf != NULL ? slice_dup(slice_from(o->resolv_conf)) : NULL;
    r->timeout_ms = o->timeout_ms;
    r->tries = o->tries;
    map_init(&r->names, false);
    list_init(&r->known);
    look_at_files(r);
    enum err e = open_channel(r);
    if (e != OK)
        resolver_destroy(r);
    else
        *out = r;
    return e;
}

/* Names whose question has not reached c-ares. */
static void end_unasked(struct resolver *r)
{
    struct map_entry *entry;
    for (size_t at = 0; (entry = map_next(&r->names, &at)) != NULL;) {
        struct name *n = entry->value;
        if (!n->asked)
            continue;
        list_remove(&n->ask.node);
        settle_status(n, ARES_EDESTRUCTION);
    }
}

void resolver_destroy(struct resolver *r)
{
    r->ending = true;
    if (r->channel != NULL)
        dns_channel_close(r->channel);
    end_unasked(r);
    forget_known(r);
    ASSERT(r->names.count == 0);
    map_deinit(&r->names);
    mem_free(r->servers);
    mem_free(r->resolv_conf);
    mem_free(r);
}

static _Thread_local struct resolver *own;

enum err resolver_of_thread(struct resolver **out)
{
    struct dns_options o = {0};
    if (own == NULL)
        TRY(resolver_create(loop_self(), &o, &own));
    *out = own;
    return OK;
}

void resolver_thread_deinit(void)
{
    if (own != NULL)
        resolver_destroy(own);
    own = NULL;
}

enum err await_resolve(struct slice host, uint16_t port, uint64_t deadline_ns, struct resolved *out)
{
    struct resolver *r;
    out->count = 0;
    out->why = NULL;
    if (literal(host, out, port))
        return OK;
    if (resolver_of_thread(&r) != OK)
        return fail(out, ERR_LIMIT, "no DNS channel can be opened");
    return resolver_await(r, host, port, deadline_ns, out);
}
