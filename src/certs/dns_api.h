/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the providers with an HTTP API share: members with secrets, a call with JSON both ways, and
 * the sentence when it is refused.
 */
#pragma once

#include "certs/dns_provider.h"

struct dns_call {
    const char *method;       /* NULL: GET */
    struct slice url;
    struct field *fields;     /* besides Content-Type and Accept */
    size_t fields_count;
    json_t *body;             /* taken over; NULL: none */
    bool text;                /* the answer is no JSON */
    bool missing_is_ok;       /* 404 and 410 are no failure: *answer is NULL */
};

struct dns_answer {
    json_t *json; /* the caller's to json_decref; NULL: none */
    struct slice text;
};

/* ERR_FAILED with a sentence for any status but 2xx, and for what is no JSON. */
enum err dns_call(const struct dns_call *, struct arena *, struct dns_answer *, struct dns_why *);

/* DELETE with a bearer's token; what is gone already is no failure. */
enum err dns_delete(struct slice url, struct slice token, struct arena *, struct dns_why *);

/* A text member whose placeholders ({env.X}, {file.X}) are replaced now, as the plugins do. */
enum err dns_secret(struct provision *, const json_t *, const char *key, struct slice *out);

/* The base of the API's URLs: the "endpoint" member, without a slash at its end. */
enum err dns_endpoint(struct provision *, const json_t *, const char *fallback, struct slice *out);

/* "Authorization: Bearer …" */
struct field dns_bearer(struct slice token, struct arena *);

/* `a/b c` as a part of a path or of a query. */
struct slice dns_escape(struct slice, struct arena *);

/* What the record holds as an API has it: a text within `quote`, a name with `dot` behind it. */
struct slice dns_content(const struct dns_record *, const char *quote, const char *dot,
                         struct arena *);
enum err dns_text_only(const struct dns_record *, const char *provider, struct dns_why *);

enum err dns_fail(struct dns_why *, const char *format, ...) __attribute__((format(printf, 2, 3)));
