/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's certificate is taken apart each time one of its values is asked for: seldom, and at once.
 */
#include "http/tls_placeholder.h"

#include "base/pem.h"
#include "base/text.h"
#include "pki/jose_key.h"

enum { TEXT_MAX = 4 << 20 };

struct slice tls_version_name(uint16_t version, struct arena *arena)
{
    if (version == 0x0304)
        return SLICE("tls1.3");
    if (version == 0x0303)
        return SLICE("tls1.2");
    return arena_printf(arena, "0x%04x", version);
}

bool tls_peer(struct exchange *x, struct peer_certificate *peer)
{
    struct slice *ders;
    return x->tls != NULL && tls_stream_peer_chain(x->tls, x->arena, &ders) > 0 &&
           peer_certificate_read(ders[0], x->arena, peer) == OK;
}

static struct slice hex_text(struct slice bytes, struct arena *arena)
{
    static const char digits[] = "0123456789abcdef";
    char *text = arena_alloc(arena, bytes.len * 2 + 1);
    for (size_t i = 0; i < bytes.len; i++) {
        text[2 * i] = digits[(unsigned char)bytes.ptr[i] >> 4];
        text[2 * i + 1] = digits[(unsigned char)bytes.ptr[i] & 15];
    }
    return slice_of(text, bytes.len * 2);
}

static struct slice text_form(enum err put(struct buffer *, struct slice), struct slice bytes,
                              struct arena *arena)
{
    struct buffer b;
    buffer_init(&b, TEXT_MAX);
    struct slice text = put(&b, bytes) == OK ? arena_copy(arena, buffer_slice(&b)) : SLICE("");
    buffer_deinit(&b);
    return text;
}

static enum err put_pem(struct buffer *b, struct slice der)
{
    return pem_put(b, "CERTIFICATE", der);
}

/* As Go prints a list: [a b]. */
static struct slice list_text(const struct peer_names *names, struct arena *arena)
{
    struct buffer b;
    buffer_init(&b, TEXT_MAX);
    for (size_t i = 0; i < names->count; i++) {
        buffer_append(&b, i > 0 ? SLICE(" ") : SLICE("["));
        buffer_append(&b, names->all[i]);
    }
    buffer_append(&b, names->count > 0 ? SLICE("]") : SLICE("[]"));
    struct slice text = arena_copy(arena, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

/* "dns_names", "ips.0". */
static bool alternative_name(const struct peer_certificate *peer, struct slice name,
                             struct arena *arena, struct slice *value)
{
    static const char *const kinds[] = {"dns_names", "emails", "ips", "uris"};
    struct slice kind, number;
    uint64_t n;
    bool indexed = slice_cut(name, '.', &kind, &number);
    for (size_t i = 0; i < PEER_NAME_KINDS; i++) {
        const struct peer_names *names = &peer->names[i];
        if (!slice_is(kind, kinds[i]))
            continue;
        if (indexed && !slice_to_u64(number, INT32_MAX, &n))
            return false;
        *value = !indexed ? list_text(names, arena) : n < names->count ? names->all[n] : SLICE_NONE;
        return true;
    }
    return false;
}

static bool client_value(const struct peer_certificate *peer, struct slice name,
                         struct arena *arena, struct slice *value)
{
    uint8_t digest[32];
    if (slice_starts(name, SLICE("san.")))
        return alternative_name(peer, slice_skip(name, 4), arena, value);
    if (slice_is(name, "fingerprint"))
        *value = hex_text(slice_of((const char *)peer->sha256, sizeof peer->sha256), arena);
    else if (slice_is(name, "public_key"))
        *value = hex_text(peer->public_key, arena);
    else if (slice_is(name, "public_key_sha256")) {
        sha256(peer->public_key, digest);
        *value = hex_text(slice_of((const char *)digest, sizeof digest), arena);
    } else if (slice_is(name, "issuer"))
        *value = peer->issuer;
    else if (slice_is(name, "serial"))
        *value = peer->serial;
    else if (slice_is(name, "subject"))
        *value = peer->subject;
    else if (slice_is(name, "certificate_pem"))
        *value = text_form(put_pem, peer->der, arena);
    else if (slice_is(name, "certificate_der_base64"))
        *value = text_form(base64_encode, peer->der, arena);
    else
        return false;
    return true;
}

static struct slice truth(bool yes)
{
    return yes ? SLICE("true") : SLICE("false");
}

bool tls_placeholder_of(const struct tls_facts *f, const struct peer_certificate *peer,
                        struct slice name, struct arena *arena, struct slice *value)
{
    static const struct peer_certificate nobody;
    *value = SLICE_NONE;
    if (slice_starts(name, SLICE("client.")) && peer != NULL)
        return client_value(peer, slice_skip(name, 7), arena, value);
    if (slice_starts(name, SLICE("client."))) { /* known, but empty, whoever asks */
        bool known = client_value(&nobody, slice_skip(name, 7), arena, value);
        *value = SLICE_NONE;
        return known;
    }
    if (slice_is(name, "version"))
        *value = tls_version_name(f->version, arena);
    else if (slice_is(name, "cipher_suite"))
        *value = slice_from(f->cipher_name);
    else if (slice_is(name, "resumed"))
        *value = truth(f->resumed);
    else if (slice_is(name, "proto"))
        *value = f->alpn;
    else if (slice_is(name, "proto_mutual"))
        *value = SLICE("true");
    else if (slice_is(name, "server_name"))
        *value = f->server_name;
    else if (slice_is(name, "ech"))
        *value = SLICE("false");
    else
        return false;
    return true;
}

bool tls_placeholder(struct exchange *x, struct slice name, struct slice *value)
{
    struct tls_facts facts;
    struct peer_certificate peer;
    char *lower = arena_str(x->arena, name);
    *value = SLICE_NONE;
    if (x->tls == NULL)
        return false;
    for (size_t i = 0; i < name.len; i++)
        lower[i] = ascii_lower(lower[i]);
    name = slice_of(lower, name.len);
    tls_stream_facts(x->tls, &facts);
    bool client = slice_starts(name, SLICE("client.")) && tls_peer(x, &peer);
    return tls_placeholder_of(&facts, client ? &peer : NULL, name, x->arena, value);
}
