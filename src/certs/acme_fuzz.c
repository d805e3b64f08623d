/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an answer of an authority, of each kind; the first byte says which. A problem that was
 * read can be said in one line.
 */
#include "base/check.h"
#include "certs/acme_objects.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_problem(struct slice json, struct arena *a, struct acme_why *why)
{
    struct acme_problem p;
    struct buffer b;
    if (acme_problem_read(json, a, &p, why) != OK)
        return;
    buffer_init(&b, 700);
    acme_problem_say(&p, &b);
    for (size_t i = 0; i < b.len; i++)
        ASSERT((unsigned char)b.ptr[i] >= ' ');
    buffer_deinit(&b);
}

static void read_authorization(struct slice json, struct arena *a, struct acme_why *why)
{
    struct acme_authorization z;
    if (acme_authorization_read(json, a, &z, why) != OK)
        return;
    ASSERT(z.challenges_count <= ACME_CHALLENGES_MAX);
    for (size_t i = 0; i < z.challenges_count; i++) {
        ASSERT(acme_url_ok(z.challenges[i].url));
        ASSERT(slice_find(z.challenges[i].token, '/') == SIZE_MAX);
        ASSERT(slice_find(z.challenges[i].token, '.') == SIZE_MAX);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct acme_why why;
    struct acme_directory directory;
    struct acme_account_object account;
    struct acme_order order;
    struct acme_challenge challenge;
    struct acme_renewal renewal;
    if (size == 0)
        return 0;
    struct slice json = slice_of((const char *)data + 1, size - 1);
    arena_init(&a, 4096);
    switch (data[0] % 7) {
    case 0: (void)acme_directory_read(json, &a, &directory, &why); break;
    case 1: (void)acme_account_read(json, &a, &account, &why); break;
    case 2: (void)acme_order_read(json, &a, &order, &why); break;
    case 3: read_authorization(json, &a, &why); break;
    case 4: (void)acme_challenge_read(json, &a, &challenge, &why); break;
    case 5: (void)acme_renewal_read(json, &a, &renewal, &why); break;
    default: read_problem(json, &a, &why); break;
    }
    arena_deinit(&a);
    return 0;
}
