/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the file server and the file matcher share: where names begin and how files are found.
 */
#pragma once

#include "files/file_cache.h"
#include "http/module.h"

/* The folder in which the process stands: relative names begin there. */
enum err file_lookup_folder(struct provision *, struct slice *folder);

/* Refuses an "fs" member that names any but the local file system. */
enum err file_lookup_fs(struct provision *, const json_t *);

/* From the worker's cache; never NULL, given back with open_file_unref. */
struct open_file *file_lookup(struct slice absolute_path);

/* The same, given back by itself when the exchange ends. */
struct open_file *file_lookup_for(struct exchange *, struct slice absolute_path);

/* Ties a file to the exchange's end. */
void file_lookup_hold(struct exchange *, struct open_file *);
