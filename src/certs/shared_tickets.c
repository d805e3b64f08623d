/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys stand in the storage with the time of the next rotation, in Caddy's form and under its
 * lock. Whoever comes first after that time puts a new key in front; the others read it. A look at
 * least every hour makes good for clocks that were set.
 *
 * What Caddy seals in its tickets only Caddy can read, so an instance of each kind in one fleet does
 * not go on with the other's sessions; but both kinds rotate the same file, each in peace.
 *
 * A storage that cannot be used costs no handshake: the process's own keys serve until it can.
 */
#include "certs/shared_tickets.h"

#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "certs/certs_modules.h"
#include "certs/manager_parts.h"
#include "tls/tls_server.h"

#define FILE_KEY SLICE("stek/stek.bin")
#define LOCK_NAME SLICE("stek_check")
#define LOCK_NS (5 * NS_PER_S)
#define LOOK_NS (3600 * NS_PER_S)
#define LOOK_MIN_NS (50 * NS_PER_MS)
#define RETRY_NS (10 * NS_PER_S)
#define ROTATION_NS (12 * 3600 * NS_PER_S)

enum { KEYS = 4 };

static struct {
    struct ticket_source source;
    struct timer timer;
    bool begun, looking, told; /* told: this source's keys are in use */
} sharing;

static enum err rotate(const struct ticket_source *s, struct stek_file *f, struct storage_why *why)
{
    unsigned char key[STEK_LEN];
    struct buffer b;
    if (getrandom(key, sizeof key, 0) != STEK_LEN)
        fatal("no random bytes for the keys of session tickets");
    stek_file_rotate(f, key, s->keys);
    explicit_bzero(key, sizeof key);
    f->last_ns = clock_wall_ns();
    f->next_ns = s->rotation_ns < (uint64_t)(INT64_MAX - f->last_ns)
                     ? f->last_ns + (int64_t)s->rotation_ns
                     : INT64_MAX;
    buffer_init(&b, STEK_FILE_MAX);
    stek_file_put(&b, f);
    enum err e = s->storage->type->store(s->storage, FILE_KEY, buffer_slice(&b), why);
    explicit_bzero(b.ptr, b.len);
    buffer_deinit(&b);
    return e;
}

static enum err read_keys(const struct ticket_source *s, struct stek_file *f, struct storage_why *why)
{
    struct arena arena;
    struct slice bytes = SLICE_NONE;
    arena_init(&arena, 8192);
    enum err e = s->storage->type->load(s->storage, FILE_KEY, &arena, &bytes, why);
    if (e == OK && stek_file_parse(bytes, f) != OK)
        e = storage_fail(why, ERR_INVALID, "stek/stek.bin holds no keys of session tickets");
    if (bytes.len > 0)
        explicit_bzero((void *)(uintptr_t)bytes.ptr, bytes.len);
    arena_deinit(&arena);
    return e;
}

static void unlock(void *storage)
{
    struct storage_why ignored;
    struct storage *s = storage;
    (void)!s->type->unlock(s, LOCK_NAME, &ignored);
}

static enum err look(const struct ticket_source *s, struct stek_file *f, struct storage_why *why)
{
    TRY(s->storage->type->lock(s->storage, LOCK_NAME, clock_mono_ns() + LOCK_NS, why));
    enum err e = read_keys(s, f, why);
    if (e == ERR_NOT_FOUND)
        f->count = 0;
    if (e == ERR_NOT_FOUND || (e == OK && (f->count == 0 || clock_wall_ns() > f->next_ns)))
        e = rotate(s, f, why);
    if (fiber_self() != NULL)
        await_on_loop(unlock, s->storage); /* a cancelled fiber could not wait for it */
    else
        unlock(s->storage);
    return e;
}

static bool is_current(const struct ticket_source *s)
{
    return s->storage == sharing.source.storage && s->keys == sharing.source.keys &&
           s->rotation_ns == sharing.source.rotation_ns;
}

static void look_in(uint64_t ns)
{
    timer_start(manager.loop, &sharing.timer, clock_mono_ns() + ns);
}

static void look_and_tell(void)
{
    struct ticket_source s = sharing.source;
    struct storage_why why = {""};
    struct stek_file f = {.count = 0};
    enum err e = look(&s, &f, &why);
    if (!is_current(&s) || manager.stopping) /* another configuration has come meanwhile */
        e = ERR_CANCELLED;
    if (e == OK) {
        int64_t left = f.next_ns - clock_wall_ns(); /* where nothing was read there is no time */
        tls_tickets_bring(&f);
        sharing.told = true;
        look_in(left < (int64_t)LOOK_MIN_NS ? LOOK_MIN_NS
                                            : left < (int64_t)LOOK_NS ? (uint64_t)left : LOOK_NS);
    } else if (e != ERR_CANCELLED) {
        LOG(LOG_ERROR, "tls.stek.distributed", "loading the keys of session tickets",
            LOG_CSTR("error", why.text[0] != '\0' ? why.text : err_text(e)));
        look_in(RETRY_NS);
    }
    explicit_bzero(&f, sizeof f);
}

static void look_again(void *arg)
{
    struct pin *pin = pin_hold();
    (void)arg;
    if (sharing.source.storage != NULL)
        look_and_tell();
    sharing.looking = false;
    pin_release(pin);
}

static void on_due(struct timer *t)
{
    (void)t;
    if (sharing.looking) { /* for the configuration before */
        look_in(LOOK_MIN_NS);
        return;
    }
    sharing.looking = true;
    manager_run(look_again, NULL);
}

void shared_tickets_adopt(const struct ticket_source *s)
{
    struct ticket_source next = *s;
    next.keys = s->keys > 0 ? s->keys : KEYS;
    next.rotation_ns = s->rotation_ns > 0 ? s->rotation_ns : ROTATION_NS;
    if (sharing.told && is_current(&next))
        return;
    if (!sharing.begun)
        timer_init(&sharing.timer, on_due);
    sharing.begun = true;
    sharing.told = false;
    timer_stop(&sharing.timer);
    sharing.source = next;
    if (next.storage == NULL)
        return;
    if (sharing.looking) /* it has the lock, and goes on only when this thread does not block */
        look_in(LOOK_MIN_NS);
    else
        look_and_tell();
}

void shared_tickets_stop(void)
{
    if (sharing.begun)
        timer_stop(&sharing.timer);
    sharing.source.storage = NULL;
}

/* --- the modules --- */

static enum err provision_standard(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"provider", NULL};
    (void)cfg;
    return provision_members(p, json, known);
}

static enum err provision_distributed(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"provider", "storage", NULL};
    struct storage **storage = cfg;
    TRY(provision_members(p, json, known));
    const json_t *own = json_object_get(json, "storage");
    *storage = p->storage;
    return own != NULL && !json_is_null(own)
               ? automation_storage(p, own, p->storage->root, storage)
               : OK;
}

const struct module stek_standard = {.id = "tls.stek.standard",
                                     .cfg_size = sizeof(struct storage *),
                                     .provision = provision_standard};
const struct module stek_distributed = {.id = "tls.stek.distributed",
                                        .cfg_size = sizeof(struct storage *),
                                        .provision = provision_distributed};
