/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the keeper is quick and is done on the control thread; waiting for the reader and judging
 * what it saw is a job of the pool. Only one look is under way at a time: who asks meanwhile waits for
 * that one. The document is copied for the job, since it may be replaced, and read there.
 */
#include "app/ports_server.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "app/config_origins.h"
#include "app/keeper_link.h"
#include "base/clock.h"
#include "base/mem.h"
#include "config/jsonx.h"
#include "loop/await.h"
#include "ports/ledger.h"
#include "services/services.h"

#define FRESH_NS NS_PER_S              /* for who asks */
#define FRESH_METRICS_NS (10 * NS_PER_S) /* for who scrapes */

enum { WHOLE_MAX = 128 << 20, READER_MS = 20000 };

struct look {
    int fd; /* of the reader's pipe; -1: this process looks itself */
    struct kept_json document; /* while it is judged by */
    uint64_t number;           /* of that document */
    json_t *origins, *services;
    struct buffer json;
    char error[512];
    enum err result;
    uint32_t by_reach[PORT_PROTOCOLS][REACH_WORLD + 1];
    uint32_t findings[3];
    bool complete;
    double seconds;
};

static struct {
    struct look *newest; /* the last one that succeeded, or failed */
    uint64_t at_ns;      /* when it was ready; 0: never */
    bool looking;
    struct waiter *waiting[64]; /* fibers that wait for the one under way */
    size_t waiting_count;
} ports;

/* --- on the pool --- */

static enum err read_pipe(int fd, struct buffer *b)
{
    struct pollfd p = {fd, POLLIN, 0};
    ssize_t n;
    do {
        if (poll(&p, 1, READER_MS) == 0)
            return ERR_TIMEOUT;
        TRY(buffer_reserve(b, 65536));
        n = read(fd, b->ptr + b->len, 65536);
        b->len += n > 0 ? (size_t)n : 0;
    } while (n > 0 || (n < 0 && errno == EINTR));
    return n == 0 ? OK : ERR_IO;
}

static enum err look_by_reader(struct look *l, struct arena *arena, struct port_table *t)
{
    struct buffer b;
    struct diag d = {.text = ""};
    buffer_init(&b, WHOLE_MAX);
    enum err e = read_pipe(l->fd, &b);
    json_t *whole = e == OK && b.len > 0
                        ? jsonx_load(SLICE("the ledger"), slice_trim(buffer_slice(&b)), &d)
                        : NULL;
    if (e == OK && whole == NULL)
        e = ERR_INVALID;
    buffer_deinit(&b);
    if (e == OK)
        e = port_json_read(whole, arena, t, l->error, sizeof l->error);
    else
        snprintf(l->error, sizeof l->error, "reading the ledger of ports: %.400s",
                 d.text[0] != '\0' ? d.text : err_text(e));
    json_decref(whole);
    return e;
}

static enum err look_at(struct look *l, struct arena *arena, struct port_table *t)
{
    struct socket_options options = {0};
    if (l->fd >= 0)
        return look_by_reader(l, arena, t);
    return ledger_look(&options, arena, t, l->error, sizeof l->error);
}

static void count(struct look *l, const struct port_table *t)
{
    l->complete = t->unseen_count == 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct port_entry *e = &t->entries[i];
        if (e->inode != 0 || e->listening)
            l->by_reach[e->protocol][e->reach]++;
        for (const struct port_finding *f = e->findings; f != NULL; f = f->next)
            l->findings[f->severity]++;
    }
}

static struct slice member(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return slice_of(json_string_value(v), json_string_length(v));
}

static void read_origins(const json_t *list, struct origins *origins)
{
    origins_init(origins);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        origins_add(origins, member(o, "path"), member(o, "name"), member(o, "file"),
                    (uint32_t)json_integer_value(json_object_get(o, "line")));
    }
    origins_sort(origins);
}

static void work(void *arg)
{
    struct look *l = arg;
    struct arena arena;
    struct port_table table;
    struct origins origins;
    uint64_t begun = clock_mono_ns();
    l->error[0] = '\0';
    arena_init(&arena, 1 << 20);
    read_origins(l->origins, &origins);
    json_t *document = kept_json_tree(&l->document);
    struct ledger_request r = {.document = document, .origins = &origins,
                               .services = l->services};
    l->result = look_at(l, &arena, &table);
    if (l->result == OK)
        l->result = ledger_judge(&r, &table, l->error, sizeof l->error);
    if (l->result == OK) {
        json_t *json = port_json(&table);
        count(l, &table);
        l->result = jsonx_dump(&l->json, json);
        (void)BUFFER_PUT(&l->json, "\n");
        json_decref(json);
    }
    json_decref(document);
    origins_deinit(&origins);
    arena_deinit(&arena);
    l->seconds = (double)(clock_mono_ns() - begun) / 1e9;
}

/* --- on the control thread --- */

static int ask_keeper(void)
{
    struct keeper_message m = {.kind = KEEPER_LEDGER};
    int fd = -1;
    unsigned got = 1;
    if (keeper_link_ask(&m, &fd, &got) != OK || m.error != OK || got == 0)
        return -1;
    return fd;
}

static void free_look(struct look *l)
{
    if (l == NULL)
        return;
    buffer_deinit(&l->json);
    kept_json_clear(&l->document);
    json_decref(l->origins);
    json_decref(l->services);
    mem_free(l);
}

static void begin(void *arg)
{
    struct look *l = arg;
    l->origins = config_origins_json(config_origins_running());
    l->services = services_list();
    l->fd = ask_keeper();
}

static void wake_others(void)
{
    size_t n = ports.waiting_count;
    ports.waiting_count = 0;
    for (size_t i = 0; i < n; i++)
        waiter_wake(ports.waiting[i], OK);
}

/* What a large document took while it was read. */
static void forget_document(struct look *l)
{
    bool large = l->document.len >= KEPT_JSON_LARGE;
    kept_json_clear(&l->document);
    if (large)
        mem_give_back();
}

static void look_now(struct ports_document document)
{
    struct look *l = NEW(struct look);
    ports.looking = true;
    kept_json_copy(&l->document, document.text);
    l->number = document.number;
    buffer_init(&l->json, WHOLE_MAX);
    await_on_loop(begin, l);
    l->result = ERR_LIMIT; /* until the work has begun; a look whose asker has gone meanwhile is one */
    snprintf(l->error, sizeof l->error, "too many jobs wait already");
    (void)await_offload(work, l);
    if (l->fd >= 0)
        close(l->fd);
    forget_document(l);
    free_look(ports.newest);
    ports.newest = l;
    ports.at_ns = clock_mono_ns();
    ports.looking = false;
    wake_others();
}

/* For the look under way; who is cancelled meanwhile is not to be woken any more. */
static enum err await_others_look(void)
{
    struct waiter me;
    if (ports.waiting_count == sizeof ports.waiting / sizeof *ports.waiting)
        return ERR_LIMIT;
    waiter_init(&me);
    ports.waiting[ports.waiting_count++] = &me;
    enum err e = await_wake(&me, UINT64_MAX);
    for (size_t i = 0; i < ports.waiting_count; i++) {
        if (ports.waiting[i] == &me)
            ports.waiting[i--] = ports.waiting[--ports.waiting_count];
    }
    return e;
}

/* Sees to it that there is a look which is not older. */
static enum err await_look(struct ports_document document, uint64_t fresh_ns)
{
    bool same = ports.newest != NULL && ports.newest->number == document.number;
    if (same && clock_mono_ns() - ports.at_ns < fresh_ns)
        return OK;
    if (!ports.looking) {
        look_now(document);
        return OK;
    }
    return await_others_look();
}

enum err await_ports_json(struct ports_document document, struct arena *arena, struct slice *out,
                          char *error, size_t cap)
{
    enum err e = await_look(document, FRESH_NS);
    if (e == OK)
        e = ports.newest->result;
    if (e == OK)
        *out = arena_copy(arena, buffer_slice(&ports.newest->json));
    else
        snprintf(error, cap, "%s", ports.newest != NULL && ports.newest->error[0] != '\0'
                                       ? ports.newest->error
                                       : err_text(e));
    return e;
}

enum err await_ports_metrics(struct ports_document document)
{
    return await_look(document, FRESH_METRICS_NS);
}

static enum err put_rows(struct buffer *b, const struct look *l)
{
    TRY(BUFFER_PUT(b, "# HELP portico_ports Bound or listening ports of this machine.\n"
                      "# TYPE portico_ports gauge\n"));
    for (unsigned p = 0; p < PORT_PROTOCOLS; p++) {
        for (unsigned r = 0; r <= REACH_WORLD; r++) {
            if (l->by_reach[p][r] > 0)
                TRY(buffer_append_f(b, "portico_ports{protocol=\"%s\",reach=\"%s\"} %u\n",
                                    port_protocol_name((enum port_protocol)p),
                                    port_reach_name((enum port_reach)r), l->by_reach[p][r]));
        }
    }
    return OK;
}

enum err ports_metrics_put(struct buffer *b)
{
    const struct look *l = ports.newest;
    if (l == NULL || l->result != OK)
        return OK;
    TRY(put_rows(b, l));
    TRY(BUFFER_PUT(b, "# HELP portico_ports_findings What is wrong with them (portico ports check).\n"
                      "# TYPE portico_ports_findings gauge\n"));
    for (unsigned s = 0; s < 3; s++)
        TRY(buffer_append_f(b, "portico_ports_findings{severity=\"%s\"} %u\n",
                            severity_name((enum severity)s), l->findings[s]));
    return buffer_append_f(
        b,
        "# HELP portico_ports_complete Whether all ports and their owners could be seen.\n"
        "# TYPE portico_ports_complete gauge\nportico_ports_complete %d\n"
        "# HELP portico_ports_read_seconds How long the last look took.\n"
        "# TYPE portico_ports_read_seconds gauge\nportico_ports_read_seconds %.3f\n",
        l->complete, l->seconds);
}

void ports_server_deinit(void)
{
    free_look(ports.newest);
    ports.newest = NULL;
}
