/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As Caddy compares: the adapter when one is named, and the last part of the path (which is the same
 * when the path is). Control thread only.
 */
#include "app/config_source.h"

#include "base/mem.h"

static struct {
    char *file, *adapter; /* NULL: unknown */
} source;

void config_source_set(const char *file, const char *adapter)
{
    mem_free(source.file);
    mem_free(source.adapter);
    bool known = file != NULL && file[0] != '\0';
    source.file = known ? slice_dup(slice_from(file)) : NULL;
    source.adapter = known ? slice_dup(slice_from(adapter != NULL ? adapter : "")) : NULL;
}

bool config_source_known(void)
{
    return source.file != NULL;
}

static struct slice last_part(struct slice path)
{
    size_t slash = slice_find_last(path, '/');
    return slash == SIZE_MAX ? path : slice_skip(path, slash + 1);
}

static bool matches(struct slice file, struct slice adapter)
{
    if (source.file == NULL || (adapter.len > 0 && !slice_is(adapter, source.adapter)))
        return false;
    return slice_eq(last_part(file), last_part(slice_from(source.file)));
}

void config_source_check(struct slice file, struct slice adapter)
{
    if ((file.len > 0 || adapter.len > 0) && matches(file, adapter))
        return;
    config_source_set(NULL, NULL);
}
