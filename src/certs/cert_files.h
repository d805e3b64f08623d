/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and stored values that hold certificates and keys, read while a configuration is provisioned.
 */
#pragma once

#include "http/module.h"

enum { CERT_FILE_MAX = 4 << 20 };

/* The whole file, in the generation's arena. The sentence of a failure names it. */
enum err cert_file_read(struct provision *, struct slice path, struct slice *text);

/* A value of the storage by its key. */
enum err cert_stored_read(struct provision *, struct storage *, struct slice key,
                          struct slice *text);

/* Calls `visit` for every regular file below the folder whose name ends with ".pem", in no promised
 * order; symbolic links to files count, those to folders do not, as in Go's WalkDir. */
enum err cert_folder_walk(struct provision *, struct slice folder,
                          enum err (*visit)(struct provision *, struct slice path, void *arg),
                          void *arg);

/* {"storage": {"module": "file_system", …}} of a module, else the document's own. */
enum err cert_storage(struct provision *, const json_t *, struct storage **);
