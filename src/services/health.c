/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One fiber for each program: it asks often until the program is ready (by its health check, else by a
 * connection that is accepted), then now and then whether it is well. A replica that stays unwell for
 * as long as it may take to become ready is replaced.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "client/fetch.h"
#include "services/supervisor_link.h"
#include "services/manage.h"

#define FIRST_PAUSE_NS (10 * NS_PER_MS) /* until it is ready; doubled up to … */
#define LONGEST_PAUSE_NS (250 * NS_PER_MS)
#define LIFE_NS NS_PER_S /* what takes over a socket must live for, before the one before it goes */

enum { ANSWER_MAX = 1 << 20 };

/* A command that is run to ask; on its fiber's frame. */
struct asking {
    struct list node;
    uint64_t instance;
    struct waiter waiter;
    int status;
    const struct program *program;
    enum err sent;
    char *why;
    size_t cap;
};

/* --- by a connection --- */

static enum err check_tcp(const struct program *p, uint64_t deadline_ns, char *why, size_t cap)
{
    char host[64];
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(p->port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(p->port)};
    snprintf(host, sizeof host, SLICE_FMT, SLICE_ARG(p->version->service.host));
    bool is4 = inet_pton(AF_INET, host, &v4.sin_addr) == 1;
    if (!is4 && inet_pton(AF_INET6, host, &v6.sin6_addr) != 1)
        return ERR_INVALID;
    int fd = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_from_errno(errno);
    enum err e = is4 ? await_connect(fd, (struct sockaddr *)&v4, sizeof v4, deadline_ns)
                     : await_connect(fd, (struct sockaddr *)&v6, sizeof v6, deadline_ns);
    loop_close(overseer.loop, fd);
    if (e != OK)
        snprintf(why, cap, "port %u: %s", p->port,
                 e == ERR_TIMEOUT ? "no connection in time" : "nobody listens there");
    return e;
}

/* --- by a request --- */

static bool status_fits(int64_t wanted, int status)
{
    if (wanted == 0)
        return status >= 200 && status < 400;
    return wanted < 10 ? status / 100 == wanted : status == wanted;
}

static enum err check_http(const struct program *p, uint64_t timeout_ns, char *why, size_t cap)
{
    static const struct field close_it = {{"Connection", 10}, {"close", 5}};
    struct arena arena;
    const struct service *s = &p->version->service;
    bool v6 = slice_find(s->host, ':') != SIZE_MAX;
    arena_init(&arena, 4096);
    struct fetch_answer *answer = ARENA_NEW(&arena, struct fetch_answer);
    struct fetch_request request = {
        .url = arena_printf(&arena, "http://%s" SLICE_FMT "%s:%u" SLICE_FMT, v6 ? "[" : "",
                            SLICE_ARG(s->host), v6 ? "]" : "", p->port, SLICE_ARG(s->health.uri)),
        .fields = &close_it, .fields_count = 1, .timeout_ns = timeout_ns, .answer_max = ANSWER_MAX,
        .no_proxy = true};
    enum err e = fetch(&request, &arena, answer);
    if (e != OK)
        snprintf(why, cap, SLICE_FMT ": %.150s", SLICE_ARG(slice_take(s->health.uri, 80)), answer->why);
    else if (!status_fits(s->health.status, answer->status))
        snprintf(why, cap, SLICE_FMT ": status %d", SLICE_ARG(slice_take(s->health.uri, 80)), answer->status);
    if (e == OK && !status_fits(s->health.status, answer->status))
        e = ERR_FAILED;
    arena_deinit(&arena);
    return e;
}

/* --- by a command --- */

void health_command_ended(uint64_t instance, int status, bool failed)
{
    LIST_FOR(node, &overseer.commands)
    {
        struct asking *a = CONTAINER_OF(node, struct asking, node);
        if (a->instance != instance)
            continue;
        a->status = failed ? -1 : status;
        waiter_wake(&a->waiter, OK);
        return;
    }
}

static enum err send_command(struct asking *a, struct arena *arena)
{
    struct launch launch;
    const struct program *p = a->program;
    const struct service *s = &p->version->service;
    TRY(program_launch(s, s->health.command, s->health.command_count, p->port, p->replica, arena,
                       &launch, a->why, a->cap));
    launch.socket = false;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return ERR_LIMIT;
    const int streams[3] = {null, null, null};
    a->instance = link_instance();
    enum err e = link_exec(&launch, a->instance, s, streams, a->why, a->cap);
    close(null);
    return e;
}

/* On the loop's own stack: accounts are looked up, by libraries that want room. */
static void ask_command(void *arg)
{
    struct arena arena;
    struct asking *a = arg;
    arena_init(&arena, 16384);
    a->sent = send_command(a, &arena);
    arena_deinit(&arena);
}

static enum err check_command(const struct program *p, uint64_t deadline_ns, char *why, size_t cap)
{
    struct asking a = {.status = -1, .program = p, .why = why, .cap = cap};
    waiter_init(&a.waiter);
    list_append(&overseer.commands, &a.node);
    await_on_loop(ask_command, &a);
    enum err e = a.sent;
    bool asked = e == OK;
    if (asked)
        e = await_wake(&a.waiter, deadline_ns);
    list_remove(&a.node);
    if (asked && e != OK) {
        link_tell(SUPERVISE_STOP, a.instance, SIGKILL, 0);
        snprintf(why, cap, "the health command has not ended in time");
    } else if (asked && a.status != 0) {
        snprintf(why, cap, "the health command failed%s", a.status < 0 ? " to start" : "");
        e = ERR_FAILED;
    }
    return e;
}

/* --- one question --- */

static enum err check(const struct program *p, char *why, size_t cap)
{
    const struct service_health *h = &p->version->service.health;
    uint64_t timeout = h->kind != HEALTH_NONE ? h->timeout_ns : NS_PER_S;
    uint64_t deadline = clock_mono_ns() + timeout;
    if (h->kind == HEALTH_HTTP)
        return check_http(p, timeout, why, cap);
    if (h->kind == HEALTH_COMMAND)
        return check_command(p, deadline, why, cap);
    return check_tcp(p, deadline, why, cap);
}

static bool is_over(const struct program *p)
{
    return fiber_self()->cancelled != OK || p->state == REPLICA_STOPPING ||
           p->state == REPLICA_STOPPED;
}

/* --- until it is ready --- */

/* The kernel takes connections for a socket that is handed over, whether its program does or not. Where
 * another one answers meanwhile, that one goes only when this one has lived for a moment. */
static enum err await_life(const struct program *p)
{
    const struct service *s = &p->version->service;
    uint64_t life = s->ready_ns < LIFE_NS ? s->ready_ns : LIFE_NS;
    if (!s->socket || program_is_alone(p))
        return OK;
    return await_sleep(p->start_ns + life);
}

static enum err await_ready(struct program *p, char *why, size_t cap)
{
    uint64_t by = clock_mono_ns() + p->version->service.ready_ns, pause = FIRST_PAUSE_NS;
    const struct service_health *h = &p->version->service.health;
    TRY(await_life(p));
    while (!is_over(p)) {
        if (check(p, why, cap) == OK) {
            if (++p->passes >= (h->kind != HEALTH_NONE ? h->passes : 1))
                return OK;
        } else {
            p->passes = 0;
        }
        if (clock_mono_ns() >= by)
            return ERR_TIMEOUT;
        TRY(await_sleep(clock_mono_ns() + pause));
        pause = pause * 2 < LONGEST_PAUSE_NS ? pause * 2 : LONGEST_PAUSE_NS;
    }
    return ERR_CANCELLED;
}

/* --- whether it is well --- */

/* Until one check passes that nobody else can have answered. */
static void judge_trial(struct program *p, bool alone, enum err e, const char *why)
{
    if (!alone)
        return;
    if (e == OK)
        program_proven(p);
    else if (++p->fails >= p->version->service.health.fails)
        program_condemn(p, why);
}

static void judge(struct program *p, enum err e, const char *why)
{
    const struct service *s = &p->version->service;
    if (e == OK) {
        p->fails = 0;
        if (p->state == REPLICA_UNHEALTHY && ++p->passes >= s->health.passes)
            program_ready(p);
        return;
    }
    p->passes = 0;
    p->owner->check_failures++;
    if (++p->fails >= s->health.fails)
        program_unwell(p, why);
    if (p->state == REPLICA_UNHEALTHY && clock_mono_ns() - p->sick_ns >= s->ready_ns)
        program_condemn(p, "it did not become well again");
}

static void look_after(struct program *p, char *why, size_t cap)
{
    while (!is_over(p) &&
           await_sleep(clock_mono_ns() + p->version->service.health.interval_ns) == OK) {
        bool alone = program_is_alone(p);
        enum err e = check(p, why, cap);
        if (!is_over(p) && p->trial)
            judge_trial(p, alone, e, why);
        else if (!is_over(p))
            judge(p, e, why);
    }
}

static void probe(void *arg)
{
    struct program *p = arg;
    char why[256] = "";
    p->probe = fiber_self();
    enum err e = await_ready(p, why, sizeof why);
    if (e == OK && !is_over(p)) {
        program_ready(p);
        if (p->version->service.health.kind != HEALTH_NONE)
            look_after(p, why, sizeof why);
    } else if (e == ERR_TIMEOUT && !is_over(p)) {
        char text[300];
        snprintf(text, sizeof text, "it did not become ready in time: %s", why);
        program_condemn(p, text);
    }
    program_probe_ended(p);
}

void probe_start(struct program *p)
{
    if (p->probe == NULL && fiber_start(overseer.loop, probe, p) != OK)
        program_condemn(p, "too many fibers: nobody would learn that it is ready");
}

void probe_stop(struct program *p)
{
    if (p->probe != NULL && p->probe != fiber_self() && p->probe->cancelled == OK)
        fiber_cancel(p->probe, ERR_CANCELLED);
}
