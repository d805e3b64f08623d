/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Those who hold the zones of names: modules of "dns.providers". A DNS-01 challenge puts a TXT
 * record into one and takes it out again. On a fiber of the control thread; may wait.
 */
#pragma once

#include "http/module.h"

enum { DNS_TEXT_MAX = 255 }; /* bytes of a record's text: one character string */

struct dns_record {
    struct slice zone;  /* "example.com", without a dot at its end */
    struct slice name;  /* within the zone, "_acme-challenge.www"; "@" is the zone itself */
    struct slice type;  /* "TXT", which is the same as none, or "CNAME" */
    struct slice text;  /* what it holds; of a CNAME a name without a dot at its end */
    uint32_t ttl_s;     /* 0: the provider's own choice */
};

struct dns_why {
    char text[768]; /* a sentence, after a failure; never a secret */
};

/* The face of a "dns.providers.*" module. Both may be asked again for what is done already. */
struct dns_provider_type {
    enum err (*append)(const void *cfg, const struct dns_record *, struct arena *, struct dns_why *);
    enum err (*remove)(const void *cfg, const struct dns_record *, struct arena *, struct dns_why *);
};

/* "TXT" or "CNAME". */
struct slice dns_record_type(const struct dns_record *);
bool dns_record_is_text(const struct dns_record *);

/* "_acme-challenge.www.example.com", without a dot at its end. */
struct slice dns_record_fqdn(const struct dns_record *, struct arena *);

extern const struct module dns_provider_acmedns, dns_provider_cloudflare, dns_provider_digitalocean,
    dns_provider_duckdns, dns_provider_exec, dns_provider_hetzner, dns_provider_rfc2136;
