/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON is read and written on the loop's own stack, since it recurses and these are fibers. An
 * answer is a stranger's: its size and depth are limited, and of an error only printable bytes get
 * into a log.
 */
#include "certs/dns_api.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "client/fetch.h"
#include "config/jsonx.h"
#include "http/uri.h"
#include "loop/await.h"

enum { ANSWER_MAX = 1 << 20, DEPTH_MAX = 32, QUOTE_MAX = 300 };
#define CALL_NS (30 * NS_PER_S)

enum err dns_fail(struct dns_why *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why->text, sizeof why->text, format, args);
    va_end(args);
    return ERR_FAILED;
}

struct slice dns_record_fqdn(const struct dns_record *r, struct arena *a)
{
    if (r->name.len == 0 || slice_is(r->name, "@"))
        return r->zone;
    return arena_join(a, (struct slice[]){r->name, SLICE("."), r->zone}, 3);
}

struct slice dns_record_type(const struct dns_record *r)
{
    return r->type.len > 0 ? r->type : SLICE("TXT");
}

bool dns_record_is_text(const struct dns_record *r)
{
    return slice_is(dns_record_type(r), "TXT");
}

struct slice dns_content(const struct dns_record *r, const char *quote, const char *dot,
                         struct arena *a)
{
    struct slice around = slice_from(dns_record_is_text(r) ? quote : "");
    return arena_join(a, (struct slice[]){around, r->text, around,
                                          slice_from(dns_record_is_text(r) ? "" : dot)}, 4);
}

enum err dns_text_only(const struct dns_record *r, const char *provider, struct dns_why *why)
{
    return dns_record_is_text(r) ? OK : dns_fail(why, "%s has TXT records only", provider);
}

enum err dns_delete(struct slice url, struct slice token, struct arena *a, struct dns_why *why)
{
    struct dns_answer answer;
    struct field bearer = dns_bearer(token, a);
    enum err e = dns_call(&(struct dns_call){.method = "DELETE", .url = url, .fields = &bearer,
                                             .fields_count = 1, .missing_is_ok = true}, a, &answer,
                          why);
    json_decref(answer.json);
    return e;
}

enum err dns_secret(struct provision *p, const json_t *json, const char *key, struct slice *out)
{
    struct slice raw;
    TRY(provision_text(p, json, key, SLICE(""), &raw));
    *out = slice_trim(template_expand_now(raw, p->arena));
    return OK;
}

enum err dns_endpoint(struct provision *p, const json_t *json, const char *fallback, struct slice *out)
{
    TRY(provision_text(p, json, "endpoint", slice_from(fallback), out));
    while (slice_ends(*out, SLICE("/")))
        out->len--;
    if (!slice_starts(*out, SLICE("https://")) && !slice_starts(*out, SLICE("http://")))
        return provision_fail(p, "endpoint must begin with https:// or http://: " SLICE_FMT,
                              SLICE_ARG(*out));
    return OK;
}

struct field dns_bearer(struct slice token, struct arena *a)
{
    return (struct field){SLICE("Authorization"),
                          arena_join(a, (struct slice[]){SLICE("Bearer "), token}, 2)};
}

struct slice dns_escape(struct slice s, struct arena *a)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = arena_alloc(a, s.len * 3 + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool plain = (c >= '0' && c <= '9') || (ascii_lower((char)c) >= 'a' && ascii_lower((char)c) <= 'z') ||
                     c == '-' || c == '_' || c == '.' || c == '~';
        if (plain) {
            out[n++] = (char)c;
        } else {
            out[n++] = '%';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        }
    }
    return slice_of(out, n);
}

/* --- JSON on the loop's stack --- */

struct json_work {
    json_t *json;
    char *text;
    struct slice in;
};

static void write_json(void *arg)
{
    struct json_work *w = arg;
    w->text = json_dumps(w->json, JSON_COMPACT);
    json_decref(w->json);
}

static void read_json(void *arg)
{
    struct json_work *w = arg;
    w->json = json_loadb(w->in.ptr, w->in.len, JSON_REJECT_DUPLICATES, NULL);
}

static struct slice body_text(json_t *json, struct arena *a)
{
    struct json_work w = {.json = json};
    if (json == NULL)
        return SLICE_NONE;
    await_on_loop(write_json, &w);
    struct slice text = arena_copy(a, slice_from(w.text));
    free(w.text);
    return text;
}

static json_t *parse(struct slice text)
{
    struct json_work w = {.in = text};
    if (text.len == 0 || jsonx_too_deep(text, DEPTH_MAX))
        return NULL;
    await_on_loop(read_json, &w);
    return w.json;
}

/* --- the call --- */

/* What a person may read of an answer that says no. */
static struct slice quoted_answer(struct slice body, struct arena *a)
{
    char *out = arena_alloc(a, QUOTE_MAX);
    size_t n = 0;
    for (size_t i = 0; i < body.len && n < QUOTE_MAX; i++)
        out[n++] = body.ptr[i] >= ' ' && body.ptr[i] < 0x7f ? body.ptr[i] : ' ';
    return slice_trim(slice_of(out, n));
}

static struct slice host_of(struct slice url)
{
    struct slice rest = slice_skip(url, slice_find_slice(url, SLICE("://")) + 3), host;
    slice_cut(rest, '/', &host, &rest);
    return host;
}

enum err dns_call(const struct dns_call *c, struct arena *a, struct dns_answer *out,
                  struct dns_why *why)
{
    struct fetch_answer answer;
    struct field *fields = ARENA_ARRAY(a, struct field, c->fields_count + 2);
    size_t count = c->fields_count;
    if (count > 0)
        memcpy(fields, c->fields, count * sizeof *fields);
    struct slice body = body_text(c->body, a);
    *out = (struct dns_answer){0};
    if (!c->text)
        fields[count++] = (struct field){SLICE("Accept"), SLICE("application/json")};
    if (body.len > 0)
        fields[count++] = (struct field){SLICE("Content-Type"), SLICE("application/json")};
    struct fetch_request q = {.method = slice_from(c->method), .url = c->url, .fields = fields,
                              .fields_count = count, .body = body, .timeout_ns = CALL_NS,
                              .answer_max = ANSWER_MAX};
    if (fetch(&q, a, &answer) != OK)
        return dns_fail(why, "%s", answer.why);
    if ((answer.status == 404 || answer.status == 410) && c->missing_is_ok)
        return OK;
    out->text = answer.body;
    if (answer.status < 200 || answer.status > 299) {
        struct slice said = quoted_answer(answer.body, a);
        return dns_fail(why, SLICE_FMT " answered with status %d: " SLICE_FMT,
                        SLICE_ARG(host_of(c->url)), answer.status, SLICE_ARG(said));
    }
    if (c->text || answer.body.len == 0)
        return OK;
    out->json = parse(answer.body);
    if (out->json == NULL)
        return dns_fail(why, SLICE_FMT " answered with what is no JSON", SLICE_ARG(host_of(c->url)));
    return OK;
}
