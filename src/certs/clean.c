/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The storage is tidied once a day, by one instance of all that share it: staples that are over, and
 * certificates that are over for two weeks, with what belongs to them, and what killed instances have
 * left (leftovers.c). When it was done last, and by whom, stands in last_clean.json.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd_write.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/large_stack.h"
#include "certs/manager_parts.h"
#include "certs/timestamp.h"

#define CLEAN_LOCK_NS (300 * NS_PER_S)

enum { GRACE_S = 14 * 24 * 3600 };

static struct {
    bool begun, cleaning;
    int64_t cleaned_s; /* by this manager */
} clean;

struct cleaning {
    struct storage *storage;
    struct arena arena;
    struct arena item; /* of one key */
    struct storage_why why;
    int64_t interval_s;
    struct slice instance;
    struct slice text; /* of last_clean.json */
    int64_t last_s;
    struct slice value; /* that is looked at */
    int64_t ends_s;
    bool valid;
};

/* --- who we are --- */

static bool is_uuid(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        char c = ascii_lower(s.ptr[i]);
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (dash ? c != '-' : !hex)
            return false;
    }
    return s.len == 36;
}

static struct slice make_uuid(struct arena *arena)
{
    unsigned char b[16] = {0};
    (void)!getrandom(b, sizeof b, 0);
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    return arena_printf(arena, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                        b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
                        b[12], b[13], b[14], b[15]);
}

/* Written down once, in the data folder: Caddy's file. */
static struct slice instance_id(struct arena *arena, struct slice folder)
{
    char text[64];
    struct slice path = arena_printf(arena, SLICE_FMT "/instance.uuid", SLICE_ARG(folder));
    const char *name = arena_str(arena, path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0)
        close(fd);
    if (n >= 36 && is_uuid(slice_trim(slice_of(text, (size_t)n))))
        return arena_copy(arena, slice_trim(slice_of(text, (size_t)n)));
    struct slice fresh = make_uuid(arena);
    fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fd_write_all(fd, fresh) != OK)
        LOG(LOG_WARN, "tls", "unable to get instance ID; storage clean stamps will be incomplete",
            LOG_CSTR("error", strerror(errno)));
    if (fd >= 0)
        close(fd);
    return fresh;
}

/* --- when it was done last --- */

static void read_last(void *arg)
{
    struct cleaning *c = arg;
    json_t *file = json_loadb(c->text.ptr, c->text.len, 0, NULL);
    const char *at = json_string_value(json_object_get(json_object_get(file, "tls"), "timestamp"));
    c->last_s = 0;
    if (at != NULL && !timestamp_read(slice_from(at), &c->last_s))
        c->last_s = 0;
    json_decref(file);
}

static void write_last(void *arg)
{
    struct cleaning *c = arg;
    struct slice now = timestamp_text_ns(&c->arena, clock_wall_ns());
    json_t *file = json_loadb(c->text.ptr != NULL ? c->text.ptr : "", c->text.len, 0, NULL);
    if (!json_is_object(file)) {
        json_decref(file);
        file = json_object();
    }
    json_object_set_new(file, "tls",
                        json_pack("{s:s%,s:s%}", "timestamp", now.ptr, now.len, "instance_id",
                                  c->instance.ptr, c->instance.len));
    char *dump = json_dumps(file, JSON_COMPACT);
    c->text = arena_copy(&c->arena, slice_from(dump));
    free(dump);
    json_decref(file);
}

static bool is_time(struct cleaning *c)
{
    struct storage *s = c->storage;
    if (s->type->load(s, SLICE("last_clean.json"), &c->arena, &c->text, &c->why) != OK)
        return true;
    on_large_stack(read_last, c);
    if (c->last_s == 0 || cert_now_s() - c->last_s >= c->interval_s)
        return true;
    LOG(LOG_INFO, "tls", "storage cleaning happened too recently; skipping for now",
        LOG_STR("storage", s->root), LOG_DUR("try_again_in", c->interval_s * (int64_t)NS_PER_S));
    return false;
}

/* --- what goes --- */

static void read_staple(void *arg)
{
    struct ocsp_facts f;
    struct cleaning *c = arg;
    c->valid = ocsp_read_any(c->value, &f) == OK;
    c->ends_s = c->valid ? f.next_update_s : 0;
}

static void read_certificate(void *arg)
{
    char why[256];
    struct certificate_facts f;
    struct cleaning *c = arg;
    c->valid = certificate_read(c->value, &c->item, &f, why, sizeof why) == OK;
    c->ends_s = c->valid ? f.not_after_s + 1 : 0;
}

static void drop(struct cleaning *c, struct slice key, const char *text)
{
    if (c->storage->type->remove(c->storage, key, &c->why) != OK)
        LOG(LOG_ERROR, "tls", "cleaning storage", LOG_CSTR("doing", text), LOG_STR("storage_key", key),
            LOG_CSTR("error", c->why.text));
}

static void clean_staples(struct cleaning *c)
{
    struct slice *keys;
    size_t n = 0;
    struct storage *s = c->storage;
    if (s->type->list(s, SLICE("ocsp"), false, &c->arena, &keys, &n, &c->why) != OK)
        return;
    for (size_t i = 0; i < n && !manager.stopping; i++) {
        arena_reset(&c->item);
        if (s->type->load(s, keys[i], &c->item, &c->value, &c->why) != OK)
            continue;
        on_large_stack(read_staple, c);
        if (!c->valid)
            drop(c, keys[i], "purging corrupt staple file");
        else if (cert_now_s() > c->ends_s)
            drop(c, keys[i], "purging expired staple file");
    }
}

static void clean_certificate(struct cleaning *c, struct slice key)
{
    static const char *const endings[] = {".crt", ".key", ".json"};
    struct storage *s = c->storage;
    if (s->type->load(s, key, &c->item, &c->value, &c->why) != OK)
        return;
    on_large_stack(read_certificate, c);
    int64_t over = cert_now_s() - c->ends_s;
    if (!c->valid || over < GRACE_S)
        return;
    LOG(LOG_INFO, "tls", "certificate expired beyond grace period; cleaning up",
        LOG_STR("asset_key", key), LOG_DUR("expired_for", over * (int64_t)NS_PER_S),
        LOG_DUR("grace_period", GRACE_S * (int64_t)NS_PER_S));
    struct slice base = slice_take(key, key.len - 4);
    for (size_t i = 0; i < 3; i++) {
        struct slice asset = arena_printf(&c->item, SLICE_FMT "%s", SLICE_ARG(base), endings[i]);
        LOG(LOG_INFO, "tls", "deleting asset because resource expired", LOG_STR("asset_key", asset));
        drop(c, asset, "deleting expired asset");
    }
}

struct unlocking {
    struct storage *storage;
    struct slice lock;
    struct storage_why why;
};

/* From the loop's stack: a cancelled fiber could not wait for it. */
static void unlock(void *arg)
{
    struct unlocking *u = arg;
    (void)!u->storage->type->unlock(u->storage, u->lock, &u->why);
}

/* Under the name's lock: who obtains a certificate makes the folder before what is in it. */
static void remove_empty(struct cleaning *c, struct slice site)
{
    struct slice *keys;
    size_t n = 0;
    struct storage *s = c->storage;
    struct slice name = slice_skip(site, slice_find_last(site, '/') + 1);
    struct unlocking u = {.storage = s};
    u.lock = arena_printf(&c->item, "issue_cert_" SLICE_FMT, SLICE_ARG(name));
    if (s->type->lock(s, u.lock, clock_mono_ns(), &c->why) != OK)
        return;
    if (s->type->list(s, site, false, &c->item, &keys, &n, &c->why) == OK && n == 0) {
        LOG(LOG_INFO, "tls", "deleting site folder because key is empty", LOG_STR("site_key", site));
        drop(c, site, "deleting empty site folder");
    }
    await_on_loop(unlock, &u);
}

static void clean_site(struct cleaning *c, struct slice site)
{
    struct slice *keys;
    size_t n = 0;
    struct storage *s = c->storage;
    arena_reset(&c->item);
    if (s->type->list(s, site, false, &c->item, &keys, &n, &c->why) != OK)
        return;
    for (size_t i = 0; i < n; i++) {
        if (slice_ends(keys[i], SLICE(".crt")))
            clean_certificate(c, keys[i]);
    }
    if (s->type->list(s, site, false, &c->item, &keys, &n, &c->why) == OK && n == 0)
        remove_empty(c, site);
}

static void clean_certificates(struct cleaning *c)
{
    struct slice *issuers, *sites;
    size_t issuers_count = 0, sites_count = 0;
    struct storage *s = c->storage;
    if (s->type->list(s, SLICE("certificates"), false, &c->arena, &issuers, &issuers_count,
                      &c->why) != OK)
        return;
    for (size_t i = 0; i < issuers_count; i++) {
        if (s->type->list(s, issuers[i], false, &c->arena, &sites, &sites_count, &c->why) != OK)
            continue;
        for (size_t n = 0; n < sites_count && !manager.stopping; n++)
            clean_site(c, sites[n]);
    }
}

/* --- one storage, all of them --- */

static void clean_storage(struct storage *s, const struct automation *a)
{
    struct unlocking u = {.storage = s, .lock = SLICE("storage_clean")};
    struct cleaning c = {.storage = s,
                         .interval_s = (int64_t)(a->clean_interval_ns / NS_PER_S)};
    arena_init(&c.arena, 16384);
    arena_init(&c.item, 16384);
    c.instance = instance_id(&c.arena, a->data_folder);
    enum err e = s->type->lock(s, SLICE("storage_clean"), clock_mono_ns() + CLEAN_LOCK_NS, &c.why);
    bool held = e == OK;
    if (held && is_time(&c)) {
        LOG(LOG_INFO, "tls", "cleaning storage unit", LOG_STR("storage", s->root));
        clean_staples(&c);
        clean_certificates(&c);
        leftovers_tidy(s, &c.arena);
        on_large_stack(write_last, &c);
        e = s->type->store(s, SLICE("last_clean.json"), c.text, &c.why);
    }
    if (e != OK && e != ERR_CANCELLED)
        LOG(LOG_ERROR, "tls", "could not clean storage", LOG_STR("storage", s->root),
            LOG_CSTR("error", c.why.text));
    if (held)
        await_on_loop(unlock, &u);
    arena_deinit(&c.item);
    arena_deinit(&c.arena);
}

static void clean_all(void *arg)
{
    struct pin *pin = pin_hold();
    (void)arg;
    if (pin != NULL) {
        const struct automation *a = pin->automation;
        clean_storage(a->storage, a);
        for (size_t i = 0; i < a->policies_count && !manager.stopping; i++) {
            if (a->policies[i]->own_storage && a->policies[i]->storage != a->storage)
                clean_storage(a->policies[i]->storage, a);
        }
        clean.cleaned_s = manager.stopping ? 0 : cert_now_s();
        LOG(LOG_INFO, "tls", "finished cleaning storage units");
    }
    pin_release(pin);
    clean.cleaning = false;
}

static void begin(void)
{
    const struct automation *a = manager.pin->automation;
    int64_t interval_s = (int64_t)(a->clean_interval_ns / NS_PER_S);
    if (clean.cleaning || (clean.cleaned_s != 0 && cert_now_s() - clean.cleaned_s < interval_s / 2))
        return;
    clean.cleaning = true;
    manager_run(clean_all, NULL);
}

static void on_clean(struct timer *t)
{
    if (manager.pin == NULL || manager.pin->automation->no_storage_clean)
        return;
    begin();
    timer_start(manager.loop, t, clock_mono_ns() + manager.pin->automation->clean_interval_ns);
}

void clean_start(void)
{
    if (!clean.begun) {
        timer_init(&manager.clean_timer, on_clean);
        clean.begun = true;
    }
    timer_stop(&manager.clean_timer);
    on_clean(&manager.clean_timer);
}

void clean_stop(void)
{
    if (clean.begun)
        timer_stop(&manager.clean_timer);
    clean.cleaned_s = 0;
}
