/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that runs is asked for its document and for the lines that this came from. That none
 * answers is no error: the ledger is the machine's. The Caddyfile by default is the one that `run`
 * would take, then the packaged one.
 */
#include "app/ports_view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "app/admin_client.h"
#include "app/folders.h"
#include "base/mem.h"
#include "config/jsonx.h"
#include "ports/declared.h"

enum { OUTPUT_MAX = 256 << 20, HISTORY_MAX = 8 << 20 };

#define PACKAGED_CADDYFILE "/etc/portico/Caddyfile"

/* --- a running server --- */

static enum err ask(const struct command_line *l, const char *path, json_t **out, char *error,
                    size_t cap)
{
    struct buffer answer;
    struct diag d;
    buffer_init(&answer, JSONX_MAX_SIZE);
    struct admin_call call = {.address = admin_address(flag_value(l, "address"), NULL),
                              .method = "GET", .path = path, .fields = SLICE(""), .answer = &answer};
    enum err e = admin_request(&call, error, cap);
    *out = e == OK ? jsonx_load(SLICE("the admin API's answer"), slice_trim(buffer_slice(&answer)), &d)
                   : NULL;
    buffer_deinit(&answer);
    if (e == OK && *out == NULL) {
        snprintf(error, cap, "%.500s", d.text);
        return ERR_INVALID;
    }
    return e;
}

static struct slice text_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return slice_of(json_string_value(v), json_string_length(v));
}

static void read_origins(const json_t *list, struct origins *origins)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        json_int_t line = json_integer_value(json_object_get(o, "line"));
        if (line > 0 && line <= UINT32_MAX)
            origins_add(origins, text_of(o, "path"), text_of(o, "name"), text_of(o, "file"),
                        (uint32_t)line);
    }
    origins_sort(origins);
}

static bool ask_server(const struct command_line *l, struct ports_view *v)
{
    char error[2048];
    json_t *origins;
    if (ask(l, "/config/", &v->config.document, error, sizeof error) != OK) {
        if (flag_given(l, "address"))
            cli_fail("%s", error);
        return false;
    }
    v->running = true;
    if (ask(l, "/ports/origins", &origins, error, sizeof error) == OK)
        read_origins(origins, &v->config.origins);
    json_decref(origins);
    (void)!ask(l, "/services", &v->services, error, sizeof error);
    return true;
}

int ports_view_config(const struct command_line *l, struct ports_view *v)
{
    char error[4096];
    const char *path = flag_value(l, "config");
    memset(v, 0, sizeof *v);
    arena_init(&v->arena, 1 << 20);
    history_init(&v->history);
    origins_init(&v->config.origins);
    if (path == NULL && ask_server(l, v))
        return EXIT_OK;
    if (path == NULL && flag_given(l, "address"))
        return EXIT_STARTUP;
    bool given = path != NULL || flag_given(l, "adapter");
    if (!given && access("Caddyfile", F_OK) != 0 && access(PACKAGED_CADDYFILE, R_OK) == 0)
        path = PACKAGED_CADDYFILE;
    if (config_load(path, flag_value(l, "adapter"), &v->config, error, sizeof error) == OK)
        return EXIT_OK;
    if (given)
        return cli_fail("%s", error);
    fprintf(stderr, "(judged by no configuration, since this one is broken: %s)\n", error);
    return EXIT_OK;
}

/* What a server would refuse to load is told, and the ledger is worth having all the same. */
static void tell_conflict(struct ports_view *v)
{
    struct arena arena;
    const struct port_declaration *list;
    size_t count;
    char error[2048];
    arena_init(&arena, 8192);
    v->conflict = ports_declared(v->config.document, &v->config.origins, &arena, &list, &count, error,
                                 sizeof error) == ERR_EXISTS;
    if (v->conflict)
        cli_fail("%s", error);
    arena_deinit(&arena);
}

/* --- the history: a look is worth having without it, so failures are silent --- */

static void history_path(char out[FOLDER_MAX])
{
    folder_data(out);
    size_t len = strlen(out);
    snprintf(out + len, FOLDER_MAX - len, "/ports.json");
}

static void read_history(struct history *h)
{
    char path[FOLDER_MAX], error[FOLDER_MAX + 256], *bytes;
    size_t len;
    history_path(path);
    if (file_read_all(path, &bytes, &len, error, sizeof error) != OK)
        return;
    if (len <= HISTORY_MAX)
        history_read(h, slice_of(bytes, len));
    mem_free(bytes);
}

static void write_history(struct history *h)
{
    char folder[FOLDER_MAX], path[FOLDER_MAX], error[FOLDER_MAX + 256];
    struct buffer text;
    folder_data(folder);
    history_path(path);
    buffer_init(&text, HISTORY_MAX);
    history_write(h, &text);
    if (!text.full && folder_make(folder, 0700) == OK)
        (void)folder_write(path, text.ptr, text.len, error, sizeof error);
    buffer_deinit(&text);
}

/* --- the ledger --- */

int ports_view_look(const struct command_line *l, struct ports_view *v)
{
    char error[2048];
    struct port_memory *memory;
    struct port_facts facts = {0};
    size_t changes;
    struct ledger_request r = {.document = v->config.document, .origins = &v->config.origins,
                               .services = v->services,
                               .sockets.one_namespace = flag_on(l, "this-namespace")};
    arena_reset(&v->arena);
    r.memory_count = history_memory(&v->history, &v->arena, &memory);
    r.memory = memory;
    if (ledger_read(&r, &v->arena, &v->table, error, sizeof error) != OK)
        return cli_fail("%s", error);
    port_facts_read(&facts, &v->arena);
    if (history_update(&v->history, &v->table, facts.local, &changes))
        write_history(&v->history);
    return EXIT_OK;
}

int ports_view_open(const struct command_line *l, struct ports_view *v)
{
    int status = ports_view_config(l, v);
    if (status == EXIT_OK)
        read_history(&v->history);
    if (status == EXIT_OK)
        tell_conflict(v);
    return status == EXIT_OK ? ports_view_look(l, v) : status;
}

void ports_view_close(struct ports_view *v)
{
    config_unload(&v->config);
    history_deinit(&v->history);
    json_decref(v->services);
    arena_deinit(&v->arena);
}

void ports_view_tell_unseen(struct ports_view *v)
{
    for (size_t i = 0; i < v->table.unseen_count; i++)
        fprintf(stderr, "Not seen: " SLICE_FMT "\n",
                SLICE_ARG(clean_text(v->table.unseen[i], &v->arena)));
}

/* --- output --- */

unsigned output_columns(void)
{
    struct winsize size;
    uint64_t n;
    const char *text = getenv("COLUMNS");
    if (text != NULL && slice_to_u64(slice_from(text), 10000, &n) && n > 0)
        return (unsigned)n;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 0;
}

bool output_colours(void)
{
    const char *none = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && (none == NULL || none[0] == '\0') &&
           (term == NULL || strcmp(term, "dumb") != 0);
}

void output_piece(struct buffer *b)
{
    if (!b->full)
        (void)fwrite(b->ptr, 1, b->len, stdout); /* the stream remembers an error */
    b->len = 0;
}

int output_put(struct buffer *b, int status)
{
    bool written = !b->full && !ferror(stdout) &&
                   (b->len == 0 || fwrite(b->ptr, 1, b->len, stdout) == b->len) &&
                   fflush(stdout) == 0;
    buffer_deinit(b);
    return written ? status : cli_fail("writing: %s", strerror(errno));
}

int output_json(json_t *value, int status)
{
    struct buffer b;
    buffer_init(&b, OUTPUT_MAX);
    (void)jsonx_dump_pretty(&b, value);
    (void)buffer_append_byte(&b, '\n');
    json_decref(value);
    return output_put(&b, status);
}
