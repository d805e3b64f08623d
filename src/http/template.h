/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text with {placeholders}, taken apart once at provision. A constant costs nothing per request.
 * The names are Caddy's; shorthands were replaced by the adapter.
 */
#pragma once

#include "http/exchange.h"

struct template_part;

struct template {
    struct slice text; /* the source; the value itself when constant */
    struct template_part *parts;
    uint16_t count;
    bool constant;
};

/* Compiles; what is no placeholder (unclosed, escaped by a backslash) is text. The text is copied
 * into the arena, which must live as long as the template. `{env.X}`, `{file.X}` and `{system.X}`
 * are read per request as in Caddy. */
void template_compile(struct template *, struct slice text, struct arena *);

/* Every placeholder replaced, unknown and empty ones by `empty` (Caddy's ReplaceAll). */
struct slice template_expand_or(const struct template *, struct exchange *, struct slice empty);

/* Unknown ones removed. */
struct slice template_expand(const struct template *, struct exchange *);

/* Each value passes through `encode`, with its placeholder's name; unknown ones are removed. */
typedef struct slice template_encoder(struct exchange *, struct slice name, struct slice value);
struct slice template_expand_encoded(const struct template *, struct exchange *,
                                     template_encoder *encode);

/* Unknown ones kept as they stand (Caddy's ReplaceKnown). */
struct slice template_expand_known(const struct template *, struct exchange *);

/* At provision, without a request: env, system, time, file. What needs a request becomes empty. */
struct slice template_expand_now(struct slice text, struct arena *);

/* The same, with what needs a request, and what is unknown, kept as it stands. */
struct slice template_expand_known_now(struct slice text, struct arena *);

/* Digits 100 … 999, or false. */
bool template_status(const struct template *, struct exchange *, int *status);

/* A name looked up once. What is neither fixed nor of a family is a variable of the exchange. */
struct placeholder {
    struct slice name; /* without braces; lives as long as this */
    struct slice (*fixed)(struct exchange *);
    bool (*family)(struct exchange *, struct slice rest, struct slice *value);
    struct slice rest; /* of the name, behind the family's prefix */
};
void placeholder_resolve(struct placeholder *, struct slice name);
bool placeholder_value(const struct placeholder *, struct exchange *, struct slice *value);

/* One placeholder by its name without braces: http.request.uri.path, env.HOME, http.vars.x …
 * False when no such placeholder is known. Values live in the exchange's arena at least. */
bool placeholder_get(struct exchange *, struct slice name, struct slice *value);
