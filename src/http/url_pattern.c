/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pattern is cut into the components of a URL in one walk over its tokens, since a ':' or '?' within
 * braces or a regular expression is not a URL's. Each component's tokens then become an expression:
 * texts are escaped, ":name" is a run up to the next separator, "*" is everything, "{…}" groups
 * without capturing, and ? + * repeat.
 */
#include "http/url_pattern.h"

#include "base/buffer.h"
#include "base/mem.h"
#include "http/uri.h"

enum { TOKENS_MAX = 512, EXPRESSION_MAX = 16384 };

const char *const url_part_names[URL_PARTS] = {"protocol", "username", "password", "hostname",
                                               "port", "pathname", "search", "hash"};

enum token_kind { T_CHAR, T_ESCAPED, T_NAME, T_REGEXP, T_OPEN, T_CLOSE, T_MODIFIER, T_STAR, T_END };

struct token {
    enum token_kind kind;
    struct slice value; /* without ':' of names, the parentheses of expressions, the '\' */
    size_t at;
};

struct tokens {
    struct token list[TOKENS_MAX];
    size_t count; /* the last one is T_END */
};

/* --- tokens --- */

static bool is_name_char(char c, bool first)
{
    char l = ascii_lower(c);
    return (l >= 'a' && l <= 'z') || c == '_' || c == '$' || (unsigned char)c >= 0x80 ||
           (!first && c >= '0' && c <= '9');
}

/* The length of "(…)" at the front of `s`, or 0: a group that captures, or no end. */
static size_t regexp_length(struct slice s)
{
    int depth = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '\\') {
            i++;
        } else if (s.ptr[i] == '(') {
            if (depth++ > 0 && (i + 1 >= s.len || s.ptr[i + 1] != '?'))
                return 0;
        } else if (s.ptr[i] == ')' && --depth == 0) {
            return i > 1 && s.ptr[1] != '?' ? i + 1 : 0;
        }
    }
    return 0;
}

static size_t name_length(struct slice s)
{
    size_t n = 1;
    while (n < s.len && is_name_char(s.ptr[n], n == 1))
        n++;
    return n > 1 ? n : 0;
}

/* The next token's kind and length; T_CHAR where a longer one was begun and is none. */
static struct token scan(struct slice rest, size_t at)
{
    size_t n;
    switch (rest.ptr[0]) {
    case '*':
        return (struct token){T_STAR, slice_take(rest, 1), at};
    case '+':
    case '?':
        return (struct token){T_MODIFIER, slice_take(rest, 1), at};
    case '{':
        return (struct token){T_OPEN, slice_take(rest, 1), at};
    case '}':
        return (struct token){T_CLOSE, slice_take(rest, 1), at};
    case '\\':
        if (rest.len > 1)
            return (struct token){T_ESCAPED, slice_of(rest.ptr + 1, 1), at};
        break;
    case ':':
        n = name_length(rest);
        if (n > 0)
            return (struct token){T_NAME, slice_of(rest.ptr + 1, n - 1), at};
        break;
    case '(':
        n = regexp_length(rest);
        if (n > 0)
            return (struct token){T_REGEXP, slice_of(rest.ptr + 1, n - 2), at};
        break;
    }
    return (struct token){T_CHAR, slice_take(rest, 1), at};
}

static size_t token_length(const struct token *t)
{
    switch (t->kind) {
    case T_NAME:
    case T_ESCAPED:
        return t->value.len + 1;
    case T_REGEXP:
        return t->value.len + 2;
    default:
        return t->value.len;
    }
}

static enum err tokenize(struct provision *p, struct slice text, struct tokens *ts)
{
    ts->count = 0;
    for (size_t at = 0; at < text.len;) {
        if (ts->count == TOKENS_MAX - 1)
            return provision_fail(p, "unable to parse URL pattern: more than %d parts", TOKENS_MAX);
        struct token t = scan(slice_skip(text, at), at);
        at += token_length(&t);
        ts->list[ts->count++] = t;
    }
    ts->list[ts->count++] = (struct token){T_END, SLICE_NONE, text.len};
    return OK;
}

/* --- a pattern taken apart --- */

struct cut {
    const struct tokens *ts;
    struct slice text;
    enum url_part state;
    bool begun;       /* behind the first decision */
    size_t from, at;  /* tokens of the component in hand */
    struct slice parts[URL_PARTS];
    bool has[URL_PARTS];
};

static bool char_at(const struct cut *c, size_t i, char ch)
{
    const struct token *t = &c->ts->list[i < c->ts->count ? i : c->ts->count - 1];
    return (t->kind == T_CHAR || t->kind == T_ESCAPED) && t->value.ptr[0] == ch;
}

/* A '?' that repeats nothing begins the query. */
static bool search_at(const struct cut *c, size_t i)
{
    const struct token *t = &c->ts->list[i];
    if (char_at(c, i, '?'))
        return true;
    if (t->kind != T_MODIFIER || t->value.ptr[0] != '?')
        return false;
    if (i == 0)
        return true;
    enum token_kind before = c->ts->list[i - 1].kind;
    return before != T_NAME && before != T_REGEXP && before != T_CLOSE && before != T_STAR;
}

static bool slashes_at(const struct cut *c, size_t i)
{
    return char_at(c, i, '/') && char_at(c, i + 1, '/');
}

static void set_default(struct cut *c, enum url_part part, struct slice text)
{
    if (!c->has[part])
        c->parts[part] = text;
    c->has[part] = true;
}

/* What stands between the parts that are written is empty, not everything. */
static void leave(struct cut *c, enum url_part next, size_t skip)
{
    const struct token *list = c->ts->list;
    c->parts[c->state] = slice_of(c->text.ptr + list[c->from].at, list[c->at].at - list[c->from].at);
    c->has[c->state] = true;
    if (next >= URL_PORT && next < URL_PARTS && c->state < URL_HOSTNAME)
        set_default(c, URL_HOSTNAME, SLICE(""));
    if ((next == URL_SEARCH || next == URL_HASH) && c->state < URL_PATHNAME)
        set_default(c, URL_PATHNAME, SLICE("/"));
    if (next == URL_HASH && c->state < URL_SEARCH)
        set_default(c, URL_SEARCH, SLICE(""));
    c->state = next;
    c->at += skip;
    c->from = c->at;
}

/* The token behind a group in braces; itself where none begins. */
static size_t behind_group(const struct cut *c, size_t i)
{
    if (c->ts->list[i].kind != T_OPEN)
        return i;
    while (c->ts->list[i].kind != T_CLOSE && c->ts->list[i].kind != T_END)
        i++;
    return c->ts->list[i].kind == T_CLOSE ? i + 1 : i;
}

/* The first such token outside of braces, before `stop` says so; T_END's place if there is none. */
static size_t find_char(const struct cut *c, size_t i, char ch)
{
    while (c->ts->list[i].kind != T_END) {
        size_t behind = behind_group(c, i);
        if (behind != i) {
            i = behind;
            continue;
        }
        if (char_at(c, i, ch))
            return i;
        i++;
    }
    return i;
}

/* Where the authority ends. */
static size_t authority_end(const struct cut *c, size_t i)
{
    while (c->ts->list[i].kind != T_END && !char_at(c, i, '/') && !char_at(c, i, '#') &&
           !search_at(c, i)) {
        size_t behind = behind_group(c, i);
        i = behind != i ? behind : i + 1;
    }
    return i;
}

static void cut_authority(struct cut *c)
{
    size_t end = authority_end(c, c->at), sign = find_char(c, c->at, '@');
    if (sign < end) {
        size_t colon = find_char(c, c->at, ':');
        c->state = URL_USERNAME;
        c->from = c->at;
        if (colon < sign) {
            c->at = colon;
            leave(c, URL_PASSWORD, 1);
        }
        c->at = sign;
        leave(c, URL_HOSTNAME, 1);
    }
    c->state = URL_HOSTNAME;
    c->from = c->at;
    int brackets = 0;
    for (size_t i = c->at; i < end; i++) {
        brackets += char_at(c, i, '[') - char_at(c, i, ']');
        if (brackets == 0 && char_at(c, i, ':')) {
            c->at = i;
            leave(c, URL_PORT, 1);
            break;
        }
    }
    c->at = end;
}

static void cut_rest(struct cut *c)
{
    for (;; c->at++) {
        size_t behind = behind_group(c, c->at);
        if (behind != c->at) {
            c->at = behind - 1;
            continue;
        }
        bool end = c->ts->list[c->at].kind == T_END;
        if (end) {
            leave(c, URL_PARTS, 0);
            return;
        }
        if (c->state < URL_PATHNAME && char_at(c, c->at, '/'))
            leave(c, URL_PATHNAME, 0);
        else if (c->state < URL_SEARCH && search_at(c, c->at))
            leave(c, URL_SEARCH, 1);
        else if (c->state < URL_HASH && char_at(c, c->at, '#'))
            leave(c, URL_HASH, 1);
        if (c->ts->list[c->at].kind == T_END) {
            leave(c, URL_PARTS, 0);
            return;
        }
    }
}

static void cut_pattern(struct cut *c)
{
    size_t colon = find_char(c, 0, ':');
    bool protocol = c->ts->list[colon].kind != T_END && slashes_at(c, colon + 1);
    c->state = URL_PATHNAME;
    if (protocol) {
        c->state = URL_PROTOCOL;
        c->at = colon;
        leave(c, URL_HOSTNAME, 3);
        cut_authority(c);
    } else if (search_at(c, 0)) {
        c->state = URL_SEARCH;
        c->at = c->from = 1;
    } else if (char_at(c, 0, '#')) {
        c->state = URL_HASH;
        c->at = c->from = 1;
    }
    cut_rest(c);
    if (c->has[URL_HOSTNAME])
        set_default(c, URL_PORT, SLICE(""));
}

/* --- a component --- */

struct compile {
    struct provision *p;
    struct url_component *out;
    enum url_part part;
    struct buffer expression; /* as it is built */
    struct buffer fixed;      /* text since the last group */
    bool plain;               /* nothing but text so far */
    struct slice names[REGEXP_GROUPS_MAX];
    size_t unnamed;
};

static enum err bad(struct compile *c, const char *what)
{
    return provision_fail(c->p, "unable to parse URL pattern: %s: %s", url_part_names[c->part], what);
}

/* Text of a component in the form in which URLs have it. */
static struct slice canonical(const struct compile *c, struct slice text)
{
    struct arena *a = c->p->arena;
    char *copy = arena_alloc(a, text.len * 3 + 1);
    size_t n = 0;
    bool lower = c->part == URL_PROTOCOL || c->part == URL_HOSTNAME;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char ch = (unsigned char)text.ptr[i];
        if (ch <= ' ' || ch >= 0x7f || ch == '"' || ch == '<' || ch == '>')
            n += (size_t)snprintf(copy + n, 4, "%%%02X", ch);
        else
            copy[n++] = lower ? ascii_lower((char)ch) : (char)ch;
    }
    return slice_of(copy, n);
}

static void put_escaped(struct buffer *b, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (strchr(".+*?^${}()[]|/\\", text.ptr[i]) != NULL)
            (void)!buffer_append_byte(b, '\\');
        (void)!buffer_append_byte(b, text.ptr[i]);
    }
}

static void flush_fixed(struct compile *c)
{
    put_escaped(&c->expression, canonical(c, buffer_slice(&c->fixed)));
    buffer_clear(&c->fixed);
}

static const char *segment_of(enum url_part part)
{
    return part == URL_PATHNAME ? "[^/]+?" : part == URL_HOSTNAME ? "[^.]+?" : "[\\s\\S]+?";
}

static enum err add_name(struct compile *c, struct slice name)
{
    size_t n = c->out->groups_count;
    if (n == REGEXP_GROUPS_MAX - 1)
        return bad(c, "too many groups");
    if (name.len == 0)
        name = arena_printf(c->p->arena, "%zu", c->unnamed++);
    for (size_t i = 0; i < n; i++) {
        if (slice_eq(c->names[i], name))
            return bad(c, "two groups have one name");
    }
    c->names[c->out->groups_count++] = name;
    return OK;
}

/* One matching group: prefix and suffix belong to it where it is repeated. */
static enum err put_group(struct compile *c, struct slice name, struct slice expression,
                          struct slice prefix, struct slice suffix, char modifier)
{
    struct buffer *b = &c->expression;
    struct slice before = canonical(c, prefix), behind = canonical(c, suffix);
    TRY(add_name(c, name));
    c->plain = false;
    flush_fixed(c);
    if (before.len + behind.len == 0) {
        if (modifier == '\0' || modifier == '?')
            return buffer_append_f(b, "(" SLICE_FMT ")%s", SLICE_ARG(expression),
                                   modifier == '?' ? "?" : "");
        return buffer_append_f(b, "((?:" SLICE_FMT ")%c)", SLICE_ARG(expression), modifier);
    }
    (void)!BUFFER_PUT(b, "(?:");
    put_escaped(b, before);
    if (modifier == '\0' || modifier == '?') {
        (void)!buffer_append_f(b, "(" SLICE_FMT ")", SLICE_ARG(expression));
    } else {
        (void)!buffer_append_f(b, "((?:" SLICE_FMT ")(?:", SLICE_ARG(expression));
        put_escaped(b, behind);
        put_escaped(b, before);
        (void)!buffer_append_f(b, "(?:" SLICE_FMT "))*)", SLICE_ARG(expression));
    }
    put_escaped(b, behind);
    (void)!BUFFER_PUT(b, ")");
    if (modifier == '?' || modifier == '*')
        return buffer_append_byte(b, '?');
    return OK;
}

static char take_modifier(const struct tokens *ts, size_t *i)
{
    const struct token *t = &ts->list[*i];
    if (t->kind != T_MODIFIER && t->kind != T_STAR)
        return '\0';
    (*i)++;
    return t->value.ptr[0];
}

/* ":name", "(…)" or "*" at the token, or nothing: *found. */
static enum err read_matcher(struct compile *c, const struct tokens *ts, size_t *i,
                             struct slice *name, struct slice *expression, bool *found)
{
    const struct token *t = &ts->list[*i];
    *name = *expression = SLICE_NONE;
    *found = t->kind == T_NAME || t->kind == T_REGEXP || t->kind == T_STAR;
    if (!*found)
        return OK;
    (*i)++;
    if (t->kind == T_NAME) {
        *name = t->value;
        *expression = slice_from(segment_of(c->part));
        if (ts->list[*i].kind == T_REGEXP)
            *expression = ts->list[(*i)++].value;
    } else {
        *expression = t->kind == T_STAR ? SLICE("[\\s\\S]*") : t->value;
    }
    return OK;
}

static enum err compile_braces(struct compile *c, const struct tokens *ts, size_t *i)
{
    struct slice name, expression;
    struct buffer text[2];
    bool found = false;
    enum err e = OK;
    (*i)++;
    for (int k = 0; k < 2; k++) {
        buffer_init(&text[k], EXPRESSION_MAX);
        for (; ts->list[*i].kind == T_CHAR || ts->list[*i].kind == T_ESCAPED; (*i)++)
            (void)!buffer_append(&text[k], ts->list[*i].value);
        if (k == 0)
            e = read_matcher(c, ts, i, &name, &expression, &found);
    }
    if (e == OK && ts->list[*i].kind != T_CLOSE)
        e = bad(c, "a '{' without its '}', or with two groups in it");
    if (e == OK) {
        (*i)++;
        char modifier = take_modifier(ts, i);
        if (found) {
            e = put_group(c, name, expression, buffer_slice(&text[0]), buffer_slice(&text[1]),
                          modifier);
        } else if (modifier == '\0') {
            e = buffer_append(&c->fixed, buffer_slice(&text[0]));
        } else {
            c->plain = false;
            flush_fixed(c);
            (void)!BUFFER_PUT(&c->expression, "(?:");
            put_escaped(&c->expression, canonical(c, buffer_slice(&text[0])));
            e = buffer_append_f(&c->expression, ")%c", modifier);
        }
    }
    buffer_deinit(&text[0]);
    buffer_deinit(&text[1]);
    return e;
}

static enum err compile_token(struct compile *c, const struct tokens *ts, size_t *i)
{
    struct slice name, expression, prefix = SLICE_NONE;
    const struct token *t = &ts->list[*i];
    bool found;
    switch (t->kind) {
    case T_CHAR:
    case T_ESCAPED:
        (*i)++;
        return buffer_append(&c->fixed, t->value);
    case T_OPEN:
        return compile_braces(c, ts, i);
    case T_CLOSE:
        return bad(c, "a '}' without its '{'");
    case T_MODIFIER:
        return bad(c, "a '?' or '+' that repeats nothing");
    default:
        break;
    }
    bool star = t->kind == T_STAR;
    TRY(read_matcher(c, ts, i, &name, &expression, &found));
    char modifier = take_modifier(ts, i);
    struct slice text = buffer_slice(&c->fixed);
    if (c->part == URL_PATHNAME && slice_ends(text, SLICE("/")) && (!star || modifier != '\0')) {
        prefix = SLICE("/"); /* a repeated segment brings its slash along */
        c->fixed.len--;
    }
    return put_group(c, name, expression, prefix, SLICE(""), modifier);
}

static enum err check_text(struct compile *c, struct slice text)
{
    if (c->part == URL_HOSTNAME) {
        bool six = slice_starts(text, SLICE("["));
        if (six != slice_ends(text, SLICE("]")))
            return bad(c, "no host name");
        for (size_t i = 0; i < text.len; i++) {
            if (strchr("#/<>@^| ", text.ptr[i]) != NULL)
                return bad(c, "no host name");
        }
    }
    return OK;
}

static enum err compile_tokens(struct compile *c, const struct tokens *ts)
{
    for (size_t i = 0; ts->list[i].kind != T_END;)
        TRY(compile_token(c, ts, &i));
    if (c->plain) {
        c->out->text = canonical(c, buffer_slice(&c->fixed));
        return check_text(c, buffer_slice(&c->fixed));
    }
    flush_fixed(c);
    if (c->expression.full)
        return bad(c, "too long");
    c->out->groups = ARENA_ARRAY(c->p->arena, struct slice, c->out->groups_count + 1);
    memcpy(c->out->groups, c->names, c->out->groups_count * sizeof c->names[0]);
    return OK;
}

static enum err compile_expression(struct compile *c, bool ignore_case)
{
    struct slice text = arena_printf(c->p->arena, "%s^(?:" SLICE_FMT ")$", ignore_case ? "(?i)" : "",
                                     SLICE_ARG(buffer_slice(&c->expression)));
    return regexp_compile(c->p, text, &c->out->regexp);
}

/* `ts` is used again for each: what the generation keeps is small. */
static enum err compile_part(struct provision *p, enum url_part part, struct slice text,
                             bool ignore_case, struct tokens *ts, struct url_component *out)
{
    if (slice_is(text, "*")) {
        out->all = true;
        return OK;
    }
    struct compile *c = NEW(struct compile);
    *c = (struct compile){.p = p, .out = out, .part = part, .plain = true};
    buffer_init(&c->expression, EXPRESSION_MAX);
    buffer_init(&c->fixed, EXPRESSION_MAX);
    enum err e = tokenize(p, text, ts);
    if (e == OK)
        e = compile_tokens(c, ts);
    if (e == OK && !c->plain)
        e = compile_expression(c, ignore_case && part == URL_PATHNAME);
    buffer_deinit(&c->expression);
    buffer_deinit(&c->fixed);
    mem_free(c);
    return e;
}

/* --- all of it --- */

/* An origin's own texts hold no pattern. */
static struct slice escaped(struct slice text, struct arena *a)
{
    char *out = arena_alloc(a, text.len * 2 + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (strchr("+*?:{}()\\", text.ptr[i]) != NULL)
            out[n++] = '\\';
        out[n++] = text.ptr[i];
    }
    return slice_of(out, n);
}

static enum err take_base(struct provision *p, struct cut *c, struct slice base)
{
    struct slice rest, hostport, host, port, path;
    size_t at = slice_find_slice(base, SLICE("://"));
    if (at == SIZE_MAX || at == 0)
        return provision_fail(p, "unable to parse URL pattern: base_url " SLICE_FMT " is no absolute "
                              "URL", SLICE_ARG(base));
    if (c->has[URL_PROTOCOL])
        return OK;
    rest = slice_skip(base, at + 3);
    slice_cut(rest, '/', &hostport, &rest);
    path = slice_skip(base, at + 3 + hostport.len);
    slice_cut(path, '?', &path, &rest);
    host_split(hostport, &host, &port);
    set_default(c, URL_PROTOCOL, escaped(slice_take(base, at), p->arena));
    set_default(c, URL_HOSTNAME, escaped(host, p->arena));
    set_default(c, URL_PORT, escaped(port, p->arena));
    struct slice own = c->parts[URL_PATHNAME];
    if (!c->has[URL_PATHNAME]) {
        set_default(c, URL_PATHNAME, escaped(path.len > 0 ? path : SLICE("/"), p->arena));
    } else if (!slice_starts(own, SLICE("/")) && !slice_starts(own, SLICE("{/")) &&
               !slice_starts(own, SLICE("\\/"))) {
        size_t slash = slice_find_last(path, '/');
        struct slice folder = slash != SIZE_MAX ? slice_take(path, slash + 1) : SLICE("/");
        c->parts[URL_PATHNAME] = arena_join(p->arena, (struct slice[]){escaped(folder, p->arena), own},
                                            2);
    }
    return OK;
}

static bool own_port(struct slice protocol, struct slice port)
{
    return (slice_is(protocol, "http") && slice_is(port, "80")) ||
           (slice_is(protocol, "https") && slice_is(port, "443"));
}

static enum err complete(struct provision *p, struct cut *c, struct slice base)
{
    if (base.len > 0)
        TRY(take_base(p, c, base));
    else if (!c->has[URL_PROTOCOL])
        return provision_fail(p, "unable to parse URL pattern: relative, and without a base_url");
    if (own_port(c->parts[URL_PROTOCOL], c->parts[URL_PORT]))
        c->parts[URL_PORT] = SLICE("");
    return OK;
}

enum err url_pattern_compile(struct provision *p, struct slice pattern, struct slice base,
                             bool ignore_case, struct url_pattern *out)
{
    struct tokens *ts = NEW(struct tokens);
    struct cut c = {.ts = ts, .text = arena_copy(p->arena, pattern)};
    *out = (struct url_pattern){.ignore_case = ignore_case};
    enum err e = tokenize(p, c.text, ts);
    if (e == OK) {
        cut_pattern(&c);
        e = complete(p, &c, base);
    }
    for (unsigned i = 0; e == OK && i < URL_PARTS; i++) {
        struct slice text = c.has[i] ? c.parts[i] : SLICE("*");
        e = compile_part(p, (enum url_part)i, text, ignore_case, ts, &out->parts[i]);
    }
    mem_free(ts);
    return e;
}

void url_pattern_release(struct url_pattern *u)
{
    for (unsigned i = 0; i < URL_PARTS; i++)
        regexp_free(u->parts[i].regexp);
}

enum err url_component_match(const struct url_pattern *u, enum url_part part, struct slice text,
                             struct url_groups *groups, bool *matches)
{
    const struct url_component *c = &u->parts[part];
    struct slice all[REGEXP_GROUPS_MAX];
    size_t n;
    groups->count = 0;
    if (c->all) {
        groups->values[groups->count++] = text;
        *matches = true;
        return OK;
    }
    if (c->regexp == NULL) {
        *matches = u->ignore_case ? slice_eq_nocase(c->text, text) : slice_eq(c->text, text);
        return OK;
    }
    TRY(regexp_match(c->regexp, text, all, &n));
    *matches = n > 0;
    for (size_t i = 1; i < n; i++)
        groups->values[groups->count++] = all[i];
    return OK;
}
