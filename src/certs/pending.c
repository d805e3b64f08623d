/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each part is a value of its own, so each is whole or not there; the last one written says that
 * those before it are there, too.
 */
#include "certs/pending.h"

static struct slice part(struct arena *arena, struct slice name, const char *what)
{
    struct slice safe = storage_safe(arena, name);
    return arena_printf(arena, "pending/" SLICE_FMT "/%s", SLICE_ARG(safe), what);
}

static bool load(struct storage *s, struct slice name, const char *what, struct arena *arena,
                 struct slice *out)
{
    struct storage_why ignored;
    bool ok = s->type->load(s, part(arena, name, what), arena, out, &ignored) == OK;
    if (!ok)
        *out = SLICE_NONE;
    return ok;
}

static enum err store(struct storage *s, struct slice name, const char *what, struct slice value,
                      struct storage_why *why)
{
    struct arena arena;
    arena_init(&arena, 1024);
    enum err e = s->type->store(s, part(&arena, name, what), value, why);
    arena_deinit(&arena);
    return e;
}

void pending_load(struct storage *s, struct slice name, struct arena *arena, struct pending *p)
{
    *p = (struct pending){.key_pem = SLICE_NONE};
    if (!load(s, name, "request.der", arena, &p->csr_der) ||
        !load(s, name, "key.pem", arena, &p->key_pem) || !load(s, name, "kind", arena, &p->kind)) {
        p->csr_der = SLICE_NONE;
        return;
    }
    if (load(s, name, "order", arena, &p->noted))
        slice_cut(p->noted, '\n', &p->noted_for, &p->noted);
    if (!load(s, name, "issuer", arena, &p->issued.issuer_key) ||
        !load(s, name, "data.json", arena, &p->issued.issuer_data) ||
        !load(s, name, "chain.pem", arena, &p->issued.chain_pem))
        p->issued.chain_pem = SLICE_NONE;
    p->issued.key_pem = p->key_pem;
}

enum err pending_begin(struct storage *s, struct slice name, const struct pending *p,
                       struct storage_why *why)
{
    TRY(store(s, name, "kind", p->kind, why));
    TRY(store(s, name, "key.pem", p->key_pem, why));
    return store(s, name, "request.der", p->csr_der, why);
}

enum err pending_issued(struct storage *s, struct slice name, const struct asset *a,
                        struct storage_why *why)
{
    TRY(store(s, name, "chain.pem", a->chain_pem, why));
    TRY(store(s, name, "data.json", a->issuer_data, why));
    return store(s, name, "issuer", a->issuer_key, why);
}

void pending_note(struct storage *s, struct slice name, struct slice issuer_key, struct slice where)
{
    struct arena arena;
    struct storage_why ignored;
    arena_init(&arena, 1024);
    struct slice text = arena_printf(&arena, SLICE_FMT "\n" SLICE_FMT, SLICE_ARG(issuer_key),
                                     SLICE_ARG(where));
    (void)!store(s, name, "order", text, &ignored);
    arena_deinit(&arena);
}

void pending_end(struct storage *s, struct slice name)
{
    struct arena arena;
    struct storage_why ignored;
    arena_init(&arena, 1024);
    (void)!s->type->remove(s, part(&arena, name, "request.der"), &ignored); /* without it: nothing */
    struct slice safe = storage_safe(&arena, name);
    (void)!s->type->remove(s, arena_printf(&arena, "pending/" SLICE_FMT, SLICE_ARG(safe)), &ignored);
    arena_deinit(&arena);
}
