/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a Caddyfile, all the way to JSON, with no file opened. What comes out can be printed
 * and read again; what does not come out has a sentence.
 */
#include "adapter/adapter.h"
#include "base/buffer.h"
#include "base/check.h"
#include "base/log.h"
#include "base/text.h"
#include "config/jsonx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void nothing(struct log_event *event)
{
    (void)event;
}

static void check_document(const json_t *document)
{
    struct buffer text;
    static struct diag diag;
    buffer_init(&text, JSONX_MAX_SIZE);
    if (jsonx_dump(&text, document) == OK) {
        json_t *again = jsonx_load(SLICE_NONE, buffer_slice(&text), &diag);
        ASSERT(again != NULL || text.len > (1u << 20));
        ASSERT(again == NULL || json_equal(again, document));
        json_decref(again);
    }
    buffer_deinit(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct diag diag;
    json_t *document, *warnings;
    struct slice in = {(const char *)data, size};
    log_set_sink(nothing);
    enum err e = adapt_caddyfile_alone(SLICE("Caddyfile"), in, &document, &warnings, &diag);
    if (e == OK) {
        check_document(document);
    } else {
        ASSERT(diag.text[0] != '\0' && utf8_valid(slice_from(diag.text)));
        ASSERT(document == NULL && warnings == NULL);
    }
    json_decref(document);
    json_decref(warnings);
    return 0;
}
