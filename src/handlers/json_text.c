/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caddy reads every number as a float and prints it with the fewest digits that read back the same,
 * never with an exponent.
 */
#include "handlers/json_text.h"

#include <stdlib.h>

static struct slice real_text(double value, struct arena *arena)
{
    for (int digits = 0; digits < 18; digits++) {
        struct slice text = arena_printf(arena, "%.*f", digits, value);
        if (strtod(arena_str(arena, text), NULL) == value)
            return text;
    }
    return arena_printf(arena, "%.17f", value);
}

struct slice json_text(const json_t *v, struct arena *arena)
{
    if (json_is_string(v))
        return arena_copy(arena, slice_of(json_string_value(v), json_string_length(v)));
    if (v == NULL || json_is_null(v))
        return SLICE("");
    if (json_is_boolean(v))
        return json_is_true(v) ? SLICE("true") : SLICE("false");
    if (json_is_integer(v))
        return arena_printf(arena, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    if (json_is_real(v))
        return real_text(json_real_value(v), arena);
    char *dump = json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS);
    struct slice text = arena_copy(arena, slice_from(dump));
    free(dump);
    return text;
}
