/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread of the server process: it owns the running configuration, makes generations
 * and gives them to the workers, serves the admin API, and obeys the keeper.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

struct control_start {
    json_t *document;        /* the first configuration; the reference passes on */
    /* Reads the configuration anew for SIGUSR1; NULL: there is no file. */
    enum err (*reload)(json_t **document, char *error, size_t cap);
    /* Likewise, once a second, without a word in the log; NULL: the file is not watched. */
    enum err (*watch)(json_t **document, char *error, size_t cap);
    void (*started)(void);   /* once, when the first configuration runs; may be NULL */
    const char *file, *adapter; /* where `document` came from; "" or NULL: from no file */
};

/* Runs until told to stop; the exit status. */
int control_run(const struct control_start *);
