/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "{path}" and the like, which a Caddyfile may hold anywhere, to the placeholders of the JSON.
 */
#include "adapter/adapt.h"
#include "base/buffer.h"

static const struct {
    const char *name, *full;
} shorthands[] = {
    {"host", "http.request.host"},
    {"hostport", "http.request.hostport"},
    {"port", "http.request.port"},
    {"orig_method", "http.request.orig_method"},
    {"orig_uri", "http.request.orig_uri"},
    {"orig_path", "http.request.orig_uri.path"},
    {"orig_dir", "http.request.orig_uri.path.dir"},
    {"orig_file", "http.request.orig_uri.path.file"},
    {"orig_query", "http.request.orig_uri.query"},
    {"orig_?query", "http.request.orig_uri.prefixed_query"},
    {"method", "http.request.method"},
    {"uri", "http.request.uri"},
    {"%uri", "http.request.uri_escaped"},
    {"path", "http.request.uri.path"},
    {"%path", "http.request.uri.path_escaped"},
    {"dir", "http.request.uri.path.dir"},
    {"file", "http.request.uri.path.file"},
    {"query", "http.request.uri.query"},
    {"%query", "http.request.uri.query_escaped"},
    {"?query", "http.request.uri.prefixed_query"},
    {"remote", "http.request.remote"},
    {"remote_host", "http.request.remote.host"},
    {"remote_port", "http.request.remote.port"},
    {"scheme", "http.request.scheme"},
    {"uuid", "http.request.uuid"},
    {"tls_cipher", "http.request.tls.cipher_suite"},
    {"tls_version", "http.request.tls.version"},
    {"tls_client_fingerprint", "http.request.tls.client.fingerprint"},
    {"tls_client_issuer", "http.request.tls.client.issuer"},
    {"tls_client_serial", "http.request.tls.client.serial"},
    {"tls_client_subject", "http.request.tls.client.subject"},
    {"tls_client_certificate_pem", "http.request.tls.client.certificate_pem"},
    {"tls_client_certificate_der_base64", "http.request.tls.client.certificate_der_base64"},
    {"upstream_hostport", "http.reverse_proxy.upstream.hostport"},
    {"client_ip", "http.vars.client_ip"},
};

/* "{header.X}": the rest of the name is the user's. `dots`: it may hold dots. */
static const struct {
    const char *prefix, *full;
    bool dots;
} prefixes[] = {
    {"header.", "http.request.header.", false},
    {"cookie.", "http.request.cookie.", false},
    {"labels.", "http.request.host.labels.", false},
    {"path.", "http.request.uri.path.", false},
    {"file.", "http.request.uri.path.file.", false},
    {"query.", "http.request.uri.query.", false},
    {"re.", "http.regexp.", true},
    {"vars.", "http.vars.", false},
    {"rp.", "http.reverse_proxy.", true},
    {"resp.", "http.intercept.", true},
    {"err.", "http.error.", true},
    {"file_match.", "http.matchers.file.", false},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool name_ok(struct slice s, bool dots)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = ascii_lower(s.ptr[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
              (dots && c == '.')))
            return false;
    }
    return true;
}

/* Appends what stands for the placeholder with this key; false when it is no shorthand. */
static bool put_full(struct buffer *b, struct slice key)
{
    for (size_t i = 0; i < COUNT(shorthands); i++)
        if (slice_is(key, shorthands[i].name)) {
            buffer_append_f(b, "{%s}", shorthands[i].full);
            return true;
        }
    for (size_t i = 0; i < COUNT(prefixes); i++) {
        struct slice prefix = slice_from(prefixes[i].prefix), rest = slice_skip(key, prefix.len);
        if (slice_starts(key, prefix) && name_ok(rest, prefixes[i].dots)) {
            buffer_append_f(b, "{%s" SLICE_FMT "}", prefixes[i].full, SLICE_ARG(rest));
            return true;
        }
    }
    return false;
}

static struct slice apply(struct arena *arena, struct slice text)
{
    struct buffer b;
    bool changed = false;
    buffer_init(&b, SIZE_MAX);
    for (struct slice rest = text; rest.len > 0;) {
        size_t open = slice_find(rest, '{');
        size_t close = open == SIZE_MAX ? SIZE_MAX : slice_find(slice_skip(rest, open), '}');
        if (close == SIZE_MAX) {
            buffer_append(&b, rest);
            break;
        }
        buffer_append(&b, slice_take(rest, open));
        struct slice key = slice_take(slice_skip(rest, open + 1), close - 1);
        if (put_full(&b, key)) {
            changed = true;
            rest = slice_skip(rest, open + close + 1);
        } else {
            buffer_append_byte(&b, '{');
            rest = slice_skip(rest, open + 1);
        }
    }
    if (changed)
        text = arena_copy(arena, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

void shorthands_apply(struct arena *arena, struct token *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slice_find(tokens[i].text, '{') != SIZE_MAX)
            tokens[i].text = apply(arena, tokens[i].text);
}

static struct slice trim_braces(struct slice s)
{
    while (s.len > 0 && (s.ptr[0] == '{' || s.ptr[0] == '}'))
        s = slice_skip(s, 1);
    while (s.len > 0 && (s.ptr[s.len - 1] == '{' || s.ptr[s.len - 1] == '}'))
        s.len--;
    return s;
}

struct slice shorthand_of(struct slice placeholder)
{
    placeholder = trim_braces(placeholder);
    for (size_t i = 0; i < COUNT(shorthands); i++)
        if (slice_is(placeholder, shorthands[i].full))
            return slice_from(shorthands[i].name);
    return SLICE_NONE;
}
