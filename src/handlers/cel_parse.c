/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From text to a tree, by recursive descent, one function a level of binding. Before that Caddy's two
 * replacements: {name} becomes ph(req, "name"), wherever it stands, and \{name} becomes {name}, so that
 * a placeholder can reach a matcher as text.
 */
#include "base/buffer.h"
#include "base/text.h"
#include "handlers/cel.h"
#include "handlers/cel_matcher.h"

enum {
    DEPTH_MAX = 50, /* of the text */
    TREE_MAX = 32,  /* of the tree: it is walked on a fiber's stack */
    ARGS_MAX = 256,
    TEXT_MAX = 65536,
};

struct parser {
    struct provision *p;
    struct slice text, rest;
    struct slice name;
    unsigned depth;
};

static enum err parse_expression(struct parser *c, struct cel_node **out);

static enum err refuse(struct parser *c, const char *what)
{
    return provision_fail(c->p, "compiling CEL program: %s at column %zu: " SLICE_FMT, what,
                          c->text.len - c->rest.len + 1, SLICE_ARG(slice_take(c->rest, 40)));
}

/* --- Caddy's replacements --- */

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Length of "{name}" at the front, or 0. */
static size_t placeholder_len(struct slice s)
{
    size_t i = 1;
    if (s.len < 4 || s.ptr[0] != '{' || !is_word(s.ptr[1]) || s.ptr[1] == '_' ||
        (s.ptr[1] >= '0' && s.ptr[1] <= '9'))
        return 0;
    while (i < s.len && (is_word(s.ptr[i]) || s.ptr[i] == '.' || s.ptr[i] == '-'))
        i++;
    return i >= 3 && i < s.len && s.ptr[i] == '}' ? i + 1 : 0;
}

static enum err replace_placeholders(struct provision *p, struct slice text, struct slice *out)
{
    struct buffer b;
    enum err e = OK;
    buffer_init(&b, TEXT_MAX);
    for (size_t i = 0; i < text.len && e == OK;) {
        bool escaped = text.ptr[i] == '\\' && placeholder_len(slice_skip(text, i + 1)) > 0;
        size_t len = placeholder_len(slice_skip(text, i + escaped));
        struct slice name = slice_of(text.ptr + i + 1, len > 2 ? len - 2 : 0);
        if (escaped)
            e = buffer_append(&b, slice_of(text.ptr + i + 1, len));
        else if (len > 0)
            e = buffer_append_f(&b, "ph(req, \"" SLICE_FMT "\")", SLICE_ARG(name));
        else
            e = buffer_append_byte(&b, text.ptr[i]);
        i += len > 0 ? len + escaped : 1;
    }
    *out = arena_copy(p->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return e == OK ? OK : provision_fail(p, "the expression is too long");
}

/* --- words --- */

static void skip_space(struct parser *c)
{
    for (;;) {
        while (c->rest.len > 0 && strchr(" \t\r\n\f", c->rest.ptr[0]) != NULL &&
               c->rest.ptr[0] != '\0')
            c->rest = slice_skip(c->rest, 1);
        if (!slice_starts(c->rest, SLICE("//")))
            return;
        size_t end = slice_find(c->rest, '\n');
        c->rest = slice_skip(c->rest, end == SIZE_MAX ? c->rest.len : end);
    }
}

static bool take(struct parser *c, const char *symbol)
{
    skip_space(c);
    if (!slice_starts(c->rest, slice_from(symbol)))
        return false;
    c->rest = slice_skip(c->rest, strlen(symbol));
    return true;
}

static struct slice take_word(struct parser *c)
{
    size_t n = 0;
    skip_space(c);
    while (n < c->rest.len && is_word(c->rest.ptr[n]))
        n++;
    struct slice word = slice_take(c->rest, n);
    c->rest = slice_skip(c->rest, n);
    return word;
}

static bool take_keyword(struct parser *c, const char *word)
{
    struct slice before = (skip_space(c), c->rest);
    if (slice_is(take_word(c), word))
        return true;
    c->rest = before;
    return false;
}

static struct cel_node *node(struct parser *c, enum cel_kind kind, enum cel_type type, size_t count)
{
    struct cel_node *n = ARENA_NEW(c->p->arena, struct cel_node);
    n->kind = kind;
    n->type = type;
    n->count = count;
    n->args = ARENA_ARRAY(c->p->arena, struct cel_node *, count);
    return n;
}

static struct cel_node *literal(struct parser *c, struct cel_value value)
{
    struct cel_node *n = node(c, CEL_LITERAL, value.type, 0);
    n->value = value;
    return n;
}

/* --- literals --- */

static enum err put_rune(struct parser *c, struct buffer *b, size_t digits, unsigned base)
{
    uint32_t rune = 0;
    char out[4];
    for (size_t i = 0; i < digits; i++) {
        int v = i < c->rest.len ? hex_value(c->rest.ptr[i]) : -1;
        if (v < 0 || (unsigned)v >= base)
            return refuse(c, "invalid escape sequence");
        rune = rune * base + (unsigned)v;
    }
    if (rune > 0x10ffff || (rune >= 0xd800 && rune < 0xe000))
        return refuse(c, "invalid escape sequence");
    c->rest = slice_skip(c->rest, digits);
    return buffer_append(b, slice_of(out, utf8_encode(rune, out)));
}

static enum err put_escape(struct parser *c, struct buffer *b)
{
    static const char names[] = "abfnrtv\\?\"'`", values[] = "\a\b\f\n\r\t\v\\?\"'`";
    char kind = c->rest.len > 0 ? c->rest.ptr[0] : '\0';
    if (kind >= '0' && kind <= '3')
        return put_rune(c, b, 3, 8);
    c->rest = slice_skip(c->rest, 1);
    if (kind == 'x' || kind == 'X')
        return put_rune(c, b, 2, 16);
    if (kind == 'u' || kind == 'U')
        return put_rune(c, b, kind == 'u' ? 4 : 8, 16);
    const char *at = kind != '\0' ? strchr(names, kind) : NULL;
    if (at == NULL)
        return refuse(c, "invalid escape sequence");
    return buffer_append_byte(b, values[at - names]);
}

static enum err parse_string(struct parser *c, bool raw, struct cel_node **out)
{
    char quote = c->rest.ptr[0];
    char three[4] = {quote, quote, quote, '\0'}, one[2] = {quote, '\0'};
    bool is_long = slice_starts(c->rest, slice_from(three));
    struct slice mark = slice_from(is_long ? three : one);
    struct buffer b;
    enum err e = OK;
    c->rest = slice_skip(c->rest, mark.len);
    buffer_init(&b, TEXT_MAX);
    while (e == OK && !slice_starts(c->rest, mark)) {
        if (c->rest.len == 0 || (!is_long && c->rest.ptr[0] == '\n')) {
            e = refuse(c, "a string without its end");
            break;
        }
        char byte = c->rest.ptr[0];
        c->rest = slice_skip(c->rest, 1);
        e = byte == '\\' && !raw ? put_escape(c, &b) : buffer_append_byte(&b, byte);
    }
    c->rest = slice_skip(c->rest, mark.len);
    *out = literal(c, (struct cel_value){.type = CEL_STRING,
                                         .text = arena_copy(c->p->arena, buffer_slice(&b))});
    buffer_deinit(&b);
    return e;
}

static enum err parse_number(struct parser *c, struct cel_node **out)
{
    char *text = arena_str(c->p->arena, slice_take(c->rest, 64)), *end;
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    size_t n = strspn(text, hex ? "0123456789abcdefABCDEFxX" : "0123456789");
    struct cel_value v = {.type = CEL_INT};
    if (!hex && (text[n] == '.' || text[n] == 'e' || text[n] == 'E')) {
        v.type = CEL_DOUBLE;
        v.real = strtod(text, &end);
        n = (size_t)(end - text);
    } else if (hex) {
        v.integer = (int64_t)strtoull(text, NULL, 16);
    } else if (!slice_to_i64(slice_of(text, n), &v.integer)) {
        return refuse(c, "a number that is too large");
    }
    c->rest = slice_skip(c->rest, n);
    if (c->rest.len > 0 && (c->rest.ptr[0] == 'u' || c->rest.ptr[0] == 'U'))
        c->rest = slice_skip(c->rest, 1); /* unsigned: counted as any other */
    *out = literal(c, v);
    return OK;
}

/* --- lists of expressions --- */

static enum err parse_list(struct parser *c, const char *end, struct cel_node **first,
                           struct cel_node ***items, size_t *count)
{
    struct cel_node *some[ARGS_MAX];
    size_t n = 0;
    if (first != NULL)
        some[n++] = *first;
    while (!take(c, end)) {
        if (n > (first != NULL) && !take(c, ","))
            return refuse(c, "expected a comma or the end of a list");
        if (n > (first != NULL) && take(c, end))
            break;
        if (n == ARGS_MAX)
            return refuse(c, "too many elements");
        TRY(parse_expression(c, &some[n++]));
    }
    *items = ARENA_ARRAY(c->p->arena, struct cel_node *, n);
    if (n > 0)
        memcpy(*items, some, n * sizeof some[0]);
    *count = n;
    return OK;
}

static enum err parse_map(struct parser *c, struct cel_node **out)
{
    struct cel_node *some[ARGS_MAX];
    size_t n = 0;
    while (!take(c, "}")) {
        if (n > 0 && !take(c, ","))
            return refuse(c, "expected a comma or '}'");
        if (n > 0 && take(c, "}"))
            break;
        if (n + 2 > ARGS_MAX)
            return refuse(c, "too many elements");
        TRY(parse_expression(c, &some[n++]));
        if (!take(c, ":"))
            return refuse(c, "expected ':'");
        TRY(parse_expression(c, &some[n++]));
    }
    *out = node(c, CEL_MAKE_MAP, CEL_MAP, n);
    if (n > 0)
        memcpy((*out)->args, some, n * sizeof some[0]);
    return OK;
}

/* --- calls --- */

static void free_regexp(void *re)
{
    regexp_free(re);
}

static enum err call_function(struct parser *c, struct slice name, struct cel_node *target,
                              struct cel_node **out)
{
    struct cel_node *n = node(c, CEL_CALL, CEL_DYN, 0);
    n->function = cel_function_find(name, target != NULL);
    if (n->function == NULL)
        return refuse(c, "undeclared or unsupported function before");
    TRY(parse_list(c, ")", target != NULL ? &target : NULL, &n->args, &n->count));
    if (n->count < n->function->min || n->count > n->function->max)
        return refuse(c, "wrong number of arguments before");
    n->type = n->function->type;
    *out = n;
    if (!slice_is(name, "matches"))
        return OK;
    if (n->args[1]->kind != CEL_LITERAL || n->args[1]->type != CEL_STRING)
        return refuse(c, "the pattern of matches must be a string before");
    TRY(regexp_compile(c->p, n->args[1]->value.text, &n->regexp));
    struct provision_release *r = ARENA_NEW(c->p->arena, struct provision_release);
    *r = (struct provision_release){c->p->releases, free_regexp, n->regexp};
    c->p->releases = r;
    return OK;
}

static enum err call_placeholder(struct parser *c, struct cel_node **out)
{
    struct cel_node *arg;
    if ((!take_keyword(c, "req") && !take_keyword(c, "request")) || !take(c, ","))
        return refuse(c, "expected the request and a placeholder's name");
    TRY(parse_expression(c, &arg));
    if (!take(c, ")") || arg->kind != CEL_LITERAL || arg->type != CEL_STRING)
        return refuse(c, "expected a placeholder's name");
    *out = node(c, CEL_PLACEHOLDER, CEL_DYN, 0);
    placeholder_resolve(&(*out)->placeholder, arg->value.text);
    return OK;
}

static enum err call_matcher(struct parser *c, struct slice name, struct cel_node **out)
{
    struct cel_node **args;
    size_t count;
    TRY(parse_list(c, ")", NULL, &args, &count));
    *out = node(c, CEL_MATCHER, CEL_BOOL, 0);
    return cel_matcher_provision(c->p, name, c->name, args, count, &(*out)->matcher);
}

static enum err parse_word(struct parser *c, struct cel_node **out)
{
    struct slice word = take_word(c);
    if (slice_is(word, "true") || slice_is(word, "false")) {
        *out = literal(c, (struct cel_value){.type = CEL_BOOL, .truth = slice_is(word, "true")});
        return OK;
    }
    if (slice_is(word, "null")) {
        *out = literal(c, (struct cel_value){.type = CEL_NULL});
        return OK;
    }
    if (!take(c, "("))
        return refuse(c, "undeclared reference before");
    if (slice_is(word, "ph") || slice_is(word, "caddyPlaceholder"))
        return call_placeholder(c, out);
    return cel_matcher_known(word) ? call_matcher(c, word, out) : call_function(c, word, NULL, out);
}

static enum err parse_primary(struct parser *c, struct cel_node **out)
{
    skip_space(c);
    char first = c->rest.len > 0 ? c->rest.ptr[0] : '\0';
    char second = c->rest.len > 1 ? c->rest.ptr[1] : '\0';
    if (first == '"' || first == '\'')
        return parse_string(c, false, out);
    if ((first == 'r' || first == 'R') && (second == '"' || second == '\'')) {
        c->rest = slice_skip(c->rest, 1);
        return parse_string(c, true, out);
    }
    if ((first >= '0' && first <= '9') || (first == '.' && second >= '0' && second <= '9'))
        return parse_number(c, out);
    if (take(c, "(")) {
        TRY(parse_expression(c, out));
        return take(c, ")") ? OK : refuse(c, "expected ')'");
    }
    if (take(c, "[")) {
        *out = node(c, CEL_MAKE_LIST, CEL_LIST, 0);
        return parse_list(c, "]", NULL, &(*out)->args, &(*out)->count);
    }
    if (take(c, "{"))
        return parse_map(c, out);
    return is_word(first) ? parse_word(c, out) : refuse(c, "expected a value");
}

static enum err parse_member(struct parser *c, struct cel_node **out)
{
    TRY(parse_primary(c, out));
    for (;;) {
        struct cel_node *target = *out, *n;
        if (take(c, ".")) {
            struct slice word = take_word(c);
            if (take(c, "(")) {
                TRY(call_function(c, word, target, out));
                continue;
            }
            n = node(c, CEL_INDEX, CEL_DYN, 2);
            n->args[1] = literal(c, (struct cel_value){.type = CEL_STRING, .text = word});
        } else if (take(c, "[")) {
            n = node(c, CEL_INDEX, CEL_DYN, 2);
            TRY(parse_expression(c, &n->args[1]));
            if (!take(c, "]"))
                return refuse(c, "expected ']'");
        } else {
            return OK;
        }
        n->args[0] = target;
        *out = n;
    }
}

static enum err parse_unary(struct parser *c, struct cel_node **out)
{
    skip_space(c);
    bool not = c->rest.len > 0 && c->rest.ptr[0] == '!';
    bool minus = c->rest.len > 0 && c->rest.ptr[0] == '-';
    if (!not && !minus)
        return parse_member(c, out);
    if (++c->depth > DEPTH_MAX)
        return refuse(c, "nested too deep");
    c->rest = slice_skip(c->rest, 1);
    *out = node(c, not ? CEL_NOT : CEL_MINUS, not ? CEL_BOOL : CEL_DYN, 1);
    TRY(parse_unary(c, &(*out)->args[0]));
    c->depth--;
    enum cel_type type = (*out)->args[0]->type;
    if (not && type != CEL_BOOL && type != CEL_DYN)
        return refuse(c, "'!' needs a truth, before");
    return OK;
}

/* --- binary operators, by how tightly they bind --- */

struct binary {
    const char *symbol;
    enum cel_operator operator;
};

static const struct binary products[] = {{"*", CEL_MUL}, {"/", CEL_DIV}, {"%", CEL_MOD}, {NULL, 0}};
static const struct binary sums[] = {{"+", CEL_ADD}, {"-", CEL_SUB}, {NULL, 0}};
static const struct binary relations[] = {{"==", CEL_EQ}, {"!=", CEL_NE}, {"<=", CEL_LE},
                                          {">=", CEL_GE}, {"<", CEL_LT}, {">", CEL_GT}, {NULL, 0}};
static const struct binary *const levels[] = {products, sums, relations};

static bool take_operator(struct parser *c, size_t level, enum cel_operator *operator)
{
    for (const struct binary *b = levels[level]; b->symbol != NULL; b++) {
        *operator = b->operator;
        if (take(c, b->symbol))
            return true;
    }
    *operator = CEL_IN;
    return level == 2 && take_keyword(c, "in");
}

static enum err parse_binary(struct parser *c, size_t level, struct cel_node **out)
{
    enum cel_operator operator;
    TRY(level == 0 ? parse_unary(c, out) : parse_binary(c, level - 1, out));
    for (unsigned i = 0; take_operator(c, level, &operator); i++) {
        if (i == ARGS_MAX)
            return refuse(c, "too many terms");
        struct cel_node *n = node(c, CEL_BINARY, level == 2 ? CEL_BOOL : CEL_DYN, 2);
        n->operator = operator;
        n->args[0] = *out;
        TRY(level == 0 ? parse_unary(c, &n->args[1]) : parse_binary(c, level - 1, &n->args[1]));
        if (level < 2 && n->args[0]->type == n->args[1]->type)
            n->type = n->args[0]->type;
        *out = n;
    }
    return OK;
}

/* All terms of a chain make one node, so that a long chain is no deep tree. */
static enum err parse_logic(struct parser *c, bool is_or, struct cel_node **out)
{
    struct cel_node *terms[ARGS_MAX];
    size_t n = 0;
    do {
        if (n == ARGS_MAX)
            return refuse(c, "too many terms");
        TRY(is_or ? parse_logic(c, false, &terms[n]) : parse_binary(c, 2, &terms[n]));
        n++;
    } while (take(c, is_or ? "||" : "&&"));
    *out = terms[0];
    if (n == 1)
        return OK;
    *out = node(c, is_or ? CEL_OR : CEL_AND, CEL_BOOL, n);
    for (size_t i = 0; i < n; i++) {
        if (terms[i]->type != CEL_BOOL && terms[i]->type != CEL_DYN)
            return refuse(c, "'&&' and '||' need truths, before");
        (*out)->args[i] = terms[i];
    }
    return OK;
}

static bool fits_stack(const struct cel_node *n, unsigned left)
{
    for (size_t i = 0; i < n->count; i++) {
        if (left == 0 || !fits_stack(n->args[i], left - 1))
            return false;
    }
    return true;
}

static enum err parse_expression(struct parser *c, struct cel_node **out)
{
    if (++c->depth > DEPTH_MAX)
        return refuse(c, "nested too deep");
    TRY(parse_logic(c, true, out));
    if (take(c, "?")) {
        struct cel_node *n = node(c, CEL_CHOICE, CEL_DYN, 3);
        n->args[0] = *out;
        TRY(parse_logic(c, true, &n->args[1]));
        if (!take(c, ":"))
            return refuse(c, "expected ':'");
        TRY(parse_expression(c, &n->args[2]));
        if (n->args[1]->type == n->args[2]->type)
            n->type = n->args[1]->type;
        *out = n;
    }
    c->depth--;
    return OK;
}

enum err cel_compile(struct provision *p, struct slice text, struct slice name,
                     struct cel_node **out)
{
    struct parser c = {.p = p, .name = name};
    TRY(replace_placeholders(p, text, &c.text));
    c.rest = c.text;
    TRY(parse_expression(&c, out));
    skip_space(&c);
    if (c.rest.len > 0)
        return refuse(&c, "unexpected text");
    if (!fits_stack(*out, TREE_MAX))
        return refuse(&c, "nested too deep");
    if ((*out)->type != CEL_BOOL)
        return provision_fail(p, "CEL request matcher expects return type of bool");
    return OK;
}
