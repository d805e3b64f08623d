/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_server's "browse": a folder without an index file answers with its content.
 */
#pragma once

#include "handlers/listing.h"
#include "http/module.h"

struct browse {
    int64_t file_limit;
    enum listing_sort sort;
    bool reveal_symlinks, has_sort, has_order, descending;
};

enum err browse_provision(struct browse **, const json_t *, struct provision *);

/* `folder`: absolute. `hide`: patterns with absolute paths. ERR_NOT_FOUND when it has gone, with
 * nothing answered. May wait. */
enum err browse_serve(const struct browse *, struct exchange *, struct slice folder,
                      const struct slice *hide, size_t hide_count);
