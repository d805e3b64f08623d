/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chain of links as JSON, as those who look at a site or at the machine make it.
 */
#include "app/doctor.h"

#include <stdarg.h>
#include <stdio.h>

#include "config/jsonx.h"

const char *link_state_name(enum link_state s)
{
    static const char *const names[] = {"ok", "note", "broken", "skipped"};
    return names[s];
}

json_t *chain_new(struct slice name)
{
    json_t *chain = json_object();
    json_object_set_new(chain, "name", jsonx_string(name));
    json_object_set_new(chain, "links", json_array());
    return chain;
}

void chain_add(json_t *chain, const char *link, enum link_state state, const char *advice,
               const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_t *o = json_object();
    bool wanted = advice != NULL && (state == LINK_NOTE || state == LINK_BROKEN);
    json_object_set_new(o, "name", json_string(link));
    json_object_set_new(o, "state", json_string(link_state_name(state)));
    json_object_set_new(o, "text", jsonx_string(slice_from(text)));
    json_object_set_new(o, "advice", wanted ? json_string(advice) : json_null());
    json_array_append_new(json_object_get(chain, "links"), o);
}
