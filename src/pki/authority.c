/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an authority is stands in the storage, under pki/authorities/ID: root.crt, root.key,
 * intermediate.crt, intermediate.key. Reading it needs no lock; what is missing is made under one,
 * after a second look, so that two instances that start together make one authority. A key is stored
 * before its certificate: who is killed between the two leaves a key that nobody has seen, and the pair
 * is made anew. An intermediate whose key does not fit (it was killed while renewing), that another
 * root signed or that is due is made anew, too; a root never is when there is one: people trust it.
 *
 * Everything that waits is one blocking job, from the lock to its end: on a fiber it runs elsewhere
 * (storage_blocking), so that a caller who blocks on the same thread never waits for a fiber that
 * cannot go on. The root's key is read when it is needed and forgotten again, which lets it be taken
 * off the machine; until the intermediate is due, nobody misses it.
 */
#include "pki/authority.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/pem.h"
#include "pki/file_storage.h"
#include "pki/minting.h"

#define LOCK_WAIT_NS (60 * NS_PER_S)

enum {
    ROOT_LIFETIME_S = 3600 * 24 * 30 * 12 * 10, /* Caddy's ten years */
    ROOT_DEPTH = 1,
    INTERMEDIATE_DEPTH = 0,
    CHAIN_MAX = 256 << 10,
};

struct signers {
    X509 *root, *intermediate;
    EVP_PKEY *intermediate_key;
    struct buffer root_pem, chain_pem;
};

struct authority {
    unsigned refs;
    bool renewing;
    struct arena arena;
    struct authority_options options;
    struct signers now;
};

struct reading {
    const struct authority_options *options;
    struct storage_why *why;
    struct arena arena; /* of the job */
    struct signers got;
    EVP_PKEY *root_key;
    bool no_root, no_intermediate;
    bool locked; /* the second look */
    bool opening;
    enum err result;
};

/* --- small things --- */

static int64_t now_s(void)
{
    return clock_wall_ns() / (int64_t)NS_PER_S;
}

static bool is_due(const struct authority_options *o, const X509 *x)
{
    int64_t from, to;
    return !certificate_validity(x, &from, &to) ||
           (double)(to - now_s()) <= (double)(to - from) * o->renewal_ratio;
}

static bool is_over(const X509 *x)
{
    int64_t from, to;
    return !certificate_validity(x, &from, &to) || now_s() >= to;
}

static void signers_init(struct signers *s)
{
    *s = (struct signers){0};
    buffer_init(&s->root_pem, CHAIN_MAX);
    buffer_init(&s->chain_pem, CHAIN_MAX);
}

static void signers_deinit(struct signers *s)
{
    certificate_free(s->root);
    certificate_free(s->intermediate);
    key_free(s->intermediate_key);
    buffer_deinit(&s->root_pem);
    buffer_deinit(&s->chain_pem);
}

static struct slice key_of(const struct authority_options *o, struct arena *arena, const char *file)
{
    return arena_printf(arena, "pki/authorities/" SLICE_FMT "/%s",
                        SLICE_ARG(storage_safe(arena, o->id)), file);
}

/* --- reading --- */

static enum err read_file(struct reading *r, struct slice path, struct slice *text)
{
    char name[STORAGE_PATH_MAX];
    struct stat st;
    if (path.len >= sizeof name)
        return storage_fail(r->why, ERR_INVALID, "a path is too long");
    memcpy(name, path.ptr, path.len);
    name[path.len] = '\0';
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return storage_fail_errno(r->why, errno, "opening", name);
    bool plain = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size < PEM_MAX;
    size_t cap = plain ? (size_t)st.st_size : 0;
    char *bytes = arena_alloc(&r->arena, cap + 1);
    ssize_t n = read(fd, bytes, cap);
    close(fd);
    if (n <= 0)
        return storage_fail(r->why, ERR_INVALID, "%s: empty, or no file with a certificate", name);
    *text = slice_of(bytes, (size_t)n);
    return OK;
}

static enum err read_value(struct reading *r, const char *file, struct slice *text)
{
    struct storage *s = r->options->storage;
    return s->type->load(s, key_of(r->options, &r->arena, file), &r->arena, text, r->why);
}

static enum err bad(struct reading *r, const char *what, const char *reason)
{
    return storage_fail(r->why, ERR_INVALID, "authority " SLICE_FMT ": %s: %s",
                        SLICE_ARG(slice_take(r->options->id, 100)), what, reason);
}

static enum err read_root(struct reading *r)
{
    char reason[200];
    struct slice text, given = r->options->root.certificate;
    enum err e = given.len > 0 ? read_file(r, given, &text) : read_value(r, "root.crt", &text);
    r->no_root = e == ERR_NOT_FOUND && given.len == 0;
    if (e != OK)
        return r->no_root ? OK : e;
    if (certificate_from_pem(text, &r->got.root, reason, sizeof reason) != OK)
        return bad(r, "the root's certificate", reason);
    return certificate_put_pem(&r->got.root_pem, r->got.root);
}

static enum err read_root_key(struct reading *r)
{
    char reason[200];
    struct slice text;
    const struct authority_files *given = &r->options->root;
    if (r->root_key != NULL)
        return OK;
    if (given->certificate.len > 0 && given->private_key.len == 0)
        return bad(r, "the root's private key", "none is configured, and it is needed to sign");
    TRY(given->certificate.len > 0 ? read_file(r, given->private_key, &text)
                                   : read_value(r, "root.key", &text));
    enum err e = key_from_pem(text, &r->root_key, reason, sizeof reason);
    explicit_bzero((char *)(uintptr_t)text.ptr, text.len);
    if (e != OK)
        return bad(r, "the root's private key", reason);
    if (!certificate_has_key(r->got.root, r->root_key))
        return bad(r, "the root's private key", "it is not the one of the root's certificate");
    return OK;
}

/* All certificates of a text, as PEM and nothing else. */
static enum err put_chain(struct buffer *out, struct slice text)
{
    struct pem_block block;
    while (pem_next(&text, &block)) {
        if (!slice_is(block.type, "CERTIFICATE"))
            continue;
        TRY(buffer_append(out, block.text));
        TRY(buffer_append_byte(out, '\n'));
    }
    return OK;
}

static enum err parse_intermediate(struct reading *r, struct slice certificate, struct slice key)
{
    char reason[200];
    if (certificate_from_pem(certificate, &r->got.intermediate, reason, sizeof reason) != OK)
        return bad(r, "the intermediate's certificate", reason);
    if (put_chain(&r->got.chain_pem, certificate) != OK)
        return bad(r, "the intermediate's certificate", "its chain is too long");
    enum err e = key_from_pem(key, &r->got.intermediate_key, reason, sizeof reason);
    explicit_bzero((char *)(uintptr_t)key.ptr, key.len);
    if (e != OK)
        return bad(r, "the intermediate's private key", reason);
    if (!certificate_has_key(r->got.intermediate, r->got.intermediate_key))
        return bad(r, "the intermediate's private key", "it is not the one of its certificate");
    return OK;
}

static enum err read_given_intermediate(struct reading *r)
{
    struct slice certificate, key;
    const struct authority_files *given = &r->options->intermediate;
    if (given->private_key.len == 0)
        return bad(r, "the intermediate's private key", "none is configured");
    TRY(read_file(r, given->certificate, &certificate));
    TRY(read_file(r, given->private_key, &key));
    return parse_intermediate(r, certificate, key);
}

static void forget_intermediate(struct reading *r)
{
    certificate_free(r->got.intermediate);
    key_free(r->got.intermediate_key);
    r->got.intermediate = NULL;
    r->got.intermediate_key = NULL;
    buffer_clear(&r->got.chain_pem);
    r->no_intermediate = true;
}

static enum err read_intermediate(struct reading *r)
{
    struct slice certificate, key;
    enum err e = read_value(r, "intermediate.crt", &certificate);
    if (e == OK)
        e = read_value(r, "intermediate.key", &key);
    r->no_intermediate = e == ERR_NOT_FOUND;
    if (e != OK)
        return r->no_intermediate ? OK : e;
    const char *wrong = NULL;
    if (parse_intermediate(r, certificate, key) != OK)
        wrong = r->why->text;
    else if (X509_verify(r->got.intermediate, X509_get0_pubkey(r->got.root)) != 1)
        wrong = "another root signed it";
    ERR_clear_error();
    if (wrong == NULL)
        return OK;
    if (r->locked)
        LOG(LOG_WARN, "pki", "the intermediate is made anew", LOG_STR("ca", r->options->id),
            LOG_CSTR("reason", wrong));
    forget_intermediate(r);
    return OK;
}

static enum err read_all(struct reading *r)
{
    TRY(read_root(r));
    if (r->options->intermediate.certificate.len > 0)
        return read_given_intermediate(r);
    if (!r->no_root)
        return read_intermediate(r);
    r->no_intermediate = true;
    return OK;
}

/* --- making --- */

static struct slice common_name(struct reading *r, struct slice text)
{
    const struct authority_options *o = r->options;
    return o->expand != NULL ? o->expand(text, o->name, &r->arena) : text;
}

static enum err store_pair(struct reading *r, const X509 *x, const EVP_PKEY *key,
                           const char *key_file, const char *certificate_file, struct buffer *pem)
{
    struct storage *s = r->options->storage;
    struct buffer key_pem;
    buffer_init(&key_pem, PEM_MAX);
    enum err e = key_put_pem(&key_pem, key);
    if (e == OK)
        e = certificate_put_pem(pem, x);
    if (e != OK)
        (void)storage_fail(r->why, e, "writing a key or a certificate as PEM failed");
    if (e == OK)
        e = s->type->store(s, key_of(r->options, &r->arena, key_file), buffer_slice(&key_pem),
                           r->why);
    if (e == OK)
        e = s->type->store(s, key_of(r->options, &r->arena, certificate_file), buffer_slice(pem),
                           r->why);
    key_wipe(&key_pem);
    return e;
}

static enum err make_root(struct reading *r)
{
    struct minting m = {.from_s = now_s(), .to_s = now_s() + ROOT_LIFETIME_S};
    if (mint_authority(&m, common_name(r, r->options->root_common_name), ROOT_DEPTH, &r->got.root,
                       &r->root_key) != OK)
        return bad(r, "making the root", "its common name must have from 1 to 64 characters");
    return store_pair(r, r->got.root, r->root_key, "root.key", "root.crt", &r->got.root_pem);
}

/* Of a root that ends before its intermediate would. */
static enum err check_lifetime(struct reading *r)
{
    int64_t from, to;
    if (!certificate_validity(r->got.root, &from, &to) ||
        now_s() + r->options->intermediate_lifetime_ns / (int64_t)NS_PER_S < to)
        return OK;
    return storage_fail(r->why, ERR_INVALID, "authority " SLICE_FMT ": the intermediate's lifetime must "
                        "be less than what is left of the root's (%lld hours)",
                        SLICE_ARG(slice_take(r->options->id, 100)),
                        (long long)(to > now_s() ? (to - now_s()) / 3600 : 0));
}

static enum err make_intermediate(struct reading *r)
{
    TRY(check_lifetime(r));
    TRY(read_root_key(r));
    struct minting m = {.issuer = r->got.root, .issuer_key = r->root_key, .from_s = now_s(),
                        .to_s = now_s() + r->options->intermediate_lifetime_ns / (int64_t)NS_PER_S};
    if (mint_authority(&m, common_name(r, r->options->intermediate_common_name),
                       INTERMEDIATE_DEPTH, &r->got.intermediate, &r->got.intermediate_key) != OK)
        return bad(r, "making the intermediate", "its common name must have from 1 to 64 characters");
    return store_pair(r, r->got.intermediate, r->got.intermediate_key, "intermediate.key",
                      "intermediate.crt", &r->got.chain_pem);
}

static enum err make_missing(struct reading *r)
{
    if (r->no_root)
        TRY(make_root(r));
    return r->no_intermediate ? make_intermediate(r) : OK;
}

/* Whether the intermediate that was read should be followed by a new one. */
static bool wants_new(const struct reading *r)
{
    return !r->no_intermediate && r->options->intermediate.certificate.len == 0 &&
           is_due(r->options, r->got.intermediate);
}

/* A renewal that fails costs nothing while the old one is good; a server starts even with one that is
 * over, for its other sites. */
static enum err go_on_with_old(const struct reading *r, enum err e)
{
    if (is_over(r->got.intermediate) && !r->opening)
        return e;
    LOG(LOG_ERROR, "pki", "renewing intermediate certificates", LOG_STR("ca", r->options->id),
        LOG_CSTR("error", r->why->text));
    return OK;
}

static enum err renew(struct reading *r)
{
    struct signers old = r->got;
    if (!wants_new(r))
        return OK;
    r->got.intermediate = NULL;
    r->got.intermediate_key = NULL;
    buffer_init(&r->got.chain_pem, CHAIN_MAX);
    enum err e = make_intermediate(r);
    struct signers *lost = e == OK ? &old : &r->got;
    certificate_free(lost->intermediate);
    key_free(lost->intermediate_key);
    buffer_deinit(&lost->chain_pem);
    if (e == OK)
        return OK;
    r->got.intermediate = old.intermediate;
    r->got.intermediate_key = old.intermediate_key;
    r->got.chain_pem = old.chain_pem;
    return go_on_with_old(r, e);
}

static void start_over(struct reading *r)
{
    signers_deinit(&r->got);
    signers_init(&r->got);
    r->no_root = r->no_intermediate = false;
}

static enum err read_or_make(struct reading *r)
{
    struct storage *s = r->options->storage;
    struct storage_why ignored;
    TRY(read_all(r));
    if (!r->no_root && !r->no_intermediate && !wants_new(r))
        return OK;
    struct slice lock = arena_printf(&r->arena, "pki_authority_" SLICE_FMT, SLICE_ARG(r->options->id));
    enum err e = s->type->lock(s, lock, clock_mono_ns() + LOCK_WAIT_NS, r->why);
    if (e != OK)
        return r->no_root || r->no_intermediate ? e : go_on_with_old(r, e);
    start_over(r);
    r->locked = true;
    e = read_all(r);
    if (e == OK)
        e = make_missing(r);
    if (e == OK)
        e = renew(r);
    (void)s->type->unlock(s, lock, &ignored);
    return e;
}

static void read_or_make_now(void *arg)
{
    struct reading *r = arg;
    arena_init(&r->arena, 4096);
    signers_init(&r->got);
    r->result = read_or_make(r);
    if (r->result != OK)
        signers_deinit(&r->got);
    key_free(r->root_key);
    arena_deinit(&r->arena);
}

/* --- opening and closing --- */

static void copy_options(struct authority *a, const struct authority_options *o)
{
    struct slice *copied[] = {&a->options.id, &a->options.name, &a->options.root_common_name,
                              &a->options.intermediate_common_name, &a->options.root.certificate,
                              &a->options.root.private_key, &a->options.intermediate.certificate,
                              &a->options.intermediate.private_key};
    a->options = *o;
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        *copied[i] = arena_copy(&a->arena, *copied[i]);
}

enum err authority_open(const struct authority_options *o, struct authority **out,
                        struct storage_why *why)
{
    struct authority *a = NEW(struct authority);
    struct reading r = {.why = why, .opening = true};
    *out = NULL;
    a->refs = 1;
    arena_init(&a->arena, 1024);
    copy_options(a, o);
    signers_init(&a->now);
    r.options = &a->options;
    enum err e = storage_blocking(read_or_make_now, &r, why);
    if (e == OK)
        e = r.result;
    if (e != OK) {
        authority_unref(a);
        return e;
    }
    a->now = r.got;
    *out = a;
    return OK;
}

struct authority *authority_ref(struct authority *a)
{
    a->refs++;
    return a;
}

void authority_unref(struct authority *a)
{
    if (a == NULL || --a->refs > 0)
        return;
    signers_deinit(&a->now);
    arena_deinit(&a->arena);
    mem_free(a);
}

const struct authority_options *authority_options(const struct authority *a)
{
    return &a->options;
}

struct slice authority_root_path(const struct authority *a, struct arena *arena)
{
    const struct authority_options *o = &a->options;
    struct slice key = key_of(o, arena, "root.crt");
    if (o->root.certificate.len > 0)
        return arena_copy(arena, o->root.certificate);
    if (o->storage->root.len == 0)
        return arena_printf(arena, "storage:" SLICE_FMT, SLICE_ARG(key));
    return arena_printf(arena, SLICE_FMT "/" SLICE_FMT, SLICE_ARG(o->storage->root), SLICE_ARG(key));
}

struct slice authority_root_pem(const struct authority *a)
{
    return buffer_slice(&a->now.root_pem);
}

struct slice authority_chain_pem(const struct authority *a)
{
    return buffer_slice(&a->now.chain_pem);
}

int64_t authority_intermediate_ends_s(const struct authority *a)
{
    int64_t from, to = 0;
    return certificate_validity(a->now.intermediate, &from, &to) ? to : 0;
}

bool authority_root_ends_soon(const struct authority *a)
{
    return is_due(&a->options, a->now.root);
}

/* --- renewing --- */

enum err authority_maintain(struct authority *a, bool *renewed, struct storage_why *why)
{
    struct reading r = {.options = &a->options, .why = why};
    *renewed = false;
    if (a->renewing || a->options.intermediate.certificate.len > 0 ||
        !is_due(&a->options, a->now.intermediate))
        return OK;
    a->renewing = true; /* one at a time: who comes meanwhile uses the old one */
    authority_ref(a);
    enum err e = storage_blocking(read_or_make_now, &r, why);
    if (e == OK)
        e = r.result;
    a->renewing = false;
    if (e == OK) {
        *renewed = X509_cmp(r.got.intermediate, a->now.intermediate) != 0;
        signers_deinit(&a->now);
        a->now = r.got;
    }
    authority_unref(a);
    return e;
}

/* --- issuing --- */

struct root_reading {
    struct reading r;
    X509 *root;
};

static void read_root_key_now(void *arg)
{
    struct root_reading *k = arg;
    arena_init(&k->r.arena, 4096);
    k->r.got.root = k->root;
    k->r.result = read_root_key(&k->r);
    arena_deinit(&k->r.arena);
}

/* The end of the leaf, not behind its issuer's. */
static int64_t end_of(const struct authority_leaf *leaf, const X509 *issuer, bool *clamped)
{
    int64_t from, to = 0;
    int64_t lifetime_ns = leaf->lifetime_ns > 0 ? leaf->lifetime_ns : AUTHORITY_LEAF_LIFETIME_NS;
    int64_t want = now_s() + lifetime_ns / (int64_t)NS_PER_S;
    *clamped = certificate_validity(issuer, &from, &to) && want > to;
    return *clamped ? to : want;
}

static enum err put_leaf(const struct authority_leaf *leaf, const X509 *issuer, EVP_PKEY *key,
                         struct slice chain, struct buffer *out, bool *clamped,
                         struct storage_why *why)
{
    X509 *x;
    struct minting m = {.issuer = issuer, .issuer_key = key, .from_s = now_s(),
                        .to_s = end_of(leaf, issuer, clamped)};
    if (m.to_s <= m.from_s)
        return storage_fail(why, ERR_FAILED, "the issuer's certificate is over");
    TRY(mint_leaf(&m, leaf->csr_der, leaf->names, leaf->names_count, &x, why->text,
                  sizeof why->text));
    enum err e = certificate_put_pem(out, x);
    if (e == OK)
        e = buffer_append(out, chain);
    certificate_free(x);
    return e == OK ? OK : storage_fail(why, e, "the chain is too long");
}

static enum err issue_by_root(struct authority *a, const struct authority_leaf *leaf,
                              struct buffer *out, bool *clamped, struct storage_why *why)
{
    struct root_reading k = {.r = {.options = &a->options, .why = why}, .root = a->now.root};
    X509_up_ref(k.root); /* it may be read anew meanwhile */
    enum err e = storage_blocking(read_root_key_now, &k, why);
    if (e == OK)
        e = k.r.result == ERR_INVALID ? ERR_FAILED : k.r.result;
    if (e == OK)
        e = put_leaf(leaf, k.root, k.r.root_key, authority_root_pem(a), out, clamped, why);
    key_free(k.r.root_key);
    certificate_free(k.root);
    return e;
}

enum err authority_issue(struct authority *a, const struct authority_leaf *leaf,
                         struct buffer *chain_pem, bool *clamped, struct storage_why *why)
{
    bool renewed;
    if (leaf->sign_with_root)
        return issue_by_root(a, leaf, chain_pem, clamped, why);
    enum err e = authority_maintain(a, &renewed, why);
    if (e != OK)
        return e == ERR_INVALID ? ERR_FAILED : e; /* it is not the request that is wrong */
    return put_leaf(leaf, a->now.intermediate, a->now.intermediate_key, authority_chain_pem(a),
                    chain_pem, clamped, why);
}
