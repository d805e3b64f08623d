/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Password hashes in the modular crypt format: bcrypt ($2a$, $2b$, $2y$) and argon2id. Hashing is
 * slow on purpose: on a worker only through the offload pool (handlers/auth_cache.h).
 */
#pragma once

#include "base/arena.h"

enum password_algorithm { PASSWORD_BCRYPT, PASSWORD_ARGON2ID };

struct argon2id_costs {
    uint32_t time, memory_kib, threads, key_len;
};

/* What `caddy hash-password` uses when nothing is said. */
enum { BCRYPT_COST = 14, BCRYPT_COST_MIN = 4, BCRYPT_COST_MAX = 31, BCRYPT_PASSWORD_MAX = 72 };
#define ARGON2ID_COSTS ((struct argon2id_costs){1, 46 * 1024, 1, 32})

/* A hash taken apart once. */
struct password_hash {
    enum password_algorithm algorithm;
    struct slice text;
    struct argon2id_costs costs; /* argon2id only, and: */
    struct slice salt, key;
    bool fits_nobody; /* stands for a hash that no password has */
};

/* ERR_INVALID with a phrase that says why ("is neither a bcrypt nor an argon2id hash"). The text is
 * borrowed; salt and key are in the arena. */
enum err password_parse(struct slice text, struct password_hash *, struct arena *, const char **why);

/* Blocks for a second or so. Never fails on a wrong password: *same is false then. */
enum err password_check(const struct password_hash *, struct slice password, bool *same);

enum { PASSWORD_TEXT_MAX = 512 };

/* A new hash of a password with a random salt, as text ending in NUL. ERR_INVALID with a phrase:
 * bcrypt takes at most 72 bytes; costs out of range. */
enum err bcrypt_hash(struct slice password, int cost, char out[PASSWORD_TEXT_MAX], const char **why);
enum err argon2id_hash(struct slice password, struct argon2id_costs, char out[PASSWORD_TEXT_MAX],
                       const char **why);
