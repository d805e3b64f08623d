/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folders, commands and names are those of the library that Caddy uses, so that either removes
 * what the other has installed: a file "COMMON_NAME_SERIAL.crt" among the administrator's own
 * authorities, which the distribution's command then puts into its bundle; an entry "COMMON NAME
 * SERIAL" in each NSS database of the user.
 *
 * Nothing here asks for more rights than the process has. When root acts for somebody by sudo, NSS
 * databases are that person's, and certutil runs as that person: what lies in their home is theirs to
 * write, not root's.
 */
#include "pki/trust_store.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/fd_write.h"
#include "pki/certificate.h"
#include "pki/tool.h"

enum { PATH_CAP = 1024, NAME_CAP = 200, SENTENCE_CAP = 4096 };

struct system_store {
    const char *folder, *ending;
    const char *tool, *add[3], *remove[3];
};

static const struct system_store system_stores[] = {
    {"/etc/pki/ca-trust/source/anchors", ".pem", "update-ca-trust",
     {"update-ca-trust", "extract"}, {"update-ca-trust", "extract"}}, /* Fedora, RHEL */
    {"/usr/local/share/ca-certificates", ".crt", "update-ca-certificates",
     {"update-ca-certificates"}, {"update-ca-certificates", "--fresh"}}, /* Debian, Alpine */
    {"/usr/share/pki/trust/anchors", ".crt", "update-ca-certificates",
     {"update-ca-certificates"}, {"update-ca-certificates"}}, /* SUSE */
    {"/etc/ca-certificates/trust-source/anchors", ".crt", "trust",
     {"trust", "extract-compat"}, {"trust", "extract-compat"}}, /* Arch */
};

struct root { /* the certificate in hand */
    struct slice pem;
    char name[NAME_CAP]; /* "Caddy Local Authority - 2026 ECC Root 1234" */
    const struct trust_note *note;
};

static void tell(const struct root *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void tell(const struct root *r, const char *format, ...)
{
    char text[SENTENCE_CAP];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    r->note->tell(r->note->arg, text);
}

/* --- the certificate --- */

static enum err read_root(struct slice pem, struct root *r, struct buffer *clean)
{
    struct arena arena;
    struct certificate_facts f;
    char why[200];
    struct x509_st *x;
    arena_init(&arena, 1024);
    enum err e = certificate_read(pem, &arena, &f, why, sizeof why);
    if (e == OK && !f.is_ca) {
        snprintf(why, sizeof why, "it is no certificate of an authority");
        e = ERR_INVALID;
    }
    if (e == OK)
        snprintf(r->name, sizeof r->name, SLICE_FMT " " SLICE_FMT,
                 SLICE_ARG(slice_take(f.common_name.len > 0 ? f.common_name
                                                            : SLICE("Truststore Development CA"), 100)),
                 SLICE_ARG(slice_take(f.serial, 80)));
    for (char *c = r->name; *c != '\0'; c++) {
        if (*c == '/' || (unsigned char)*c < ' ')
            *c = '_';
    }
    if (e == OK && (e = certificate_from_pem(pem, &x, why, sizeof why)) == OK) {
        e = certificate_put_pem(clean, x);
        certificate_free(x);
    }
    r->pem = buffer_slice(clean);
    if (e != OK)
        tell(r, "not a root certificate: %s", why);
    arena_deinit(&arena);
    return e;
}

bool trust_is_known(struct slice root_pem)
{
    char why[200];
    X509 *x;
    if (certificate_from_pem(root_pem, &x, why, sizeof why) != OK)
        return false;
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *c = X509_STORE_CTX_new();
    bool known = store != NULL && c != NULL && X509_STORE_set_default_paths(store) == 1 &&
                 X509_STORE_CTX_init(c, store, x, NULL) == 1 && X509_verify_cert(c) == 1;
    X509_STORE_CTX_free(c);
    X509_STORE_free(store);
    X509_free(x);
    ERR_clear_error();
    return known;
}

/* --- the system's store --- */

static const struct system_store *find_store(char tool[PATH_CAP])
{
    for (size_t i = 0; i < sizeof system_stores / sizeof system_stores[0]; i++) {
        const struct system_store *s = &system_stores[i];
        if (access(s->folder, F_OK) == 0 && tool_find(s->tool, tool, PATH_CAP))
            return s;
    }
    return NULL;
}

bool trust_may_change(char *why, size_t cap)
{
    char tool[PATH_CAP];
    const struct system_store *s = find_store(tool);
    if (s == NULL)
        snprintf(why, cap, "no trust store is known here: install the package ca-certificates");
    else if (access(s->folder, W_OK) != 0)
        snprintf(why, cap, "%s: %s", s->folder, strerrordesc_np(errno));
    else if (access("/etc/ssl/certs", F_OK) == 0 && access("/etc/ssl/certs", W_OK) != 0)
        snprintf(why, cap, "/etc/ssl/certs: %s", strerrordesc_np(errno));
    else
        return true;
    return false;
}

static void file_name(const struct system_store *s, const struct root *r, char path[PATH_CAP])
{
    int at = snprintf(path, PATH_CAP, "%s/", s->folder);
    snprintf(path + at, PATH_CAP - (size_t)at, "%s%s", r->name, s->ending);
    for (char *c = path + at; *c != '\0'; c++) {
        if (*c == ' ')
            *c = '_';
    }
}

static bool is_there(const char *path, struct slice pem)
{
    char text[16384];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0)
        close(fd);
    return n >= 0 && slice_eq(slice_of(text, (size_t)n), pem);
}

/* Whole or not at all. */
static int put_file(const char *path, struct slice bytes)
{
    char fresh[PATH_CAP + 16];
    snprintf(fresh, sizeof fresh, "%s.new%d", path, (int)getpid());
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return errno;
    int e = fd_write_all(fd, bytes) != OK ? errno : 0;
    if (e == 0 && fchmod(fd, 0644) != 0) /* whatever the umask says: everybody reads it */
        e = errno;
    if (close(fd) != 0 && e == 0)
        e = errno;
    if (e == 0 && rename(fresh, path) != 0)
        e = errno;
    if (e != 0)
        unlink(fresh);
    return e;
}

static enum err run_update(const struct root *r, const char *tool, const char *const words[3])
{
    char output[TOOL_OUTPUT_MAX];
    const char *argv[] = {words[0], words[1], NULL};
    enum err e = tool_run(tool, argv, NULL, output);
    if (e == OK)
        tell(r, "ran %s%s%s", words[0], words[1] != NULL ? " " : "", words[1] != NULL ? words[1] : "");
    else
        tell(r, "%s failed: %s", words[0], output);
    return e;
}

static enum err refuse_system(const struct root *r, const char *what, const char *path, int number)
{
    tell(r, "could not %s %s: %s%s", what, path, strerrordesc_np(number),
         number == EACCES || number == EPERM ? "; the system's trust store is root's: run this command "
                                               "as root (sudo)"
                                             : "");
    return err_from_errno(number);
}

static enum err install_system(const struct root *r)
{
    char tool[PATH_CAP], path[PATH_CAP];
    const struct system_store *s = find_store(tool);
    if (s == NULL) {
        tell(r, "no trust store of the system is known here: install the package ca-certificates");
        return ERR_UNSUPPORTED;
    }
    file_name(s, r, path);
    if (is_there(path, r->pem) && trust_is_known(r->pem)) {
        tell(r, "the system trusts it already: %s", path);
        return OK;
    }
    int e = put_file(path, r->pem);
    if (e != 0)
        return refuse_system(r, "write", path, e);
    tell(r, "wrote %s", path);
    return run_update(r, tool, s->add);
}

static enum err uninstall_system(const struct root *r)
{
    char tool[PATH_CAP], path[PATH_CAP];
    const struct system_store *s = find_store(tool);
    if (s == NULL) {
        tell(r, "no trust store of the system is known here");
        return ERR_UNSUPPORTED;
    }
    file_name(s, r, path);
    bool removed = unlink(path) == 0;
    if (!removed && errno != ENOENT)
        return refuse_system(r, "remove", path, errno);
    if (!removed && !trust_is_known(r->pem)) {
        tell(r, "the system does not trust it: there is no %s", path);
        return OK;
    }
    if (removed)
        tell(r, "removed %s", path);
    enum err e = run_update(r, tool, s->remove);
    if (e == OK && trust_is_known(r->pem)) {
        tell(r, "the system trusts it still, by another file than %s", path);
        e = ERR_FAILED;
    }
    return e;
}

/* --- NSS --- */

/* Whose databases: the person's behind sudo, else this process's own. False: run as it is. */
static bool find_person(struct tool_user *user)
{
    uint64_t uid;
    const char *text = getenv("SUDO_UID");
    const struct passwd *p = NULL;
    if (geteuid() == 0 && text != NULL && slice_to_u64(slice_from(text), UINT32_MAX - 1, &uid) &&
        uid != 0)
        p = getpwuid((uid_t)uid);
    if (p == NULL) {
        const char *home = getenv("HOME");
        snprintf(user->home, sizeof user->home, "%s", home != NULL ? home : "");
        return false;
    }
    *user = (struct tool_user){.uid = p->pw_uid, .gid = p->pw_gid};
    snprintf(user->home, sizeof user->home, "%s", p->pw_dir);
    return true;
}

struct nss { /* what is the same for all databases */
    const struct root *root;
    char tool[PATH_CAP], pem[PATH_CAP];
    struct tool_user person;
    const struct tool_user *as;
    unsigned found;
    enum err result;
};

static enum err certutil(struct nss *n, const char *const argv[], char output[TOOL_OUTPUT_MAX])
{
    return tool_run(n->tool, argv, n->as, output);
}

static bool nss_has(struct nss *n, const char *database)
{
    char output[TOOL_OUTPUT_MAX];
    const char *argv[] = {"certutil", "-V", "-d", database, "-u", "L", "-n", n->root->name, NULL};
    return certutil(n, argv, output) == OK;
}

static void nss_add(struct nss *n, const char *database)
{
    char output[TOOL_OUTPUT_MAX];
    const char *argv[] = {"certutil", "-A", "-d", database, "-t", "C,,", "-n", n->root->name,
                          "-i", n->pem, NULL};
    if (nss_has(n, database)) {
        tell(n->root, "NSS trusts it already: %s", database);
        return;
    }
    enum err e = certutil(n, argv, output);
    if (e == OK)
        tell(n->root, "added it to the NSS database %s", database);
    else
        tell(n->root, "certutil could not add it to %s: %s", database, output);
    if (n->result == OK)
        n->result = e;
}

static void nss_remove(struct nss *n, const char *database)
{
    char output[TOOL_OUTPUT_MAX];
    const char *argv[] = {"certutil", "-D", "-d", database, "-n", n->root->name, NULL};
    if (!nss_has(n, database))
        return;
    enum err e = certutil(n, argv, output);
    if (e == OK)
        tell(n->root, "removed it from the NSS database %s", database);
    else
        tell(n->root, "certutil could not remove it from %s: %s", database, output);
    if (n->result == OK)
        n->result = e;
}

/* A folder that may hold a database, in NSS's name for it. */
static void visit(struct nss *n, const char *folder, void (*act)(struct nss *, const char *))
{
    static const char *const kinds[][2] = {{"cert9.db", "sql"}, {"cert8.db", "dbm"}};
    char path[PATH_CAP];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, kinds[i][0]);
        if (access(path, F_OK) != 0)
            continue;
        snprintf(path, sizeof path, "%s:%s", kinds[i][1], folder);
        n->found++;
        act(n, path);
        return;
    }
}

static void visit_all(struct nss *n, void (*act)(struct nss *, const char *))
{
    static const char *const places[] = {".mozilla/firefox/*", "snap/firefox/common/.mozilla/firefox/*",
                                         ".pki/nssdb"};
    for (size_t i = 0; i < sizeof places / sizeof places[0] && n->person.home[0] == '/'; i++) {
        char pattern[PATH_CAP];
        glob_t found;
        snprintf(pattern, sizeof pattern, "%s/%s", n->person.home, places[i]);
        if (glob(pattern, GLOB_ONLYDIR, NULL, &found) != 0)
            continue;
        for (size_t f = 0; f < found.gl_pathc; f++)
            visit(n, found.gl_pathv[f], act);
        globfree(&found);
    }
}

static void count_only(struct nss *n, const char *database)
{
}

/* certutil reads the certificate from a file that everybody may read. */
static bool put_temporary(struct nss *n)
{
    snprintf(n->pem, sizeof n->pem, "/tmp/portico-trust-XXXXXX");
    int fd = mkstemp(n->pem);
    if (fd < 0)
        return false;
    bool ok = fd_write_all(fd, n->root->pem) == OK && fchmod(fd, 0644) == 0;
    ok = close(fd) == 0 && ok;
    if (!ok)
        unlink(n->pem);
    return ok;
}

static enum err change_nss(const struct root *r, void (*act)(struct nss *, const char *))
{
    struct nss n = {.root = r};
    n.as = find_person(&n.person) ? &n.person : NULL;
    visit_all(&n, count_only);
    if (n.found == 0)
        return OK;
    if (!tool_find("certutil", n.tool, sizeof n.tool)) {
        tell(r, "%u NSS databases (browsers) in %s are left as they are: certutil is not installed "
             "(the package libnss3-tools, or nss-tools)", n.found, n.person.home);
        return OK;
    }
    if (!put_temporary(&n)) {
        tell(r, "the NSS databases are left as they are: a temporary file could not be written");
        return ERR_IO;
    }
    visit_all(&n, act);
    unlink(n.pem);
    return n.result;
}

/* --- all of them --- */

static enum err change(struct slice root_pem, const struct trust_note *note,
                       enum err (*machine)(const struct root *),
                       void (*nss)(struct nss *, const char *))
{
    struct root r = {.note = note};
    struct buffer clean;
    buffer_init(&clean, 1 << 20);
    enum err e = read_root(root_pem, &r, &clean);
    if (e == OK) {
        enum err browsers = change_nss(&r, nss);
        e = machine(&r);
        if (e == OK)
            e = browsers;
    }
    buffer_deinit(&clean);
    return e;
}

enum err trust_install(struct slice root_pem, const struct trust_note *note)
{
    return change(root_pem, note, install_system, nss_add);
}

enum err trust_uninstall(struct slice root_pem, const struct trust_note *note)
{
    return change(root_pem, note, uninstall_system, nss_remove);
}
