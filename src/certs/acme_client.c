/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Authorities are remembered by the control thread for as long as it lives: the directory for half a
 * day, nonces until they are used. An authority is counted, since a fiber that waits may be using a
 * directory that another one has found too old. Of many fibers that want an unknown directory one
 * asks, and the others look again.
 *
 * What is tried again is what acmez tries: a request without an answer three times, a bad nonce ten
 * times (RFC 8555 §6.5), an error of the server three times. A signed request that is sent again as
 * it stands may have arrived before; then its nonce is used up, and it is signed anew.
 *
 * The authority is not trusted: every URL of it was checked when it was read (acme_objects.c), and
 * one that was reached by https may not lead away to http.
 */
#include "certs/acme_client.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "certs/jose.h"
#include "loop/await.h"

enum { SENDS = 3, SERVER_ERRORS = 3, PAUSE_MS = 250, NONCE_MAX = 256, NONCE_AGE_MIN = 30 };
#define RETRY_AFTER_MAX_S (366 * 86400)

struct nonce {
    char *text;
    uint64_t got_ns;
};

struct acme_authority {
    struct list node;
    struct slice url; /* in the arena */
    struct acme_directory directory;
    struct arena arena;
    uint64_t read_ns; /* 0: not yet */
    unsigned users;
    bool reading; /* a fiber is at it */
    bool gone;    /* out of the list: ends with its last user */
    struct nonce nonces[ACME_NONCES];
    size_t nonces_count;
};

static _Thread_local struct list authorities;

/* --- words --- */

enum err acme_fail(struct acme *c, enum err e, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->why, sizeof c->why, format, args);
    va_end(args);
    return e;
}

void acme_context(struct acme *c, const char *format, ...)
{
    char before[512], all[sizeof c->why];
    va_list args;
    va_start(args, format);
    vsnprintf(before, sizeof before, format, args);
    va_end(args);
    snprintf(all, sizeof all, "%s: %.*s", before, (int)(sizeof all - sizeof before - 3), c->why);
    memcpy(c->why, all, sizeof all);
}

static bool cancelled(void)
{
    return fiber_self()->cancelled != OK;
}

static enum err sleep_ms(uint64_t ms)
{
    return await_sleep(clock_mono_ns() + ms * NS_PER_MS);
}

/* --- authorities --- */

static void free_authority(struct acme_authority *a)
{
    list_remove(&a->node);
    for (size_t i = 0; i < a->nonces_count; i++)
        mem_free(a->nonces[i].text);
    arena_deinit(&a->arena);
    mem_free(a);
}

static void retire(struct acme_authority *a)
{
    list_remove(&a->node);
    a->gone = true;
    if (a->users == 0)
        free_authority(a);
}

static void limit_authorities(void)
{
    size_t count = 0;
    LIST_FOR (it, &authorities)
        count++;
    LIST_FOR_SAFE (it, &authorities)
        if (count >= ACME_AUTHORITIES) {
            struct acme_authority *a = CONTAINER_OF(it, struct acme_authority, node);
            if (a->users == 0) {
                free_authority(a);
                count--;
            }
        }
}

static struct acme_authority *add_authority(struct slice url)
{
    limit_authorities();
    struct acme_authority *a = NEW(struct acme_authority);
    arena_init(&a->arena, 2048);
    a->url = arena_copy(&a->arena, url);
    list_append(&authorities, &a->node);
    return a;
}

static struct acme_authority *find_authority(struct slice url)
{
    if (authorities.next == NULL)
        list_init(&authorities);
    LIST_FOR_SAFE (it, &authorities) {
        struct acme_authority *a = CONTAINER_OF(it, struct acme_authority, node);
        if (!slice_eq(a->url, url))
            continue;
        uint64_t age = clock_mono_ns() - a->read_ns;
        if (a->read_ns == 0 || age < ACME_DIRECTORY_HOURS * UINT64_C(3600) * NS_PER_S)
            return a;
        retire(a);
    }
    return add_authority(url);
}

void acme_thread_deinit(void)
{
    if (authorities.next == NULL)
        return;
    while (!list_empty(&authorities))
        free_authority(CONTAINER_OF(authorities.next, struct acme_authority, node));
}

/* --- nonces --- */

static bool nonce_ok(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
            c != '-' && c != '_')
            return false;
    }
    return s.len > 0 && s.len <= NONCE_MAX;
}

/* RFC 8555 §6.5.1: one that is no base64url is no nonce. */
static void keep_nonce(struct acme_authority *a, const struct fields *fields)
{
    struct slice value;
    if (!fields_get(fields, SLICE("Replay-Nonce"), &value) || !nonce_ok(value))
        return;
    if (a->nonces_count == ACME_NONCES) {
        mem_free(a->nonces[0].text);
        memmove(a->nonces, a->nonces + 1, --a->nonces_count * sizeof a->nonces[0]);
    }
    a->nonces[a->nonces_count++] = (struct nonce){slice_dup(value), clock_mono_ns()};
}

/* The newest; those that an authority will have forgotten are dropped. */
static struct slice take_nonce(struct acme_authority *a, struct arena *arena)
{
    struct slice found = SLICE("");
    while (a->nonces_count > 0 && found.len == 0) {
        struct nonce n = a->nonces[--a->nonces_count];
        if (clock_mono_ns() - n.got_ns < NONCE_AGE_MIN * UINT64_C(60) * NS_PER_S)
            found = arena_copy(arena, slice_from(n.text));
        mem_free(n.text);
    }
    return found;
}

/* --- one request --- */

static void read_retry_after(struct acme_answer *answer)
{
    struct slice value;
    uint64_t seconds;
    int64_t at;
    answer->retry_after_ns = 0;
    if (!fields_get(&answer->fields, SLICE("Retry-After"), &value))
        return;
    if (slice_to_u64(value, RETRY_AFTER_MAX_S, &seconds)) {
        answer->retry_after_ns = seconds * NS_PER_S;
    } else if (clock_parse_http_date(value, &at)) {
        int64_t from_now = at - clock_wall_ns() / (int64_t)NS_PER_S;
        if (from_now > 0 && from_now <= RETRY_AFTER_MAX_S)
            answer->retry_after_ns = (uint64_t)from_now * NS_PER_S;
    }
}

bool acme_answer_is(const struct acme_answer *answer, const char *media_type)
{
    struct slice value, type, rest;
    if (!fields_get(&answer->fields, SLICE("Content-Type"), &value))
        return false;
    slice_cut(value, ';', &type, &rest);
    return slice_eq_nocase(slice_trim(type), slice_from(media_type));
}

/* An answer that is no 2xx: the problem it tells, or its first words. */
static enum err refused(struct acme *c, const struct acme_answer *answer)
{
    struct acme_why why;
    struct acme_problem *p = ARENA_NEW(c->arena, struct acme_problem);
    c->retry_after_ns = answer->retry_after_ns;
    if (acme_answer_is(answer, "application/problem+json") &&
        acme_problem_read(answer->body, c->arena, p, &why) == OK) {
        struct buffer b;
        if (p->status == 0)
            p->status = answer->status;
        c->problem = p;
        buffer_init(&b, sizeof c->why - 128);
        acme_problem_say(p, &b);
        (void)acme_fail(c, OK, SLICE_FMT, SLICE_ARG(buffer_slice(&b)));
        buffer_deinit(&b);
        return ERR_FAILED;
    }
    if (answer->status < 400)
        return acme_fail(c, ERR_FAILED, "unexpected status code: HTTP %d", answer->status);
    (void)acme_fail(c, OK, "HTTP %d: " SLICE_FMT, answer->status,
                    SLICE_ARG(slice_take(answer->body, 200)));
    for (char *at = c->why; *at != '\0'; at++)
        *at = (unsigned char)*at < ' ' ? ' ' : *at;
    return ERR_FAILED;
}

static bool leads_away(const struct acme *c, struct slice url)
{
    return slice_starts_nocase(c->options->directory, SLICE("https://")) &&
           !slice_starts_nocase(url, SLICE("https://"));
}

static enum err send_once(struct acme *c, struct slice method, struct slice url, struct slice body,
                          struct acme_answer *answer)
{
    struct field type = {SLICE("Content-Type"), SLICE("application/jose+json")};
    struct fetch_request request = {
        .method = method, .url = url, .body = body, .fields = &type, .fields_count = body.len > 0,
        .answer_max = ACME_ANSWER_MAX, .tls = c->options->tls, .no_proxy = c->options->proxy.none,
        .proxy = c->options->proxy.url,
        .redirects = body.len > 0 ? 0 : 3, .repeatable = true};
    struct fetch_answer *got = ARENA_NEW(c->arena, struct fetch_answer);
    enum err e = fetch(&request, c->arena, got);
    if (e != OK)
        return acme_fail(c, e, "%s", got->why);
    *answer = (struct acme_answer){.status = got->status, .body = got->body, .fields = got->fields};
    (void)fields_get(&answer->fields, SLICE("Location"), &answer->location);
    read_retry_after(answer);
    keep_nonce(c->authority, &answer->fields);
    return OK;
}

/* Again when no answer came. */
static enum err send_robustly(struct acme *c, struct slice method, struct slice url,
                              struct slice body, struct acme_answer *answer)
{
    enum err e = OK;
    c->problem = NULL;
    c->retry_after_ns = 0;
    if (leads_away(c, url))
        return acme_fail(c, ERR_INVALID, "the authority leads from https to " SLICE_FMT,
                         SLICE_ARG(slice_take(url, 200)));
    for (int i = 0; i < SENDS; i++) {
        if (i > 0) {
            LOG(LOG_WARN, "tls.issuance.acme", "HTTP request failed; retrying",
                LOG_STR("url", url), LOG_CSTR("error", c->why));
            TRY(sleep_ms(PAUSE_MS));
        }
        e = send_once(c, method, url, body, answer);
        if (e == OK || e == ERR_INVALID || e == ERR_LIMIT || cancelled())
            return e;
    }
    return e;
}

enum err acme_get(struct acme *c, struct slice url, struct acme_answer *answer)
{
    for (int i = 0;; i++) {
        TRY(send_robustly(c, SLICE("GET"), url, SLICE(""), answer));
        if (answer->status >= 200 && answer->status < 300)
            return OK;
        enum err e = refused(c, answer);
        if (answer->status < 500 || i + 1 == SENDS)
            return e;
        TRY(sleep_ms(PAUSE_MS));
    }
}

/* --- the directory --- */

static enum err read_directory(struct acme *c)
{
    struct acme_authority *a = c->authority;
    struct acme_answer answer;
    struct acme_why why;
    TRY(acme_get(c, c->options->directory, &answer));
    if (acme_directory_read(answer.body, &a->arena, &a->directory, &why) != OK)
        return acme_fail(c, ERR_INVALID, "%s", why.text);
    a->read_ns = clock_mono_ns();
    return OK;
}

static enum err know_directory(struct acme *c)
{
    struct acme_authority *a = c->authority;
    while (a->reading)
        TRY(sleep_ms(50));
    if (a->read_ns != 0)
        return OK;
    a->reading = true;
    enum err e = read_directory(c);
    a->reading = false;
    return e;
}

enum err acme_begin(struct acme *c, const struct acme_options *options, struct arena *arena)
{
    *c = (struct acme){.arena = arena, .options = options};
    if (!acme_url_ok(options->directory))
        return acme_fail(c, ERR_INVALID, "'" SLICE_FMT "' is not the URL of a directory",
                         SLICE_ARG(options->directory));
    c->authority = find_authority(options->directory);
    c->authority->users++;
    c->directory = &c->authority->directory;
    enum err e = know_directory(c);
    if (e != OK) {
        acme_context(c, "directory " SLICE_FMT, SLICE_ARG(slice_take(options->directory, 200)));
        acme_end(c);
    }
    return e;
}

void acme_end(struct acme *c)
{
    if (c->authority != NULL && --c->authority->users == 0 && c->authority->gone)
        free_authority(c->authority);
    c->authority = NULL;
    c->directory = NULL;
}

/* --- signed requests --- */

static enum err get_nonce(struct acme *c, struct slice *nonce)
{
    struct acme_answer answer;
    *nonce = take_nonce(c->authority, c->arena);
    if (nonce->len > 0)
        return OK;
    TRY(send_robustly(c, SLICE("HEAD"), c->directory->new_nonce, SLICE(""), &answer));
    *nonce = take_nonce(c->authority, c->arena);
    if (nonce->len > 0)
        return OK;
    return acme_fail(c, ERR_FAILED, "the authority gave no nonce (HTTP %d)", answer.status);
}

struct signing {
    const struct jws *jws;
    struct buffer *out;
    enum err result;
};

static void sign_on_loop(void *arg)
{
    struct signing *s = arg;
    s->result = jws_put(s->out, s->jws);
}

static enum err post_once(struct acme *c, const struct acme_signer *signer, struct slice url,
                          struct slice payload, struct acme_answer *answer)
{
    struct buffer body;
    struct jws jws = {.key = signer->key, .kid = signer->account, .url = url, .payload = payload};
    struct signing signing = {&jws, &body, OK};
    enum err e = get_nonce(c, &jws.nonce);
    if (e != OK) {
        acme_context(c, "fetching new nonce from server");
        return e;
    }
    buffer_init(&body, ACME_ANSWER_MAX);
    await_on_loop(sign_on_loop, &signing); /* the library's depth is not a fiber's */
    if (signing.result == OK)
        e = send_robustly(c, SLICE("POST"), url, buffer_slice(&body), answer);
    else
        e = acme_fail(c, signing.result, "the request could not be signed: an account's key is RSA, "
                      "P-256, P-384, P-521 or Ed25519");
    buffer_deinit(&body);
    return e;
}

static bool worth_another(struct acme *c, const struct acme_answer *answer, int *server_errors)
{
    if (c->problem != NULL && acme_problem_is(c->problem, "badNonce"))
        return true;
    return answer->status >= 500 && ++*server_errors < SERVER_ERRORS;
}

enum err acme_post(struct acme *c, const struct acme_signer *signer, struct slice url,
                   struct slice payload, struct acme_answer *answer)
{
    int server_errors = 0, tries = 1;
    enum err e;
    for (;; tries++) {
        e = post_once(c, signer, url, payload, answer);
        if (e != OK)
            break;
        if (answer->status >= 200 && answer->status < 300)
            return OK;
        e = refused(c, answer);
        if (tries == ACME_TRIES || !worth_another(c, answer, &server_errors))
            break;
        TRY(sleep_ms(PAUSE_MS));
    }
    acme_context(c, "attempt %d: " SLICE_FMT, tries, SLICE_ARG(slice_take(url, 200)));
    return e;
}

enum err acme_pause(const struct acme_answer *answer, uint64_t end_ns)
{
    uint64_t pause = answer->retry_after_ns > PAUSE_MS * NS_PER_MS ? answer->retry_after_ns :
                                                                     PAUSE_MS * NS_PER_MS;
    uint64_t until = clock_mono_ns() + pause;
    return await_sleep(until < end_ns ? until : end_ns);
}

/* --- links (RFC 8288, as far as authorities use it) --- */

static bool link_relation_is(struct slice parameters, const char *relation)
{
    struct slice one, name, value;
    while (parameters.len > 0) {
        slice_cut(parameters, ';', &one, &parameters);
        slice_cut(one, '=', &name, &value);
        value = slice_trim(value);
        if (value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"')
            value = slice_of(value.ptr + 1, value.len - 2);
        if (slice_eq_nocase(slice_trim(name), SLICE("rel")) && slice_is(value, relation))
            return true;
    }
    return false;
}

void acme_links(struct acme *c, const struct acme_answer *answer, const char *relation,
                struct slice *urls, size_t max, size_t *count)
{
    struct slice all = fields_joined(&answer->fields, SLICE("Link"), c->arena), url, parameters;
    *count = 0;
    for (size_t at; *count < max && (at = slice_find(all, '<')) != SIZE_MAX;) {
        if (!slice_cut(slice_skip(all, at + 1), '>', &url, &all))
            return;
        size_t end = slice_find_slice(all, SLICE(", <"));
        parameters = end == SIZE_MAX ? all : slice_take(all, end);
        if (acme_url_ok(url) && link_relation_is(parameters, relation))
            urls[(*count)++] = url;
    }
}
