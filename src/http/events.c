/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A subscription without handlers is of no use, and Caddy takes none; one with handlers names a module
 * that is not there. What is left to do is to say so at load, and to write the line.
 */
#include "http/events.h"

#include <stdio.h>
#include <sys/random.h>

enum { ID_SIZE = 37 };

static enum err read_handlers(const json_t *list, struct provision *p)
{
    const struct module *m;
    void *cfg;
    if (list == NULL || json_is_null(list))
        return OK;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return provision_fail(p, "no handlers defined");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(v, "handler"));
        if (name == NULL)
            return provision_fail(p, "an event handler must name its \"handler\"");
        TRY(provision_module(p, "events.handlers", name, v, &m, &cfg));
    }
    return OK;
}

static enum err read_subscription(const json_t *json, struct provision *p)
{
    static const char *const members[] = {"events", "modules", "handlers", NULL};
    struct slice *texts;
    size_t count;
    TRY(provision_members(p, json, members));
    TRY(provision_texts(p, json, "events", &texts, &count));
    TRY(provision_texts(p, json, "modules", &texts, &count));
    return read_handlers(json_object_get(json, "handlers"), p);
}

enum err events_provision(const json_t *app, struct provision *p)
{
    static const char *const members[] = {"subscriptions", NULL};
    if (app == NULL || json_is_null(app))
        return OK;
    p->path = SLICE("apps.events");
    TRY(provision_members(p, app, members));
    const json_t *list = json_object_get(app, "subscriptions");
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return provision_fail(p, "\"subscriptions\" must be an array");
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(read_subscription(json_array_get(list, i), p));
    return OK;
}

/* A random UUID (RFC 9562 §5.4). */
static void make_id(char out[ID_SIZE])
{
    unsigned char b[16] = {0};
    (void)!getrandom(b, sizeof b, GRND_NONBLOCK);
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    snprintf(out, ID_SIZE,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2],
             b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

void events_emit(const char *name, const char *origin, const struct log_field *data, size_t count)
{
    char id[ID_SIZE];
    if (!log_wants(LOG_DEBUG))
        return;
    make_id(id);
    LOG(LOG_DEBUG, "events", "event", LOG_CSTR("name", name), LOG_CSTR("id", id),
        LOG_CSTR("origin", origin), LOG_GROUP("data", data, count));
}
