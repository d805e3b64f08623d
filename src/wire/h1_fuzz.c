/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a request head, a response head, trailers and chunks. What is accepted must lie
 * within the input, and a head that is done must be "more" with its last byte missing.
 */
#include "base/check.h"
#include "wire/chunked.h"
#include "wire/h1_head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_within(struct slice all, struct slice part)
{
    ASSERT(part.len == 0 || (part.ptr >= all.ptr && part.ptr + part.len <= all.ptr + all.len));
}

static void check_head(const struct h1_head *h, struct slice in, size_t used)
{
    ASSERT(used <= in.len);
    for (unsigned i = 0; i < h->count; i++) {
        check_within(in, h->fields[i].name);
        check_within(in, h->fields[i].value);
        ASSERT(h1_name_ok(h->fields[i].name) && h1_value_ok(h->fields[i].value));
    }
    check_within(in, h->host);
    check_within(in, h->target);
}

static void try_chunks(struct slice in)
{
    struct chunked c;
    struct slice data;
    size_t total = 0, all = in.len;
    chunked_init(&c);
    while (chunked_next(&c, &in, SIZE_MAX, &data) == CHUNKED_DATA)
        total += data.len;
    ASSERT(total <= all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct h1_head h;
    struct slice in = slice_of((const char *)data, size);
    size_t used = 0, again;
    if (h1_parse_request(&h, in, &used) == H1_DONE) {
        check_head(&h, in, used);
        ASSERT(h1_parse_request(&h, slice_take(in, used - 1), &again) == H1_MORE);
    }
    if (h1_parse_response(&h, in, false, &used) == H1_DONE)
        check_head(&h, in, used);
    unsigned count;
    const char *why;
    (void)h1_parse_trailers(h.fields, H1_FIELDS_MAX, &count, in, &used, &why);
    try_chunks(in);
    return 0;
}
