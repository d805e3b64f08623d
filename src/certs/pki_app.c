/* SPDX-License-Identifier: Apache-2.0 */
/*
 * {"certificate_authorities": {"local": {"name": …, "root_common_name": …,
 *      "intermediate_common_name": …, "intermediate_lifetime": …, "install_trust": true,
 *      "root": {"certificate": FILE, "private_key": FILE, "format": "pem_file"},
 *      "intermediate": {…}, "maintenance_interval": "10m", "renewal_window_ratio": 0.2,
 *      "storage": {…}}}}
 *
 * Each configuration has authority objects of its own, read from the storage; what one of them renews
 * the next one reads. Those of the configuration that runs are looked after by a timer each, whose
 * work is a fiber: it installs trust once, then renews.
 */
#include "certs/pki_app.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/automation.h"
#include "certs/root_trust.h"
#include "http/template.h"
#include "loop/await.h"

#define INTERVAL_MIN_NS (NS_PER_S / 10)

enum { AUTHORITIES_MAX = 1000 };

struct entry {
    struct authority *authority;
    bool install_trust;
};

struct pki {
    struct storage *storage;
    bool configured;
    struct entry *entries;
    size_t count, room;
};

/* One authority of the configuration that runs. */
struct keeping {
    struct keeping *next;
    struct authority *authority;
    bool install_trust, began;
    bool ending, busy; /* freed when it is ending and not busy */
    struct root_trust trust;
    struct timer timer;
};

static struct {
    struct keeping *all;
    struct keeping *last_ones; /* ending, but busy: their fibers free them */
    struct storage *storage;   /* borrowed: the process keeps it open */
} running;

static const char *const app_members[] = {"certificate_authorities", NULL};
static const char *const authority_members[] = {
    "name", "root_common_name", "intermediate_common_name", "intermediate_lifetime", "install_trust",
    "root", "intermediate", "maintenance_interval", "renewal_window_ratio", "storage", NULL};

/* --- names --- */

struct slice pki_expand(struct slice text, struct slice authority_name, struct arena *arena)
{
    static const struct slice mark = {"{pki.ca.name}", 13};
    struct slice parts[32], rest = text;
    size_t count = 0;
    while (count + 2 < sizeof parts / sizeof parts[0]) {
        size_t at = slice_find_slice(rest, mark);
        if (at == SIZE_MAX)
            break;
        parts[count++] = template_expand_now(slice_take(rest, at), arena);
        parts[count++] = authority_name;
        rest = slice_skip(rest, at + mark.len);
    }
    parts[count++] = template_expand_now(rest, arena);
    return arena_join(arena, parts, count);
}

/* --- reading --- */

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

static enum err read_pair(struct provision *p, const json_t *json, const char *key,
                          struct authority_files *files)
{
    static const char *const known[] = {"certificate", "private_key", "format", NULL};
    struct slice format, path = p->path;
    const json_t *pair = member(json, key);
    *files = (struct authority_files){SLICE_NONE, SLICE_NONE};
    if (pair == NULL)
        return OK;
    p->path = arena_printf(p->arena, SLICE_FMT ".%s", SLICE_ARG(path), key);
    TRY(provision_members(p, pair, known));
    TRY(provision_text(p, pair, "certificate", SLICE_NONE, &files->certificate));
    TRY(provision_text(p, pair, "private_key", SLICE_NONE, &files->private_key));
    TRY(provision_text(p, pair, "format", SLICE_NONE, &format));
    if (format.len > 0 && !slice_is(format, "pem_file"))
        return provision_fail(p, "unsupported format: " SLICE_FMT, SLICE_ARG(format));
    if (files->certificate.len == 0)
        return provision_fail(p, "\"certificate\" is missing: the path of a PEM file");
    p->path = path;
    return OK;
}

static enum err read_ratio(struct provision *p, const json_t *json, double *ratio)
{
    const json_t *v = member(json, "renewal_window_ratio");
    *ratio = AUTHORITY_DEFAULT_RATIO;
    if (v == NULL)
        return OK;
    if (!json_is_number(v))
        return provision_fail(p, "\"renewal_window_ratio\" must be a number from 0 to 1");
    if (json_number_value(v) > 0 && json_number_value(v) <= 1)
        *ratio = json_number_value(v);
    return OK;
}

static enum err read_name(struct provision *p, const json_t *json, const char *key, const char *fallback,
                          struct slice *out)
{
    TRY(provision_text(p, json, key, SLICE_NONE, out));
    if (out->len == 0)
        *out = slice_from(fallback);
    return OK;
}

static enum err read_time(struct provision *p, const json_t *json, const char *key, int64_t fallback,
                          int64_t *out)
{
    TRY(provision_duration(p, json, key, 0, out));
    if (*out == 0)
        *out = fallback;
    return *out > 0 ? OK : provision_fail(p, "\"%s\" must be positive", key);
}

static enum err read_options(struct provision *p, const json_t *json, struct authority_options *o,
                             bool *install_trust)
{
    TRY(provision_members(p, json, authority_members));
    TRY(read_name(p, json, "name", AUTHORITY_DEFAULT_NAME, &o->name));
    TRY(read_name(p, json, "root_common_name", AUTHORITY_DEFAULT_ROOT_NAME, &o->root_common_name));
    TRY(read_name(p, json, "intermediate_common_name", AUTHORITY_DEFAULT_INTERMEDIATE_NAME,
                  &o->intermediate_common_name));
    TRY(read_time(p, json, "intermediate_lifetime", AUTHORITY_DEFAULT_LIFETIME_NS,
                  &o->intermediate_lifetime_ns));
    if (o->intermediate_lifetime_ns < (int64_t)NS_PER_S)
        return provision_fail(p, "\"intermediate_lifetime\" must be a second at least");
    TRY(read_time(p, json, "maintenance_interval", AUTHORITY_DEFAULT_INTERVAL_NS,
                  &o->maintenance_interval_ns));
    TRY(read_ratio(p, json, &o->renewal_ratio));
    TRY(provision_bool(p, json, "install_trust", true, install_trust));
    TRY(read_pair(p, json, "root", &o->root));
    TRY(read_pair(p, json, "intermediate", &o->intermediate));
    const json_t *own = member(json, "storage");
    if (own != NULL) {
        struct slice path = p->path;
        p->path = arena_printf(p->arena, SLICE_FMT ".storage", SLICE_ARG(path));
        TRY(automation_storage(p, own, p->data_folder, &o->storage));
        p->path = path;
    }
    return OK;
}

static void set_defaults(struct authority_options *o, struct slice id, struct storage *storage)
{
    *o = (struct authority_options){
        .id = id, .name = SLICE(AUTHORITY_DEFAULT_NAME),
        .root_common_name = SLICE(AUTHORITY_DEFAULT_ROOT_NAME),
        .intermediate_common_name = SLICE(AUTHORITY_DEFAULT_INTERMEDIATE_NAME),
        .intermediate_lifetime_ns = AUTHORITY_DEFAULT_LIFETIME_NS,
        .maintenance_interval_ns = AUTHORITY_DEFAULT_INTERVAL_NS,
        .renewal_ratio = AUTHORITY_DEFAULT_RATIO, .storage = storage, .expand = pki_expand};
}

static struct authority *find(const struct pki *pki, struct slice id)
{
    for (size_t i = 0; i < pki->count; i++) {
        if (slice_eq(authority_options(pki->entries[i].authority)->id, id))
            return pki->entries[i].authority;
    }
    return NULL;
}

static enum err add(struct provision *p, const struct authority_options *o, bool install_trust,
                    struct authority **out)
{
    struct pki *pki = p->pki;
    struct storage_why why = {""};
    if (pki->count == AUTHORITIES_MAX)
        return provision_fail(p, "more than %d authorities", AUTHORITIES_MAX);
    if (authority_open(o, out, &why) != OK)
        return provision_fail(p, "%s", why.text);
    if (pki->count == pki->room) {
        pki->room = pki->room > 0 ? pki->room * 2 : 4;
        pki->entries = mem_resize(pki->entries, pki->room, sizeof *pki->entries);
    }
    pki->entries[pki->count++] = (struct entry){*out, install_trust};
    return OK;
}

static enum err read_authority(struct provision *p, struct slice id, const json_t *json)
{
    struct authority_options o;
    struct authority *a;
    bool install_trust = true;
    p->path = arena_printf(p->arena, "apps.pki.certificate_authorities." SLICE_FMT, SLICE_ARG(id));
    if (id.len == 0)
        return provision_fail(p, "CA ID is required (use 'local' for the default CA)");
    set_defaults(&o, id, p->storage);
    if (json != NULL && !json_is_null(json))
        TRY(read_options(p, json, &o, &install_trust));
    return add(p, &o, install_trust, &a);
}

static void release(void *arg)
{
    struct pki *pki = arg;
    for (size_t i = 0; i < pki->count; i++)
        authority_unref(pki->entries[i].authority);
    mem_free(pki->entries);
}

enum err pki_provision(struct provision *p, const json_t *app)
{
    const char *id;
    json_t *one;
    p->pki = ARENA_NEW(p->arena, struct pki);
    p->pki->storage = p->storage;
    provision_on_release(p, release, p->pki);
    if (app == NULL || json_is_null(app))
        return OK;
    p->pki->configured = true;
    p->path = SLICE("apps.pki");
    TRY(provision_members(p, app, app_members));
    json_t *all = json_object_get(app, "certificate_authorities");
    if (all != NULL && !json_is_null(all) && !json_is_object(all))
        return provision_fail(p, "\"certificate_authorities\" must be an object");
    json_object_foreach(all, id, one)
        TRY(read_authority(p, slice_from(id), one));
    return p->pki->count > 0 ? OK : read_authority(p, SLICE(AUTHORITY_DEFAULT_ID), NULL);
}

bool pki_configured(const struct provision *p)
{
    return p->pki != NULL && p->pki->configured;
}

enum err pki_authority(struct provision *p, struct slice id, struct authority **out)
{
    struct authority_options o;
    if (p->pki == NULL)
        return provision_fail(p, "there is no storage for certificate authorities");
    *out = find(p->pki, id);
    if (*out != NULL)
        return OK;
    if (!slice_is(id, AUTHORITY_DEFAULT_ID))
        return provision_fail(p, "no certificate authority configured with id: " SLICE_FMT,
                              SLICE_ARG(slice_take(id, 200)));
    set_defaults(&o, id, p->pki->storage);
    return add(p, &o, true, out);
}

/* --- running --- */

static void renew(struct keeping *k)
{
    struct storage_why why;
    bool renewed;
    struct slice id = authority_options(k->authority)->id;
    if (authority_root_ends_soon(k->authority))
        LOG(LOG_WARN, "pki", "root certificate expiring soon: make another one and have it trusted "
            "(remove it from the storage, restart, run the command trust)", LOG_STR("ca", id));
    if (authority_maintain(k->authority, &renewed, &why) != OK)
        LOG(LOG_ERROR, "pki", "renewing intermediate certificates", LOG_CSTR("error", why.text),
            LOG_STR("ca", id));
    else if (renewed)
        LOG(LOG_INFO, "pki", "renewed intermediate", LOG_STR("ca", id),
            ((struct log_field){.key = LOG_KEY("new_expiration"), .kind = LOG_TIME,
                                .number = authority_intermediate_ends_s(k->authority) *
                                          (int64_t)NS_PER_S}));
}

static void finish(struct keeping *k)
{
    root_trust_deinit(&k->trust);
    authority_unref(k->authority);
    mem_free(k);
}

static void finish_late(struct keeping *k)
{
    struct keeping **at = &running.last_ones;
    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
    finish(k);
}

static void keep(void *arg)
{
    struct keeping *k = arg;
    if (!k->began)
        root_trust_begin(&k->trust, k->authority, k->install_trust);
    k->began = true;
    renew(k);
    k->busy = false;
    if (k->ending)
        finish_late(k);
}

static void on_time(struct timer *t)
{
    struct keeping *k = CONTAINER_OF(t, struct keeping, timer);
    uint64_t interval_ns = (uint64_t)authority_options(k->authority)->maintenance_interval_ns;
    if (interval_ns < INTERVAL_MIN_NS)
        interval_ns = INTERVAL_MIN_NS;
    timer_start(loop_self(), &k->timer, loop_now_ns(loop_self()) + interval_ns);
    if (k->busy)
        return;
    k->busy = true;
    if (fiber_start(loop_self(), keep, k) != OK)
        k->busy = false; /* next time */
}

static void begin(struct authority *a, bool install_trust)
{
    struct keeping *k = NEW(struct keeping);
    k->authority = authority_ref(a);
    k->install_trust = install_trust;
    k->next = running.all;
    running.all = k;
    timer_init(&k->timer, on_time);
    timer_start(loop_self(), &k->timer, loop_now_ns(loop_self()));
}

void pki_stop(void)
{
    while (running.all != NULL) {
        struct keeping *k = running.all;
        running.all = k->next;
        timer_stop(&k->timer);
        k->ending = true;
        if (!k->busy) {
            finish(k);
            continue;
        }
        k->next = running.last_ones;
        running.last_ones = k;
    }
}

void pki_start(struct pki *pki)
{
    pki_stop();
    running.storage = pki != NULL ? pki->storage : NULL;
    for (size_t i = pki != NULL ? pki->count : 0; i-- > 0;)
        begin(pki->entries[i].authority, pki->entries[i].install_trust);
}

enum err pki_running(struct slice id, struct authority **out, struct storage_why *why)
{
    struct authority_options o;
    for (struct keeping *k = running.all; k != NULL; k = k->next) {
        if (slice_eq(authority_options(k->authority)->id, id)) {
            *out = authority_ref(k->authority);
            return OK;
        }
    }
    if (!slice_is(id, AUTHORITY_DEFAULT_ID) || running.storage == NULL)
        return storage_fail(why, ERR_NOT_FOUND, "no certificate authority configured with id: "
                            SLICE_FMT, SLICE_ARG(slice_take(id, 200)));
    set_defaults(&o, SLICE(AUTHORITY_DEFAULT_ID), running.storage);
    enum err e = authority_open(&o, out, why);
    return e == ERR_NOT_FOUND ? ERR_IO : e;
}
