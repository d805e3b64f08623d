/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A name is tried on the context alone to learn whether the library has it: hybrid groups came with
 * OpenSSL 3.5, and a provider may bring them to an older one.
 */
#include "tls/curves.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/buffer.h"

static const struct {
    const char *name, *library;
} curves[] = {
    {"x25519mlkem768", "X25519MLKEM768"}, {"x25519", "X25519"}, {"secp256r1", "P-256"},
    {"secp384r1", "P-384"},               {"secp521r1", "P-521"},
};

static const char *library_name(struct slice name)
{
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++) {
        if (slice_is(name, curves[i].name))
            return curves[i].library;
    }
    return NULL;
}

static enum err gather(SSL_CTX *ctx, const struct slice *names, size_t count, struct buffer *list,
                       char *why, size_t cap)
{
    for (size_t i = 0; i < count; i++) {
        const char *name = library_name(names[i]);
        if (name == NULL) {
            snprintf(why, cap, "unknown curve \"" SLICE_FMT "\"", SLICE_ARG(names[i]));
            return ERR_INVALID;
        }
        if (SSL_CTX_set1_groups_list(ctx, name) == 1)
            TRY(buffer_append_f(list, "%s%s", list->len > 0 ? ":" : "", name));
    }
    ERR_clear_error();
    return buffer_append_byte(list, '\0');
}

enum err curves_set(struct ssl_ctx_st *ctx, const struct slice *names, size_t count, char *why,
                    size_t cap)
{
    struct buffer list;
    if (count == 0)
        return OK;
    buffer_init(&list, 4096);
    enum err e = gather(ctx, names, count, &list, why, cap);
    if (e == OK && SSL_CTX_set1_groups_list(ctx, list.ptr) != 1) {
        snprintf(why, cap, "this build's TLS library has none of the curves");
        ERR_clear_error();
        e = ERR_UNSUPPORTED;
    }
    buffer_deinit(&list);
    return e;
}
