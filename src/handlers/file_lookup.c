/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files come from the worker's own cache, and an exchange that sends from one keeps it until its
 * end, whatever the cache does meanwhile.
 */
#include "handlers/file_lookup.h"

#include <limits.h>
#include <unistd.h>

#include "loop/loop.h"

enum err file_lookup_folder(struct provision *p, struct slice *folder)
{
    char name[PATH_MAX];
    if (getcwd(name, sizeof name) == NULL)
        return provision_fail(p, "the current folder has no name");
    *folder = arena_copy(p->arena, slice_from(name));
    return OK;
}

enum err file_lookup_fs(struct provision *p, const json_t *json)
{
    struct slice name;
    TRY(provision_text(p, json, "fs", SLICE(""), &name));
    if (name.len == 0 || slice_is(name, "default") || slice_is(name, "{http.vars.fs}"))
        return OK;
    return provision_fail(p, "fs: \"" SLICE_FMT "\" is not a file system of this server; only the "
                          "local one (\"default\") is there", SLICE_ARG(name));
}

struct open_file *file_lookup(struct slice path)
{
    return file_cache_open(file_cache_self(), path, loop_now_ns(loop_self()));
}

static void unref(struct exchange *x, void *file)
{
    (void)x;
    open_file_unref(file);
}

void file_lookup_hold(struct exchange *x, struct open_file *file)
{
    exchange_on_end(x, unref, file);
}

struct open_file *file_lookup_for(struct exchange *x, struct slice path)
{
    struct open_file *file = file_lookup(path);
    file_lookup_hold(x, file);
    return file;
}
