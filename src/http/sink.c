/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a wrapping sink does with a step that it leaves alone: the same step of the sink below.
 */
#include "http/sink.h"

#include <errno.h>
#include <unistd.h>

enum err sink_pass_inform(struct sink *s, int status_1xx, const struct fields *fields)
{
    return s->below->type->inform(s->below, status_1xx, fields);
}

enum err sink_pass_head(struct sink *s, struct response *res)
{
    return s->below->type->head(s->below, res);
}

enum err sink_pass_data(struct sink *s, struct slice bytes, enum lend lend)
{
    return s->below->type->data(s->below, bytes, lend);
}

enum err sink_pass_file(struct sink *s, int fd, uint64_t offset, uint64_t len)
{
    return s->below->type->file(s->below, fd, offset, len);
}

enum err sink_pass_flush(struct sink *s)
{
    return s->below->type->flush(s->below);
}

enum err sink_pass_end(struct sink *s, const struct fields *trailers)
{
    return s->below->type->end(s->below, trailers);
}

void sink_pass_abort(struct sink *s, enum err why)
{
    s->below->type->abort(s->below, why);
}

enum err sink_file_as_data(struct sink *s, int fd, uint64_t offset, uint64_t len)
{
    char piece[16384];
    while (len > 0) {
        size_t want = len < sizeof piece ? (size_t)len : sizeof piece;
        ssize_t n = pread(fd, piece, want, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* shorter than its head said: the response cannot end cleanly */
            return ERR_IO;
        TRY(s->type->data(s, slice_of(piece, (size_t)n), LEND_BORROWED));
        offset += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return OK;
}
