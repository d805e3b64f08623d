/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two sets: of the document that runs, and of the newest that was adapted here, which may be one that
 * is refused, or that was only asked about. Control thread only.
 */
#include "app/config_origins.h"

#include <sys/stat.h>

#include "app/config_file.h"
#include "base/mem.h"
#include "config/jsonx.h"

struct known {
    json_t *document; /* NULL: nothing is kept */
    struct origins origins;
};

static struct known newest;

static struct {
    struct known known; /* its document is always the running one */
    bool is_known;
    bool asked; /* the source file was read in vain */
} running;

static struct {
    char *file, *adapter;
} said;

static void forget(struct known *k)
{
    json_decref(k->document);
    origins_deinit(&k->origins);
    k->document = NULL;
    origins_init(&k->origins);
}

static void keep(struct known *k, const struct origins *origins)
{
    for (size_t i = 0; i < origins->count; i++) {
        const struct origin *o = &origins->items[i];
        origins_add(&k->origins, o->path, o->name, o->file, o->line);
    }
    origins_sort(&k->origins);
}

void config_origins_keep(json_t *document, const struct origins *origins)
{
    forget(&newest);
    newest.document = json_incref(document);
    keep(&newest, origins);
}

static bool is_newest(const json_t *document)
{
    return newest.document != NULL && json_equal(newest.document, document);
}

static void take_newest(void)
{
    running.is_known = is_newest(running.known.document);
    if (running.is_known)
        keep(&running.known, &newest.origins);
}

void config_origins_run(json_t *document)
{
    json_incref(document); /* it may be the same one */
    forget(&running.known);
    running.known.document = document;
    running.asked = false;
    take_newest();
}

void config_origins_source(struct slice file, struct slice adapter)
{
    mem_free(said.file);
    mem_free(said.adapter);
    said.file = slice_dup(file);
    said.adapter = slice_dup(adapter);
    running.asked = false;
}

static void adapt_source(void)
{
    struct loaded_config c;
    char error[2048];
    struct stat s;
    if (said.file == NULL || stat(said.file, &s) != 0 || !S_ISREG(s.st_mode) ||
        config_load(said.file, said.adapter, &c, error, sizeof error) != OK)
        return;
    config_unload(&c);
}

const struct origins *config_origins_of(const json_t *document, bool adapt_again)
{
    if (document != running.known.document)
        return is_newest(document) ? &newest.origins : NULL;
    if (!running.is_known && adapt_again && !running.asked) {
        running.asked = true;
        adapt_source();
        take_newest();
    }
    return running.is_known ? &running.known.origins : NULL;
}

json_t *config_origins_json(const struct origins *origins)
{
    json_t *list = json_array();
    for (size_t i = 0; origins != NULL && i < origins->count; i++) {
        const struct origin *o = &origins->items[i];
        json_array_append_new(list, json_pack("{s:o,s:o,s:o,s:I}", "path", jsonx_string(o->path),
                                              "name", jsonx_string(o->name), "file",
                                              jsonx_string(o->file), "line", (json_int_t)o->line));
    }
    return list;
}
