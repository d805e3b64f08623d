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

static struct {
    struct kept_json document;
    struct origins origins;
} newest;

static struct {
    const struct kept_json *document;
    struct origins origins; /* empty, unless they are known */
    bool is_known;
    bool asked; /* the source file was read in vain */
} running;

static struct {
    char *file, *adapter;
} said;

static void forget(struct origins *origins)
{
    origins_deinit(origins);
    origins_init(origins);
}

void config_origins_keep(const json_t *document, const struct origins *origins)
{
    forget(&newest.origins);
    kept_json_clear(&newest.document);
    if (origins->count == 0) /* as of JSON: as good as not known */
        return;
    if (kept_json_set(&newest.document, document) != OK)
        return; /* such a document is refused */
    for (size_t i = 0; i < origins->count; i++) {
        const struct origin *o = &origins->items[i];
        origins_add(&newest.origins, o->path, o->name, o->file, o->line);
    }
    origins_sort(&newest.origins);
}

/* What was just adapted is told from what runs only as long as it does not run. */
static bool take_newest(void)
{
    if (!kept_json_same(&newest.document, running.document))
        return false;
    origins_deinit(&running.origins);
    running.origins = newest.origins;
    running.is_known = true;
    origins_init(&newest.origins);
    kept_json_clear(&newest.document);
    return true;
}

void config_origins_run(const struct kept_json *document)
{
    bool as_before = running.document != NULL && kept_json_same(running.document, document);
    running.document = document;
    running.asked = false;
    if (take_newest() || as_before)
        return;
    forget(&running.origins);
    running.is_known = false;
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

const struct origins *config_origins_of(const struct kept_json *document)
{
    if (kept_json_same(&newest.document, document))
        return &newest.origins;
    return running.is_known && kept_json_same(running.document, document) ? &running.origins : NULL;
}

const struct origins *config_origins_running(void)
{
    if (!running.is_known && !running.asked && running.document != NULL) {
        running.asked = true;
        adapt_source();
        (void)take_newest();
    }
    return running.is_known ? &running.origins : NULL;
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
