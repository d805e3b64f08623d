/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Automatic HTTPS: what the names and addresses of the app "http" make of themselves. A pure rewrite
 * of JSON before anything is provisioned from it; the document that was given stays as it is.
 */
#pragma once

#include "http/module.h"

struct auto_https {
    uint16_t http_port, https_port;
    /* Whether a certificate that the configuration brings along has the name; NULL: none has. */
    bool (*has_certificate)(void *arg, struct slice name);
    void *arg;
    json_t *http;     /* the app, rewritten; owned like the three below */
    json_t *tls;      /* the app, with what its own policies lack; NULL: there is none */
    json_t *names;    /* an array: whose certificates are to be managed */
    json_t *policies; /* automation policies to be added, in this order */
};

/* Copies what is changed of both apps (tls may be NULL) and completes the automation policies; `tls`
 * may be provisioned then. */
void auto_https_begin(struct auto_https *, const json_t *http, const json_t *tls);

/* Applies the rules: names, connection policies, redirects. `has_certificate` is called here.
 * ERR_INVALID with provision's sentence. */
enum err auto_https_apply(struct auto_https *, struct provision *);

/* When all is provisioned: of the four only the names stay. */
void auto_https_drop_apps(struct auto_https *);

void auto_https_free(struct auto_https *);
