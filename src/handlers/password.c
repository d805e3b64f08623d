/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bcrypt by libcrypt, argon2id by libargon2. libcrypt's own reading of "$2a$" differs from everybody
 * else's for some passwords beyond ASCII (it guards against an old bug), so the work is done as
 * "$2b$" and the letter put back. argon2's lanes are computed on the calling thread: the result is
 * the same, and the pool's size stays what it is.
 */
#include "handlers/password.h"

#include <argon2.h>
#include <crypt.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/mem.h"
#include "base/text.h"

enum {
    BCRYPT_LEN = 60,
    BCRYPT_HEAD = 7, /* "$2a$14$" */
    SALT_LEN = 16,
    ARGON2_MEMORY_MAX = 1024 * 1024, /* KiB, in hashes of a configuration */
    ARGON2_TIME_MAX = 1000,
    ARGON2_LANES_MAX = 255,
};

/* --- bcrypt --- */

static bool is_bcrypt_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '/';
}

static const char *check_bcrypt(struct slice t)
{
    uint64_t cost;
    if (t.len != BCRYPT_LEN || t.ptr[3] != '$' || t.ptr[6] != '$' ||
        memchr("aby", t.ptr[2], 3) == NULL)
        return "is no whole bcrypt hash";
    if (!slice_to_u64(slice_of(t.ptr + 4, 2), BCRYPT_COST_MAX, &cost) || cost < BCRYPT_COST_MIN)
        return "is a bcrypt hash with a cost that is not from 04 to 31";
    for (size_t i = BCRYPT_HEAD; i < t.len; i++) {
        if (!is_bcrypt_letter(t.ptr[i]))
            return "is no whole bcrypt hash";
    }
    return NULL;
}

/* Hashes with the setting at the front of `text` and gives the whole hash; empty on failure. */
static bool run_bcrypt(struct slice password, const char *setting, char out[BCRYPT_LEN + 1])
{
    struct crypt_data *data = mem_zalloc(sizeof *data);
    char phrase[BCRYPT_PASSWORD_MAX + 1], letter = setting[2];
    char as_b[BCRYPT_LEN + 1];
    snprintf(as_b, sizeof as_b, "%s", setting);
    as_b[2] = 'b';
    password = slice_take(password, BCRYPT_PASSWORD_MAX);
    memcpy(phrase, password.ptr, password.len);
    phrase[password.len] = '\0';
    const char *hash = crypt_r(phrase, as_b, data);
    bool done = hash != NULL && strlen(hash) == BCRYPT_LEN && hash[0] == '$';
    if (done) {
        memcpy(out, hash, BCRYPT_LEN + 1);
        out[2] = letter;
    }
    explicit_bzero(phrase, sizeof phrase);
    explicit_bzero(data, sizeof *data);
    mem_free(data);
    return done;
}

static bool same_bytes(const char *a, const char *b, size_t len)
{
    volatile unsigned char differ = 0;
    for (size_t i = 0; i < len; i++)
        differ |= (unsigned char)(a[i] ^ b[i]);
    return differ == 0;
}

static enum err check_with_bcrypt(const struct password_hash *h, struct slice password, bool *same)
{
    char setting[BCRYPT_LEN + 1], got[BCRYPT_LEN + 1];
    memcpy(setting, h->text.ptr, BCRYPT_LEN);
    setting[BCRYPT_LEN] = '\0';
    bool whole = memchr(password.ptr, '\0', password.len) == NULL; /* libcrypt ends at a NUL */
    if (!run_bcrypt(whole ? password : SLICE(""), setting, got))
        return ERR_IO;
    *same = same_bytes(got, h->text.ptr, BCRYPT_LEN) && whole;
    return OK;
}

enum err bcrypt_hash(struct slice password, int cost, char out[PASSWORD_TEXT_MAX], const char **why)
{
    char salt[SALT_LEN], setting[CRYPT_GENSALT_OUTPUT_SIZE];
    if (cost < BCRYPT_COST_MIN || cost > BCRYPT_COST_MAX)
        cost = BCRYPT_COST;
    *why = "password length exceeds 72 bytes";
    if (password.len > BCRYPT_PASSWORD_MAX)
        return ERR_INVALID;
    *why = "a bcrypt password cannot hold a NUL byte";
    if (password.len > 0 && memchr(password.ptr, '\0', password.len) != NULL)
        return ERR_INVALID;
    *why = "libcrypt refused";
    if (getrandom(salt, sizeof salt, 0) != sizeof salt ||
        crypt_gensalt_rn("$2b$", (unsigned long)cost, salt, sizeof salt, setting,
                         sizeof setting) == NULL)
        return ERR_IO;
    setting[2] = 'a'; /* the letter that Caddy writes */
    return run_bcrypt(password, setting, out) ? OK : ERR_IO;
}

/* --- argon2id --- */

static bool read_cost(struct slice *list, char name, uint32_t min, uint32_t max, uint32_t *out)
{
    struct slice part;
    uint64_t n;
    slice_cut(*list, ',', &part, list);
    if (part.len < 3 || part.ptr[0] != name || part.ptr[1] != '=' ||
        !slice_to_u64(slice_skip(part, 2), max, &n) || n < min)
        return false;
    *out = (uint32_t)n;
    return true;
}

static bool read_base64(struct slice text, size_t min, size_t max, struct arena *arena,
                        struct slice *out)
{
    struct buffer b;
    buffer_init(&b, max);
    bool fine = base64_decode(&b, text) == OK && b.len >= min;
    *out = fine ? arena_copy(arena, buffer_slice(&b)) : SLICE_NONE;
    buffer_deinit(&b);
    return fine;
}

/* $argon2id$v=19$m=47104,t=1,p=1$SALT$KEY */
static const char *parse_argon2id(struct slice text, struct password_hash *h, struct arena *arena)
{
    struct slice version, costs, salt, key;
    struct slice rest = slice_skip(text, sizeof "$argon2id$" - 1);
    slice_cut(rest, '$', &version, &rest);
    slice_cut(rest, '$', &costs, &rest);
    slice_cut(rest, '$', &salt, &key);
    if (!slice_is(version, "v=19"))
        return "is an argon2id hash of a version other than 19";
    if (!read_cost(&costs, 'm', 8, ARGON2_MEMORY_MAX, &h->costs.memory_kib) ||
        !read_cost(&costs, 't', 1, ARGON2_TIME_MAX, &h->costs.time) ||
        !read_cost(&costs, 'p', 1, ARGON2_LANES_MAX, &h->costs.threads) || costs.len > 0)
        return "is an argon2id hash with bad parameters, or with more than 1 GiB of memory";
    if (h->costs.memory_kib < 8 * h->costs.threads)
        return "is an argon2id hash with too little memory for its threads";
    if (!read_base64(salt, 8, 256, arena, &h->salt) || !read_base64(key, 4, 256, arena, &h->key))
        return "is no whole argon2id hash";
    h->costs.key_len = (uint32_t)h->key.len;
    return NULL;
}

static enum err run_argon2id(struct slice password, const struct argon2id_costs *c,
                             struct slice salt, char *out)
{
    argon2_context context = {
        .out = (uint8_t *)out, .outlen = c->key_len,
        .pwd = (uint8_t *)(uintptr_t)password.ptr, .pwdlen = (uint32_t)password.len,
        .salt = (uint8_t *)(uintptr_t)salt.ptr, .saltlen = (uint32_t)salt.len,
        .t_cost = c->time, .m_cost = c->memory_kib, .lanes = c->threads, .threads = 1,
        .version = ARGON2_VERSION_13, .flags = ARGON2_DEFAULT_FLAGS,
    };
    return argon2id_ctx(&context) == ARGON2_OK ? OK : ERR_LIMIT;
}

static enum err check_with_argon2id(const struct password_hash *h, struct slice password, bool *same)
{
    char got[256];
    TRY(run_argon2id(password, &h->costs, h->salt, got));
    *same = same_bytes(got, h->key.ptr, h->key.len);
    return OK;
}

static void put_base64(struct buffer *out, struct slice bytes)
{
    (void)!base64_encode(out, bytes);
    while (out->len > 0 && out->ptr[out->len - 1] == '=')
        out->len--;
}

enum err argon2id_hash(struct slice password, struct argon2id_costs c, char out[PASSWORD_TEXT_MAX],
                       const char **why)
{
    char salt[SALT_LEN], key[128];
    struct buffer text;
    *why = "the argon2id parameters are out of range";
    if (c.key_len < 4 || c.key_len > sizeof key || c.threads < 1 ||
        c.threads > ARGON2_LANES_MAX || c.time < 1 || c.memory_kib < 8 * c.threads)
        return ERR_INVALID;
    *why = "not enough memory for argon2id";
    if (getrandom(salt, sizeof salt, 0) != sizeof salt)
        return ERR_IO;
    TRY(run_argon2id(password, &c, slice_of(salt, sizeof salt), key));
    buffer_init(&text, PASSWORD_TEXT_MAX - 1);
    (void)!buffer_append_f(&text, "$argon2id$v=19$m=%u,t=%u,p=%u$", c.memory_kib, c.time, c.threads);
    put_base64(&text, slice_of(salt, sizeof salt));
    (void)!BUFFER_PUT(&text, "$");
    put_base64(&text, slice_of(key, c.key_len));
    memcpy(out, text.ptr, text.len);
    out[text.len] = '\0';
    buffer_deinit(&text);
    return OK;
}

/* --- both --- */

enum err password_parse(struct slice text, struct password_hash *h, struct arena *arena,
                        const char **why)
{
    *h = (struct password_hash){.text = text};
    if (slice_starts(text, SLICE("$argon2id$"))) {
        h->algorithm = PASSWORD_ARGON2ID;
        *why = parse_argon2id(text, h, arena);
    } else if (slice_starts(text, SLICE("$2"))) {
        h->algorithm = PASSWORD_BCRYPT;
        *why = check_bcrypt(text);
    } else {
        *why = "is neither a bcrypt nor an argon2id hash";
    }
    return *why == NULL ? OK : ERR_INVALID;
}

enum err password_check(const struct password_hash *h, struct slice password, bool *same)
{
    *same = false;
    return h->algorithm == PASSWORD_BCRYPT ? check_with_bcrypt(h, password, same)
                                           : check_with_argon2id(h, password, same);
}
