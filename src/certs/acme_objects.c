/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each object is read member by member from a parsed JSON value, which is freed before the call
 * returns: nothing of the library outlives it. A member of the wrong type is an error where it is
 * needed and absent else; members that nobody knows are skipped, since authorities add their own.
 */
#include "certs/acme_objects.h"

#include <stdio.h>

#include "base/clock.h"
#include "config/jsonx.h"

#define NAMESPACE "urn:ietf:params:acme:error:"

__attribute__((format(printf, 2, 3))) static enum err refuse(struct acme_why *why,
                                                             const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why->text, sizeof why->text, format, args);
    va_end(args);
    return ERR_INVALID;
}

/* --- JSON --- */

static enum err load(struct slice text, json_t **json, struct acme_why *why)
{
    struct diag diag;
    if (text.len > ACME_JSON_MAX)
        return refuse(why, "the answer is larger than %d bytes", ACME_JSON_MAX);
    if (jsonx_too_deep(text, ACME_JSON_DEPTH))
        return refuse(why, "the answer nests deeper than %d levels", ACME_JSON_DEPTH);
    diag_clear(&diag);
    *json = jsonx_load(SLICE(""), text, &diag);
    if (*json == NULL)
        return refuse(why, "the answer is not JSON: %.300s", diag.text);
    if (json_is_object(*json))
        return OK;
    json_decref(*json);
    return refuse(why, "the answer is not a JSON object");
}

static struct slice text_of(const json_t *value, struct arena *a)
{
    if (!json_is_string(value))
        return SLICE("");
    return arena_copy(a, slice_of(json_string_value(value), json_string_length(value)));
}

static struct slice text(const json_t *object, const char *key, struct arena *a)
{
    return text_of(json_object_get(object, key), a);
}

/* A member that is a URL; empty where it is absent and may be. */
static enum err url(const json_t *object, const char *key, bool needed, struct arena *a,
                    struct slice *out, struct acme_why *why)
{
    *out = text(object, key, a);
    if (out->len == 0)
        return needed ? refuse(why, "the answer lacks \"%s\"", key) : OK;
    return acme_url_ok(*out) ? OK : refuse(why, "\"%s\" is not an http or https URL", key);
}

static enum err list(const json_t *object, const char *key, size_t max, size_t *count,
                     struct acme_why *why)
{
    const json_t *array = json_object_get(object, key);
    *count = json_is_array(array) ? json_array_size(array) : 0;
    return *count <= max ? OK : refuse(why, "\"%s\" has more than %zu elements", key, max);
}

bool acme_url_ok(struct slice s)
{
    size_t scheme = slice_starts_nocase(s, SLICE("https://")) ? 8 :
                    slice_starts_nocase(s, SLICE("http://")) ? 7 : 0;
    if (scheme == 0 || s.len == scheme || s.len > ACME_URL_MAX || s.ptr[scheme] == '/')
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] <= ' ' || s.ptr[i] == 0x7f || s.ptr[i] == '"' || s.ptr[i] == '\\')
            return false;
    return true;
}

/* --- time (RFC 3339) --- */

static bool digits(struct slice *s, size_t len, int *out)
{
    uint64_t n;
    if (s->len < len || !slice_to_u64(slice_take(*s, len), 9999, &n))
        return false;
    *s = slice_skip(*s, len);
    *out = (int)n;
    return true;
}

static bool byte(struct slice *s, const char *any)
{
    if (s->len == 0 || strchr(any, s->ptr[0]) == NULL || s->ptr[0] == '\0')
        return false;
    *s = slice_skip(*s, 1);
    return true;
}

/* Days since 1970 of a date of the Gregorian calendar. */
static int64_t days_of(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static bool read_zone(struct slice *s, int *offset_s)
{
    int hours, minutes;
    *offset_s = 0;
    if (byte(s, "Zz"))
        return true;
    bool west = s->len > 0 && s->ptr[0] == '-';
    if (!byte(s, "+-") || !digits(s, 2, &hours) || !byte(s, ":") || !digits(s, 2, &minutes))
        return false;
    *offset_s = (hours * 60 + minutes) * (west ? -60 : 60);
    return hours < 24 && minutes < 60;
}

bool acme_time_read(struct slice s, int64_t *seconds)
{
    int year, month, day, hour, minute, second, offset;
    if (!digits(&s, 4, &year) || !byte(&s, "-") || !digits(&s, 2, &month) || !byte(&s, "-") ||
        !digits(&s, 2, &day) || !byte(&s, "Tt ") || !digits(&s, 2, &hour) || !byte(&s, ":") ||
        !digits(&s, 2, &minute) || !byte(&s, ":") || !digits(&s, 2, &second))
        return false;
    if (byte(&s, "."))
        while (byte(&s, "0123456789"))
            ;
    if (!read_zone(&s, &offset) || s.len > 0 || month < 1 || month > 12 || day < 1 || day > 31 ||
        hour > 23 || minute > 59 || second > 60)
        return false;
    *seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    return true;
}

struct slice acme_time_text(int64_t seconds, struct arena *a)
{
    int64_t days = seconds / 86400 - (seconds % 86400 < 0);
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int64_t month = mp < 10 ? mp + 3 : mp - 9, rest = seconds - days * 86400;
    return arena_printf(a, "%04d-%02d-%02dT%02d:%02d:%02dZ",
                        (int)(yoe + era * 400 + (month <= 2)), (int)month,
                        (int)(doy - (153 * mp + 2) / 5 + 1), (int)(rest / 3600),
                        (int)(rest / 60 % 60), (int)(rest % 60));
}

/* --- problems (RFC 8555 §6.7) --- */

static struct acme_identifier identifier(const json_t *j, struct arena *a)
{
    return (struct acme_identifier){text(j, "type", a), text(j, "value", a)};
}

static void read_problem(const json_t *j, struct arena *a, struct acme_problem *p, bool inner)
{
    const json_t *subs = json_object_get(j, "subproblems");
    size_t count = !inner && json_is_array(subs) ? json_array_size(subs) : 0;
    json_int_t status = json_integer_value(json_object_get(j, "status"));
    *p = (struct acme_problem){
        .type = text(j, "type", a), .title = text(j, "title", a), .detail = text(j, "detail", a),
        .instance = text(j, "instance", a), .status = status > 0 && status < 1000 ? (int)status : 0,
        .identifier = identifier(json_object_get(j, "identifier"), a)};
    if (count > ACME_SUBPROBLEMS_MAX)
        count = ACME_SUBPROBLEMS_MAX;
    p->subproblems = ARENA_ARRAY(a, struct acme_problem, count);
    for (size_t i = 0; i < count; i++)
        read_problem(json_array_get(subs, i), a, &p->subproblems[p->subproblems_count++], true);
}

static struct acme_problem *problem_in(const json_t *object, struct arena *a)
{
    const json_t *error = json_object_get(object, "error");
    if (!json_is_object(error))
        return NULL;
    struct acme_problem *p = ARENA_NEW(a, struct acme_problem);
    read_problem(error, a, p, false);
    return p;
}

enum err acme_problem_read(struct slice json, struct arena *a, struct acme_problem *p,
                           struct acme_why *why)
{
    json_t *j;
    TRY(load(json, &j, why));
    read_problem(j, a, p, false);
    json_decref(j);
    return OK;
}

bool acme_problem_is(const struct acme_problem *p, const char *type)
{
    return slice_starts(p->type, SLICE(NAMESPACE)) &&
           slice_is(slice_skip(p->type, sizeof NAMESPACE - 1), type);
}

static void say_plain(struct buffer *b, struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        (void)buffer_append_byte(b, (unsigned char)s.ptr[i] < ' ' || s.ptr[i] == 0x7f ? ' ' :
                                                                                        s.ptr[i]);
}

static void say_subproblem(const struct acme_problem *p, struct buffer *b)
{
    (void)BUFFER_PUT(b, ", problem \"");
    say_plain(b, p->type);
    (void)BUFFER_PUT(b, "\": ");
    say_plain(b, p->detail);
    if (p->identifier.value.len == 0)
        return;
    (void)BUFFER_PUT(b, " (");
    say_plain(b, p->identifier.type);
    (void)BUFFER_PUT(b, "_identifier=");
    say_plain(b, p->identifier.value);
    (void)BUFFER_PUT(b, ")");
}

void acme_problem_say(const struct acme_problem *p, struct buffer *b)
{
    (void)buffer_append_f(b, "HTTP %d ", p->status);
    say_plain(b, p->type.len > 0 ? p->type : SLICE("about:blank"));
    (void)BUFFER_PUT(b, " - ");
    say_plain(b, p->detail.len > 0 ? p->detail : p->title);
    for (size_t i = 0; i < p->subproblems_count; i++)
        say_subproblem(&p->subproblems[i], b);
    if (p->instance.len > 0) {
        (void)BUFFER_PUT(b, ", url: ");
        say_plain(b, p->instance);
    }
}

/* --- the directory --- */

static void read_profiles(const json_t *profiles, struct arena *a, struct acme_directory *d)
{
    size_t count = json_is_object(profiles) ? json_object_size(profiles) : 0;
    const char *name;
    json_t *description;
    if (count > ACME_LIST_MAX)
        return;
    d->profiles = ARENA_ARRAY(a, struct acme_profile, count);
    json_object_foreach((json_t *)profiles, name, description)
        d->profiles[d->profiles_count++] = (struct acme_profile){
            arena_copy(a, slice_from(name)), text_of(description, a)};
}

static enum err read_directory(const json_t *j, struct arena *a, struct acme_directory *d,
                               struct acme_why *why)
{
    const json_t *meta = json_object_get(j, "meta");
    *d = (struct acme_directory){0};
    TRY(url(j, "newNonce", true, a, &d->new_nonce, why));
    TRY(url(j, "newAccount", true, a, &d->new_account, why));
    TRY(url(j, "newOrder", true, a, &d->new_order, why));
    TRY(url(j, "revokeCert", false, a, &d->revoke_cert, why));
    TRY(url(j, "keyChange", false, a, &d->key_change, why));
    TRY(url(j, "renewalInfo", false, a, &d->renewal_info, why));
    d->terms = text(meta, "termsOfService", a);
    d->binding_required = json_is_true(json_object_get(meta, "externalAccountRequired"));
    read_profiles(json_object_get(meta, "profiles"), a, d);
    return OK;
}

enum err acme_directory_read(struct slice json, struct arena *a, struct acme_directory *d,
                             struct acme_why *why)
{
    json_t *j;
    TRY(load(json, &j, why));
    enum err e = read_directory(j, a, d, why);
    json_decref(j);
    return e;
}

/* --- accounts --- */

static enum err read_account(const json_t *j, struct arena *a, struct acme_account_object *o,
                             struct acme_why *why)
{
    const json_t *contacts = json_object_get(j, "contact");
    const json_t *binding = json_object_get(j, "externalAccountBinding");
    *o = (struct acme_account_object){.has_contacts = json_is_array(contacts)};
    o->status = text(j, "status", a);
    o->agreed = json_is_true(json_object_get(j, "termsOfServiceAgreed"));
    TRY(url(j, "orders", false, a, &o->orders, why));
    TRY(url(j, "location", false, a, &o->location, why));
    TRY(list(j, "contact", ACME_LIST_MAX, &o->contacts_count, why));
    o->contacts = ARENA_ARRAY(a, struct slice, o->contacts_count);
    for (size_t i = 0; i < o->contacts_count; i++)
        o->contacts[i] = text_of(json_array_get(contacts, i), a);
    if (json_is_object(binding)) {
        char *dumped = json_dumps(binding, JSON_COMPACT);
        o->binding = arena_copy(a, slice_from(dumped));
        free(dumped);
    }
    return OK;
}

enum err acme_account_read(struct slice json, struct arena *a, struct acme_account_object *o,
                           struct acme_why *why)
{
    json_t *j;
    TRY(load(json, &j, why));
    enum err e = read_account(j, a, o, why);
    json_decref(j);
    return e;
}

/* --- orders --- */

static enum err read_identifiers(const json_t *j, struct arena *a, struct acme_order *o,
                                 struct acme_why *why)
{
    const json_t *array = json_object_get(j, "identifiers");
    TRY(list(j, "identifiers", ACME_LIST_MAX, &o->identifiers_count, why));
    o->identifiers = ARENA_ARRAY(a, struct acme_identifier, o->identifiers_count);
    for (size_t i = 0; i < o->identifiers_count; i++)
        o->identifiers[i] = identifier(json_array_get(array, i), a);
    return OK;
}

static enum err read_authorizations(const json_t *j, struct arena *a, struct acme_order *o,
                                    struct acme_why *why)
{
    const json_t *array = json_object_get(j, "authorizations");
    TRY(list(j, "authorizations", ACME_LIST_MAX, &o->authorizations_count, why));
    o->authorizations = ARENA_ARRAY(a, struct slice, o->authorizations_count);
    for (size_t i = 0; i < o->authorizations_count; i++) {
        o->authorizations[i] = text_of(json_array_get(array, i), a);
        if (!acme_url_ok(o->authorizations[i]))
            return refuse(why, "an authorization of the order is not an http or https URL");
    }
    return OK;
}

static enum err read_order(const json_t *j, struct arena *a, struct acme_order *o,
                           struct acme_why *why)
{
    *o = (struct acme_order){.status = text(j, "status", a), .error = problem_in(j, a)};
    TRY(url(j, "finalize", false, a, &o->finalize, why));
    TRY(url(j, "certificate", false, a, &o->certificate, why));
    TRY(read_identifiers(j, a, o, why));
    return read_authorizations(j, a, o, why);
}

enum err acme_order_read(struct slice json, struct arena *a, struct acme_order *o,
                         struct acme_why *why)
{
    json_t *j;
    TRY(load(json, &j, why));
    enum err e = read_order(j, a, o, why);
    json_decref(j);
    return e;
}

/* --- authorizations and challenges --- */

/* base64url letters only (RFC 8555 §8.1): a token becomes a path and a part of a file. */
static bool token_ok(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
            c != '-' && c != '_')
            return false;
    }
    return s.len <= ACME_TOKEN_MAX;
}

static enum err read_challenge(const json_t *j, struct arena *a, struct acme_challenge *c,
                               struct acme_why *why)
{
    *c = (struct acme_challenge){.type = text(j, "type", a), .status = text(j, "status", a),
                                 .token = text(j, "token", a), .error = problem_in(j, a)};
    TRY(url(j, "url", true, a, &c->url, why));
    return token_ok(c->token) ? OK : refuse(why, "a challenge's token is not a token");
}

static enum err read_authorization(const json_t *j, struct arena *a, struct acme_authorization *z,
                                   struct acme_why *why)
{
    const json_t *array = json_object_get(j, "challenges");
    *z = (struct acme_authorization){
        .status = text(j, "status", a), .wildcard = json_is_true(json_object_get(j, "wildcard")),
        .identifier = identifier(json_object_get(j, "identifier"), a)};
    TRY(list(j, "challenges", ACME_CHALLENGES_MAX, &z->challenges_count, why));
    z->challenges = ARENA_ARRAY(a, struct acme_challenge, z->challenges_count);
    for (size_t i = 0; i < z->challenges_count; i++)
        TRY(read_challenge(json_array_get(array, i), a, &z->challenges[i], why));
    return OK;
}

enum err acme_authorization_read(struct slice json, struct arena *a, struct acme_authorization *z,
                                 struct acme_why *why)
{
    json_t *j;
    TRY(load(json, &j, why));
    enum err e = read_authorization(j, a, z, why);
    json_decref(j);
    return e;
}

enum err acme_challenge_read(struct slice json, struct arena *a, struct acme_challenge *c,
                             struct acme_why *why)
{
    json_t *j;
    TRY(load(json, &j, why));
    enum err e = read_challenge(j, a, c, why);
    json_decref(j);
    return e;
}

/* --- renewal information --- */

static enum err read_renewal(const json_t *j, struct arena *a, struct acme_renewal *r,
                             struct acme_why *why)
{
    const json_t *window = json_object_get(j, "suggestedWindow");
    *r = (struct acme_renewal){.start = text(window, "start", a), .end = text(window, "end", a),
                               .explanation_url = text(j, "explanationURL", a)};
    if (!acme_url_ok(r->explanation_url))
        r->explanation_url = SLICE("");
    if (!acme_time_read(r->start, &r->start_s) || !acme_time_read(r->end, &r->end_s))
        return refuse(why, "the suggested window has no dates");
    return r->end_s - r->start_s > 1 ? OK : refuse(why, "the suggested window ends before it begins");
}

enum err acme_renewal_read(struct slice json, struct arena *a, struct acme_renewal *r,
                           struct acme_why *why)
{
    json_t *j;
    TRY(load(json, &j, why));
    enum err e = read_renewal(j, a, r, why);
    json_decref(j);
    return e;
}
