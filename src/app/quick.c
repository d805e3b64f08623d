/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The document is made in the person's process, where flags are refused with a sentence, and passed
 * on (app/passed_document.h).
 */
#include "app/quick.h"

#include "app/control.h"
#include "app/passed_document.h"

json_t *quick_text(struct slice s)
{
    json_t *text = json_stringn(s.ptr, s.len);
    return text != NULL ? text : json_string(""); /* not UTF-8 */
}

json_t *quick_route(json_t *handlers, struct slice host)
{
    if (host.len == 0)
        return json_pack("{s:o}", "handle", handlers);
    return json_pack("{s:[{s:[o]}],s:o}", "match", "host", quick_text(host), "handle", handlers);
}

bool quick_fields(const struct command_line *l, const char *flag, const char *what, json_t *fields)
{
    struct slice given[FLAG_VALUES_MAX], name, value;
    size_t n = flag_values(l, flag, given);
    for (size_t i = 0; i < n; i++) {
        bool found = slice_cut(given[i], ':', &name, &value);
        name = slice_trim(name);
        value = slice_trim(value);
        if (!found || name.len == 0 || value.len == 0) {
            cli_fail("%s %zu: invalid format \"" SLICE_FMT "\" (expecting \"Field: value\")", what, i,
                     SLICE_ARG(given[i]));
            return false;
        }
        json_object_setn_new(fields, name.ptr, name.len, json_pack("[o]", quick_text(value)));
    }
    return true;
}

int quick_keep(const struct command_line *l, json_t *servers, json_t *tls, bool debug)
{
    json_t *document = json_pack("{s:{s:b,s:{s:b}},s:{s:{s:o}}}", "admin", "disabled", 1, "config",
                                 "persist", 0, "apps", "http", "servers", servers);
    if (tls != NULL)
        json_object_set_new(json_object_get(document, "apps"), "tls", tls);
    if (debug)
        json_object_set_new(document, "logging",
                            json_pack("{s:{s:{s:s}}}", "logs", "default", "level", "DEBUG"));
    enum err e = document_pass(document);
    json_decref(document);
    return e == OK ? cli_keep(l) : cli_fail("passing the configuration on: %s", err_text(e));
}

int quick_serve(void (*started)(void))
{
    struct control_start start = {.document = document_passed(), .started = started};
    if (start.document == NULL)
        return cli_fail("the configuration did not arrive");
    return control_run(&start);
}
