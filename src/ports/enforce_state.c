/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel holds of our table, from what nft lists: without its elements where only the shape
 * is asked for, since a table may have tens of thousands.
 */
#include <stdio.h>

#include "base/text.h"
#include "config/jsonx.h"
#include "ports/enforce.h"
#include "ports/nft_run.h"

enum { LIST_MAX = 256 << 20, DEPTH_MAX = 64 };

static struct slice text_of(const json_t *o, const char *key)
{
    const json_t *s = json_object_get(o, key);
    return slice_of(json_string_value(s), json_string_length(s));
}

/* "portico 0123456789abcdef"; it is written into scripts again, so it is nothing else. */
static void read_mark(const json_t *rule, char out[17])
{
    struct slice word, mark;
    slice_cut(text_of(rule, "comment"), ' ', &word, &mark);
    bool good = slice_eq(word, SLICE("portico")) && mark.len == 16;
    for (size_t i = 0; good && i < mark.len; i++)
        good = hex_value(mark.ptr[i]) >= 0;
    if (good) {
        memcpy(out, mark.ptr, 16);
        out[16] = '\0';
    }
}

/* A rule of `input` that leads to a generation; by the set "trial", or always. */
static void read_rule(const json_t *rule, struct enforce_state *s)
{
    const json_t *expr = json_object_get(rule, "expr");
    size_t last = json_array_size(expr);
    const json_t *jump = last == 0 ? NULL : json_object_get(json_array_get(expr, last - 1), "goto");
    struct slice target = text_of(jump, "target");
    if (!slice_eq(text_of(rule, "chain"), SLICE("input")) || target.len != 1 ||
        (target.ptr[0] != 'a' && target.ptr[0] != 'b'))
        return;
    bool always = last == 1;
    *(always ? &s->current : &s->trial) = target.ptr[0];
    read_mark(rule, always ? s->current_mark : s->trial_mark);
}

static unsigned read_left(const json_t *trial)
{
    json_int_t left = 0;
    size_t i, k;
    json_t *item, *element;
    json_array_foreach(json_object_get(trial, "nftables"), i, item) {
        json_array_foreach(json_object_get(json_object_get(item, "set"), "elem"), k, element) {
            json_int_t s =
                json_integer_value(json_object_get(json_object_get(element, "elem"), "expires"));
            left = s >= left ? s + 1 : left; /* what is left of a second is not told */
        }
    }
    return left > ENFORCE_TRIAL_MAX_S ? ENFORCE_TRIAL_MAX_S : (unsigned)left;
}

enum err enforce_state_parse(const json_t *table, const json_t *trial, struct arena *arena,
                             struct enforce_state *s, char *error, size_t cap)
{
    const json_t *list = json_object_get(table, "nftables"), *o;
    size_t i, count = json_array_size(list);
    json_t *item;
    *s = (struct enforce_state){.present = true};
    if (!json_is_array(list)) {
        snprintf(error, cap, "what nft lists of the table inet portico is not understood");
        return ERR_INVALID;
    }
    s->chains = ARENA_ARRAY(arena, struct slice, count + 1);
    s->sets = ARENA_ARRAY(arena, struct slice, count + 1);
    json_array_foreach(list, i, item) {
        if ((o = json_object_get(item, "chain")) != NULL)
            s->chains[s->chains_count++] = arena_copy(arena, text_of(o, "name"));
        else if ((o = json_object_get(item, "set")) != NULL)
            s->sets[s->sets_count++] = arena_copy(arena, text_of(o, "name"));
        else if ((o = json_object_get(item, "rule")) != NULL)
            read_rule(o, s);
    }
    if (s->trial != 0)
        s->trial_left_s = read_left(trial);
    return OK;
}

static enum err list(const char *const argv[], json_t **out, char *error, size_t cap)
{
    struct buffer text;
    json_error_t why;
    buffer_init(&text, LIST_MAX);
    *out = NULL;
    enum err e = nft_run(argv, SLICE_NONE, &text, error, cap);
    if (e == OK && !jsonx_too_deep(buffer_slice(&text), DEPTH_MAX))
        *out = json_loadb(text.ptr, text.len, 0, &why);
    if (e == OK && *out == NULL) {
        snprintf(error, cap, "what nft lists of the table inet portico is not understood");
        e = ERR_INVALID;
    }
    buffer_deinit(&text);
    return e;
}

static enum err is_there(bool *there, char *error, size_t cap)
{
    struct buffer names;
    buffer_init(&names, 1 << 20);
    enum err e = nft_tables(&names);
    struct slice all = buffer_slice(&names), line;
    *there = false;
    while (slice_cut(all, '\n', &line, &all))
        *there = *there || slice_eq(line, SLICE("inet portico"));
    buffer_deinit(&names);
    if (e == ERR_DENIED)
        snprintf(error, cap, "only root may read and change the firewall (CAP_NET_ADMIN)");
    else if (e != OK)
        snprintf(error, cap, "this kernel has no nftables");
    return e;
}

enum err enforce_state_read(struct arena *arena, struct enforce_state *s, char *error, size_t cap)
{
    static const char *const table[] = {"nft", "-j", "-t", "list", "table", "inet", "portico", NULL};
    static const char *const set[] = {"nft", "-j", "list", "set", "inet", "portico", "trial", NULL};
    json_t *listed = NULL, *trial = NULL;
    bool there;
    *s = (struct enforce_state){0};
    TRY(is_there(&there, error, cap));
    if (!there)
        return OK;
    enum err e = list(table, &listed, error, cap);
    if (e == OK)
        e = enforce_state_parse(listed, NULL, arena, s, error, cap);
    if (e == OK && s->trial != 0) {
        e = list(set, &trial, error, cap);
        s->trial_left_s = read_left(trial);
    }
    json_decref(listed);
    json_decref(trial);
    return e;
}
