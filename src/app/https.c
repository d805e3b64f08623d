/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order matters: certificates of the configuration are loaded first, since automatic HTTPS asks
 * which names they have; it says which names need one; the policies that it adds say from whom.
 * A configuration of nothing but clear HTTP provisions none of it.
 */
#include "app/https.h"

#include <stdio.h>
#include <sys/stat.h>

#include "app/folders.h"
#include "base/log.h"
#include "certs/manager.h"
#include "certs/pki_app.h"
#include "certs/shared_tickets.h"
#include "certs/solver.h"
#include "http/challenge_answer.h"
#include "tls/tls_server.h"

enum { NAMES_TOLD = 1000 }; /* in one line of the log */

/* --- the storage --- */

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Beside ours, with Caddy's name. */
static void caddy_folder(const char *own, char out[FOLDER_MAX])
{
    const char *slash = strrchr(own, '/');
    snprintf(out, FOLDER_MAX, "%.*s/caddy", slash != NULL ? (int)(slash - own) : 0, own);
}

/* Where Caddy was before and this program was not, its folder is taken over as it stands. */
static struct slice data_folder(struct generation *g)
{
    char own[FOLDER_MAX], caddy[FOLDER_MAX];
    folder_data(own);
    caddy_folder(own, caddy);
    bool taken_over = !is_folder(own) && is_folder(caddy);
    if (taken_over)
        LOG(LOG_INFO, "storage", "going on with the folder that Caddy left", LOG_CSTR("folder", caddy));
    return arena_copy(&g->arena, slice_from(taken_over ? caddy : own));
}

/* --- session tickets --- */

static enum err read_key_source(struct generation *g, const json_t *source)
{
    struct provision *p = &g->provision;
    const struct module *m;
    void *cfg;
    if (source == NULL || json_is_null(source))
        return OK;
    p->path = SLICE("apps.tls.session_tickets.key_source");
    const char *name = json_string_value(json_object_get(source, "provider"));
    if (name == NULL)
        return provision_fail(p, "\"provider\" must name a module of tls.stek");
    TRY(provision_module(p, "tls.stek", name, source, &m, &cfg));
    g->tickets.source.storage = *(struct storage **)cfg;
    return OK;
}

static enum err read_tickets(struct generation *g, const json_t *json)
{
    static const char *const known[] = {"key_source", "rotation_interval", "max_keys",
                                        "disable_rotation", "disabled", NULL};
    struct provision *p = &g->provision;
    struct ticket_options *t = &g->tickets;
    int64_t keys, ns;
    if (json == NULL || json_is_null(json))
        return OK;
    p->path = SLICE("apps.tls.session_tickets");
    TRY(provision_members(p, json, known));
    TRY(provision_duration(p, json, "rotation_interval", 0, &ns));
    TRY(provision_int(p, json, "max_keys", 0, INT32_MIN, STEK_MAX, &keys));
    TRY(provision_bool(p, json, "disable_rotation", false, &t->never_rotate));
    TRY(provision_bool(p, json, "disabled", false, &t->disabled));
    t->source.rotation_ns = ns > 0 ? (uint64_t)ns : 0;
    t->source.keys = keys > 0 ? (unsigned)keys : 0;
    return read_key_source(g, json_object_get(json, "key_source"));
}

/* As in Caddy, shared keys are used only where they are rotated. */
static void adopt_tickets(const struct ticket_options *t)
{
    struct ticket_source source = t->source;
    if (t->disabled || t->never_rotate)
        source.storage = NULL;
    tls_tickets_configure(source.rotation_ns, source.keys, t->never_rotate, source.storage != NULL);
    shared_tickets_adopt(&source);
}

/* --- the app "tls" --- */

static enum err read_tls(struct generation *g, const json_t *tls)
{
    struct provision *p = &g->provision;
    struct automation_origin origin = {
        .tls = tls,
        .storage = json_object_get(g->plain, "storage"),
        .data_folder = g->data_folder,
    };
    p->path = SLICE("apps.tls");
    TRY(automation_provision(p, &origin, &g->automation));
    return read_tickets(g, json_object_get(tls, "session_tickets"));
}

static bool has_certificate(void *arg, struct slice name)
{
    const struct generation *g = arg;
    return g->automation != NULL && automation_has_manual(g->automation, name);
}

/* A policy without a word adds nothing to what a name without policy gets. */
static enum err add_policies(struct generation *g)
{
    size_t i;
    json_t *v;
    g->provision.path = SLICE("apps.tls.automation.policies");
    json_array_foreach(g->https.policies, i, v)
    {
        if (json_object_size(v) > 0)
            TRY(automation_add_policy(&g->provision, g->automation, v));
    }
    json_array_foreach(g->https.names, i, v)
        TRY(automation_add_name(&g->provision, g->automation,
                                slice_of(json_string_value(v), json_string_length(v))));
    return OK;
}

static enum err apply_auto_https(struct generation *g, const json_t *http, const json_t *tls)
{
    struct auto_https *a = &g->https;
    a->http_port = g->http_port;
    a->https_port = g->provision.https_port > 0 ? g->provision.https_port : 443;
    a->has_certificate = has_certificate;
    a->arg = g;
    auto_https_begin(a, http, tls);
    if (a->tls != NULL)
        TRY(read_tls(g, a->tls));
    TRY(auto_https_apply(a, &g->provision));
    if (json_array_size(a->names) == 0)
        return OK;
    if (g->automation == NULL)
        TRY(read_tls(g, NULL));
    return add_policies(g);
}

enum err https_provision(struct generation *g, const json_t *apps)
{
    struct provision *p = &g->provision;
    const json_t *tls = json_object_get(apps, "tls"), *http = json_object_get(apps, "http");
    g->data_folder = p->data_folder = data_folder(g);
    p->path = SLICE("storage");
    TRY(automation_storage(p, json_object_get(g->plain, "storage"), g->data_folder, &p->storage));
    TRY(pki_provision(p, json_object_get(apps, "pki")));
    if (http != NULL && !json_is_null(http))
        return apply_auto_https(g, http, tls);
    return tls != NULL && !json_is_null(tls) ? read_tls(g, tls) : OK;
}

enum err https_want_names(struct generation *g)
{
    struct provision *p = &g->provision;
    if (p->wanted_names != NULL && g->automation == NULL)
        TRY(read_tls(g, NULL));
    for (const struct wanted_name *w = p->wanted_names; w != NULL; w = w->next)
        TRY(automation_add_name(p, g->automation, w->name));
    return OK;
}

/* --- servers --- */

static void release_server(void *server)
{
    tls_server_release(server);
}

enum err https_finish_server(struct generation *g, struct http_server *s)
{
    struct provision *p = &g->provision;
    char why[512] = "";
    if (s->tls == NULL)
        return OK;
    s->tls->no_tickets = g->tickets.disabled;
    if (tls_server_finish(s->tls, why, sizeof why) != OK) {
        p->path = arena_printf(p->arena, "apps.http.servers." SLICE_FMT, SLICE_ARG(s->name));
        return provision_fail(p, "%s", why);
    }
    provision_on_release(p, release_server, s->tls);
    return OK;
}

/* --- taking over --- */

static void let_go(void *owner)
{
    generation_let_go(owner);
}

static void tell_managed(const struct generation *g)
{
    size_t i;
    json_t *v;
    struct slice names[NAMES_TOLD];
    size_t count = json_array_size(g->https.names);
    count = count < NAMES_TOLD ? count : NAMES_TOLD;
    json_array_foreach(g->https.names, i, v)
    {
        if (i < count)
            names[i] = slice_of(json_string_value(v), json_string_length(v));
    }
    if (count > 0)
        LOG(LOG_INFO, "http", "enabling automatic TLS certificate management",
            LOG_LIST("domains", names, count));
}

void https_commit(struct generation *g)
{
    tell_managed(g);
    auto_https_free(&g->https);
    pki_start(g->provision.pki);
    if (g->automation != NULL)
        generation_keep(g);
    manager_adopt(g->automation, g->automation != NULL ? let_go : NULL, g);
    adopt_tickets(&g->tickets);
}

/* --- the process --- */

/* Another instance with the same storage may have begun the challenge: its issuers are ours. */
static enum err find_challenge(struct exchange *x, struct slice host, struct slice token,
                               struct slice *key_authorization)
{
    const struct automation *a = x->generation != NULL ? x->generation->automation : NULL;
    const struct automation_policy *policy = a != NULL ? automation_find(a, host) : NULL;
    for (size_t i = 0; policy != NULL && i < policy->issuers_count; i++) {
        const struct issuer *issuer = &policy->issuers[i];
        if (slice_is(issuer->module, "acme") &&
            challenge_load(policy->storage, issuer->key, host, token, x->arena,
                           key_authorization) == OK)
            return OK;
    }
    return ERR_NOT_FOUND;
}

void https_start(struct loop *control)
{
    challenge_stored_hook = find_challenge;
    manager_start(control);
}

void https_stop(void (*stopped)(void))
{
    shared_tickets_stop();
    manager_stop(stopped);
}
