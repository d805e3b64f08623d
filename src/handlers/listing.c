/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hidden names are left out while reading, so that counts and sums tell nothing of them. A file that
 * goes between the two looks at it is left out too. Items beyond file_limit are not read; which ones
 * these are is the file system's choice, as in Caddy.
 */
#include "handlers/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"
#include "config/jsonx.h"
#include "files/path.h"
#include "http/uri.h"

void listing_init(struct listing *l)
{
    *l = (struct listing){.unless_newer_s = INT64_MIN, .file_limit = LISTING_LIMIT,
                          .sort = SORT_NAME_DIR_FIRST};
    arena_init(&l->arena, 64 * 1024);
    buffer_init(&l->body, LISTING_BODY_MAX);
}

void listing_deinit(struct listing *l)
{
    mem_free(l->items);
    arena_deinit(&l->arena);
    buffer_deinit(&l->body);
}

/* --- reading --- */

/* Go's os.FileMode, which Caddy's JSON shows. */
static uint32_t go_mode(mode_t m)
{
    uint32_t mode = m & 0777;
    mode |= S_ISDIR(m) ? 1u << 31 : 0;
    mode |= S_ISLNK(m) ? 1u << 27 : 0;
    mode |= S_ISBLK(m) ? 1u << 26 : 0;
    mode |= S_ISCHR(m) ? 1u << 26 | 1u << 21 : 0;
    mode |= S_ISFIFO(m) ? 1u << 25 : 0;
    mode |= S_ISSOCK(m) ? 1u << 24 : 0;
    mode |= m & S_ISUID ? 1u << 23 : 0;
    mode |= m & S_ISGID ? 1u << 22 : 0;
    mode |= m & S_ISVTX ? 1u << 20 : 0;
    return mode;
}

static bool is_hidden(const struct listing *l, struct slice name)
{
    char path[PATH_MAX + NAME_MAX + 2];
    size_t n = strlen(l->folder);
    if (l->hide_count == 0 || n + name.len + 2 > sizeof path)
        return false;
    memcpy(path, l->folder, n);
    if (n > 1)
        path[n++] = '/';
    memcpy(path + n, name.ptr, name.len);
    for (size_t i = 0; i < l->hide_count; i++) {
        if (path_hidden_by(l->hide[i], slice_of(path, n + name.len)))
            return true;
    }
    return false;
}

static void follow(struct listing *l, int folder, const char *name, struct listing_item *item)
{
    struct stat target;
    char link[PATH_MAX];
    item->is_symlink = true;
    if (fstatat(folder, name, &target, 0) == 0) {
        item->is_dir = S_ISDIR(target.st_mode);
        item->size = (uint64_t)target.st_size;
    }
    ssize_t n = l->reveal_symlinks ? readlinkat(folder, name, link, sizeof link) : 0;
    if (n > 0)
        item->link = arena_copy(&l->arena, slice_of(link, (size_t)n));
}

static void add_item(struct listing *l, int folder, const char *name)
{
    struct stat s;
    if (fstatat(folder, name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    if (l->count == l->cap) {
        l->cap = l->cap > 0 ? l->cap * 2 : 64;
        l->items = mem_resize(l->items, l->cap, sizeof *l->items);
    }
    struct listing_item *item = &l->items[l->count++];
    *item = (struct listing_item){.size = (uint64_t)s.st_size, .mtime_s = s.st_mtim.tv_sec,
                                  .mtime_ns = (uint32_t)s.st_mtim.tv_nsec,
                                  .mode = go_mode(s.st_mode), .is_dir = S_ISDIR(s.st_mode)};
    if (S_ISLNK(s.st_mode))
        follow(l, folder, name, item);
    struct slice parts[] = {slice_from(name), item->is_dir ? SLICE("/") : SLICE("")};
    item->name = arena_join(&l->arena, parts, 2);
    if (item->mtime_s > l->modified_s)
        l->modified_s = item->mtime_s;
    l->dirs += item->is_dir;
    l->files += !item->is_dir;
    l->bytes += item->is_dir ? 0 : item->size;
}

static enum err read_folder(struct listing *l)
{
    struct stat s;
    const struct dirent *entry;
    size_t seen = 0;
    int fd = open(l->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    DIR *folder = fd >= 0 && fstat(fd, &s) == 0 ? fdopendir(fd) : NULL;
    if (folder == NULL) {
        enum err e = err_from_errno(errno);
        if (fd >= 0)
            close(fd);
        return e;
    }
    l->modified_s = s.st_mtim.tv_sec;
    while ((entry = readdir(folder)) != NULL) {
        struct slice name = slice_from(entry->d_name);
        if (slice_is(name, ".") || slice_is(name, ".."))
            continue;
        l->cut = seen++ == l->file_limit;
        if (l->cut)
            break;
        if (!is_hidden(l, name))
            add_item(l, fd, entry->d_name);
    }
    closedir(folder);
    return OK;
}

/* --- order --- */

static int compare_names(const struct listing_item *a, const struct listing_item *b)
{
    size_t n = a->name.len < b->name.len ? a->name.len : b->name.len;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)ascii_lower(a->name.ptr[i]);
        unsigned char d = (unsigned char)ascii_lower(b->name.ptr[i]);
        if (c != d)
            return c < d ? -1 : 1;
    }
    if (a->name.len != b->name.len)
        return a->name.len < b->name.len ? -1 : 1;
    return slice_cmp(a->name, b->name); /* the same but for case: still one order */
}

static int by_name(const void *a, const void *b)
{
    return compare_names(a, b);
}

static int by_name_dir_first(const void *a, const void *b)
{
    const struct listing_item *x = a, *y = b;
    return x->is_dir != y->is_dir ? (x->is_dir ? -1 : 1) : compare_names(x, y);
}

/* Folders first: their sizes mean nothing. */
static int by_size(const void *a, const void *b)
{
    const struct listing_item *x = a, *y = b;
    if (x->is_dir || y->is_dir || x->size == y->size)
        return by_name_dir_first(a, b);
    return x->size < y->size ? -1 : 1;
}

static int by_time(const void *a, const void *b)
{
    const struct listing_item *x = a, *y = b;
    if (x->mtime_s != y->mtime_s)
        return x->mtime_s < y->mtime_s ? -1 : 1;
    if (x->mtime_ns != y->mtime_ns)
        return x->mtime_ns < y->mtime_ns ? -1 : 1;
    return compare_names(x, y);
}

static void sort(struct listing *l)
{
    static int (*const orders[])(const void *, const void *) = {by_name, by_name_dir_first, by_size,
                                                                by_time};
    if (l->count > 1)
        qsort(l->items, l->count, sizeof *l->items, orders[l->sort]);
    for (size_t i = 0; l->descending && i < l->count / 2; i++) {
        struct listing_item swap = l->items[i];
        l->items[i] = l->items[l->count - 1 - i];
        l->items[l->count - 1 - i] = swap;
    }
}

static bool contains_nocase(struct slice in, struct slice what)
{
    for (size_t i = 0; i + what.len <= in.len; i++) {
        if (slice_eq_nocase(slice_of(in.ptr + i, what.len), what))
            return true;
    }
    return false;
}

static void keep_filtered(struct listing *l)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (contains_nocase(l->items[i].name, l->filter))
            l->items[kept++] = l->items[i];
    }
    l->count = kept;
}

static void cut_window(struct listing *l)
{
    l->total = l->count;
    if (l->offset > l->count)
        l->offset = 0;
    l->count -= l->offset;
    memmove(l->items, l->items + l->offset, l->count * sizeof *l->items);
    if (l->limit > 0 && l->limit < l->count)
        l->count = l->limit;
}

/* --- forms for programs --- */

static void put_time(struct buffer *b, const struct listing_item *item)
{
    struct tm t;
    time_t seconds = (time_t)item->mtime_s;
    if (gmtime_r(&seconds, &t) == NULL)
        memset(&t, 0, sizeof t);
    (void)!buffer_append_f(b, "%04d-%02d-%02dT%02d:%02d:%02d", t.tm_year + 1900, t.tm_mon + 1,
                           t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec);
    if (item->mtime_ns > 0) {
        char digits[12];
        int n = snprintf(digits, sizeof digits, ".%09u", item->mtime_ns);
        while (digits[n - 1] == '0')
            n--;
        (void)!buffer_append(b, slice_of(digits, (size_t)n));
    }
    (void)!BUFFER_PUT(b, "Z");
}

static void put_json_item(struct listing *l, const struct listing_item *item)
{
    struct buffer *b = &l->body;
    struct slice path = arena_join(&l->arena, (struct slice[]){SLICE("./"), item->name}, 2);
    (void)!BUFFER_PUT(b, "{\"name\":");
    (void)!jsonx_put_string(b, item->name);
    (void)!buffer_append_f(b, ",\"size\":%llu,\"url\":", (unsigned long long)item->size);
    (void)!jsonx_put_string(b, uri_escape_path(path, &l->arena));
    (void)!BUFFER_PUT(b, ",\"mod_time\":\"");
    put_time(b, item);
    (void)!buffer_append_f(b, "\",\"mode\":%u,\"is_dir\":%s,\"is_symlink\":%s", item->mode,
                           item->is_dir ? "true" : "false", item->is_symlink ? "true" : "false");
    if (item->link.len > 0) {
        (void)!BUFFER_PUT(b, ",\"symlink_path\":");
        (void)!jsonx_put_string(b, item->link);
    }
    (void)!BUFFER_PUT(b, "}");
}

static void put_json(struct listing *l)
{
    (void)!BUFFER_PUT(&l->body, "[");
    for (size_t i = 0; i < l->count; i++) {
        if (i > 0)
            (void)!BUFFER_PUT(&l->body, ",");
        put_json_item(l, &l->items[i]);
    }
    (void)!BUFFER_PUT(&l->body, "]\n");
}

/* A cell of a table whose columns are filled up with tabs. */
static size_t runes(struct slice s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += ((unsigned char)s.ptr[i] & 0xc0) != 0x80;
    return n;
}

static size_t column_width(size_t longest)
{
    return (longest + 1 + 7) / 8 * 8;
}

static void put_cell(struct buffer *b, struct slice text, size_t width)
{
    for (size_t i = 0; i < text.len; i++) /* a name must not begin a line or a cell */
        (void)!buffer_append_byte(b, (unsigned char)text.ptr[i] < ' ' ? '?' : text.ptr[i]);
    for (size_t n = runes(text); n < width; n = n / 8 * 8 + 8)
        (void)!buffer_append_byte(b, '\t');
}

static struct slice size_text(uint64_t size, struct arena *arena)
{
    struct buffer b;
    buffer_init(&b, 64);
    (void)!size_put(&b, size);
    struct slice text = arena_copy(arena, buffer_slice(&b));
    buffer_deinit(&b);
    return text;
}

static void put_text_row(struct buffer *b, const struct slice cells[3], const size_t widths[2])
{
    put_cell(b, cells[0], widths[0]);
    put_cell(b, cells[1], widths[1]);
    put_cell(b, cells[2], 0);
    (void)!BUFFER_PUT(b, "\n");
}

static struct slice day_text(int64_t seconds, struct arena *arena)
{
    char text[64];
    struct tm t;
    time_t at = (time_t)seconds;
    if (gmtime_r(&at, &t) == NULL)
        return SLICE("");
    return arena_copy(arena, slice_of(text, strftime(text, sizeof text, "%B %-d, %Y at %H:%M:%S",
                                                     &t)));
}

static void put_text(struct listing *l)
{
    static const struct slice heads[2][3] = {{{"Name", 4}, {"Size", 4}, {"Modified", 8}},
                                             {{"----", 4}, {"----", 4}, {"--------", 8}}};
    size_t widths[2] = {4, 4};
    for (size_t i = 0; i < l->count; i++) {
        size_t name = runes(l->items[i].name);
        size_t size = size_text(l->items[i].size, &l->arena).len;
        widths[0] = name > widths[0] ? name : widths[0];
        widths[1] = size > widths[1] ? size : widths[1];
    }
    widths[0] = column_width(widths[0]);
    widths[1] = column_width(widths[1]);
    put_text_row(&l->body, heads[0], widths);
    put_text_row(&l->body, heads[1], widths);
    for (size_t i = 0; i < l->count; i++) {
        const struct listing_item *item = &l->items[i];
        struct slice cells[3] = {item->name, size_text(item->size, &l->arena),
                                 day_text(item->mtime_s, &l->arena)};
        put_text_row(&l->body, cells, widths);
    }
}

/* --- the whole --- */

struct crumb *listing_crumbs(struct slice path, struct arena *arena, size_t *count)
{
    struct slice part;
    size_t parts = 1, n = 0;
    *count = 0;
    if (path.len > 0 && path.ptr[path.len - 1] == '/')
        path.len--;
    else if (path.len == 0)
        return NULL;
    for (size_t i = 0; i < path.len; i++)
        parts += path.ptr[i] == '/';
    struct crumb *crumbs = ARENA_ARRAY(arena, struct crumb, parts);
    char *ups = arena_alloc(arena, parts * 3 + 1);
    for (size_t i = 0; i < parts; i++)
        memcpy(ups + i * 3, "../", 3);
    for (bool more = true; more; n++) {
        more = slice_cut(path, '/', &part, &path);
        if (n == 0 && part.len == 0)
            part = SLICE("/");
        if (uri_decode(part, arena, &crumbs[n].text) != OK)
            crumbs[n].text = part;
        crumbs[n].link = slice_of(ups, (parts - n - 1) * 3);
    }
    *count = parts;
    return crumbs;
}

void listing_run(void *arg)
{
    struct listing *l = arg;
    l->error = read_folder(l);
    if (l->error != OK)
        return;
    l->not_modified = l->modified_s <= l->unless_newer_s;
    if (l->not_modified)
        return;
    if (l->filter.len > 0)
        keep_filtered(l);
    sort(l);
    cut_window(l);
    if (l->form == FORM_JSON)
        put_json(l);
    else if (l->form == FORM_TEXT)
        put_text(l);
    else
        listing_put_page(l);
    if (l->body.full)
        l->error = ERR_LIMIT;
}
