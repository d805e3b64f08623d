/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local authority: what it makes is what openssl verifies and Caddy would make; what breaks off
 * in the middle is made good; two who begin together make one.
 */
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/test.h"
#include "loop/await.h"
#include "pki/authority.h"

static char folder[64], why_key[256];
static struct storage *storage;
static struct storage_why why;
static struct authority_options options;
static struct arena arena;

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    return remove(path);
}

static void clean_up(void)
{
    if (folder[0] != '\0')
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct slice expand(struct slice text, struct slice name, struct arena *a)
{
    size_t at = slice_find_slice(text, SLICE("{pki.ca.name}"));
    if (at == SIZE_MAX)
        return text;
    return arena_join(a, (struct slice[]){slice_take(text, at), name, slice_skip(text, at + 13)}, 3);
}

static void begin(void)
{
    if (folder[0] == '\0')
        atexit(clean_up);
    clean_up();
    arena_init(&arena, 4096);
    snprintf(folder, sizeof folder, "/tmp/portico-authority-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    storage = storage_open_files(slice_from(folder));
    options = (struct authority_options){
        .id = SLICE("local"), .name = SLICE(AUTHORITY_DEFAULT_NAME),
        .root_common_name = SLICE("{pki.ca.name} - 2026 ECC Root"),
        .intermediate_common_name = SLICE(AUTHORITY_DEFAULT_INTERMEDIATE_NAME),
        .intermediate_lifetime_ns = AUTHORITY_DEFAULT_LIFETIME_NS,
        .renewal_ratio = AUTHORITY_DEFAULT_RATIO, .storage = storage, .expand = expand};
}

static void end(void)
{
    storage->type->close(storage);
    arena_deinit(&arena);
    clean_up();
}

static struct authority *open_it(void)
{
    struct authority *a;
    enum err e = authority_open(&options, &a, &why);
    if (e != OK)
        test_fail(__FILE__, __LINE__, "%s: %s", err_text(e), why.text);
    return a;
}

static const char *path_of(const char *file)
{
    static char path[2][256];
    static unsigned at;
    at ^= 1;
    snprintf(path[at], sizeof path[at], "%s/%s", folder, file);
    return path[at];
}

#define PAIR "pki/authorities/local/"

static void write_file(const char *file, struct slice text)
{
    int fd = open(path_of(file), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, text.ptr, text.len) == (ssize_t)text.len);
    close(fd);
}

/* What a command prints; its words may name files of the folder, where it runs. */
static struct slice shell(const char *command)
{
    char line[2048];
    snprintf(line, sizeof line, "cd %s && %s 2>&1", folder, command);
    FILE *f = popen(line, "r");
    char *out = arena_alloc(&arena, 65536);
    size_t n = fread(out, 1, 65536, f);
    int status = pclose(f);
    if (status != 0)
        test_fail(__FILE__, __LINE__, "%s: %.*s", command, (int)n, out);
    return slice_of(out, n);
}

static bool has(struct slice text, const char *part)
{
    return slice_find_slice(text, slice_from(part)) != SIZE_MAX;
}

static struct slice make_csr(enum key_type type, const struct slice *names, size_t count)
{
    struct evp_pkey_st *key;
    struct buffer der;
    buffer_init(&der, 1 << 16);
    CHECK_OK(key_generate(type, &key));
    CHECK_OK(csr_make(key, names, count, false, &der));
    struct slice copy = arena_copy(&arena, buffer_slice(&der));
    buffer_deinit(&der);
    key_free(key);
    return copy;
}

static struct certificate_facts facts_of(struct slice pem)
{
    struct certificate_facts f;
    CHECK_OK(certificate_read(pem, &arena, &f, why_key, sizeof why_key));
    return f;
}

static struct slice issue(struct authority *a, struct authority_leaf leaf, bool *clamped)
{
    struct buffer chain;
    buffer_init(&chain, 1 << 20);
    enum err e = authority_issue(a, &leaf, &chain, clamped, &why);
    if (e != OK)
        test_fail(__FILE__, __LINE__, "%s: %s", err_text(e), why.text);
    struct slice copy = arena_copy(&arena, buffer_slice(&chain));
    buffer_deinit(&chain);
    return copy;
}

/* --- forms --- */

TEST("root and intermediate have Caddy's names, lifetimes, constraints and places")
{
    begin();
    struct authority *a = open_it();
    struct slice root = shell("openssl x509 -in " PAIR "root.crt -noout -text");
    CHECK(has(root, "Subject: CN = Caddy Local Authority - 2026 ECC Root\n"));
    CHECK(has(root, "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n"));
    CHECK(has(root, "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:1\n"));
    CHECK(has(root, "X509v3 Subject Key Identifier: \n"));
    CHECK(!has(root, "Authority Key Identifier"));
    struct slice inter = shell("openssl x509 -in " PAIR "intermediate.crt -noout -text");
    CHECK(has(inter, "Subject: CN = Caddy Local Authority - ECC Intermediate\n"));
    CHECK(has(inter, "CA:TRUE, pathlen:0\n"));
    CHECK(has(inter, "X509v3 Authority Key Identifier: \n"));
    struct certificate_facts r = facts_of(authority_root_pem(a)), i = facts_of(authority_chain_pem(a));
    CHECK_INT(r.not_after_s - r.not_before_s, 3600 * 86400L);
    CHECK_INT(i.not_after_s - i.not_before_s, 7 * 86400);
    CHECK_INT(authority_intermediate_ends_s(a), i.not_after_s);
    CHECK(!authority_root_ends_soon(a));
    shell("openssl verify -CAfile " PAIR "root.crt " PAIR "intermediate.crt");
    shell("openssl pkey -in " PAIR "root.key -noout -check");
    CHECK(has(shell("stat -c '%a %n' " PAIR "*"), "600 " PAIR "root.key"));
    CHECK_TEXT(authority_root_path(a, &arena), path_of(PAIR "root.crt"));
    authority_unref(a);
    end();
}

TEST("a leaf has the request's key and names, twelve hours, and a chain that verifies")
{
    struct slice names[] = {SLICE("localhost"), SLICE("127.0.0.1"), SLICE("::1")};
    bool clamped;
    begin();
    struct authority *a = open_it();
    struct slice chain = issue(a, (struct authority_leaf){
        .csr_der = make_csr(KEY_RSA2048, names, 3)}, &clamped);
    CHECK(!clamped);
    write_file("chain.crt", chain);
    shell("openssl verify -CAfile " PAIR "root.crt -untrusted chain.crt -purpose sslserver"
          " -verify_hostname localhost chain.crt");
    shell("openssl verify -CAfile " PAIR "root.crt -untrusted chain.crt -verify_ip ::1 chain.crt");
    struct slice text = shell("openssl x509 -in chain.crt -noout -text");
    CHECK(has(text, "Digital Signature, Key Encipherment"));
    CHECK(has(text, "TLS Web Server Authentication, TLS Web Client Authentication"));
    CHECK(has(text, "X509v3 Subject Alternative Name: critical"));
    CHECK(has(text, "Subject: \n"));
    struct certificate_facts f = facts_of(chain);
    CHECK_INT(f.chain, 2);
    CHECK_INT(f.not_after_s - f.not_before_s, 12 * 3600);
    CHECK_TEXT(f.issuer_common_name, "Caddy Local Authority - ECC Intermediate");
    authority_unref(a);
    end();
}

TEST("a leaf may be signed by the root, live shorter, or not longer than its issuer")
{
    struct slice names[] = {SLICE("a.example")};
    bool clamped;
    begin();
    struct authority *a = open_it();
    struct slice csr = make_csr(KEY_P256, names, 1);
    struct slice chain = issue(a, (struct authority_leaf){
        .csr_der = csr, .sign_with_root = true,
        .lifetime_ns = 3600 * (int64_t)1000000000}, &clamped);
    struct certificate_facts f = facts_of(chain);
    CHECK_TEXT(f.issuer_common_name, "Caddy Local Authority - 2026 ECC Root");
    CHECK_INT(f.not_after_s - f.not_before_s, 3600);
    write_file("chain.crt", chain);
    shell("openssl verify -CAfile " PAIR "root.crt chain.crt");
    chain = issue(a, (struct authority_leaf){
        .csr_der = csr, .lifetime_ns = 30 * 86400 * (int64_t)1000000000}, &clamped);
    CHECK(clamped);
    CHECK_INT(facts_of(chain).not_after_s, authority_intermediate_ends_s(a));
    authority_unref(a);
    end();
}

TEST("a request that is malformed, altered or nameless is refused")
{
    struct slice names[] = {SLICE("a.example")};
    struct buffer chain;
    bool clamped;
    begin();
    buffer_init(&chain, 1 << 20);
    struct authority *a = open_it();
    struct slice csr = make_csr(KEY_P256, names, 1);
    struct authority_leaf leaf = {.csr_der = slice_take(csr, csr.len / 2)};
    CHECK_INT(authority_issue(a, &leaf, &chain, &clamped, &why), ERR_INVALID);
    leaf.csr_der = SLICE_NONE;
    CHECK_INT(authority_issue(a, &leaf, &chain, &clamped, &why), ERR_INVALID);
    size_t at = slice_find_slice(csr, SLICE("a.example"));
    ((char *)(uintptr_t)csr.ptr)[at] = 'b';
    leaf.csr_der = csr;
    CHECK_INT(authority_issue(a, &leaf, &chain, &clamped, &why), ERR_INVALID);
    CHECK(strstr(why.text, "not signed by its key") != NULL);
    shell("openssl req -new -newkey ed25519 -nodes -keyout k -subj /CN=x -outform DER -out r");
    struct slice nameless = shell("cat r");
    leaf.csr_der = nameless;
    CHECK_INT(authority_issue(a, &leaf, &chain, &clamped, &why), ERR_INVALID);
    leaf.names = names; /* as who asked for it says */
    leaf.names_count = 1;
    CHECK_OK(authority_issue(a, &leaf, &chain, &clamped, &why));
    CHECK_INT(chain.len > 0, 1);
    buffer_deinit(&chain);
    authority_unref(a);
    end();
}

/* --- what is there already --- */

TEST("what is there is used: the root stays, a due intermediate is followed by another")
{
    bool renewed;
    begin();
    struct authority *a = open_it(), *b = open_it();
    CHECK_SLICE(authority_root_pem(a), authority_root_pem(b));
    CHECK_SLICE(authority_chain_pem(a), authority_chain_pem(b));
    CHECK_OK(authority_maintain(a, &renewed, &why));
    CHECK(!renewed);
    authority_unref(b);
    options.renewal_ratio = 1; /* due at once */
    b = open_it();
    CHECK_SLICE(authority_root_pem(a), authority_root_pem(b));
    CHECK(!slice_eq(authority_chain_pem(a), authority_chain_pem(b)));
    struct slice first = arena_copy(&arena, authority_chain_pem(b));
    CHECK_OK(authority_maintain(b, &renewed, &why));
    CHECK(renewed);
    CHECK(!slice_eq(first, authority_chain_pem(b)));
    shell("openssl verify -CAfile " PAIR "root.crt " PAIR "intermediate.crt");
    authority_unref(a);
    authority_unref(b);
    end();
}

TEST("an intermediate that does not fit its key or root, or is damaged, is made anew")
{
    begin();
    struct authority *a = open_it();
    struct slice root = arena_copy(&arena, authority_root_pem(a));
    authority_unref(a);
    shell("cp " PAIR "root.key " PAIR "intermediate.key");
    authority_unref(open_it());
    shell("openssl verify -CAfile " PAIR "root.crt " PAIR "intermediate.crt");
    shell("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x"
          " -keyout " PAIR "intermediate.key -out " PAIR "intermediate.crt");
    authority_unref(open_it());
    shell("openssl verify -CAfile " PAIR "root.crt " PAIR "intermediate.crt");
    write_file(PAIR "intermediate.crt", SLICE("damaged"));
    authority_unref(open_it());
    shell("openssl verify -CAfile " PAIR "root.crt " PAIR "intermediate.crt");
    shell("rm " PAIR "intermediate.key");
    a = open_it();
    shell("openssl verify -CAfile " PAIR "root.crt " PAIR "intermediate.crt");
    CHECK_SLICE(authority_root_pem(a), root);
    authority_unref(a);
    end();
}

TEST("a root is never replaced: damaged or without its key it is told, and used as far as it goes")
{
    struct authority *a;
    begin();
    authority_unref(open_it());
    shell("mv " PAIR "root.key away");
    authority_unref(open_it()); /* the intermediate is good: nobody needs it */
    options.renewal_ratio = 1;
    authority_unref(open_it()); /* nor when it is due but not over: the log says so */
    shell("rm " PAIR "intermediate.crt");
    CHECK(authority_open(&options, &a, &why) != OK);
    CHECK(strstr(why.text, "root.key") != NULL);
    shell("openssl genpkey -algorithm ED25519 -out " PAIR "root.key");
    CHECK_INT(authority_open(&options, &a, &why), ERR_INVALID);
    CHECK(strstr(why.text, "not the one of the root's certificate") != NULL);
    write_file(PAIR "root.crt", SLICE("damaged"));
    CHECK_INT(authority_open(&options, &a, &why), ERR_INVALID);
    CHECK(strstr(why.text, "the root's certificate: there is no certificate in it") != NULL);
    end();
}

TEST("an intermediate that would outlive its root is refused, as in Caddy")
{
    struct authority *a;
    begin();
    options.intermediate_lifetime_ns = 20 * 365 * 86400 * (int64_t)1000000000;
    CHECK_INT(authority_open(&options, &a, &why), ERR_INVALID);
    CHECK(strstr(why.text, "lifetime must be less than") != NULL);
    options.intermediate_lifetime_ns = AUTHORITY_DEFAULT_LIFETIME_NS;
    options.root_common_name = SLICE("a name that is longer than the sixty-four characters of X.520 or so");
    options.id = SLICE("other");
    CHECK_INT(authority_open(&options, &a, &why), ERR_INVALID);
    CHECK(strstr(why.text, "from 1 to 64 characters") != NULL);
    end();
}

/* --- files of the user --- */

TEST("root and intermediate may be the user's own files, of any kind of key")
{
    struct slice names[] = {SLICE("a.example")};
    struct authority *a;
    bool clamped;
    begin();
    shell("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=Root -keyout root.key -out root.crt"
          " -days 100");
    options.root = (struct authority_files){slice_from(strdup(path_of("root.crt"))), SLICE_NONE};
    CHECK_INT(authority_open(&options, &a, &why), ERR_INVALID);
    CHECK(strstr(why.text, "none is configured") != NULL);
    options.root.private_key = slice_from(strdup(path_of("root.key")));
    a = open_it();
    write_file("chain.crt", issue(a, (struct authority_leaf){
        .csr_der = make_csr(KEY_P256, names, 1)}, &clamped));
    shell("openssl verify -CAfile root.crt -untrusted chain.crt chain.crt");
    CHECK(has(shell("ls " PAIR), "intermediate.crt"));
    CHECK(!has(shell("ls " PAIR), "root.crt"));
    authority_unref(a);
    options.intermediate = options.root; /* nobody forbids it */
    a = open_it();
    write_file("chain.crt", issue(a, (struct authority_leaf){
        .csr_der = make_csr(KEY_P256, names, 1)}, &clamped));
    shell("openssl verify -CAfile root.crt -untrusted chain.crt chain.crt");
    authority_unref(a);
    free((void *)(uintptr_t)options.root.certificate.ptr);
    free((void *)(uintptr_t)options.root.private_key.ptr);
    end();
}

/* --- together, and cut off --- */

TEST("of eight who begin together all have one authority")
{
    pid_t children[8];
    int status, ends[2];
    char digests[8][32];
    begin();
    CHECK_INT(pipe(ends), 0);
    for (int i = 0; i < 8; i++) {
        if ((children[i] = fork()) != 0)
            continue;
        struct authority *a;
        if (authority_open(&options, &a, &why) != OK)
            _exit(1);
        struct certificate_facts r = facts_of(authority_root_pem(a));
        struct certificate_facts c = facts_of(authority_chain_pem(a));
        for (int b = 0; b < 32; b++)
            r.sha256[b] ^= c.sha256[b];
        _exit(write(ends[1], r.sha256, 32) != 32);
    }
    for (int i = 0; i < 8; i++) {
        waitpid(children[i], &status, 0);
        CHECK_INT(status, 0);
        CHECK_INT(read(ends[0], digests[i], 32), 32);
        CHECK(memcmp(digests[0], digests[i], 32) == 0);
    }
    close(ends[0]);
    close(ends[1]);
    shell("openssl verify -CAfile " PAIR "root.crt " PAIR "intermediate.crt");
    end();
}

TEST("killed at any moment while it is made and renewed, it is whole: 100 rounds, one root")
{
    struct slice root = SLICE_NONE;
    begin();
    options.renewal_ratio = 1;
    for (int round = 0; round < 100; round++) {
        pid_t child = fork();
        if (child == 0) {
            for (struct authority *a;;)
                (void)!authority_open(&options, &a, &why);
        }
        usleep((useconds_t)(round * 173 % 9000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        unlink(path_of("locks/pki_authority_local.lock")); /* not to wait ten seconds a hundred times */
        options.renewal_ratio = AUTHORITY_DEFAULT_RATIO;
        struct authority *a = open_it();
        options.renewal_ratio = 1;
        if (round > 0)
            CHECK_SLICE(authority_root_pem(a), root);
        root = arena_copy(&arena, authority_root_pem(a));
        authority_unref(a);
    }
    shell("openssl verify -CAfile " PAIR "root.crt " PAIR "intermediate.crt");
    end();
}

/* --- with Debian's Caddy on the same folder --- */

static pid_t caddy;

static void start_caddy(void)
{
    static const char config[] =
        "{\"admin\":{\"disabled\":true,\"config\":{\"persist\":false}},"
        "\"storage\":{\"module\":\"file_system\",\"root\":\"%s\"},\"apps\":{"
        "\"pki\":{\"certificate_authorities\":{\"local\":{\"install_trust\":false}}},"
        "\"tls\":{\"certificates\":{\"automate\":[\"a.localhost\"]},\"automation\":"
        "{\"policies\":[{\"issuers\":[{\"module\":\"internal\"}]}]}}}}";
    char text[1024];
    if (access("/usr/bin/caddy", X_OK) != 0)
        test_skip("there is no /usr/bin/caddy");
    snprintf(text, sizeof text, config, folder);
    write_file("caddy.json", slice_from(text));
    char *path = strdup(path_of("caddy.json")), *log = strdup(path_of("caddy.log"));
    caddy = fork();
    if (caddy == 0) {
        setenv("HOME", folder, 1);
        setenv("XDG_CONFIG_HOME", folder, 1);
        setenv("XDG_DATA_HOME", folder, 1);
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        execl("/usr/bin/caddy", "caddy", "run", "--config", path, NULL);
        _exit(127);
    }
    free(path);
    free(log);
}

static void stop_caddy(void)
{
    kill(caddy, SIGTERM);
    waitpid(caddy, NULL, 0);
}

#define CADDYS_LEAF "certificates/local/a.localhost/a.localhost.crt"

static bool leaf_comes(unsigned tenths)
{
    for (unsigned i = 0; i < tenths; i++) {
        if (access(path_of(CADDYS_LEAF), F_OK) == 0)
            return true;
        usleep(100000);
    }
    return false;
}

TEST("Caddy goes on with our authority")
{
    begin();
    struct authority *a = open_it();
    struct slice root = arena_copy(&arena, authority_root_pem(a));
    struct slice chain = arena_copy(&arena, authority_chain_pem(a));
    authority_unref(a);
    start_caddy();
    bool came = leaf_comes(200);
    stop_caddy();
    CHECK(came);
    shell("openssl verify -CAfile " PAIR "root.crt -untrusted " PAIR "intermediate.crt " CADDYS_LEAF);
    a = open_it();
    CHECK_SLICE(authority_root_pem(a), root);
    CHECK_SLICE(authority_chain_pem(a), chain);
    authority_unref(a);
    end();
}

TEST("we go on with Caddy's authority")
{
    struct slice names[] = {SLICE("b.localhost")};
    bool clamped;
    begin();
    start_caddy();
    bool came = leaf_comes(200);
    stop_caddy();
    CHECK(came);
    struct slice root = shell("cat " PAIR "root.crt"), inter = shell("cat " PAIR "intermediate.crt");
    struct authority *a = open_it();
    CHECK_SLICE(authority_root_pem(a), root);
    CHECK_SLICE(authority_chain_pem(a), inter);
    struct slice csr = make_csr(KEY_P256, names, 1);
    write_file("chain.crt", issue(a, (struct authority_leaf){.csr_der = csr}, &clamped));
    shell("openssl verify -CAfile " PAIR "root.crt -untrusted chain.crt chain.crt");
    write_file("chain.crt", issue(a, (struct authority_leaf){.csr_der = csr, .sign_with_root = true},
                                  &clamped));
    shell("openssl verify -CAfile " PAIR "root.crt chain.crt");
    struct evp_pkey_st *key;
    CHECK_OK(key_from_pem(shell("cat certificates/local/a.localhost/a.localhost.key"), &key, why_key,
                          sizeof why_key));
    key_free(key);
    authority_unref(a);
    end();
}

TEST("Caddy waits for a lock that we hold, and goes on when it is given back")
{
    begin();
    CHECK_OK(storage->type->lock(storage, SLICE("issue_cert_a.localhost"), 0, &why));
    start_caddy();
    bool early = leaf_comes(120); /* longer than a lock is fresh */
    CHECK_OK(storage->type->unlock(storage, SLICE("issue_cert_a.localhost"), &why));
    bool came = leaf_comes(100);
    stop_caddy();
    CHECK(!early);
    CHECK(came);
    end();
}

/* --- on a fiber --- */

static size_t stack_used;

static void use_on_fiber(void *arg)
{
    struct slice names[] = {SLICE("localhost")};
    enum err *result = arg;
    struct authority *a;
    struct buffer chain, der;
    bool clamped;
    struct evp_pkey_st *key;
    buffer_init(&chain, 1 << 20);
    buffer_init(&der, 1 << 20);
    *result = authority_open(&options, &a, &why);
    if (*result == OK)
        *result = key_generate(KEY_RSA2048, &key);
    if (*result == OK)
        *result = csr_make(key, names, 1, false, &der);
    if (*result == OK) {
        struct authority_leaf leaf = {.csr_der = buffer_slice(&der), .sign_with_root = true};
        *result = authority_issue(a, &leaf, &chain, &clamped, &why);
        leaf.sign_with_root = false;
        if (*result == OK)
            *result = authority_issue(a, &leaf, &chain, &clamped, &why);
        key_free(key);
        authority_unref(a);
    }
    stack_used = fiber_stack_used(fiber_self());
    buffer_deinit(&chain);
    buffer_deinit(&der);
    loop_stop(loop_self());
}

TEST("on a fiber, it waits, and issuing leaves half of the stack untouched")
{
    struct loop *loop;
    enum err result = ERR_FAILED;
    begin();
    CHECK_OK(loop_create(LOOP_AUTO, &loop));
    CHECK_OK(fiber_start(loop, use_on_fiber, &result));
    loop_run(loop);
    loop_destroy(loop);
    CHECK_OK(result);
    CHECK(stack_used < FIBER_STACK / 2);
    end();
}
