/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side against a server of OpenSSL's, both in memory: whom it believes, what it says
 * when it does not, what it resumes.
 */
#include "tls/stream.h"
#include "tls/tls_testing.h"
#include "tls/trust.h"

static SSL_CTX *server_ctx;
static struct tls_stream *server, *client;
static struct tls_client *who;
static char why[256];
static EVP_PKEY *ca_key, *key;
static X509 *ca;
static struct slice ca_pem;

static void make_authority(void)
{
    if (ca != NULL)
        return;
    ca_key = testing_key();
    key = testing_key();
    ca = testing_certificate(ca_key, NULL, NULL, NULL, true, 1, 100);
    ca_pem = testing_pem(ca);
}

static X509 *leaf(const char *names, long days)
{
    make_authority();
    return testing_certificate(key, names, ca, ca_key, false, 2, days);
}

/* Takes the certificate over. */
static void serve(X509 *x)
{
    SSL_CTX_free(server_ctx);
    server_ctx = SSL_CTX_new(TLS_server_method());
    CHECK_INT(SSL_CTX_use_certificate(server_ctx, x), 1);
    CHECK_INT(SSL_CTX_use_PrivateKey(server_ctx, key), 1);
    SSL_CTX_set_session_id_context(server_ctx, (const unsigned char *)"x", 1);
    X509_free(x);
}

static struct tls_client_options trusting(void)
{
    make_authority();
    return (struct tls_client_options){.roots_pem = &ca_pem, .roots_count = 1};
}

static void begin_as(const struct tls_client_options *o)
{
    tls_client_unref(who);
    who = NULL;
    enum err e = tls_client_create(o, &who, why, sizeof why);
    if (e != OK)
        test_fail(__FILE__, __LINE__, "%s", why);
}

static void carry(struct tls_stream *from, struct tls_stream *to)
{
    static char copy[TLS_OUT_MAX];
    struct slice out = tls_stream_out(from);
    if (out.len > 0)
        memcpy(copy, out.ptr, out.len);
    tls_stream_feed(to, slice_of(copy, out.len));
    tls_stream_sent(from, out.len);
}

static void end_pair(void)
{
    tls_stream_free(server);
    tls_stream_free(client);
    server = client = NULL;
}

/* A handshake with `name`; the client's outcome, with its sentence in `why`. */
static enum tls_step meet(const char *name)
{
    enum tls_step c = TLS_MORE, s = TLS_MORE;
    SSL *ssl = SSL_new(server_ctx);
    SSL_set_accept_state(ssl);
    end_pair();
    server = tls_stream_create(ssl);
    why[0] = '\0';
    if (tls_client_begin(who, slice_from(name), &client, why, sizeof why) != OK)
        return TLS_FAILED;
    for (int i = 0; i < 10 && c != TLS_FAILED && (c == TLS_MORE || s == TLS_MORE); i++) {
        c = tls_stream_handshake(client);
        carry(client, server);
        s = s == TLS_FAILED ? s : tls_stream_handshake(server);
        tls_stream_keep(server);
        carry(server, client);
        tls_stream_keep(client);
    }
    if (c == TLS_FAILED)
        tls_client_why(client, why, sizeof why);
    return c;
}

/* What the server says arrives: its tickets, or an alert. */
static enum tls_step listen_once(void)
{
    char got[64];
    size_t n;
    carry(server, client);
    enum tls_step step = tls_stream_read(client, got, sizeof got, &n);
    if (step == TLS_FAILED)
        tls_client_why(client, why, sizeof why);
    return step;
}

static void done(void)
{
    end_pair();
    tls_client_unref(who);
    who = NULL;
    stream_thread_deinit();
}

static bool says(const char *part)
{
    return strstr(why, part) != NULL;
}

#define CHECK_SAYS(part)                                                                           \
    do {                                                                                           \
        if (!says(part))                                                                           \
            test_fail(__FILE__, __LINE__, "\"%s\" lacks \"%s\"", why, part);                       \
    } while (0)

TEST("a server whose certificate is for the name, by a trusted authority, is believed")
{
    struct tls_client_options o = trusting();
    serve(leaf("DNS:a.example,DNS:*.b.example,IP:127.0.0.1,IP:::1", 1));
    begin_as(&o);
    CHECK_INT(meet("a.example"), TLS_OK);
    CHECK_INT(meet("A.Example."), TLS_OK);
    CHECK_INT(meet("x.b.example"), TLS_OK);
    CHECK_INT(meet("127.0.0.1"), TLS_OK);
    CHECK_INT(meet("[::1]"), TLS_OK);
    CHECK_INT(meet("0:0::1"), TLS_OK);
    done();
}

TEST("a name is sent, an address is not")
{
    struct tls_client_options o = trusting();
    struct tls_facts f;
    serve(leaf("DNS:a.example,IP:127.0.0.1", 1));
    begin_as(&o);
    CHECK_INT(meet("a.example."), TLS_OK);
    tls_stream_facts(server, &f);
    CHECK_TEXT(f.server_name, "a.example");
    CHECK_INT(meet("127.0.0.1"), TLS_OK);
    tls_stream_facts(server, &f);
    CHECK_INT(f.server_name.len, 0);
    done();
}

TEST("a certificate for other names is refused with all of them")
{
    struct tls_client_options o = trusting();
    serve(leaf("DNS:a.example,DNS:*.b.example,IP:127.0.0.1", 1));
    begin_as(&o);
    CHECK_INT(meet("c.example"), TLS_FAILED);
    CHECK_TEXT(slice_from(why), "certificate is for a.example, *.b.example, 127.0.0.1, not c.example");
    CHECK_INT(meet("x.y.b.example"), TLS_FAILED);
    CHECK_INT(meet("b.example"), TLS_FAILED);
    CHECK_INT(meet("127.0.0.2"), TLS_FAILED);
    CHECK_SAYS(", not 127.0.0.2");
    serve(leaf(NULL, 1));
    CHECK_INT(meet("Test Leaf"), TLS_FAILED); /* the common name counts for nothing */
    CHECK_SAYS("certificate names no host or address, not Test Leaf");
    CHECK_INT(meet(""), TLS_FAILED);
    CHECK_SAYS("no name that a certificate could be for");
    done();
}

TEST("a certificate that has expired, or is not valid yet, is refused with the date")
{
    struct tls_client_options o = trusting();
    serve(leaf("DNS:a.example", -1));
    begin_as(&o);
    CHECK_INT(meet("a.example"), TLS_FAILED);
    CHECK_SAYS("certificate has expired on 20");
    X509 *x = leaf("DNS:a.example", 10);
    X509_gmtime_adj(X509_getm_notBefore(x), 86400);
    X509_sign(x, ca_key, EVP_sha256());
    serve(x);
    CHECK_INT(meet("a.example"), TLS_FAILED);
    CHECK_SAYS("certificate is not valid before 20");
    done();
}

TEST("an unknown authority and a self-signed certificate are refused by name")
{
    struct tls_client_options o = trusting();
    EVP_PKEY *other = testing_key();
    X509 *root = testing_certificate(other, NULL, NULL, NULL, true, 7, 9);
    begin_as(&o);
    serve(testing_certificate(key, "DNS:a.example", root, other, false, 3, 1));
    CHECK_INT(meet("a.example"), TLS_FAILED);
    CHECK_SAYS("certificate signed by unknown authority \"Test Root\"");
    X509_free(root);
    EVP_PKEY_free(other);
    serve(testing_certificate(key, "DNS:a.example", NULL, NULL, false, 3, 1));
    CHECK_INT(meet("a.example"), TLS_FAILED);
    CHECK_SAYS("certificate is signed by itself and not trusted");
    done();
}

TEST("a certificate among the roots is trusted for itself")
{
    X509 *x = leaf("DNS:a.example", 1);
    struct slice pem = testing_pem(x);
    struct tls_client_options o = {.roots_pem = &pem, .roots_count = 1};
    serve(x);
    begin_as(&o);
    CHECK_INT(meet("a.example"), TLS_OK);
    CHECK_INT(meet("b.example"), TLS_FAILED);
    testing_free(pem);
    done();
}

TEST("an insecure client believes everybody, and still says whom it wants")
{
    struct tls_client_options o = {.insecure = true};
    struct tls_facts f;
    serve(leaf("DNS:a.example", -1));
    begin_as(&o);
    CHECK_INT(meet("c.example"), TLS_OK);
    tls_stream_facts(server, &f);
    CHECK_TEXT(f.server_name, "c.example");
    CHECK_INT(meet(""), TLS_OK);
    done();
}

TEST("server_name is checked instead of the host")
{
    struct tls_client_options o = trusting();
    o.server_name = SLICE("a.example");
    serve(leaf("DNS:a.example", 1));
    begin_as(&o);
    CHECK_INT(meet("10.0.0.1"), TLS_OK);
    done();
}

TEST("a client certificate is shown to who asks")
{
    struct tls_client_options o = trusting();
    struct tls_facts f;
    X509 *x = leaf("DNS:client", 1);
    o.chain_pem = testing_pem(x);
    o.key_pem = testing_key_pem(key);
    X509_free(x);
    serve(leaf("DNS:a.example", 1));
    SSL_CTX_set_verify(server_ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(server_ctx), ca);
    begin_as(&o);
    CHECK_INT(meet("a.example"), TLS_OK);
    tls_stream_facts(server, &f);
    CHECK(f.peer_certificate);
    testing_free(o.chain_pem);
    testing_free(o.key_pem);
    o.chain_pem = o.key_pem = SLICE_NONE;
    begin_as(&o);
    CHECK_INT(meet("a.example"), TLS_OK); /* in TLS 1.3 the refusal comes behind the handshake */
    CHECK_INT(listen_once(), TLS_FAILED);
    CHECK_SAYS("certificate required");
    done();
}

static void check_resumption(int version)
{
    struct tls_client_options o = trusting();
    struct tls_facts f;
    serve(leaf("DNS:a.example,DNS:b.example", 1));
    SSL_CTX_set_max_proto_version(server_ctx, version);
    begin_as(&o);
    CHECK_INT(meet("a.example"), TLS_OK);
    (void)listen_once(); /* tickets of TLS 1.3 */
    CHECK(tls_client_sessions(who) > 0);
    CHECK_INT(meet("b.example"), TLS_OK);
    tls_stream_facts(client, &f);
    CHECK(!f.resumed); /* another name was not verified */
    for (int i = 0; i < 10; i++) {
        CHECK_INT(meet("a.example"), TLS_OK);
        tls_stream_facts(client, &f);
        CHECK(f.resumed);
        (void)listen_once();
    }
    CHECK(tls_client_sessions(who) <= 8);
    done();
}

TEST("sessions are resumed in TLS 1.3, by the name that was checked")
{
    check_resumption(TLS1_3_VERSION);
}

TEST("and in TLS 1.2")
{
    check_resumption(TLS1_2_VERSION);
}

TEST("sessions of many names are forgotten, the oldest first")
{
    struct tls_client_options o = {.insecure = true};
    struct tls_facts f;
    char name[32];
    serve(leaf("DNS:a.example", 1));
    SSL_CTX_set_max_proto_version(server_ctx, TLS1_2_VERSION);
    begin_as(&o);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "n%d", i);
        CHECK_INT(meet(name), TLS_OK);
    }
    CHECK_INT(tls_client_sessions(who), 256);
    CHECK_INT(meet("n10"), TLS_OK);
    tls_stream_facts(client, &f);
    CHECK(!f.resumed);
    CHECK_INT(meet("n200"), TLS_OK);
    tls_stream_facts(client, &f);
    CHECK(f.resumed);
    done();
}

TEST("TLS 1.1 is not spoken, and what is not TLS is named")
{
    struct tls_client_options o = trusting();
    char text[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    serve(leaf("DNS:a.example", 1));
    SSL_CTX_set_security_level(server_ctx, 0);
    SSL_CTX_set_min_proto_version(server_ctx, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(server_ctx, TLS1_1_VERSION);
    begin_as(&o);
    CHECK_INT(meet("a.example"), TLS_FAILED);
    CHECK(why[0] != '\0');
    end_pair();
    CHECK_OK(tls_client_begin(who, SLICE("a.example"), &client, why, sizeof why));
    CHECK_INT(tls_stream_handshake(client), TLS_MORE);
    tls_stream_feed(client, slice_of(text, sizeof text - 1));
    CHECK_INT(tls_stream_handshake(client), TLS_FAILED);
    tls_client_why(client, why, sizeof why);
    CHECK_SAYS("does not speak TLS");
    done();
}

TEST("application protocols and curves are what the options say")
{
    static const char *const alpn[] = {"http/1.1", NULL};
    struct slice curve = SLICE("secp384r1"), unknown = SLICE("secp999");
    struct tls_client_options o = trusting();
    o.alpn = alpn;
    o.curves = &curve;
    o.curves_count = 1;
    serve(leaf("DNS:a.example", 1));
    begin_as(&o);
    CHECK_INT(meet("a.example"), TLS_OK);
    CHECK_INT(SSL_get_negotiated_group(tls_stream_ssl(client)), NID_secp384r1);
    o.curves = &unknown;
    tls_client_unref(who);
    who = NULL;
    CHECK_INT(tls_client_create(&o, &who, why, sizeof why), ERR_INVALID);
    CHECK_SAYS("secp999");
    done();
}

TEST("bad options are told")
{
    struct slice nonsense = SLICE("nonsense");
    struct tls_client_options o = {.roots_pem = &nonsense, .roots_count = 1};
    CHECK_INT(tls_client_create(&o, &who, why, sizeof why), ERR_INVALID);
    CHECK_SAYS("no certificate in the PEM text of a trusted authority");
    o = (struct tls_client_options){.roots_der = &nonsense, .roots_der_count = 1};
    CHECK_INT(tls_client_create(&o, &who, why, sizeof why), ERR_INVALID);
    o = trusting();
    o.chain_pem = ca_pem;
    o.key_pem = nonsense;
    CHECK_INT(tls_client_create(&o, &who, why, sizeof why), ERR_INVALID);
    CHECK_SAYS("no private key");
    o.key_pem = testing_key_pem(key);
    CHECK_INT(tls_client_create(&o, &who, why, sizeof why), ERR_INVALID);
    CHECK_SAYS("do not belong together");
    testing_free(o.key_pem);
    done();
}

TEST("equal options have one client, others have others")
{
    struct tls_client_options o = trusting();
    struct tls_client *same, *other;
    begin_as(&o);
    CHECK_OK(tls_client_create(&o, &same, why, sizeof why));
    CHECK(same == who);
    o.server_name = SLICE("x");
    CHECK_OK(tls_client_create(&o, &other, why, sizeof why));
    CHECK(!slice_eq(tls_client_id(same), tls_client_id(other)));
    tls_client_unref(same);
    tls_client_unref(other);
    done();
}

TEST("the process's own client trusts what the system trusts")
{
    serve(leaf("DNS:a.example", 1));
    who = tls_client_ref(tls_client_system());
    CHECK_INT(meet("a.example"), TLS_FAILED);
    CHECK_SAYS("unknown authority");
    done();
}
