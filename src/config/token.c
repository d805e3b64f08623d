/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of one token or two neighbours, and lists of tokens.
 */
#include "config/token.h"

#include "base/text.h"

bool rune_is_space(uint32_t r)
{
    return (r >= 9 && r <= 13) || r == ' ' || r == 0x85 || r == 0xa0 || r == 0x1680 ||
           (r >= 0x2000 && r <= 0x200a) || r == 0x2028 || r == 0x2029 || r == 0x202f ||
           r == 0x205f || r == 0x3000;
}

size_t rune_next(struct slice in, uint32_t *rune)
{
    size_t n = utf8_decode(in, rune);
    if (n > 0)
        return n;
    *rune = 0xfffd;
    return 1;
}

enum err tokens_add_all(struct arena *arena, struct tokens *list, const struct token *add, size_t n)
{
    if (n == 0)
        return OK;
    if (n > CADDYFILE_MAX_TOKENS || list->count > CADDYFILE_MAX_TOKENS - n)
        return ERR_LIMIT;
    if (list->count + n > list->cap) {
        size_t cap = list->cap < 32 ? 32 : list->cap * 2;
        if (cap < list->count + n)
            cap = list->count + n;
        struct token *items = ARENA_ARRAY(arena, struct token, cap);
        if (list->count > 0)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->cap = cap;
    }
    memcpy(list->items + list->count, add, n * sizeof *add);
    list->count += n;
    return OK;
}

enum err tokens_add(struct arena *arena, struct tokens *list, struct token t)
{
    return tokens_add_all(arena, list, &t, 1);
}

bool token_opens(const struct token *t)
{
    return t->quote == 0 && slice_is(t->text, "{");
}

bool token_closes(const struct token *t)
{
    return t->quote == 0 && slice_is(t->text, "}");
}

unsigned token_line_breaks(const struct token *t)
{
    unsigned n = 0;
    for (size_t i = 0; i < t->text.len; i++)
        n += t->text.ptr[i] == '\n';
    /* A heredoc's opening line and its last line end are not in the text. */
    return t->quote == '<' ? n + 2 : n;
}

static bool same_imports(const struct import_chain *a, const struct import_chain *b)
{
    while (a != b) {
        if (a == NULL || b == NULL || a->depth != b->depth || !slice_eq(a->text, b->text))
            return false;
        a = a->outer;
        b = b->outer;
    }
    return true;
}

bool token_on_new_line(const struct token *a, const struct token *b)
{
    return !slice_eq(a->file, b->file) || !same_imports(a->imports, b->imports) ||
           a->line + token_line_breaks(a) < b->line;
}

bool heredoc_marker_ok(struct slice marker)
{
    for (size_t i = 0; i < marker.len; i++) {
        char c = ascii_lower(marker.ptr[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
            return false;
    }
    return marker.len > 0;
}
