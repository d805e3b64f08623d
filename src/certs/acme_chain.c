/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A certificate comes with links to other chains of the same leaf (RFC 8555 §7.4.2), and from older
 * authorities with links to what is above it. Whatever comes is checked before it is given on: a
 * wrong certificate in the storage would be served until somebody looks.
 */
#include "certs/acme_chain.h"

#include <stdio.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "config/jsonx.h"
#include "loop/await.h"
#include "pki/certificate.h"
#include "pki/issued.h"

enum { LINKS_MAX = 8, RENEWAL_TRIES = 3 };

static const char logger[] = "tls.issuance.acme.acme_client";

/* --- on the loop's stack --- */

struct checking {
    struct slice pem, csr_der;
    struct arena *arena;
    struct certificate_facts facts;
    enum err result;
    char why[256];
};

static void check_on_loop(void *arg)
{
    struct checking *k = arg;
    k->result = issued_check(k->pem, k->csr_der, k->why, sizeof k->why);
    if (k->result == OK && k->facts.names == NULL)
        k->result = certificate_read(k->pem, k->arena, &k->facts, k->why, sizeof k->why);
}

/* --- renewal information --- */

enum err acme_window(struct acme *c, struct slice ari_id, struct acme_renewal *renewal,
                     uint64_t *look_again_ns)
{
    struct acme_answer answer;
    struct acme_why why;
    enum err e = ERR_FAILED;
    if (c->directory->renewal_info.len == 0 || ari_id.len == 0)
        return acme_fail(c, ERR_UNSUPPORTED, "the authority does not tell when to renew");
    struct slice url = arena_join(c->arena, (struct slice[]){c->directory->renewal_info, SLICE("/"),
                                                             ari_id}, 3);
    for (int i = 0; i < RENEWAL_TRIES; i++) {
        if (i > 0)
            TRY(await_sleep(clock_mono_ns() + (uint64_t)(i * i + 1) * NS_PER_S));
        e = acme_get(c, url, &answer);
        if (e == OK && (e = acme_renewal_read(answer.body, c->arena, renewal, &why)) != OK)
            (void)acme_fail(c, e, "%s", why.text);
        if (e == OK || fiber_self()->cancelled != OK)
            break;
        if (c->problem != NULL && answer.status < 500)
            break; /* it knows no such certificate: it will not in a second either */
    }
    if (e != OK) {
        acme_context(c, "could not get a valid ARI response");
        return e;
    }
    *look_again_ns = answer.retry_after_ns;
    return OK;
}

static int64_t random_between(int64_t start, int64_t end)
{
    uint64_t chance = 0;
    (void)!getrandom(&chance, sizeof chance, GRND_NONBLOCK);
    return end > start + 1 ? start + 1 + (int64_t)(chance % (uint64_t)(end - start - 1)) : start;
}

static enum err put_renewal(struct buffer *b, const struct acme_renewal *r, struct slice ari_id,
                            uint64_t look_again_ns, struct arena *a)
{
    int64_t now = clock_wall_ns() / (int64_t)NS_PER_S;
    int64_t again = now + (int64_t)(look_again_ns / NS_PER_S);
    TRY(buffer_append_f(b, "{\"suggestedWindow\":{\"start\":\"" SLICE_FMT "\",\"end\":\"" SLICE_FMT
                        "\"}", SLICE_ARG(r->start), SLICE_ARG(r->end)));
    if (r->explanation_url.len > 0) {
        TRY(BUFFER_PUT(b, ",\"explanationURL\":"));
        TRY(jsonx_put_string(b, r->explanation_url));
    }
    TRY(buffer_append_f(b, ",\"_uniqueIdentifier\":\"" SLICE_FMT "\"", SLICE_ARG(ari_id)));
    if (look_again_ns > 0)
        TRY(buffer_append_f(b, ",\"_retryAfter\":\"" SLICE_FMT "\"",
                            SLICE_ARG(acme_time_text(again, a))));
    return buffer_append_f(b, ",\"_selectedTime\":\"" SLICE_FMT "\"}",
                           SLICE_ARG(acme_time_text(random_between(r->start_s, r->end_s), a)));
}

static struct slice renewal_json(struct acme *c, struct slice ari_id)
{
    struct acme_renewal renewal;
    struct buffer b;
    uint64_t again;
    struct slice json = SLICE("");
    if (c->directory->renewal_info.len == 0 || ari_id.len == 0)
        return json;
    if (acme_window(c, ari_id, &renewal, &again) != OK) {
        LOG(LOG_ERROR, logger, "failed getting renewal information", LOG_CSTR("error", c->why));
        return json;
    }
    buffer_init(&b, 8192);
    if (put_renewal(&b, &renewal, ari_id, again, c->arena) == OK)
        json = arena_copy(c->arena, buffer_slice(&b));
    buffer_deinit(&b);
    return json;
}

/* --- download --- */

static enum err get_pem(struct acme *c, const struct acme_signer *signer, struct slice url,
                        struct acme_answer *answer)
{
    struct slice type;
    TRY(acme_post(c, signer, url, SLICE(""), answer));
    if (acme_answer_is(answer, "application/pem-certificate-chain"))
        return OK;
    (void)fields_get(&answer->fields, SLICE("Content-Type"), &type);
    return acme_fail(c, ERR_INVALID, "unrecognized Content-Type from server: " SLICE_FMT,
                     SLICE_ARG(slice_take(type, 80)));
}

static enum err add_chain(struct acme *c, const struct acme_signer *signer, struct slice url,
                          struct checking *k, struct acme_chains *chains,
                          struct acme_answer *answer)
{
    struct slice ups[LINKS_MAX];
    struct acme_answer above;
    size_t count;
    TRY(get_pem(c, signer, url, answer));
    struct slice pem = answer->body;
    acme_links(c, answer, "up", ups, LINKS_MAX, &count);
    for (size_t i = 0; i < count; i++) {
        TRY(get_pem(c, signer, ups[i], &above));
        pem = arena_join(c->arena, (struct slice[]){pem, above.body}, 2);
    }
    k->pem = pem;
    await_on_loop(check_on_loop, k);
    if (k->result != OK)
        return acme_fail(c, ERR_INVALID, "the certificate that came is refused: %s", k->why);
    chains->items[chains->count++] = (struct acme_chain){.url = url, .pem = pem};
    return OK;
}

enum err acme_download(struct acme *c, const struct acme_signer *signer, struct slice url,
                       struct slice csr_der, struct acme_chains *chains)
{
    struct slice others[ACME_CHAINS_MAX - 1];
    struct acme_answer answer, ignored;
    struct checking k = {.csr_der = csr_der, .arena = c->arena};
    size_t count;
    TRY(add_chain(c, signer, url, &k, chains, &answer));
    acme_links(c, &answer, "alternate", others, ACME_CHAINS_MAX - 1, &count);
    for (size_t i = 0; i < count; i++) {
        enum err e = add_chain(c, signer, others[i], &k, chains, &ignored);
        if (e == ERR_CANCELLED)
            return e;
        if (e != OK) /* the first one is good: it is not thrown away for another's sake */
            LOG(LOG_WARN, logger, "retrieving alternate certificate chain",
                LOG_STR("url", others[i]), LOG_CSTR("error", c->why));
    }
    LOG(LOG_INFO, logger, "successfully downloaded available certificate chains",
        LOG_NUM("count", (int64_t)chains->count), LOG_STR("first_url", url));
    struct slice renewal = renewal_json(c, k.facts.ari_id);
    for (size_t i = 0; i < chains->count; i++)
        chains->items[i].renewal_json = renewal;
    return OK;
}

/* --- preference --- */

static bool any_is(const struct slice *names, size_t count, struct slice wanted)
{
    for (size_t i = 0; i < count; i++)
        if (slice_eq(names[i], wanted))
            return true;
    return false;
}

struct issuers {
    struct slice *names;
    size_t count;
};

/* By the order of the wishes first, of the chains second. */
static bool find_preferred(const struct issuers *chains, const size_t *order, size_t count,
                           const struct slice *wanted, size_t wanted_count, bool root_only,
                           size_t *found)
{
    for (size_t w = 0; w < wanted_count; w++)
        for (size_t i = 0; i < count; i++) {
            const struct issuers *s = &chains[order[i]];
            size_t skip = root_only && s->count > 0 ? s->count - 1 : 0;
            if (s->count > 0 && any_is(s->names + skip, s->count - skip, wanted[w])) {
                *found = order[i];
                return true;
            }
        }
    return false;
}

static void sort_by_size(const struct acme_chains *chains, size_t *order, int smallest)
{
    for (size_t i = 1; i < chains->count; i++)
        for (size_t k = i; k > 0; k--) {
            size_t a = chains->items[order[k - 1]].pem.len, b = chains->items[order[k]].pem.len;
            if (smallest > 0 ? b >= a : b <= a)
                break;
            size_t kept = order[k];
            order[k] = order[k - 1];
            order[k - 1] = kept;
        }
}

size_t acme_prefer(const struct acme_chains *chains, const struct chain_preference *p,
                   struct arena *a)
{
    size_t order[ACME_CHAINS_MAX] = {0}, found = 0;
    struct issuers issuers[ACME_CHAINS_MAX] = {{NULL, 0}};
    for (size_t i = 0; i < chains->count; i++)
        order[i] = i;
    if (chains->count < 2)
        return 0;
    if (p->smallest != 0)
        sort_by_size(chains, order, p->smallest);
    if (p->any_common_names_count == 0 && p->root_common_names_count == 0)
        return order[0];
    for (size_t i = 0; i < chains->count; i++)
        (void)issued_issuers(chains->items[i].pem, a, &issuers[i].names, &issuers[i].count);
    if (find_preferred(issuers, order, chains->count, p->any_common_names,
                       p->any_common_names_count, false, &found) ||
        find_preferred(issuers, order, chains->count, p->root_common_names,
                       p->root_common_names_count, true, &found))
        return found;
    LOG(LOG_WARN, "tls.issuance.acme", "did not find chain matching preferences; using first");
    return order[0];
}
