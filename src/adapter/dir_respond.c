/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directives that answer by themselves: respond, redir, abort, error.
 */
#include "adapter/directives.h"
#include "base/buffer.h"

static bool is_status(struct slice s)
{
    int64_t n;
    return s.len == 3 && slice_to_i64(s, &n) && n > 0;
}

/* "[text] [status]" and a block with the text's option. */
static enum err text_and_status(struct helper *h, json_t *o, const char *text_key,
                                const char *option, bool may_close)
{
    struct dispenser *d = &h->d;
    struct slice *args, text = SLICE_NONE;
    bool close = false;
    dispenser_next(d);
    size_t count = dispenser_remaining_args(d, &args);
    if (count != 1 && count != 2)
        return dispenser_arg_err(d);
    if (count == 2 || is_status(args[0]))
        j_put_weak(h->a, o, "status_code", args[count - 1]);
    if (count == 2 || !is_status(args[0]))
        text = args[0];
    while (dispenser_next_block(d, 0)) {
        if (dispenser_val_is(d, option)) {
            if (text.len > 0)
                return dispenser_err_f(d, "%s already specified", option);
            if (!dispenser_all_args(d, &text))
                return dispenser_arg_err(d);
        } else if (may_close && dispenser_val_is(d, "close")) {
            if (close)
                return dispenser_err_f(d, "close already specified");
            close = true;
        } else {
            return dispenser_err_f(d, "unrecognized subdirective '" SLICE_FMT "'",
                                   SLICE_ARG(dispenser_val(d)));
        }
    }
    j_put_text(h->a, o, text_key, text);
    j_put_bool(h->a, o, "close", close);
    return OK;
}

enum err parse_respond(struct helper *h, json_t **handler)
{
    *handler = j_object(h->a);
    return text_and_status(h, *handler, "body", "body", true);
}

enum err parse_error(struct helper *h, json_t **handler)
{
    *handler = j_object(h->a);
    return text_and_status(h, *handler, "error", "message", false);
}

enum err parse_abort(struct helper *h, json_t **handler)
{
    dispenser_next(&h->d);
    if (dispenser_next(&h->d) || dispenser_next_block(&h->d, 0))
        return dispenser_arg_err(&h->d);
    *handler = j_object(h->a);
    j_put_bool(h->a, *handler, "abort", true);
    return OK;
}

static void put_html(struct buffer *b, struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        const char *entity = c == '<'    ? "&lt;"
                             : c == '>'  ? "&gt;"
                             : c == '&'  ? "&amp;"
                             : c == '\'' ? "&#39;"
                             : c == '"'  ? "&#34;"
                                         : NULL;
        if (entity != NULL)
            buffer_append(b, slice_from(entity));
        else
            buffer_append_byte(b, c);
    }
}

/* A page that redirects by itself, as Caddy writes it. */
static struct slice redirect_page(struct adapt *a, struct slice to)
{
    static const char *const parts[] = {
        ("<!DOCTYPE html>\n<html>\n\t<head>\n\t\t<title>Redirecting...</title>\n"
         "\t\t<script>window.location.replace(\""),
        "\");</script>\n\t\t<meta http-equiv=\"refresh\" content=\"0; URL='",
        "'\">\n\t</head>\n\t<body>Redirecting to <a href=\"",
        "\">",
        "</a>...</body>\n</html>\n",
    };
    struct buffer b;
    buffer_init(&b, SIZE_MAX);
    for (int i = 0; i < 5; i++) {
        buffer_append(&b, slice_from(parts[i]));
        if (i < 4)
            put_html(&b, to);
    }
    struct slice page = arena_copy(a->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return page;
}

enum err parse_redir(struct helper *h, json_t **handler)
{
    struct dispenser *d = &h->d;
    struct adapt *a = h->a;
    struct slice code = SLICE_NONE;
    dispenser_next(d);
    if (!dispenser_next_arg(d))
        return dispenser_arg_err(d);
    struct slice to = dispenser_val(d);
    if (dispenser_next_arg(d))
        code = dispenser_val(d);
    json_t *headers = j_object(a);
    *handler = j_object(a);
    if (slice_is(code, "html")) {
        j_add_to_list(a, headers, SLICE("Content-Type"),
                      j_text(a, SLICE("text/html; charset=utf-8")));
        j_put_weak(a, *handler, "status_code", SLICE("200"));
        j_set(a, *handler, "headers", headers);
        j_put_text(a, *handler, "body", redirect_page(a, to));
        return OK;
    }
    if (slice_is(code, "permanent")) {
        code = SLICE("301");
    } else if (code.len == 0 || slice_is(code, "temporary")) {
        code = SLICE("302");
    } else if (!slice_starts(code, SLICE("{"))) {
        int64_t n;
        if (!slice_to_i64(code, &n))
            return dispenser_err_f(d,
                                   "Not a supported redir code type or not valid integer: '" SLICE_FMT
                                   "'",
                                   SLICE_ARG(code));
        if (n < 300 || (n > 399 && n != 401))
            return dispenser_err_f(d, "Redir code not in the 3xx range or 401: '%lld'",
                                   (long long)n);
    }
    if (!slice_is(code, "200"))
        j_add_to_list(a, headers, SLICE("Location"), j_text(a, to));
    j_put_weak(a, *handler, "status_code", code);
    j_set(a, *handler, "headers", headers);
    return OK;
}
