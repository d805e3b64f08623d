/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content of a folder, for people and programs: read, sorted, cut to a window, and put down as
 * HTML, JSON or plain text. Everything here blocks or takes long, so it runs on the offload pool
 * and touches nothing of the exchange: what it needs is copied in, what it makes is in its own
 * memory.
 */
#pragma once

#include <sys/stat.h>

#include "base/arena.h"
#include "base/buffer.h"

enum listing_sort { SORT_NAME, SORT_NAME_DIR_FIRST, SORT_SIZE, SORT_TIME };
enum listing_form { FORM_HTML, FORM_JSON, FORM_TEXT };

enum {
    LISTING_LIMIT = 10000,        /* names read, unless file_limit says otherwise */
    LISTING_LIMIT_MAX = 1000 * 1000,
    LISTING_BODY_MAX = 256 << 20, /* of a rendered listing */
};

struct listing_item {
    struct slice name; /* with a '/' behind folders */
    struct slice link; /* where a symlink leads, when that may be told */
    uint64_t size;     /* of what a symlink leads to */
    int64_t mtime_s;
    uint32_t mtime_ns, mode; /* Go's FileMode */
    bool is_dir, is_symlink;
};

struct crumb {
    struct slice link, text;
};

struct listing {
    /* in */
    const char *folder;        /* absolute, NUL-terminated */
    struct slice url_path;     /* cleaned and escaped */
    const struct slice *hide;  /* absolute paths, names, patterns */
    size_t hide_count;
    size_t file_limit;
    enum listing_sort sort;
    enum listing_form form;
    bool descending, grid, reveal_symlinks;
    uint64_t offset, limit;    /* limit 0: no window */
    struct slice filter;       /* only names that contain it; empty: all */
    int64_t unless_newer_s;    /* If-Modified-Since; INT64_MIN: none */
    char nonce[33];            /* of the page's Content-Security-Policy */
    /* between */
    struct arena arena;
    struct listing_item *items;
    size_t count, cap, total;  /* total: before the window */
    size_t dirs, files;
    uint64_t bytes;            /* of the files; of symlinks' targets */
    bool cut;                  /* there were more names than file_limit */
    /* out */
    enum err error;
    bool not_modified;
    int64_t modified_s;        /* the newest time of folder and items */
    struct buffer body;
};

void listing_init(struct listing *);
void listing_deinit(struct listing *);

/* Reads, sorts and renders; for await_offload. */
void listing_run(void *listing);

/* Links and texts of the folders above: from an escaped path. */
struct crumb *listing_crumbs(struct slice url_path, struct arena *, size_t *count);

/* listing_page.c */
void listing_put_page(struct listing *);
