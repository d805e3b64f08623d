/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A question belongs to nobody: the fiber that asked may be cancelled while c-ares still works on it,
 * and then its answer is thrown away. c-ares is called on the loop's own stack.
 */
#include "net/dns_targets.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/mem.h"
#include "loop/await.h"

struct question {
    struct resolver *resolver;
    enum dns_kind kind;
    char name[256];
    struct dns_targets out;
    struct waiter waiter;
    enum err result;
    bool answered, abandoned;
};

static void settle(struct question *q, enum err e, const char *why)
{
    q->answered = true;
    q->result = e;
    q->out.why = why;
    if (!q->abandoned) {
        waiter_wake(&q->waiter, OK);
        return;
    }
    mem_free(q->out.items);
    mem_free(q);
}

static void settle_status(struct question *q, int status)
{
    const char *why;
    enum err e = resolver_failure(status, &why);
    settle(q, e, why);
}

static struct dns_target *add(struct dns_targets *t)
{
    if (t->count == DNS_TARGETS_MAX)
        return NULL;
    if ((t->count & (t->count - 1)) == 0)
        t->items = mem_resize(t->items, t->count > 0 ? t->count * 2 : 1, sizeof *t->items);
    t->items[t->count] = (struct dns_target){0};
    return &t->items[t->count++];
}

/* --- addresses --- */

static void add_address(struct dns_targets *t, const struct sockaddr *a)
{
    const void *bytes = a->sa_family == AF_INET6
                            ? (const void *)&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr
                            : (const void *)&((const struct sockaddr_in *)(const void *)a)->sin_addr;
    struct dns_target *target = add(t);
    if (target != NULL)
        inet_ntop(a->sa_family, bytes, target->host, sizeof target->host);
}

static void on_addresses(void *arg, int status, struct ares_addrinfo *ai)
{
    struct question *q = arg;
    if (status != ARES_SUCCESS) {
        settle_status(q, status);
        return;
    }
    for (const struct ares_addrinfo_node *a = ai->nodes; a != NULL; a = a->ai_next)
        if (a->ai_family == AF_INET || a->ai_family == AF_INET6)
            add_address(&q->out, a->ai_addr);
    ares_freeaddrinfo(ai);
    settle_status(q, q->out.count > 0 ? ARES_SUCCESS : ARES_ENODATA);
}

/* --- services --- */

static void add_service(struct dns_targets *t, const struct ares_srv_reply *s)
{
    struct slice host = slice_from(s->host);
    if (slice_ends(host, SLICE(".")))
        host.len--;
    if (host.len == 0)
        return;
    struct dns_target *target = is_host_name(host) ? add(t) : NULL;
    t->dropped += target == NULL;
    if (target == NULL)
        return;
    memcpy(target->host, host.ptr, host.len);
    target->port = s->port;
    target->priority = s->priority;
    target->weight = s->weight;
}

static uint32_t random_below(uint32_t n)
{
    uint32_t r;
    if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r)
        r = (uint32_t)clock_mono_ns();
    return (uint32_t)((uint64_t)r * n >> 32);
}

static void on_services(void *arg, int status, const unsigned char *answer, int len)
{
    struct question *q = arg;
    struct ares_srv_reply *list = NULL;
    if (status == ARES_SUCCESS)
        status = ares_parse_srv_reply(answer, len, &list);
    if (status != ARES_SUCCESS) {
        settle_status(q, status);
        return;
    }
    for (const struct ares_srv_reply *s = list; s != NULL; s = s->next)
        add_service(&q->out, s);
    ares_free_data(list);
    dns_targets_order(&q->out, random_below);
    settle_status(q, ARES_SUCCESS);
}

static int by_priority(const void *a, const void *b)
{
    const struct dns_target *x = a, *y = b;
    return x->priority != y->priority ? (x->priority < y->priority ? -1 : 1) : 0;
}

/* RFC 2782: of those that are left, each comes next as often as its weight says; such as have none
 * come last. */
static void shuffle(struct dns_target *list, size_t count, uint32_t (*below)(uint32_t n))
{
    uint32_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += list[i].weight;
    for (size_t i = 0; i + 1 < count && sum > 0; i++) {
        uint32_t at = below(sum);
        size_t pick = i;
        while (at >= list[pick].weight)
            at -= list[pick++].weight;
        struct dns_target chosen = list[pick];
        list[pick] = list[i];
        list[i] = chosen;
        sum -= chosen.weight;
    }
}

void dns_targets_order(struct dns_targets *t, uint32_t (*below)(uint32_t n))
{
    if (t->count > 0)
        qsort(t->items, t->count, sizeof *t->items, by_priority);
    for (size_t from = 0, to; from < t->count; from = to) {
        for (to = from + 1; to < t->count && t->items[to].priority == t->items[from].priority;)
            to++;
        shuffle(t->items + from, to - from, below);
    }
}

/* --- asking --- */

static void ask(void *arg)
{
    static const int families[] = {
        [DNS_ADDRESSES] = AF_UNSPEC, [DNS_FOUR] = AF_INET, [DNS_SIX] = AF_INET6};
    struct question *q = arg;
    struct dns_channel *channel;
    if (resolver_channel(q->resolver, &channel) != OK)
        settle(q, ERR_LIMIT, "no DNS channel can be opened");
    else if (q->kind == DNS_SERVICES)
        dns_ask_services(channel, q->name, on_services, q);
    else
        dns_ask_family(channel, q->name, families[q->kind], on_addresses, q);
}

enum err resolver_await_targets(struct resolver *r, struct slice name, enum dns_kind kind,
                                uint64_t deadline_ns, struct dns_targets *out)
{
    *out = (struct dns_targets){.why = "not a host name"};
    if (!is_host_name(name) && (kind == DNS_SERVICES || slice_find(name, ':') == SIZE_MAX ||
                                name.len > 80))
        return ERR_INVALID;
    struct question *q = NEW(struct question);
    q->resolver = r;
    q->kind = kind;
    memcpy(q->name, name.ptr, name.len);
    waiter_init(&q->waiter);
    await_on_loop(ask, q);
    enum err e = await_wake(&q->waiter, deadline_ns);
    if (!q->answered) {
        q->abandoned = true;
        out->why = e == ERR_TIMEOUT ? "no answer from the DNS servers in time" : err_text(e);
        return e;
    }
    *out = q->out;
    e = q->result;
    if (e != OK) {
        mem_free(out->items);
        out->items = NULL;
        out->count = 0;
    }
    mem_free(q);
    return e;
}
