/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One compression round, three finalisation rounds: enough against hash flooding, where the output
 * is never shown. The process key comes from getrandom before main, so no thread can race for it.
 */
#include "base/hash.h"

#include <sys/random.h>

#include "base/check.h"

static uint64_t process_key[2];

__attribute__((constructor)) static void draw_key(void)
{
    if (getrandom(process_key, sizeof process_key, 0) != (ssize_t)sizeof process_key)
        fatal("getrandom failed");
}

struct sip {
    uint64_t v0, v1, v2, v3;
};

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void round_once(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v2 = rotate(s->v2, 32);
}

static inline void take_word(struct sip *s, uint64_t word)
{
    s->v3 ^= word;
    round_once(s);
    s->v0 ^= word;
}

/* ASCII upper case to lower case in eight bytes at a time. */
static uint64_t fold_word(uint64_t w)
{
    uint64_t heptets = w & 0x7f7f7f7f7f7f7f7fu;
    uint64_t above_z = heptets + 0x2525252525252525u; /* 0x7f - 'Z' */
    uint64_t from_a = heptets + 0x3f3f3f3f3f3f3f3fu;  /* 0x80 - 'A' */
    uint64_t upper = (from_a & ~above_z & ~w) & 0x8080808080808080u;
    return w | upper >> 2;
}

static inline uint64_t run(struct slice s, const uint64_t key[2], bool fold)
{
    struct sip v = {
        key[0] ^ 0x736f6d6570736575u,
        key[1] ^ 0x646f72616e646f6du,
        key[0] ^ 0x6c7967656e657261u,
        key[1] ^ 0x7465646279746573u,
    };
    size_t whole = s.len & ~(size_t)7;
    uint64_t word;
    for (size_t i = 0; i < whole; i += 8) {
        memcpy(&word, s.ptr + i, 8);
        take_word(&v, fold ? fold_word(word) : word);
    }
    word = 0;
    if (s.len > whole)
        memcpy(&word, s.ptr + whole, s.len - whole);
    if (fold)
        word = fold_word(word);
    take_word(&v, word | (uint64_t)s.len << 56);
    v.v2 ^= 0xff;
    round_once(&v);
    round_once(&v);
    round_once(&v);
    return v.v0 ^ v.v1 ^ v.v2 ^ v.v3;
}

uint64_t hash_bytes(struct slice s)
{
    return run(s, process_key, false);
}

uint64_t hash_nocase(struct slice s)
{
    return run(s, process_key, true);
}

uint64_t hash_keyed(struct slice s, const uint64_t key[2])
{
    return run(s, key, false);
}
