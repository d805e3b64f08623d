/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a DNS reply, to the question that they themselves hold.
 */
#include "base/check.h"
#include "certs/dns_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct dns_reply reply;
    struct slice bytes = slice_of((const char *)data, size);
    uint16_t id = size >= 2 ? (uint16_t)(data[0] << 8 | data[1]) : 0;
    arena_init(&a, 4096);
    if (dns_reply_read(bytes, id, SLICE("a.example"), DNS_TXT, &a, &reply) == OK) {
        ASSERT(reply.count <= DNS_RECORDS_MAX);
        for (size_t i = 0; i < reply.count; i++) {
            struct slice owner = reply.records[i].owner;
            ASSERT(owner.len > 0 && owner.len <= DNS_NAME_MAX && owner.ptr[owner.len - 1] == '.');
        }
    }
    arena_deinit(&a);
    return 0;
}
