/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports that are given rather than written: a service gets one for each replica and one to change
 * over, and keeps them, in DATA/services.json:
 *
 *     {"simon": [3000, 3001], "startup": [3002, 3003, 3004], "old": {"ports": [3005], "gone": 1795678286}}
 *
 * A service that is not in the configuration any more is noted as gone, and when (seconds since 1970). It
 * finds its ports again for GONE_DAYS, unless GONE_MAX others have gone after it.
 *
 * A port is given when nobody listens there, no service has it, the kernel does not take it for
 * outgoing connections, and nothing is assigned to it where that can be had. One that is taken by
 * somebody else at a start is passed over, and given up when it stays so.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/jsonx.h"
#include "net/holder.h"
#include "services/manage.h"

enum { GONE_MAX = 256, GONE_DAYS = 30 };

static struct {
    char *path; /* malloc'd; NULL: not kept */
    json_t *kept;
    bool warned;
} ports;

/* --- the file --- */

static json_t *load(const char *path)
{
    json_error_t e;
    json_t *kept = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
    if (json_is_object(kept))
        return kept;
    if (access(path, F_OK) == 0)
        LOG(LOG_WARN, "services", "the file of kept ports is not readable: ports are given anew",
            LOG_CSTR("file", path), LOG_CSTR("error", e.text));
    json_decref(kept);
    return json_object();
}

static int make_folders(char *path)
{
    for (char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        int failed = mkdir(path, 0700) != 0 && errno != EEXIST;
        *at = '/';
        if (failed)
            return errno;
    }
    return 0;
}

static int write_file(const char *path, const char *text)
{
    size_t len = strlen(text);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    ssize_t n = write(fd, text, len);
    int error = n < 0 || fsync(fd) != 0 ? errno : 0;
    if (error == 0 && (size_t)n < len)
        error = ENOSPC; /* a part is no failure to write(2) */
    close(fd);
    return error;
}

/* In one step: beside it, then over it. */
static void save(void)
{
    char beside[4200];
    if (ports.path == NULL)
        return;
    snprintf(beside, sizeof beside, "%.4096s.new", ports.path);
    char *text = json_dumps(ports.kept, JSON_COMPACT | JSON_SORT_KEYS);
    int error = make_folders(ports.path);
    if (error == 0)
        error = write_file(beside, text);
    if (error == 0 && rename(beside, ports.path) != 0)
        error = errno;
    free(text);
    if (error != 0 && !ports.warned)
        LOG(LOG_WARN, "services", "given ports cannot be kept for the next start",
            LOG_CSTR("file", ports.path), LOG_CSTR("error", strerror(error)));
    ports.warned = error != 0;
}

/* --- those that are gone --- */

static json_t *list_of(const char *name)
{
    json_t *v = json_object_get(ports.kept, name);
    return json_is_object(v) ? json_object_get(v, "ports") : v;
}

static json_int_t gone_since(const json_t *value)
{
    return json_integer_value(json_object_get(value, "gone"));
}

static void set_gone(const char *name, json_int_t since)
{
    json_t *o = json_object(), *list = list_of(name);
    json_object_set(o, "ports", list);
    json_object_set_new(o, "gone", json_integer(since));
    json_object_set_new(ports.kept, name, o);
}

/* True when the entry changed. Times in the future are those of a clock that was wrong. */
static bool settle_entry(const char *name, json_t *value, json_int_t now)
{
    const struct managed *m = overseer_find(slice_from(name));
    bool wanted = m != NULL && m->wanted;
    if (wanted == json_is_array(value) && gone_since(value) <= now)
        return false;
    if (wanted)
        json_object_set(ports.kept, name, list_of(name));
    else
        set_gone(name, now);
    return true;
}

/* The one that went first; NULL: there are no more than may be kept. */
static const char *find_superfluous(json_int_t now)
{
    const char *name, *first = NULL;
    json_t *value;
    json_int_t least = 0;
    size_t gone = 0;
    json_object_foreach(ports.kept, name, value) {
        if (!json_is_object(value))
            continue;
        gone++;
        if (first == NULL || gone_since(value) < least) {
            first = name;
            least = gone_since(value);
        }
    }
    return gone > GONE_MAX || (gone > 0 && least < now - (json_int_t)GONE_DAYS * 86400) ? first : NULL;
}

void ports_settle(void)
{
    const char *name;
    json_t *value;
    void *next;
    json_int_t now = (json_int_t)(clock_wall_ns() / (int64_t)NS_PER_S);
    bool changed = false;
    json_object_foreach_safe(ports.kept, next, name, value)
        changed |= !json_is_array(list_of(name)) ? json_object_del(ports.kept, name) == 0
                                                 : settle_entry(name, value, now);
    for (const char *first; (first = find_superfluous(now)) != NULL; changed = true)
        json_object_del(ports.kept, first);
    if (changed)
        save();
}

void ports_open(struct slice folder)
{
    char path[4100];
    if (folder.len == 0)
        return;
    snprintf(path, sizeof path, SLICE_FMT "/services.json", SLICE_ARG(slice_take(folder, 4000)));
    if (ports.path != NULL && strcmp(ports.path, path) == 0)
        return;
    mem_free(ports.path);
    ports.path = slice_dup(slice_from(path));
    json_decref(ports.kept);
    ports.kept = load(path);
}

void ports_close(void)
{
    mem_free(ports.path);
    json_decref(ports.kept);
    memset(&ports, 0, sizeof ports);
}

/* --- what is free --- */

/* Whether a listener could be opened there now. */
static bool can_bind(struct slice host, uint16_t port)
{
    char text[64];
    int on = 1;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    snprintf(text, sizeof text, SLICE_FMT, SLICE_ARG(host));
    bool is4 = inet_pton(AF_INET, text, &v4.sin_addr) == 1;
    if (!is4)
        (void)!inet_pton(AF_INET6, text, &v6.sin6_addr);
    int fd = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return true;
    (void)!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int failed = is4 ? bind(fd, (struct sockaddr *)&v4, sizeof v4)
                     : bind(fd, (struct sockaddr *)&v6, sizeof v6);
    bool taken = (failed != 0 && errno == EADDRINUSE) || (failed == 0 && listen(fd, 1) != 0);
    close(fd);
    return !taken;
}

static bool in_list(const json_t *list, uint16_t port)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_integer_value(json_array_get(list, i)) == port)
            return true;
    return false;
}

/* By another service: written in its description, or given to it. */
static bool belongs_to_other(const struct managed *m, uint16_t port)
{
    LIST_FOR(node, &overseer.services)
    {
        const struct managed *o = CONTAINER_OF(node, struct managed, node);
        if (o == m || !o->wanted)
            continue;
        const struct service *s = &o->version->service;
        if (s->port != 0 ? port >= s->port && port - s->port < (int)s->replicas
                         : in_list(list_of(o->name.ptr), port))
            return true;
    }
    return false;
}

/* The kernel's own range for outgoing connections. */
static void read_dynamic(unsigned *first, unsigned *last)
{
    *first = 32768;
    *last = 60999;
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    if (f == NULL)
        return;
    if (fscanf(f, "%u %u", first, last) != 2) {
        *first = 32768;
        *last = 60999;
    }
    fclose(f);
}

static bool used_here(const struct managed *m, uint16_t port)
{
    LIST_FOR(node, &overseer.programs)
    {
        const struct program *p = CONTAINER_OF(node, struct program, node);
        if (p->owner == m && p->port == port && p->state != REPLICA_STOPPED)
            return true;
    }
    return false;
}

/* --- giving --- */

bool (*services_port_assigned)(uint16_t port);

/* 0: nobody has a claim; 1: IANA has assigned it; 2: the kernel may take it. */
static int claim_on(uint16_t port, unsigned first, unsigned last)
{
    if (port >= first && port <= last)
        return 2;
    return services_port_assigned != NULL && services_port_assigned(port);
}

/* Of those that are free, the ones with the least claim on them come first. */
static uint16_t find_free(const struct managed *m, const json_t *have)
{
    const struct service *s = &m->version->service;
    unsigned first, last;
    read_dynamic(&first, &last);
    for (int claim = 0; claim <= 2; claim++)
        for (unsigned port = s->range_first; port <= s->range_last; port++) {
            if (claim_on((uint16_t)port, first, last) == claim && !in_list(have, (uint16_t)port) &&
                !belongs_to_other(m, (uint16_t)port) && can_bind(s->host, (uint16_t)port))
                return (uint16_t)port;
        }
    return 0;
}

/* The service's list: what is kept and still fits. */
static json_t *kept_of(const struct managed *m)
{
    const struct service *s = &m->version->service;
    const char *name = m->name.ptr;
    json_t *list = json_array(), *old = json_incref(list_of(name));
    for (size_t i = 0; i < json_array_size(old); i++) {
        json_int_t port = json_integer_value(json_array_get(old, i));
        if (port >= s->range_first && port <= s->range_last && !in_list(list, (uint16_t)port) &&
            !belongs_to_other(m, (uint16_t)port))
            json_array_append_new(list, json_integer(port));
    }
    if (ports.kept == NULL)
        ports.kept = json_object();
    json_object_set_new(ports.kept, name, list);
    json_decref(old);
    return list;
}

static uint16_t pick(const struct managed *m, json_t *list, uint16_t wanted)
{
    const struct service *s = &m->version->service;
    if (wanted != 0 && in_list(list, wanted) && !used_here(m, wanted) && can_bind(s->host, wanted))
        return wanted;
    for (size_t i = 0; i < json_array_size(list); i++) {
        uint16_t port = (uint16_t)json_integer_value(json_array_get(list, i));
        if (!used_here(m, port) && can_bind(s->host, port))
            return port;
    }
    return 0;
}

/* Ports that somebody else listens on go out of the list, so that it does not grow for ever. */
static void forget_taken(const struct managed *m, json_t *list)
{
    for (size_t i = 0; i < json_array_size(list);) {
        uint16_t port = (uint16_t)json_integer_value(json_array_get(list, i));
        if (used_here(m, port) || can_bind(m->version->service.host, port))
            i++;
        else
            json_array_remove(list, i);
    }
}

static uint16_t given_port(const struct slot *slot, uint16_t wanted)
{
    const struct managed *m = slot->owner;
    json_t *list = kept_of(m);
    uint16_t port = pick(m, list, wanted);
    if (port != 0)
        return port;
    if (json_array_size(list) > m->version->service.replicas)
        forget_taken(m, list);
    port = find_free(m, list);
    if (port == 0)
        return 0;
    json_array_append_new(list, json_integer(port));
    save();
    return port;
}

bool ports_can_overlap(const struct service *s)
{
    return s->port == 0 || s->socket;
}

/* Where another program listens already this one is not started: a connection that is accepted there
 * would tell that it is ready, and requests would go to that other one. */
static uint16_t fixed_port(const struct slot *slot, char *why, size_t cap)
{
    const struct managed *m = slot->owner;
    const struct service *s = &m->version->service;
    uint16_t port = (uint16_t)(s->port + slot->number);
    char holder[256] = "";
    if (s->socket || used_here(m, port) || can_bind(s->host, port))
        return port;
    port_holder(s->host, port, holder, sizeof holder);
    snprintf(why, cap, "port %u is taken by %s", port, holder[0] != '\0' ? holder : "another program");
    return 0;
}

uint16_t port_for(const struct slot *slot, uint16_t wanted, char *why, size_t cap)
{
    const struct service *s = &slot->owner->version->service;
    if (s->port != 0)
        return fixed_port(slot, why, cap);
    if (s->socket && wanted != 0)
        return wanted; /* the keeper holds it */
    uint16_t port = given_port(slot, wanted);
    if (port == 0)
        snprintf(why, cap, "no port from %u to %u is free", s->range_first, s->range_last);
    return port;
}
