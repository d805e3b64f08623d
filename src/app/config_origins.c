/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One set, of the newest document that was adapted here. Control thread only.
 */
#include "app/config_origins.h"

#include <sys/stat.h>

#include "app/config_file.h"
#include "base/mem.h"
#include "config/jsonx.h"

static struct {
    json_t *document; /* NULL: nothing is kept */
    struct origins origins;
} kept;

static struct {
    char *file, *adapter;
} said;

void config_origins_keep(json_t *document, const struct origins *origins)
{
    json_decref(kept.document);
    origins_deinit(&kept.origins);
    origins_init(&kept.origins);
    kept.document = json_incref(document);
    for (size_t i = 0; i < origins->count; i++) {
        const struct origin *o = &origins->items[i];
        origins_add(&kept.origins, o->path, o->name, o->file, o->line);
    }
    origins_sort(&kept.origins);
}

void config_origins_source(struct slice file, struct slice adapter)
{
    mem_free(said.file);
    mem_free(said.adapter);
    said.file = slice_dup(file);
    said.adapter = slice_dup(adapter);
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
    bool same = kept.document != NULL && json_equal(kept.document, document);
    if (!same && adapt_again) {
        adapt_source();
        same = kept.document != NULL && json_equal(kept.document, document);
    }
    return same ? &kept.origins : NULL;
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
