/* SPDX-License-Identifier: Apache-2.0 */
/*
 * acme-dns: a small server for challenges only, to which a name's _acme-challenge is delegated by a
 * CNAME. It keeps the two latest texts of an account and forgets older ones by itself.
 *
 *     {"name": "acmedns", "username": "…", "password": "…", "subdomain": "…", "server_url": "https://…"}
 *     {"name": "acmedns", "config": {"example.com": {…}}}    {"name": "acmedns", "config_file_path": "…"}
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "certs/dns_api.h"
#include "config/jsonx.h"

enum { CONFIG_FILE_MAX = 1 << 20, DEPTH_MAX = 16 };

struct account {
    struct slice domain; /* empty: every one */
    struct slice username, password, subdomain, server_url;
};

struct acmedns {
    struct account *accounts;
    size_t count;
};

static const char *const account_members[] = {"username", "password", "subdomain", "fulldomain",
                                              "server_url", "allowfrom", NULL};

static enum err read_account(struct account *c, struct slice domain, const json_t *json,
                             struct provision *p)
{
    c->domain = arena_copy(p->arena, domain);
    TRY(dns_secret(p, json, "username", &c->username));
    TRY(dns_secret(p, json, "password", &c->password));
    TRY(dns_secret(p, json, "subdomain", &c->subdomain));
    TRY(dns_secret(p, json, "server_url", &c->server_url));
    while (slice_ends(c->server_url, SLICE("/")))
        c->server_url.len--;
    if (c->username.len == 0 || c->password.len == 0 || c->subdomain.len == 0)
        return provision_fail(p, "username, password and subdomain must be given");
    if (!slice_starts(c->server_url, SLICE("https://")) &&
        !slice_starts(c->server_url, SLICE("http://")))
        return provision_fail(p, "server_url must begin with https:// or http://");
    return OK;
}

static enum err read_accounts(struct acmedns *c, const json_t *configs, struct provision *p)
{
    const char *domain;
    json_t *v;
    if (json_object_size(configs) == 0)
        return provision_fail(p, "config must have at least one domain");
    c->accounts = ARENA_ARRAY(p->arena, struct account, json_object_size(configs));
    json_object_foreach((json_t *)(uintptr_t)configs, domain, v)
    {
        TRY(provision_members(p, v, account_members));
        TRY(read_account(&c->accounts[c->count++], slice_from(domain), v, p));
    }
    return OK;
}

static enum err read_one(struct acmedns *c, const json_t *json, struct provision *p)
{
    c->accounts = ARENA_ARRAY(p->arena, struct account, 1);
    c->count = 1;
    return read_account(&c->accounts[0], SLICE(""), json, p);
}

/* The account's own members, or an object of them by domain, as acme-dns-client writes it. */
static enum err read_file(struct acmedns *c, struct slice path, struct provision *p)
{
    FILE *f = fopen(arena_str(p->arena, path), "re");
    if (f == NULL)
        return provision_fail(p, "config_file_path " SLICE_FMT ": %s", SLICE_ARG(path),
                              strerror(errno));
    char *text = arena_alloc(p->arena, CONFIG_FILE_MAX);
    size_t n = fread(text, 1, CONFIG_FILE_MAX, f);
    fclose(f);
    json_t *json = n < CONFIG_FILE_MAX && !jsonx_too_deep(slice_of(text, n), DEPTH_MAX)
                       ? json_loadb(text, n, 0, NULL) : NULL;
    enum err e;
    if (!json_is_object(json))
        e = provision_fail(p, "config_file_path " SLICE_FMT ": not a JSON object", SLICE_ARG(path));
    else if (json_is_string(json_object_get(json, "username")))
        e = read_one(c, json, p);
    else
        e = read_accounts(c, json, p);
    json_decref(json);
    return e;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"name", "config", "config_file_path", "username", "password",
                                        "subdomain", "server_url", NULL};
    struct slice path;
    struct acmedns *c = cfg;
    TRY(provision_members(p, json, known));
    TRY(provision_text(p, json, "config_file_path", SLICE(""), &path));
    if (path.len > 0)
        return read_file(c, path, p);
    if (json_object_get(json, "config") != NULL)
        return read_accounts(c, json_object_get(json, "config"), p);
    return read_one(c, json, p);
}

static const struct account *find(const struct acmedns *c, struct slice domain)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->accounts[i].domain.len == 0 || slice_eq_nocase(c->accounts[i].domain, domain))
            return &c->accounts[i];
    }
    return NULL;
}

static enum err append(const void *cfg, const struct dns_record *r, struct arena *a,
                       struct dns_why *why)
{
    static const struct slice prefix = {"_acme-challenge.", 16};
    struct dns_answer answer;
    struct slice domain = dns_record_fqdn(r, a);
    TRY(dns_text_only(r, "acme-dns", why));
    if (slice_starts(domain, prefix))
        domain = slice_skip(domain, prefix.len);
    const struct account *c = find(cfg, domain);
    if (c == NULL)
        return dns_fail(why, "no acme-dns account is configured for " SLICE_FMT, SLICE_ARG(domain));
    struct field fields[] = {{SLICE("X-Api-User"), c->username}, {SLICE("X-Api-Key"), c->password}};
    json_t *body = json_pack("{s:s%, s:s%}", "subdomain", c->subdomain.ptr, c->subdomain.len, "txt",
                             r->text.ptr, r->text.len);
    struct slice url = arena_join(a, (struct slice[]){c->server_url, SLICE("/update")}, 2);
    enum err e = dns_call(&(struct dns_call){.method = "POST", .url = url, .fields = fields,
                                             .fields_count = 2, .body = body}, a, &answer, why);
    json_decref(answer.json);
    return e;
}

static enum err remove_record(const void *cfg, const struct dns_record *r, struct arena *a,
                              struct dns_why *why)
{
    return OK; /* the server forgets it by itself */
}

const struct module dns_provider_acmedns = {
    .id = "dns.providers.acmedns",
    .cfg_size = sizeof(struct acmedns),
    .provision = provision,
    .face = &(const struct dns_provider_type){append, remove_record},
};
