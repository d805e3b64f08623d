/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrong types everywhere: each value of a large configuration is replaced by a value of each other
 * kind, and left out. What comes of it provisions or is refused with a sentence.
 */
#include <stdlib.h>
#include <unistd.h>

#include "app/generation.h"
#include "base/log.h"
#include "base/test.h"

static json_t *document;
static unsigned made, refused;

static void try_it(void)
{
    struct generation *g;
    char error[2048] = "";
    if (generation_create(document, 1, &g, error, sizeof error) == OK) {
        generation_free(g);
        made++;
        return;
    }
    CHECK(g == NULL && error[0] != '\0');
    refused++;
}

static const char *const kinds[] = {
    "null", "true", "0", "-1", "9223372036854775807", "1e300", "\"\"", "\"x\"", "\"{\"", "[]", "{}",
    "[null]", "[[]]", "{\"x\":1}", "[\"x\",\"x\"]",
};

static void spoil(json_t *parent, const char *key, size_t index, json_t *value);

static void spoil_children(json_t *value)
{
    const char *key;
    json_t *child;
    size_t i;
    void *next;
    if (json_is_object(value)) {
        json_object_foreach_safe(value, next, key, child)
            spoil(value, key, 0, child);
    }
    json_array_foreach(value, i, child)
        spoil(value, NULL, i, child);
}

static void put(json_t *parent, const char *key, size_t index, json_t *value)
{
    if (key != NULL)
        json_object_set_new(parent, key, value);
    else
        json_array_set_new(parent, index, value);
}

static void spoil(json_t *parent, const char *key, size_t index, json_t *value)
{
    char *name = key != NULL ? strdup(key) : NULL;
    json_incref(value);
    spoil_children(value);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        put(parent, name, index, json_loads(kinds[i], JSON_DECODE_ANY, NULL));
        try_it();
    }
    put(parent, name, index, value);
    free(name);
}

TEST("a configuration with any value of another kind is provisioned or refused")
{
    char path[4096];
    const char *root = getenv("PORTICO_SOURCE");
    snprintf(path, sizeof path, "%s/tests/corpus/provision_fuzz/site.json", root != NULL ? root : ".");
    log_set_threshold(LOG_FATAL);
    document = json_load_file(path, 0, NULL);
    CHECK(document != NULL);
    try_it();
    CHECK_INT(made, 1);
    spoil_children(document);
    try_it();
    json_decref(document);
    CHECK(made > 500 && refused > 3000);
}
