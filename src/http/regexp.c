/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compiled code is shared by all workers; what a match writes (match data, the stack of the JIT) is
 * the thread's own, made at its first match. That stack matters: by default PCRE2 takes 32 KiB of
 * the machine's stack, half of a fiber's.
 */
#include "http/regexp.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <pthread.h>

#include "base/buffer.h"
#include "base/check.h"
#include "base/mem.h"

enum { MATCH_LIMIT = 1000000, HEAP_LIMIT_KIB = 20000, JIT_STACK = 512 * 1024 };

struct regexp {
    pcre2_code *code;
    uint32_t groups; /* with the whole match */
    struct slice names[REGEXP_GROUPS_MAX];
};

struct regexp_thread {
    pcre2_match_context *context;
    pcre2_match_data *data;
    pcre2_jit_stack *stack;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local struct regexp_thread *mine;

static void free_thread(void *arg)
{
    struct regexp_thread *t = arg;
    pcre2_match_context_free(t->context);
    pcre2_match_data_free(t->data);
    pcre2_jit_stack_free(t->stack);
    mem_free(t);
}

static void make_key(void)
{
    if (pthread_key_create(&key, free_thread) != 0)
        fatal("no thread key is left");
}

static struct regexp_thread *thread(void)
{
    if (LIKELY(mine != NULL))
        return mine;
    pthread_once(&once, make_key);
    struct regexp_thread *t = NEW(struct regexp_thread);
    t->context = pcre2_match_context_create(NULL);
    t->data = pcre2_match_data_create(REGEXP_GROUPS_MAX, NULL);
    t->stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK, NULL);
    if (t->context == NULL || t->data == NULL || t->stack == NULL)
        fatal("out of memory");
    pcre2_set_match_limit(t->context, MATCH_LIMIT);
    pcre2_set_heap_limit(t->context, HEAP_LIMIT_KIB);
    pcre2_jit_stack_assign(t->context, NULL, t->stack);
    pthread_setspecific(key, t);
    mine = t;
    return t;
}

/* What PCRE2 would take and RE2 refuses, or NULL. */
static const char *foreign_syntax(struct slice p)
{
    bool in_class = false;
    for (size_t i = 0; i < p.len; i++) {
        char c = p.ptr[i], next = i + 1 < p.len ? p.ptr[i + 1] : '\0';
        if (c == '\\') {
            if (!in_class && ((next >= '1' && next <= '9') || next == 'k' || next == 'g'))
                return "back references are not supported";
            if (next == 'K' || next == 'R' || next == 'X' || next == 'G' || next == 'Z')
                return "this escape is not supported";
            i++;
        } else if (in_class) {
            in_class = c != ']';
        } else if (c == '[') {
            in_class = true;
            if (next == '^')
                i++;
            if (i + 1 < p.len && p.ptr[i + 1] == ']')
                i++; /* a ']' that comes first is itself */
        } else if (c == '(' && next == '*') {
            return "verbs are not supported";
        } else if (c == '(' && next == '?') {
            char kind = i + 2 < p.len ? p.ptr[i + 2] : '\0';
            char more = i + 3 < p.len ? p.ptr[i + 3] : '\0';
            if (kind == '=' || kind == '!' || (kind == '<' && (more == '=' || more == '!')))
                return "look-around is not supported";
            if (strchr(">|(&R+#C'0123456789", kind) != NULL || (kind == 'P' && more != '<'))
                return "invalid or unsupported Perl syntax";
        } else if ((c == '+' || c == '*' || c == '?' || c == '}') && next == '+') {
            return "invalid nested repetition operator";
        }
    }
    return NULL;
}

static void read_names(struct regexp *re)
{
    uint32_t count = 0, size = 0;
    PCRE2_SPTR table = NULL;
    pcre2_pattern_info(re->code, PCRE2_INFO_NAMECOUNT, &count);
    pcre2_pattern_info(re->code, PCRE2_INFO_NAMEENTRYSIZE, &size);
    pcre2_pattern_info(re->code, PCRE2_INFO_NAMETABLE, &table);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t group = (uint32_t)table[0] << 8 | table[1];
        if (group < REGEXP_GROUPS_MAX)
            re->names[group] = slice_from((const char *)table + 2);
        table += size;
    }
}

enum err regexp_compile(struct provision *p, struct slice pattern, struct regexp **out)
{
    int code;
    PCRE2_SIZE at;
    char text[128];
    *out = NULL;
    const char *foreign = foreign_syntax(pattern);
    if (foreign != NULL)
        return provision_fail(p, "compiling matcher regexp " SLICE_FMT ": %s", SLICE_ARG(pattern),
                              foreign);
    struct regexp *re = NEW(struct regexp);
    re->code = pcre2_compile((PCRE2_SPTR)pattern.ptr, pattern.len,
                             PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_DOLLAR_ENDONLY |
                                 PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (re->code == NULL) {
        mem_free(re);
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        return provision_fail(p, "compiling matcher regexp " SLICE_FMT ": %s at offset %zu",
                              SLICE_ARG(pattern), text, (size_t)at);
    }
    pcre2_pattern_info(re->code, PCRE2_INFO_CAPTURECOUNT, &re->groups);
    if (++re->groups > REGEXP_GROUPS_MAX) {
        regexp_free(re);
        return provision_fail(p, "a regular expression has at most %d groups",
                              REGEXP_GROUPS_MAX - 1);
    }
    (void)pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE); /* without it the interpreter matches */
    read_names(re);
    *out = re;
    return OK;
}

void regexp_free(struct regexp *re)
{
    if (re == NULL)
        return;
    pcre2_code_free(re->code);
    mem_free(re);
}

struct slice regexp_group_name(const struct regexp *re, size_t i)
{
    return i < REGEXP_GROUPS_MAX ? re->names[i] : SLICE_NONE;
}

static enum err match_at(const struct regexp *re, struct slice subject, size_t from,
                         struct slice groups[REGEXP_GROUPS_MAX], size_t *n)
{
    struct regexp_thread *t = thread();
    const char *text = subject.ptr != NULL ? subject.ptr : "";
    int r = pcre2_match(re->code, (PCRE2_SPTR)text, subject.len, from, 0, t->data, t->context);
    *n = 0;
    if (r == PCRE2_ERROR_NOMATCH)
        return OK;
    if (r < 0)
        return ERR_LIMIT;
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(t->data);
    for (size_t i = 0; i < re->groups; i++) {
        bool took_part = (int)i < r && at[2 * i] != PCRE2_UNSET;
        groups[i] = took_part ? slice_of(text + at[2 * i], at[2 * i + 1] - at[2 * i]) : SLICE("");
    }
    *n = re->groups;
    return OK;
}

enum err regexp_match(const struct regexp *re, struct slice subject,
                      struct slice groups[REGEXP_GROUPS_MAX], size_t *n)
{
    return match_at(re, subject, 0, groups, n);
}

/* --- replacing --- */

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static struct slice group_by_name(const struct regexp *re, struct slice name,
                                  const struct slice *groups, size_t n)
{
    uint64_t i;
    if (slice_to_u64(name, 1000, &i))
        return i < n ? groups[i] : SLICE("");
    for (size_t k = 1; k < n; k++) {
        if (re->names[k].len > 0 && slice_eq(re->names[k], name))
            return groups[k];
    }
    return SLICE("");
}

/* Behind a '$': the name, and how many bytes it and its braces take; 0 when it is none. */
static size_t reference(struct slice s, struct slice *name)
{
    size_t n = 0;
    bool braces = s.len > 0 && s.ptr[0] == '{';
    struct slice rest = braces ? slice_skip(s, 1) : s;
    while (n < rest.len && is_word(rest.ptr[n]))
        n++;
    *name = slice_take(rest, n);
    if (n == 0 || (braces && (n >= rest.len || rest.ptr[n] != '}')))
        return 0;
    return braces ? n + 2 : n;
}

static enum err expand(const struct regexp *re, struct slice with, const struct slice *groups,
                       size_t n, struct buffer *out)
{
    struct slice before, rest = with, name;
    while (slice_cut(rest, '$', &before, &rest)) {
        TRY(buffer_append(out, before));
        if (rest.len > 0 && rest.ptr[0] == '$') {
            TRY(buffer_append_byte(out, '$'));
            rest = slice_skip(rest, 1);
            continue;
        }
        size_t used = reference(rest, &name);
        if (used == 0)
            TRY(buffer_append_byte(out, '$'));
        else
            TRY(buffer_append(out, group_by_name(re, name, groups, n)));
        rest = slice_skip(rest, used);
    }
    return buffer_append(out, before);
}

enum { REPLACED_MAX = 1 << 20 };

enum err regexp_expand(const struct regexp *re, struct slice with, const struct slice *groups,
                       size_t n, struct arena *arena, struct slice *out)
{
    struct buffer b;
    buffer_init(&b, REPLACED_MAX);
    enum err e = expand(re, with, groups, n, &b);
    *out = e == OK ? arena_copy(arena, buffer_slice(&b)) : SLICE_NONE;
    buffer_deinit(&b);
    return e;
}

enum err regexp_replace(const struct regexp *re, struct slice subject, struct slice with,
                        struct arena *arena, struct slice *out)
{
    struct slice groups[REGEXP_GROUPS_MAX];
    size_t n, from = 0, copied = 0;
    bool any = false;
    struct buffer b;
    buffer_init(&b, REPLACED_MAX);
    enum err e = OK;
    while (e == OK && from <= subject.len) {
        e = match_at(re, subject, from, groups, &n);
        if (e != OK || n == 0)
            break;
        const char *text = subject.ptr != NULL ? subject.ptr : "";
        size_t start = (size_t)(groups[0].ptr - text), end = start + groups[0].len;
        bool repeats = groups[0].len == 0 && any && start == copied && start > 0;
        if (e == OK && !repeats) { /* an empty match right behind a match does not count */
            any = true;
            e = buffer_append(&b, slice_of(text + copied, start - copied));
            if (e == OK)
                e = expand(re, with, groups, n, &b);
            copied = end;
        }
        from = end > start ? end : end + 1;
    }
    if (e == OK && any)
        e = buffer_append(&b, slice_skip(subject, copied));
    *out = e == OK && any ? arena_copy(arena, buffer_slice(&b)) : subject;
    buffer_deinit(&b);
    return e;
}

/* --- captures --- */

static void set_capture(struct exchange *x, struct slice name, struct slice group,
                        struct slice value)
{
    struct slice plain = arena_join(x->arena, (struct slice[]){SLICE("http.regexp."), group}, 2);
    exchange_set_var(x, plain, value);
    if (name.len > 0)
        exchange_set_var(x, arena_join(x->arena, (struct slice[]){SLICE("http.regexp."), name,
                                                                   SLICE("."), group}, 4), value);
}

enum err regexp_capture(const struct regexp *re, struct slice name, struct slice subject,
                        struct exchange *x, bool *matches)
{
    struct slice groups[REGEXP_GROUPS_MAX];
    size_t n;
    *matches = false;
    if (regexp_match(re, subject, groups, &n) != OK)
        return exchange_fail(x, 500, "a regular expression took too long to match");
    *matches = n > 0;
    for (size_t i = 0; i < n; i++) {
        set_capture(x, name, arena_printf(x->arena, "%zu", i), groups[i]);
        if (re->names[i].len > 0)
            set_capture(x, name, re->names[i], groups[i]);
    }
    return OK;
}
