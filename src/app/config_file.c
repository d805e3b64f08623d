/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and adapting. Every failure is one sentence with the file's name in it.
 */
#include "app/config_file.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#include "adapter/adapter.h"
#include "app/config_origins.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/jsonx.h"

enum { CONFIG_MAX = 64 << 20 };

static enum err read_stream(FILE *f, char **bytes, size_t *len)
{
    size_t cap = 65536, used = 0, n;
    char *at = mem_alloc(cap);
    while ((n = fread(at + used, 1, cap - used - 1, f)) > 0) {
        used += n;
        if (used > CONFIG_MAX) {
            mem_free(at);
            return ERR_LIMIT;
        }
        if (cap - used < 32768)
            at = mem_realloc(at, cap *= 2);
    }
    at[used] = '\0';
    *bytes = at;
    *len = used;
    return ferror(f) ? ERR_IO : OK;
}

enum err file_read_all(const char *path, char **bytes, size_t *len, char *error, size_t cap)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "re");
    if (f == NULL) {
        snprintf(error, cap, "reading config from file: open %s: %s", path, strerror(errno));
        return err_from_errno(errno);
    }
    *bytes = NULL;
    enum err e = read_stream(f, bytes, len);
    if (!is_stdin)
        fclose(f);
    if (e == OK)
        return OK;
    mem_free(*bytes);
    snprintf(error, cap, "reading config from file: %s: %s", path,
             e == ERR_LIMIT ? "larger than 64 MiB" : "cannot be read");
    return e;
}

static enum err adapt(struct slice adapter, struct slice file_name, struct slice body,
                      json_t **document, json_t **warnings, struct origins *origins,
                      struct diag *diag, char *error, size_t cap)
{
    *document = *warnings = NULL;
    diag_clear(diag);
    if (!slice_is(adapter, "caddyfile")) {
        snprintf(error, cap, "unrecognized config adapter: " SLICE_FMT,
                 SLICE_ARG(slice_take(adapter, 100)));
        return ERR_UNSUPPORTED;
    }
    enum err e = adapt_caddyfile_origins(file_name, body, document, warnings, origins, diag);
    if (e != OK)
        snprintf(error, cap, "adapting config using caddyfile: %s", diag->text);
    return e;
}

enum err config_adapt(struct slice adapter, struct slice file_name, struct slice body,
                      json_t **document, json_t **warnings, char *error, size_t cap)
{
    struct diag diag;
    struct origins origins;
    origins_init(&origins);
    enum err e = adapt(adapter, file_name, body, document, warnings, &origins, &diag, error, cap);
    if (e == OK)
        config_origins_keep(*document, &origins);
    origins_deinit(&origins);
    return e;
}

/* --- showing the place of an error --- */

static struct slice line_of(struct slice text, unsigned number)
{
    struct slice line = SLICE_NONE;
    while (number-- > 0)
        if (!slice_cut(text, '\n', &line, &text) && number > 0)
            return SLICE_NONE;
    return line;
}

/* "file:line:column", the line itself, and a mark below the column. */
static void show_line(const struct diag *d, struct slice line, char *error, size_t cap)
{
    size_t used = strlen(error), indent = 0, column = d->column > 0 ? d->column - 1 : 0;
    while (indent < line.len && (line.ptr[indent] == ' ' || line.ptr[indent] == '\t'))
        indent++;
    if (column < indent || column > line.len || line.len - indent > 160 || used >= cap)
        return;
    line = slice_trim(slice_skip(line, indent));
    snprintf(error + used, cap - used, "\n      " SLICE_FMT "\n      %*s^", SLICE_ARG(line),
             (int)(column - indent), "");
}

static void show_place(const struct diag *d, const char *path, struct slice body, char *error,
                       size_t cap)
{
    size_t used = strlen(error), len;
    char *bytes, ignored[256];
    if (d->line == 0 || d->file[0] == '\0' || used >= cap)
        return;
    snprintf(error + used, cap - used, "\n  %s:%u:%u", d->file, d->line, d->column);
    if (strcmp(d->file, path) == 0) {
        show_line(d, line_of(body, d->line), error, cap);
    } else if (file_read_all(d->file, &bytes, &len, ignored, sizeof ignored) == OK) {
        show_line(d, line_of(slice_of(bytes, len), d->line), error, cap);
        mem_free(bytes);
    }
}

static enum err adapt_file(const char *adapter, const char *path, struct slice body,
                           struct loaded_config *c, char *error, size_t cap)
{
    struct diag diag;
    enum err e = adapt(slice_from(adapter), slice_from(path), body, &c->document, &c->warnings,
                       &c->origins, &diag, error, cap);
    if (e != OK)
        show_place(&diag, path, body, error, cap);
    return e;
}

void config_warn(const char *adapter, const json_t *warnings)
{
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        const json_t *w = json_array_get(warnings, i);
        const char *directive = json_string_value(json_object_get(w, "directive"));
        char text[1024];
        snprintf(text, sizeof text, "%s%s%s", directive != NULL ? directive : "",
                 directive != NULL ? ": " : "",
                 json_string_value(json_object_get(w, "message")));
        struct log_field fields[] = {
            LOG_CSTR("file", json_string_value(json_object_get(w, "file"))),
            LOG_NUM("line", json_integer_value(json_object_get(w, "line"))),
        };
        log_emit(LOG_WARN, adapter, slice_from(text), fields, 2);
    }
}

static enum err parse_json(struct slice body, const char *path, json_t **document, char *error,
                           size_t cap)
{
    json_error_t e;
    *document = NULL;
    if (jsonx_too_deep(body, JSONX_MAX_DEPTH)) {
        snprintf(error, cap, "%s: nested deeper than %d levels", path, JSONX_MAX_DEPTH);
        return ERR_INVALID;
    }
    *document = json_loadb(body.ptr, body.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (*document != NULL)
        return OK;
    snprintf(error, cap, "%s:%d:%d: %s", path, e.line, e.column, e.text);
    return ERR_INVALID;
}

/* The adapter that a file's name means, or NULL for JSON. */
static const char *adapter_by_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    if (dot != NULL && strcmp(dot, ".json") == 0)
        return NULL;
    if (strncasecmp(base, "caddyfile", 9) == 0 || (dot != NULL && strcmp(dot, ".caddyfile") == 0))
        return "caddyfile";
    return NULL;
}

enum err config_load(const char *path, const char *adapter, struct loaded_config *c, char *error,
                     size_t cap)
{
    char *bytes;
    size_t len;
    memset(c, 0, sizeof *c);
    origins_init(&c->origins);
    bool chosen = adapter != NULL && adapter[0] != '\0';
    if (path == NULL || path[0] == '\0') {
        if (chosen && strcmp(adapter, "caddyfile") != 0) {
            snprintf(error, cap, "cannot adapt config without config file (use --config)");
            return ERR_INVALID;
        }
        if (access("Caddyfile", F_OK) != 0)
            return OK;
        path = "Caddyfile";
    }
    if (!chosen)
        adapter = adapter_by_name(path);
    if (adapter != NULL && strcmp(adapter, "json") == 0)
        adapter = NULL;
    TRY(file_read_all(path, &bytes, &len, error, cap));
    snprintf(c->path, sizeof c->path, "%s", path);
    snprintf(c->adapter, sizeof c->adapter, "%s", adapter != NULL ? adapter : "");
    struct slice body = slice_of(bytes, len);
    enum err e = adapter != NULL
                     ? adapt_file(adapter, path, body, c, error, cap)
                     : parse_json(body, path, &c->document, error, cap);
    mem_free(bytes);
    if (e != OK)
        origins_deinit(&c->origins);
    else
        config_origins_keep(c->document, &c->origins);
    return e;
}

void config_unload(struct loaded_config *c)
{
    json_decref(c->document);
    json_decref(c->warnings);
    c->document = c->warnings = NULL;
    origins_deinit(&c->origins);
}
