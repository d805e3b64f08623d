/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where Go looks, in its order: SSL_CERT_FILE, or else the first bundle that is there; then every file
 * of the folders in SSL_CERT_DIR (':' between them), or else of the usual ones when there was no
 * bundle. The library's own lookup would read single files at handshakes, on workers, and would
 * take no notice of the variables in a program with capabilities.
 */
#include "tls/system_roots.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/check.h"
#include "base/slice.h"

static const char *const files[] = {
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem"};
static const char usual_folders[] = "/etc/ssl/certs:/etc/pki/tls/certs";

static X509_STORE *store;

static bool read_file(const char *path)
{
    FILE *f = fopen(path, "re");
    bool any = false;
    if (f == NULL)
        return false;
    for (X509 *x; (x = PEM_read_X509_AUX(f, NULL, NULL, NULL)) != NULL; X509_free(x))
        any |= X509_STORE_add_cert(store, x) == 1;
    ERR_clear_error();
    fclose(f);
    return any;
}

static void read_folder(const char *path)
{
    DIR *d = opendir(path);
    if (d == NULL)
        return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char file[4096];
        if (e->d_name[0] != '.' &&
            snprintf(file, sizeof file, "%s/%s", path, e->d_name) < (int)sizeof file)
            (void)read_file(file);
    }
    closedir(d);
}

static void read_folders(struct slice list)
{
    while (list.len > 0) {
        struct slice one;
        slice_cut(list, ':', &one, &list);
        if (one.len == 0)
            continue;
        char *path = slice_dup(one);
        read_folder(path);
        free(path);
    }
}

static bool read_files(void)
{
    const char *own = getenv("SSL_CERT_FILE");
    if (own != NULL && *own != '\0')
        return read_file(own);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (read_file(files[i]))
            return true;
    }
    return false;
}

static void read_all(void)
{
    const char *folders = getenv("SSL_CERT_DIR");
    store = X509_STORE_new();
    if (store == NULL)
        fatal("out of memory");
    bool found = read_files();
    if (folders != NULL && *folders != '\0')
        read_folders(slice_from(folders));
    else if (!found)
        read_folders(slice_from(usual_folders));
}

struct x509_store_st *system_roots(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_all);
    return store;
}
