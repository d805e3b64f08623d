/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As Caddy, a server that may change the system's trust store adds its root to it, unless the
 * configuration says no (install_trust, skip_install_trust), or the environment does, for tests and
 * images (PORTICO_SKIP_INSTALL_TRUST). Most may not: they have given up what they do not need, or never
 * were root. Then one line says how it is done by hand; nothing here asks for rights.
 */
#include "certs/root_trust.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "loop/await.h"
#include "pki/trust_store.h"

static void on_told(void *arg, const char *sentence)
{
    struct root_trust *t = arg;
    snprintf(t->why, sizeof t->why, "%s", sentence);
}

static void trust_now(void *arg)
{
    struct root_trust *t = arg;
    t->known = trust_is_known(t->pem);
    if (t->known || !trust_may_change(t->why, sizeof t->why))
        return;
    t->allowed = true;
    LOG(LOG_WARN, "pki", "installing root certificate into the trust stores of this machine",
        LOG_STR("path", t->path));
    t->result = trust_install(t->pem, &(struct trust_note){on_told, t});
}

static void say(const struct root_trust *t, struct slice id)
{
    if (t->known)
        LOG(LOG_INFO, "pki", "root certificate is already trusted by system", LOG_STR("ca", id),
            LOG_STR("path", t->path));
    else if (!t->allowed)
        LOG(LOG_WARN, "pki", "root certificate is not trusted by this machine, and this process may not "
            "install it; to have it trusted run as root: portico trust", LOG_STR("ca", id),
            LOG_STR("path", t->path), LOG_CSTR("reason", t->why));
    else if (t->result != OK)
        LOG(LOG_ERROR, "pki", "failed to install root certificate", LOG_STR("ca", id),
            LOG_STR("certificate_file", t->path), LOG_CSTR("error", t->why));
    else
        LOG(LOG_INFO, "pki", "root certificate is trusted now", LOG_STR("ca", id),
            LOG_STR("path", t->path));
}

void root_trust_begin(struct root_trust *t, const struct authority *a, bool wanted)
{
    struct slice id = authority_options(a)->id;
    arena_init(&t->arena, 1024);
    t->path = authority_root_path(a, &t->arena);
    t->pem = arena_copy(&t->arena, authority_root_pem(a)); /* it may be read anew meanwhile */
    if (!wanted || getenv("PORTICO_SKIP_INSTALL_TRUST") != NULL)
        LOG(LOG_INFO, "pki", "root certificate trust store installation disabled; unconfigured "
            "clients may show warnings", LOG_STR("ca", id), LOG_STR("path", t->path));
    else if (await_offload_slow(trust_now, t) == OK)
        say(t, id);
}

void root_trust_deinit(struct root_trust *t)
{
    arena_deinit(&t->arena);
}
