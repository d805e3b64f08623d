/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys, certificates and requests, exchanged with the openssl program in both directions.
 */
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/pem.h"
#include "base/test.h"
#include "pki/certificate.h"

static char why[256];

/* The program's output, to be freed; what stands in `input` comes on its standard input. */
static char *shell(const char *command, struct slice input)
{
    char path[] = "/tmp/portico-pki-XXXXXX", line[4096];
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, input.ptr, input.len) == (ssize_t)input.len);
    close(fd);
    snprintf(line, sizeof line, "(%s) < %s", command, path);
    FILE *f = popen(line, "r");
    struct buffer out;
    buffer_init(&out, 1 << 20);
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;)
        CHECK_OK(buffer_append(&out, slice_of(piece, n)));
    int status = pclose(f);
    unlink(path);
    CHECK_INT(status, 0);
    CHECK_OK(buffer_append_byte(&out, '\0'));
    return buffer_steal(&out);
}

/* --- PEM --- */

TEST("PEM is read as Go reads it: any line length, text around, headers, bad blocks passed over")
{
    struct slice text = SLICE("junk -----BEGIN A-----\n-----BEGIN B-----\nYWJj\n-----END C-----\n"
                              "-----BEGIN D-----\nYW\n Jj ZA\r\n==\n-----END D-----\r\nmore\n"
                              "-----BEGIN E F-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nYQ==\n"
                              "-----END E F-----\n-----BEGIN G-----\n-----END G-----\n"
                              "-----BEGIN H-----\nY\n-----END H-----\n-----BEGIN I-----\nYWJj\n");
    struct pem_block block;
    struct slice der;
    struct arena arena;
    arena_init(&arena, 4096);
    CHECK(pem_next(&text, &block));
    CHECK_TEXT(block.type, "D");
    CHECK_TEXT(block.text, "-----BEGIN D-----\nYW\n Jj ZA\r\n==\n-----END D-----");
    CHECK_OK(pem_decode(&block, &arena, &der));
    CHECK_TEXT(der, "abcd");
    CHECK(!block.encrypted);
    CHECK(pem_next(&text, &block));
    CHECK_TEXT(block.type, "E F");
    CHECK_OK(pem_decode(&block, &arena, &der));
    CHECK_TEXT(der, "a");
    CHECK(block.encrypted);
    CHECK(pem_next(&text, &block));
    CHECK_TEXT(block.type, "G");
    CHECK_INT(block.body.len, 0);
    CHECK(!pem_next(&text, &block));
    CHECK(!pem_next(&text, &block));
    arena_deinit(&arena);
}

TEST("PEM is written in lines of 64 and read back, behind what is there")
{
    char bytes[200];
    for (size_t len = 0; len < sizeof bytes; len++) {
        struct buffer text, der;
        struct pem_block block;
        bytes[len] = (char)(len * 7);
        buffer_init(&text, PEM_MAX);
        buffer_init(&der, PEM_MAX);
        CHECK_OK(pem_put(&text, "CERTIFICATE", slice_of(bytes, len)));
        struct slice rest = buffer_slice(&text), line;
        while (slice_cut(rest, '\n', &line, &rest))
            CHECK(line.len <= 64);
        CHECK_OK(pem_put(&text, "SECOND", slice_of(bytes, len)));
        rest = buffer_slice(&text);
        CHECK_OK(buffer_append(&der, SLICE("!")));
        CHECK(pem_next(&rest, &block));
        CHECK(pem_next(&rest, &block));
        CHECK_TEXT(block.type, "SECOND");
        CHECK_OK(pem_decode_to(&block, &der));
        CHECK_SLICE(slice_skip(buffer_slice(&der), 1), slice_of(bytes, len));
        buffer_deinit(&text);
        buffer_deinit(&der);
    }
}

/* --- keys --- */

static const char *const type_names[] = {"p256", "p384", "rsa2048", "ed25519"};

TEST("keys that we write are read by openssl, and by us")
{
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++) {
        enum key_type type;
        EVP_PKEY *key, *again;
        struct buffer text;
        buffer_init(&text, PEM_MAX);
        CHECK_OK(key_type_parse(slice_from(type_names[i]), &type));
        CHECK_OK(key_generate(type, &key));
        CHECK_OK(key_put_pem(&text, key));
        CHECK_OK(key_from_pem(buffer_slice(&text), &again, why, sizeof why));
        CHECK_INT(EVP_PKEY_eq(key, again), 1);
        if (type != KEY_ED25519) /* its label is Go's own: openssl wants to be told the form */
            mem_free(shell("openssl pkey -check -noout 2>&1", buffer_slice(&text)));
        key_wipe(&text);
        key_free(key);
        key_free(again);
    }
}

TEST("labels of keys are certmagic's")
{
    static const char *const labels[] = {"EC", "EC", "RSA", "ED25519"};
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++) {
        enum key_type type;
        EVP_PKEY *key;
        struct buffer text;
        char want[64];
        buffer_init(&text, PEM_MAX);
        CHECK_OK(key_type_parse(slice_from(type_names[i]), &type));
        CHECK_OK(key_generate(type, &key));
        CHECK_OK(key_put_pem(&text, key));
        snprintf(want, sizeof want, "-----BEGIN %s PRIVATE KEY-----\n", labels[i]);
        CHECK(slice_starts(buffer_slice(&text), slice_from(want)));
        key_wipe(&text);
        key_free(key);
    }
}

TEST("keys that openssl wrote are read, each of its forms")
{
    static const char *const commands[] = {
        "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null",
        "openssl ecparam -name secp384r1 -genkey", /* parameters first */
        "openssl ecparam -name secp521r1 -genkey -noout",
        "openssl genrsa 2048 2>/dev/null",
        "openssl genrsa -traditional 2048 2>/dev/null",
        "openssl genpkey -algorithm ED25519",
    };
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        EVP_PKEY *key;
        char *text = shell(commands[i], SLICE_NONE);
        CHECK_OK(key_from_pem(slice_from(text), &key, why, sizeof why));
        key_free(key);
        mem_free(text);
    }
}

TEST("what is no key that Caddy would take is refused with a sentence")
{
    static const char *const rows[][2] = {
        {"openssl genpkey -algorithm X25519", "its kind is none of"},
        {"openssl ecparam -name secp256k1 -genkey -noout", "its curve is none of"},
        {"openssl genrsa -traditional -aes128 -passout pass:x 2048 2>/dev/null", "is encrypted"},
        {"openssl genpkey -algorithm ED25519 -aes128 -pass pass:x", "is encrypted"},
        {"openssl genrsa 512 2>/dev/null", "must have from"},
        {"openssl genpkey -algorithm ED25519 | openssl pkey -pubout", "there is no private key"},
        {"echo -----BEGIN PRIVATE KEY-----; echo YWJj; echo -----END PRIVATE KEY-----", "or damaged"},
        {"echo", "there is no private key"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        EVP_PKEY *key;
        char *text = shell(rows[i][0], SLICE_NONE);
        CHECK_INT(key_from_pem(slice_from(text), &key, why, sizeof why), ERR_INVALID);
        CHECK(strstr(why, rows[i][1]) != NULL);
        CHECK(key == NULL);
        mem_free(text);
    }
}

/* --- certificates --- */

TEST("the facts of a certificate are what openssl was told")
{
    struct certificate_facts f;
    struct arena arena;
    arena_init(&arena, 4096);
    char *text = shell(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null"
        " -subj '/O=An Org/O=Second/CN=Main.example.com' -set_serial 0x8012 -days 10"
        " -addext 'subjectAltName=DNS:Main.example.com,DNS:*.Example.org,IP:127.0.0.1,IP:2001:db8::1,"
        "IP:::ffff:10.0.0.1,email:Me@example.com,URI:https://Example.com/x'"
        " -addext tlsfeature=status_request -addext authorityKeyIdentifier=keyid:always"
        " -addext 'authorityInfoAccess=OCSP;URI:http://ocsp.example/,caIssuers;URI:http://ca.example/'"
        " 2>/dev/null", SLICE_NONE);
    CHECK_OK(certificate_read(slice_from(text), &arena, &f, why, sizeof why));
    static const char *const names[] = {"main.example.com", "*.example.org", "127.0.0.1",
                                        "2001:db8::1", "10.0.0.1", "me@example.com",
                                        "https://Example.com/x"};
    CHECK_INT(f.names_count, 7);
    for (size_t i = 0; i < 7; i++)
        CHECK_TEXT(f.names[i], names[i]);
    CHECK_TEXT(f.issuer_common_name, "Main.example.com");
    CHECK_TEXT(f.organization, "An Org");
    CHECK_TEXT(f.common_name, "Main.example.com");
    CHECK_TEXT(f.serial, "32786");
    CHECK_INT(f.not_after_s - f.not_before_s, 10 * 86400);
    CHECK_INT(f.key_algorithm, 3);
    CHECK(f.must_staple && f.is_ca);
    CHECK_TEXT(f.ocsp_url, "http://ocsp.example/");
    CHECK_TEXT(f.issuer_url, "http://ca.example/");
    CHECK(f.ari_id.len > 8 && slice_ends(f.ari_id, SLICE(".AIAS")));
    CHECK_INT(f.chain, 1);
    mem_free(text);
    arena_deinit(&arena);
}

TEST("the identifier for renewal information is the one of RFC 9773's appendix")
{
    static const char pem[] =
        "-----BEGIN CERTIFICATE-----\n"
        "MIIBQzCB66ADAgECAgUAh2VDITAKBggqhkjOPQQDAjAVMRMwEQYDVQQDEwpFeGFt\n"
        "cGxlIENBMCIYDzAwMDEwMTAxMDAwMDAwWhgPMDAwMTAxMDEwMDAwMDBaMBYxFDAS\n"
        "BgNVBAMTC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeBZu\n"
        "7cbpAYNXZLbbh8rNIzuOoqOOtmxA1v7cRm//AwyMwWxyHz4zfwmBhcSrf47NUAFf\n"
        "qzLQ2PPQxdTXREYEnKMjMCEwHwYDVR0jBBgwFoAUaYhba4dGQEHhs3uEe6CuLN4B\n"
        "yNQwCgYIKoZIzj0EAwIDRwAwRAIge09+S5TZAlw5tgtiVvuERV6cT4mfutXIlwTb\n"
        "+FYN/8oCIClDsqBklhB9KAelFiYt9+6FDj3z4KGVelYM5MdsO3pK\n"
        "-----END CERTIFICATE-----\n";
    struct certificate_facts f;
    struct arena arena;
    arena_init(&arena, 4096);
    CHECK_OK(certificate_read(slice_from(pem), &arena, &f, why, sizeof why));
    CHECK_TEXT(f.ari_id, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
    arena_deinit(&arena);
}

TEST("texts without a whole certificate are refused")
{
    static const char *const rows[] = {
        "", "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n",
        "-----BEGIN X-----\nYWJj\n-----END X-----\n"};
    struct certificate_facts f;
    struct arena arena;
    arena_init(&arena, 4096);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_INT(certificate_read(slice_from(rows[i]), &arena, &f, why, sizeof why), ERR_INVALID);
    arena_deinit(&arena);
}

/* --- requests --- */

TEST("requests are what openssl reads and verifies, for every kind of key and name")
{
    struct slice names[] = {SLICE("example.com"), SLICE("*.example.com"), SLICE("192.0.2.1"),
                            SLICE("2001:db8::1"), SLICE("me@example.com"), SLICE("https://x/y")};
    for (size_t i = 0; i < sizeof type_names / sizeof type_names[0]; i++) {
        enum key_type type;
        EVP_PKEY *key;
        struct buffer der;
        buffer_init(&der, PEM_MAX);
        CHECK_OK(key_type_parse(slice_from(type_names[i]), &type));
        CHECK_OK(key_generate(type, &key));
        CHECK_OK(csr_make(key, names, 6, i == 0, &der));
        char *text = shell("openssl req -inform DER -verify -text -noout 2>&1", buffer_slice(&der));
        CHECK(strstr(text, "DNS:example.com, DNS:*.example.com, IP Address:192.0.2.1, "
                           "IP Address:2001:DB8:0:0:0:0:0:1, email:me@example.com, "
                           "URI:https://x/y") != NULL);
        CHECK(strstr(text, "self-signature verify OK") != NULL);
        CHECK((strstr(text, "status_request") != NULL) == (i == 0));
        mem_free(text);
        buffer_deinit(&der);
        key_free(key);
    }
}

TEST("a name that is none makes no request")
{
    static const char *const wrong[] = {"", "b\xc3\xbc" "cher.example", "a b", "a\nb"};
    EVP_PKEY *key;
    struct buffer der;
    buffer_init(&der, PEM_MAX);
    CHECK_OK(key_generate(KEY_P256, &key));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct slice names[] = {SLICE("example.com"), slice_from(wrong[i])};
        CHECK_INT(csr_make(key, names, 2, false, &der), ERR_INVALID);
    }
    buffer_deinit(&der);
    key_free(key);
}
