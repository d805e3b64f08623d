/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handshakes of OpenSSL's client with policies and credentials, all in memory.
 */
#include "tls/tls_server.h"

#include <malloc.h>
#include <unistd.h>

#include "base/clock.h"
#include "tls/policy_context.h"
#include "tls/stream.h"
#include "tls/tls_testing.h"

static char why[256];
static struct tls_policy policy;
static struct tls_server server;
static SSL_CTX *client_ctx;
static SSL *client;
static BIO *from_server, *to_server;
static struct tls_stream *stream;
static struct tls_accepting accepting;
static struct credential_ask ask;
static struct hello hello;

/* --- scenes --- */

static struct credential *make_credential(const char *names, long serial, EVP_PKEY *key)
{
    EVP_PKEY *own = key != NULL ? key : testing_key();
    X509 *x = testing_certificate(own, names, NULL, NULL, false, serial, 30);
    struct credential_spec spec = {.chain_pem = testing_pem(x), .key_pem = testing_key_pem(own)};
    struct credential *c;
    CHECK_OK(credential_create(&spec, &c, why, sizeof why));
    testing_free(spec.chain_pem);
    testing_free(spec.key_pem);
    X509_free(x);
    if (key == NULL)
        EVP_PKEY_free(own);
    return c;
}

static void begin(void)
{
    struct credential *all[] = {make_credential("DNS:a.example", 1, NULL),
                                make_credential("DNS:b.example", 2, NULL)};
    credentials_publish(all, 2);
    policy = (struct tls_policy){0};
    server = (struct tls_server){.policies = &policy, .count = 1, .h1 = true, .h2 = true};
    client_ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_OFF);
}

static void hang_up(void)
{
    if (client != NULL) /* else the session is taken for a bad one */
        SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(client);
    client = NULL;
    tls_stream_free(stream);
    stream = NULL;
}

static void end(void)
{
    hang_up();
    tls_server_release(&server);
    SSL_CTX_free(client_ctx);
    credentials_clear();
    tls_server_thread_deinit();
    stream_thread_deinit();
}

static SSL *dial(const char *name, SSL_SESSION *session)
{
    hang_up();
    client = SSL_new(client_ctx);
    from_server = BIO_new(BIO_s_mem());
    to_server = BIO_new(BIO_s_mem());
    SSL_set_bio(client, from_server, to_server);
    SSL_set_connect_state(client);
    if (name != NULL)
        SSL_set_tlsext_host_name(client, name);
    if (session != NULL)
        SSL_set_session(client, session);
    return client;
}

/* The client's bytes to the server, the server's to the client. */
static void carry(void)
{
    static char bytes[65536];
    int n = BIO_read(to_server, bytes, sizeof bytes);
    if (n > 0) {
        tls_stream_feed(stream, slice_of(bytes, (size_t)n));
        tls_stream_keep(stream);
    }
}

static void carry_back(void)
{
    struct slice out = tls_stream_out(stream);
    if (out.len > 0)
        BIO_write(from_server, out.ptr, (int)out.len);
    tls_stream_sent(stream, out.len);
}

static enum tls_accept greet(void)
{
    static char bytes[65536];
    struct buffer joined;
    SSL_do_handshake(client);
    int n = BIO_read(to_server, bytes, sizeof bytes);
    buffer_init(&joined, HELLO_MAX + 1024);
    CHECK_INT(hello_parse(slice_of(bytes, (size_t)n), &joined, &hello), HELLO_DONE);
    accepting = (struct tls_accepting){.server = &server, .hello = &hello, .ask = &ask,
                                       .now_s = clock_wall_ns() / (int64_t)NS_PER_S};
    enum tls_accept r = tls_accept(&accepting);
    buffer_deinit(&joined);
    stream = accepting.stream;
    if (r == TLS_ACCEPTED) {
        tls_stream_feed(stream, slice_of(bytes, (size_t)n));
        tls_stream_keep(stream);
    }
    return r;
}

/* Whether both sides agree. */
static bool shake_hands(void)
{
    enum tls_step s = TLS_MORE;
    int c = 0;
    CHECK_INT(greet(), TLS_ACCEPTED);
    for (int i = 0; i < 10 && (s != TLS_OK || c != 1); i++) {
        s = tls_stream_handshake(stream);
        carry_back();
        c = SSL_do_handshake(client);
        carry();
    }
    if (s == TLS_OK && c == 1)
        tls_stream_settle(stream);
    return s == TLS_OK && c == 1;
}

static bool talk(void)
{
    char got[64];
    size_t n;
    struct iovec part = {(char *)(uintptr_t) "answer", 6};
    if (SSL_write(client, "question", 8) != 8)
        return false;
    carry();
    if (tls_stream_read(stream, got, sizeof got, &n) != TLS_OK || n != 8)
        return false;
    tls_stream_write(stream, &part, 1);
    carry_back();
    return SSL_read(client, got, sizeof got) == 6;
}

static bool meet(const char *name)
{
    dial(name, NULL);
    return shake_hands() && talk();
}

static long serial(void)
{
    X509 *x = SSL_get0_peer_certificate(client);
    return x != NULL ? ASN1_INTEGER_get(X509_get0_serialNumber(x)) : -1;
}

static void finish(void)
{
    CHECK_OK(tls_server_finish(&server, why, sizeof why));
}

/* --- tests --- */

TEST("the name chooses the certificate, the newest version and the strongest exchange are taken")
{
    struct tls_facts f;
    begin();
    finish();
    CHECK(meet("a.example"));
    CHECK_INT(serial(), 1);
    tls_stream_facts(stream, &f);
    CHECK_INT(f.version, 0x0304);
    CHECK_INT(f.cipher, 0x1301);
    CHECK_TEXT(slice_from(f.cipher_name), "TLS_AES_128_GCM_SHA256");
    CHECK_INT(f.alpn.len, 0);
    CHECK_TEXT(f.server_name, "a.example");
    CHECK(!f.resumed);
    CHECK(meet("B.Example"));
    CHECK_INT(serial(), 2);
    end();
}

TEST("a name without a certificate is refused, or asked for where somebody is there to ask")
{
    begin();
    finish();
    dial("c.example", NULL);
    CHECK_INT(greet(), TLS_REFUSED);
    CHECK_INT(accepting.alert, 80);
    CHECK_TEXT(slice_from(accepting.why), "no certificate available for 'c.example'");
    credential_ask_hook = (credential_asker *)end; /* only looked at */
    dial("C.example", NULL);
    CHECK_INT(greet(), TLS_ASK);
    CHECK_TEXT(slice_from(ask.name), "c.example");
    CHECK(strstr(ask.ciphers, "1301") != NULL && strstr(ask.schemes, "0403") != NULL);
    accepting.asked = true;
    accepting.given = make_credential("DNS:c.example", 5, NULL);
    credential_ask_hook = NULL;
    end();
    credential_unref(accepting.given);
}

TEST("TLS 1.2 with Caddy's order of suites; a policy's own versions and suites")
{
    struct tls_facts f;
    struct slice suite[] = {SLICE("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")};
    begin();
    SSL_CTX_set_max_proto_version(client_ctx, TLS1_2_VERSION);
    finish();
    CHECK(meet("a.example"));
    tls_stream_facts(stream, &f);
    CHECK_INT(f.version, 0x0303);
    CHECK_TEXT(slice_from(f.cipher_name), "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");
    tls_server_release(&server);
    policy.ciphers = suite;
    policy.ciphers_count = 1;
    finish();
    CHECK(meet("a.example"));
    tls_stream_facts(stream, &f);
    CHECK_TEXT(slice_from(f.cipher_name), "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
    tls_server_release(&server);
    policy.min_version = TLS_1_3;
    finish();
    dial("a.example", NULL);
    CHECK(!shake_hands());
    suite[0] = SLICE("TLS_RSA_WITH_RC4_128_SHA");
    tls_server_release(&server);
    CHECK_INT(tls_server_finish(&server, why, sizeof why), ERR_INVALID);
    CHECK_TEXT(slice_from(why), "unsupported cipher suite: TLS_RSA_WITH_RC4_128_SHA");
    end();
}

static struct slice agreed(const char *theirs, unsigned len)
{
    struct tls_facts f;
    SSL_CTX_set_alpn_protos(client_ctx, (const unsigned char *)theirs, len);
    if (!meet("a.example"))
        return SLICE("none");
    tls_stream_facts(stream, &f);
    return f.alpn;
}

TEST("the server's order of protocols counts; none in common ends the handshake")
{
    begin();
    finish();
    CHECK_TEXT(agreed("\x08http/1.1\x02h2", 12), "h2");
    CHECK_TEXT(agreed("\x08http/1.1", 9), "http/1.1");
    CHECK_TEXT(agreed("\x03xyz", 4), "none");
    tls_server_release(&server);
    server.h2 = false;
    finish();
    CHECK_TEXT(agreed("\x08http/1.1\x02h2", 12), "http/1.1");
    end();
}

static SSL_SESSION *kept;

static int on_session(SSL *ssl, SSL_SESSION *s)
{
    SSL_SESSION_free(kept);
    kept = s;
    return 1;
}

static bool resumes(void)
{
    struct tls_facts f;
    dial("a.example", kept);
    if (!shake_hands() || !talk())
        return false;
    tls_stream_facts(stream, &f);
    CHECK_INT(f.resumed, SSL_session_reused(client));
    CHECK_TEXT(f.server_name, "a.example");
    return f.resumed;
}

static void check_resumption(int version)
{
    begin();
    SSL_CTX_set_max_proto_version(client_ctx, version);
    SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_ctx, on_session);
    finish();
    tls_tickets_configure(0, 0, false, false);
    CHECK(meet("a.example"));
    CHECK(kept != NULL);
    CHECK(resumes());
    CHECK(resumes());
    tls_server_release(&server); /* a new configuration */
    finish();
    CHECK(resumes());
    tls_tickets_configure(1, 0, false, false); /* rotates each time */
    CHECK(resumes());
    SSL_SESSION *old = kept;
    SSL_SESSION_up_ref(old);
    for (int i = 0; i < 5; i++)
        CHECK(meet("a.example"));
    SSL_SESSION_free(kept);
    kept = old;
    CHECK(!resumes()); /* its key is gone */
    tls_server_release(&server);
    server.no_tickets = true;
    finish();
    SSL_SESSION_free(kept);
    kept = NULL;
    CHECK(meet("a.example"));
    CHECK(kept == NULL || SSL_SESSION_has_ticket(kept) == 0);
    SSL_SESSION_free(kept);
    kept = NULL;
    tls_tickets_configure(0, 0, false, false);
    end();
}

TEST("sessions of TLS 1.3 are resumed by ticket, across configurations, until the key is gone")
{
    check_resumption(TLS1_3_VERSION);
}

TEST("and those of TLS 1.2")
{
    check_resumption(TLS1_2_VERSION);
}

TEST("sessions are resumed with keys that were brought, by each who has them, until own ones are wanted")
{
    struct stek_file ours = {.count = 2}, others = {.count = 1};
    memset(ours.keys, 7, sizeof ours.keys);
    memset(others.keys, 8, sizeof others.keys);
    begin();
    SSL_CTX_set_session_cache_mode(client_ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_ctx, on_session);
    finish();
    tls_tickets_configure(0, 0, false, true);
    tls_tickets_bring(&ours);
    CHECK(meet("a.example"));
    tls_tickets_bring(&others);
    CHECK(!resumes());
    tls_tickets_bring(&ours);
    CHECK(!resumes()); /* the others' keys sealed this one */
    CHECK(resumes());
    tls_tickets_configure(0, 0, false, false);
    CHECK(resumes()); /* and gets one of a key of our own */
    tls_tickets_bring(&others);
    CHECK(!resumes());
    tls_tickets_configure(0, 0, false, false);
    SSL_SESSION_free(kept);
    kept = NULL;
    end();
}

static EVP_PKEY *root_key, *client_key, *other_key;
static X509 *root, *good_client, *stranger;

static struct slice der_of(X509 *x)
{
    unsigned char *der = NULL;
    int n = i2d_X509(x, &der);
    return slice_of((const char *)der, (size_t)n);
}

static void make_clients(void)
{
    root_key = testing_key();
    client_key = testing_key();
    other_key = testing_key();
    root = testing_certificate(root_key, NULL, NULL, NULL, true, 100, 30);
    good_client = testing_certificate(client_key, "DNS:client", root, root_key, false, 101, 30);
    stranger = testing_certificate(other_key, "DNS:client", NULL, NULL, false, 102, 30);
}

static void free_clients(void)
{
    EVP_PKEY_free(root_key);
    EVP_PKEY_free(client_key);
    EVP_PKEY_free(other_key);
    X509_free(root);
    X509_free(good_client);
    X509_free(stranger);
}

static bool comes_with(X509 *x, EVP_PKEY *key)
{
    dial("a.example", NULL);
    if (x != NULL) {
        SSL_use_certificate(client, x);
        SSL_use_PrivateKey(client, key);
    }
    return shake_hands() && talk();
}

static void check_mode(enum tls_client_auth mode, bool none, bool good, bool strange)
{
    tls_server_release(&server);
    policy.client_auth = mode;
    finish();
    CHECK_INT(comes_with(NULL, NULL), none);
    CHECK_INT(comes_with(good_client, client_key), good);
    CHECK_INT(comes_with(stranger, other_key), strange);
}

static void check_modes(int version)
{
    begin();
    make_clients();
    struct slice ca[] = {der_of(root)}, leafs[] = {der_of(stranger)}, nobody[] = {SLICE("")};
    SSL_CTX_set_max_proto_version(client_ctx, version);
    policy.client_cas = ca;
    policy.client_cas_count = 1;
    check_mode(TLS_CLIENT_NONE, true, true, true);
    check_mode(TLS_CLIENT_REQUEST, true, true, true);
    check_mode(TLS_CLIENT_REQUIRE, false, true, true);
    check_mode(TLS_CLIENT_VERIFY_IF_GIVEN, true, true, false);
    check_mode(TLS_CLIENT_REQUIRE_AND_VERIFY, false, true, false);
    policy.client_leafs = leafs;
    policy.client_leafs_count = 1;
    check_mode(TLS_CLIENT_REQUIRE, false, false, true);
    check_mode(TLS_CLIENT_REQUEST, false, false, true);
    policy.client_leafs = nobody;
    check_mode(TLS_CLIENT_REQUIRE, false, false, false);
    OPENSSL_free((void *)(uintptr_t)ca[0].ptr);
    OPENSSL_free((void *)(uintptr_t)leafs[0].ptr);
    end();
    free_clients();
}

TEST("clients' certificates are asked for and judged as each mode says, in TLS 1.3")
{
    check_modes(TLS1_3_VERSION);
}

TEST("and in TLS 1.2")
{
    check_modes(TLS1_2_VERSION);
}

TEST("what a client has shown can be read")
{
    struct arena arena;
    struct slice *chain;
    begin();
    make_clients();
    arena_init(&arena, 4096);
    policy.client_auth = TLS_CLIENT_REQUIRE;
    finish();
    CHECK(comes_with(good_client, client_key));
    CHECK_INT(tls_stream_peer_chain(stream, &arena, &chain), 1);
    struct slice der = der_of(good_client);
    CHECK_SLICE(chain[0], der);
    OPENSSL_free((void *)(uintptr_t)der.ptr);
    arena_deinit(&arena);
    end();
    free_clients();
}

static bool is_b(const void *cfg, const struct tls_hello *h)
{
    return slice_is(h->server_name, "b.example");
}

TEST("the first policy whose matchers hold decides, and equal ones share a context")
{
    struct tls_matcher match = {is_b, NULL};
    struct tls_policy three[] = {{.matchers = &match, .matchers_count = 1, .drop = true},
                                 {.matchers = &match, .matchers_count = 1},
                                 {.default_sni = SLICE("a.example")}};
    begin();
    server.policies = three;
    server.count = 3;
    finish();
    CHECK(three[1].context == three[2].context && three[0].context == NULL);
    dial("b.example", NULL);
    CHECK_INT(greet(), TLS_DROPPED);
    CHECK(meet("a.example"));
    CHECK(meet(NULL));
    CHECK_INT(serial(), 1);
    tls_server_release(&server);
    server.count = 2;
    finish();
    dial("a.example", NULL);
    CHECK_INT(greet(), TLS_REFUSED);
    end();
}

TEST("an OCSP answer is sent to who asks")
{
    const unsigned char *got;
    begin();
    struct credential *c = make_credential("DNS:a.example", 1, NULL);
    struct credential *all[] = {credential_with_staple(c, SLICE("0staple"))};
    credential_unref(c);
    credentials_publish(all, 1);
    finish();
    CHECK(meet("a.example"));
    CHECK_INT(SSL_get_tlsext_status_ocsp_resp(client, &got), -1);
    SSL_CTX_set_tlsext_status_type(client_ctx, TLSEXT_STATUSTYPE_ocsp);
    SSL_CTX_set_tlsext_status_cb(client_ctx, NULL);
    CHECK(meet("a.example"));
    CHECK_INT(SSL_get_tlsext_status_ocsp_resp(client, &got), 7);
    end();
}

TEST("a challenge is answered by its own certificate")
{
    struct tls_facts f;
    begin();
    finish();
    SSL_CTX_set_alpn_protos(client_ctx, (const unsigned char *)"\x0a" "acme-tls/1", 11);
    dial("a.example", NULL);
    CHECK_INT(greet(), TLS_REFUSED);
    credentials_challenge(SLICE("a.example"), make_credential("DNS:a.example", 77, NULL));
    CHECK(meet("a.example"));
    CHECK_INT(serial(), 77);
    tls_stream_facts(stream, &f);
    CHECK_TEXT(f.alpn, "acme-tls/1");
    credentials_challenge(SLICE("a.example"), NULL);
    end();
}

TEST("renegotiation is refused")
{
    char got[8];
    size_t n;
    begin();
    SSL_CTX_set_max_proto_version(client_ctx, TLS1_2_VERSION);
    finish();
    CHECK(meet("a.example"));
    CHECK_INT(SSL_renegotiate(client), 1);
    SSL_do_handshake(client);
    carry();
    CHECK_INT(tls_stream_read(stream, got, sizeof got, &n), TLS_MORE); /* a warning, and on it goes */
    carry_back();
    SSL_do_handshake(client);
    CHECK(SSL_get_error(client, -1) != SSL_ERROR_NONE);
    end();
}

TEST("secrets are logged where a policy says so, for its owner's eyes")
{
    char path[] = "/tmp/secrets-XXXXXX", text[4096];
    int fd = mkstemp(path);
    begin();
    policy.secrets_log = slice_from(path);
    finish();
    CHECK(meet("a.example"));
    ssize_t n = read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    CHECK(strstr(text, "CLIENT_TRAFFIC_SECRET_0 ") != NULL && text[n - 1] == '\n');
    close(fd);
    unlink(path);
    end();
}

TEST("a key of RSA and one of Ed25519 serve, and the client's signatures choose between two")
{
    EVP_PKEY *rsa = EVP_RSA_gen(2048), *edwards = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    begin();
    struct credential *all[] = {make_credential("DNS:r.example,DNS:two.example", 10, rsa),
                                make_credential("DNS:two.example", 11, NULL),
                                make_credential("DNS:e.example", 12, edwards)};
    credentials_publish(all, 3);
    finish();
    CHECK(meet("r.example"));
    CHECK(meet("e.example"));
    CHECK(meet("two.example"));
    CHECK_INT(serial(), 10);
    SSL_CTX_set1_sigalgs_list(client_ctx, "ECDSA+SHA256");
    CHECK(meet("two.example"));
    CHECK_INT(serial(), 11);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(edwards);
    end();
}

TEST("what an idle connection costs is told")
{
    enum { MANY = 100 };
    static struct tls_stream *streams[MANY];
    begin();
    finish();
    CHECK(meet("a.example"));
    hang_up();
    size_t total = 0;
    for (int i = 0; i < MANY; i++) {
        size_t before = mallinfo2().uordblks;
        dial("a.example", NULL);
        CHECK(shake_hands() && talk());
        streams[i] = stream;
        stream = NULL;
        SSL_free(client);
        client = NULL;
        total += mallinfo2().uordblks - before;
    }
    printf("# %zu bytes\n", total / MANY);
    for (int i = 0; i < MANY; i++)
        tls_stream_free(streams[i]);
    end();
}
