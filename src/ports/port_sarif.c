/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Findings as SARIF 2.1.0, which tools of code review read. A finding stands at the line of the
 * configuration that it is about; one without such a line, at the port alone.
 */
#include <stdio.h>

#include "config/jsonx.h"
#include "ports/ledger.h"
#include "version.h"

static const char *level_of(enum severity s)
{
    return s == SEVERITY_ERROR ? "error" : s == SEVERITY_WARNING ? "warning" : "note";
}

static json_t *rules_json(void)
{
    size_t count;
    const struct finding_kind *kinds = finding_kinds(&count);
    json_t *rules = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(
            rules, json_pack("{s:s,s:{s:s},s:{s:s}}", "id", kinds[i].name, "shortDescription", "text",
                             kinds[i].help, "defaultConfiguration", "level",
                             level_of(kinds[i].severity)));
    return rules;
}

/* A path as a relative reference (RFC 3986). */
static json_t *uri_json(struct slice path, struct arena *arena)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";
    char *text = arena_alloc(arena, path.len * 3 + 8), *at = text;
    if (path.len > 0 && path.ptr[0] == '/') {
        memcpy(at, "file://", 7);
        at += 7;
    }
    for (size_t i = 0; i < path.len; i++) {
        if (strchr(safe, path.ptr[i]) != NULL && path.ptr[i] != '\0')
            *at++ = path.ptr[i];
        else
            at += snprintf(at, 4, "%%%02X", (unsigned char)path.ptr[i]);
    }
    return json_stringn(text, (size_t)(at - text));
}

static json_t *location_json(const struct port_entry *e, struct arena *arena)
{
    char name[32];
    json_t *location = json_object();
    snprintf(name, sizeof name, "%s/%u", port_protocol_name(e->protocol), e->port);
    json_object_set_new(location, "logicalLocations",
                        json_pack("[{s:s,s:s}]", "name", name, "kind", "resource"));
    for (size_t i = 0; i < e->declared_count; i++) {
        const struct port_declaration *d = e->declared[i];
        if (d->file.len == 0)
            continue;
        json_object_set_new(location, "physicalLocation",
                            json_pack("{s:{s:o},s:{s:i}}", "artifactLocation", "uri",
                                      uri_json(d->file, arena), "region", "startLine",
                                      (int)(d->line > 0 ? d->line : 1)));
        break;
    }
    return location;
}

static void add_result(json_t *results, const struct port_entry *e, const struct port_finding *f,
                       struct arena *arena)
{
    char key[96];
    struct slice text = arena_printf(arena, SLICE_FMT " " SLICE_FMT, SLICE_ARG(f->text),
                                     SLICE_ARG(f->advice));
    snprintf(key, sizeof key, "%s/%s/%u", f->name, port_protocol_name(e->protocol), e->port);
    json_array_append_new(
        results, json_pack("{s:s,s:s,s:{s:o},s:[o],s:{s:s}}", "ruleId", f->name, "level",
                           level_of(f->severity), "message", "text", jsonx_string(text), "locations",
                           location_json(e, arena), "partialFingerprints", "portico/v1", key));
}

size_t port_sarif_write(const struct port_table *t, enum severity least, struct buffer *b)
{
    json_t *results = json_array();
    for (size_t i = 0; i < t->count; i++) {
        for (const struct port_finding *f = t->entries[i].findings; f != NULL; f = f->next) {
            if (f->severity >= least)
                add_result(results, &t->entries[i], f, t->arena);
        }
    }
    size_t count = json_array_size(results);
    json_t *log = json_pack("{s:s,s:s,s:[{s:{s:{s:s,s:s,s:o}},s:o}]}", "$schema",
                            "https://json.schemastore.org/sarif-2.1.0.json", "version", "2.1.0", "runs",
                            "tool", "driver", "name", "portico", "version", PORTICO_VERSION, "rules",
                            rules_json(), "results", results);
    (void)jsonx_dump_pretty(b, log);
    (void)buffer_append_byte(b, '\n');
    json_decref(log);
    return count;
}
