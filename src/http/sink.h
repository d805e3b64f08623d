/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a response goes. Sinks stack per exchange: a handler that changes the response (encode,
 * header, intercept) wraps the current one; the lowest is the wire. Calls come in the order
 * inform*, head, (data | file | flush)*, end; abort may come at any time and ends it. All may
 * wait (they run on the exchange's fiber).
 */
#pragma once

#include "base/slice.h"

struct response;
struct fields;
struct sink;
struct open_file; /* files/: kept alive by the exchange until the sink has sent it */

enum lend {
    LEND_BORROWED, /* the bytes are the caller's again when the call returns */
    LEND_STABLE,   /* the bytes outlive the exchange's end (constant, generation, cached file) */
};

struct sink_type {
    enum err (*inform)(struct sink *, int status_1xx, const struct fields *);
    enum err (*head)(struct sink *, struct response *);
    enum err (*data)(struct sink *, struct slice, enum lend);
    enum err (*file)(struct sink *, int fd, uint64_t offset, uint64_t len);
    enum err (*flush)(struct sink *);
    enum err (*end)(struct sink *, const struct fields *trailers); /* trailers may be NULL */
    void (*abort)(struct sink *, enum err why); /* never a clean end on the wire */
};

struct sink {
    const struct sink_type *type;
    struct sink *below; /* NULL for the wire */
    struct exchange *exchange;
};

/* Pass-through implementations for wrappers that leave a step alone. */
enum err sink_pass_inform(struct sink *, int status_1xx, const struct fields *);
enum err sink_pass_head(struct sink *, struct response *);
enum err sink_pass_data(struct sink *, struct slice, enum lend);
enum err sink_pass_file(struct sink *, int fd, uint64_t offset, uint64_t len);
enum err sink_pass_flush(struct sink *);
enum err sink_pass_end(struct sink *, const struct fields *trailers);
void sink_pass_abort(struct sink *, enum err why);

/* For wrappers that must see a file's bytes: reads it piecewise and calls the sink's own data. */
enum err sink_file_as_data(struct sink *, int fd, uint64_t offset, uint64_t len);
