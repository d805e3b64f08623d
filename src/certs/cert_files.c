/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On the control thread, which may block here: nothing is served by it.
 */
#include "certs/cert_files.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <sys/stat.h>
#include <unistd.h>

#include "certs/automation.h"

/* Room for one byte more than the file says: it may have grown. */
static enum err read_all(struct provision *p, int fd, const char *path, struct slice *text)
{
    struct stat st;
    size_t len = 0;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return provision_fail(p, "read %s: is no regular file", path);
    if (st.st_size > CERT_FILE_MAX)
        return provision_fail(p, "read %s: larger than %d bytes", path, CERT_FILE_MAX);
    char *bytes = arena_alloc(p->arena, (size_t)st.st_size + 1);
    while (len < (size_t)st.st_size) {
        ssize_t n = read(fd, bytes + len, (size_t)st.st_size - len);
        if (n < 0)
            return provision_fail(p, "read %s: %s", path, strerror(errno));
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *text = slice_of(bytes, len);
    return OK;
}

enum err cert_file_read(struct provision *p, struct slice path, struct slice *text)
{
    const char *name = arena_str(p->arena, path);
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return provision_fail(p, "open %s: %s", name, strerror(errno));
    enum err e = read_all(p, fd, name, text);
    close(fd);
    return e;
}

enum err cert_stored_read(struct provision *p, struct storage *storage, struct slice key,
                          struct slice *text)
{
    struct storage_why why = {""};
    if (storage == NULL)
        return provision_fail(p, "there is no storage to load from");
    if (storage->type->load(storage, key, p->arena, text, &why) == OK)
        return OK;
    return provision_fail(p, "loading '" SLICE_FMT "' from storage: %s", SLICE_ARG(key),
                          why.text[0] != '\0' ? why.text : "no such key");
}

static bool is_pem(const FTSENT *f)
{
    size_t len = strlen(f->fts_name);
    return (f->fts_info == FTS_F || f->fts_info == FTS_SL) && len >= 4 &&
           slice_eq_nocase(slice_of(f->fts_name + len - 4, 4), SLICE(".pem"));
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

enum err cert_folder_walk(struct provision *p, struct slice folder,
                          enum err (*visit)(struct provision *, struct slice path, void *arg),
                          void *arg)
{
    char *paths[] = {arena_str(p->arena, folder), NULL};
    FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, by_name);
    enum err e = OK;
    for (FTSENT *f; fts != NULL && e == OK && (f = fts_read(fts)) != NULL;) {
        if (f->fts_info == FTS_DNR || f->fts_info == FTS_ERR || f->fts_info == FTS_NS)
            e = provision_fail(p, "unable to traverse into path: %s: %s", f->fts_path,
                               strerror(f->fts_errno));
        else if (is_pem(f))
            e = visit(p, arena_copy(p->arena, slice_from(f->fts_path)), arg);
    }
    if (fts == NULL)
        return provision_fail(p, "open %s: %s", paths[0], strerror(errno));
    fts_close(fts);
    return e;
}

enum err cert_storage(struct provision *p, const json_t *json, struct storage **out)
{
    const json_t *own = json_object_get(json, "storage");
    struct slice path = p->path;
    *out = p->storage;
    if (own == NULL || json_is_null(own))
        return OK;
    p->path = arena_printf(p->arena, SLICE_FMT ".storage", SLICE_ARG(path));
    TRY(automation_storage(p, own, p->data_folder, out));
    p->path = path;
    return OK;
}
