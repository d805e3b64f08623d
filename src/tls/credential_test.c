/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which credential a handshake finds, and what ten thousand of them cost.
 */
#include <malloc.h>

#include "base/clock.h"
#include "tls/credential_store.h"
#include "tls/tls_testing.h"

static char why[256];
static struct tls_policy plain;

static struct credential *make(const char *names, const char *tag, long serial, long days,
                               EVP_PKEY *key)
{
    EVP_PKEY *own = key != NULL ? key : testing_key();
    X509 *x = testing_certificate(own, names, NULL, NULL, false, serial, days);
    struct slice tags[] = {slice_from(tag)};
    struct credential_spec spec = {testing_pem(x), testing_key_pem(own), tags, tag != NULL};
    struct credential *c;
    CHECK_OK(credential_create(&spec, &c, why, sizeof why));
    testing_free(spec.chain_pem);
    testing_free(spec.key_pem);
    X509_free(x);
    if (key == NULL)
        EVP_PKEY_free(own);
    return c;
}

static struct credential *find_with(const struct tls_policy *policy, const char *name,
                                    const char *local, bool *by_default)
{
    struct credential_query q = {.name = slice_from(name), .local = slice_from(local),
                                 .policy = policy, .now_s = clock_wall_ns() / (int64_t)NS_PER_S};
    return credential_find(&q, by_default);
}

static const char *serial_of(struct credential *c)
{
    static char text[40];
    if (c == NULL)
        return "none";
    snprintf(text, sizeof text, SLICE_FMT, SLICE_ARG(credential_facts(c)->serial));
    return text;
}

static const char *find(const char *name)
{
    bool by_default;
    return serial_of(find_with(&plain, name, "127.0.0.1", &by_default));
}

static void end(void)
{
    credentials_clear();
    credential_thread_deinit();
}

TEST("a name is found exactly, by its wildcards, and not by others")
{
    struct credential *all[] = {make("DNS:a.example", NULL, 1, 30, NULL),
                                make("DNS:*.example,DNS:b.example", NULL, 2, 30, NULL),
                                make("DNS:*.*.test", NULL, 3, 30, NULL)};
    credentials_publish(all, 3);
    CHECK_TEXT(slice_from(find("a.example")), "1");
    CHECK_TEXT(slice_from(find("b.example")), "2");
    CHECK_TEXT(slice_from(find("c.example")), "2");
    CHECK_TEXT(slice_from(find("d.c.example")), "none");
    CHECK_TEXT(slice_from(find("x.y.test")), "3");
    CHECK_TEXT(slice_from(find("example")), "none");
    CHECK_TEXT(slice_from(find("")), "none");
    end();
}

TEST("without a name the address decides, then default_sni; fallback_sni comes last")
{
    struct slice fall = SLICE("fall.example"), first = SLICE("default.example");
    struct tls_policy p = {.default_sni = first, .fallback_sni = fall};
    struct credential *all[] = {make("DNS:fall.example", NULL, 1, 30, NULL),
                                make("DNS:default.example", NULL, 2, 30, NULL),
                                make("IP:192.0.2.1", NULL, 3, 30, NULL)};
    bool by_default;
    credentials_publish(all, 3);
    CHECK_TEXT(slice_from(serial_of(find_with(&p, "", "192.0.2.1", &by_default))), "3");
    CHECK(!by_default);
    CHECK_TEXT(slice_from(serial_of(find_with(&p, "", "192.0.2.2", &by_default))), "2");
    CHECK(by_default);
    CHECK_TEXT(slice_from(serial_of(find_with(&p, "other", "192.0.2.1", &by_default))), "1");
    CHECK(by_default);
    CHECK_TEXT(slice_from(serial_of(find_with(&plain, "", "192.0.2.2", &by_default))), "none");
    end();
}

TEST("of several it is one whose time has come")
{
    struct credential *all[] = {make("DNS:a.example", NULL, 1, -1, NULL),
                                make("DNS:a.example", NULL, 2, 30, NULL),
                                make("DNS:a.example", NULL, 3, 30, NULL)};
    credentials_publish(all, 3);
    CHECK_TEXT(slice_from(find("a.example")), "2");
    end();
}

TEST("a selection decides by tags, serial, algorithm and organization")
{
    EVP_PKEY *rsa = EVP_RSA_gen(2048);
    struct credential *all[] = {make("DNS:a.example", "one", 1, 30, NULL),
                                make("DNS:a.example", "two", 2, 30, NULL),
                                make("DNS:a.example", "three", 3, 30, rsa)};
    struct slice two[] = {SLICE("two")}, serial[] = {SLICE("1")}, org[] = {SLICE("Tests")},
                 none[] = {SLICE("Nobody")};
    struct tls_selection by_tag = {.any_tag = two, .any_tag_count = 1},
                         by_serial = {.serials = serial, .serials_count = 1},
                         by_key = {.key_algorithm = 1},
                         by_org = {.organizations = org, .organizations_count = 1},
                         nobody = {.organizations = none, .organizations_count = 1,
                                   .next = &by_key};
    struct tls_policy p = {.selection = &by_tag};
    bool by_default;
    credentials_publish(all, 3);
    CHECK_TEXT(slice_from(serial_of(find_with(&p, "a.example", "", &by_default))), "2");
    CHECK_TEXT(slice_from(serial_of(find_with(&p, "other", "", &by_default))), "2"); /* of all */
    p.selection = &by_serial;
    CHECK_TEXT(slice_from(serial_of(find_with(&p, "a.example", "", &by_default))), "1");
    p.selection = &by_key;
    CHECK_TEXT(slice_from(serial_of(find_with(&p, "a.example", "", &by_default))), "3");
    p.selection = &by_org;
    CHECK_TEXT(slice_from(serial_of(find_with(&p, "a.example", "", &by_default))), "1");
    p.selection = &nobody;
    CHECK_TEXT(slice_from(serial_of(find_with(&p, "a.example", "", &by_default))), "3");
    EVP_PKEY_free(rsa);
    end();
}

TEST("what is no certificate, or has another key, is refused with a sentence")
{
    EVP_PKEY *key = testing_key(), *other = testing_key();
    X509 *x = testing_certificate(key, "DNS:a.example", NULL, NULL, false, 1, 30);
    struct slice chain = testing_pem(x), key_pem = testing_key_pem(other);
    struct credential *c;
    struct credential_spec spec = {.chain_pem = chain, .key_pem = key_pem};
    CHECK_INT(credential_create(&spec, &c, why, sizeof why), ERR_INVALID);
    CHECK_TEXT(slice_from(why), "the private key is not the certificate's");
    spec.managed = true; /* found out at first use */
    CHECK_OK(credential_create(&spec, &c, why, sizeof why));
    CHECK(credential_decode(c, why, sizeof why) == NULL);
    credential_unref(c);
    spec.key_pem = chain;
    CHECK_INT(credential_create(&spec, &c, why, sizeof why), ERR_INVALID);
    CHECK_TEXT(slice_from(why), "there is no private key in it");
    spec.chain_pem = SLICE("nothing");
    CHECK_INT(credential_create(&spec, &c, why, sizeof why), ERR_INVALID);
    testing_free(chain);
    testing_free(key_pem);
    X509_free(x);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
    end();
}

TEST("a staple is another credential with the same body")
{
    struct credential *c = make("DNS:a.example", NULL, 7, 30, NULL);
    struct credential *d = credential_with_staple(c, SLICE("staple"));
    CHECK(credential_facts(c) == credential_facts(d));
    CHECK_TEXT(d->staple, "staple");
    CHECK(credential_decode(c, why, sizeof why) == credential_decode(d, why, sizeof why));
    credential_unref(c);
    credential_unref(d);
    end();
}

TEST("challenges have a place of their own")
{
    credentials_challenge(SLICE("A.example"), make("DNS:a.example", NULL, 9, 30, NULL));
    CHECK_TEXT(slice_from(find("a.example")), "none");
    struct credential *c = credential_challenge_find(SLICE("a.example"));
    CHECK(c != NULL);
    credential_unref(c);
    credentials_challenge(SLICE("a.example"), NULL);
    CHECK(credential_challenge_find(SLICE("a.example")) == NULL);
    end();
}

static size_t heap_used(void)
{
    return mallinfo2().uordblks;
}

TEST("ten thousand are published well below a second, and take little each")
{
    enum { MANY = 10000 };
    static struct credential *all[MANY];
    EVP_PKEY *key = testing_key();
    X509 *x = testing_certificate(key, "DNS:www.some-site.example,DNS:some-site.example", NULL, NULL,
                                  false, 1, 30);
    struct slice leaf = testing_pem(x), key_pem = testing_key_pem(key);
    char *chain = mem_alloc(leaf.len * 4);
    for (int i = 0; i < 4; i++) /* as long as real ones with their intermediate */
        memcpy(chain + (size_t)i * leaf.len, leaf.ptr, leaf.len);
    struct credential_spec spec = {.chain_pem = slice_of(chain, leaf.len * 4), .key_pem = key_pem,
                                   .managed = true};
    size_t before = heap_used();
    uint64_t start = clock_mono_ns();
    for (int i = 0; i < MANY; i++)
        CHECK_OK(credential_create(&spec, &all[i], why, sizeof why));
    uint64_t made = clock_mono_ns();
    credentials_publish(all, MANY);
    uint64_t published = clock_mono_ns();
    printf("# %.0f ms to make, %.0f ms to publish, %zu bytes each\n", (double)(made - start) / 1e6,
           (double)(published - made) / 1e6, (heap_used() - before) / MANY);
    CHECK_TEXT(slice_from(find("some-site.example")), "1");
    mem_free(chain);
    testing_free(leaf);
    testing_free(key_pem);
    X509_free(x);
    EVP_PKEY_free(key);
    end();
}
