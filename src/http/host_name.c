/* SPDX-License-Identifier: Apache-2.0 */
/*
 * By IDNA 2008, without the old mappings of four letters.
 */
#include "http/host_name.h"

#include <idn2.h>

static bool is_ascii(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] >= 0x80)
            return false;
    return true;
}

enum err host_name_ascii(struct slice *name, struct arena *arena, const char **why)
{
    char *ascii;
    if (is_ascii(*name))
        return OK;
    int e = idn2_to_ascii_8z(arena_str(arena, *name), &ascii, IDN2_NONTRANSITIONAL);
    if (e != IDN2_OK) {
        *why = idn2_strerror(e);
        return ERR_INVALID;
    }
    *name = arena_copy(arena, slice_from(ascii));
    idn2_free(ascii);
    return OK;
}

struct slice host_name_ascii_labels(struct slice name, struct arena *arena)
{
    struct slice label, out = SLICE("");
    const char *ignored;
    bool more = true;
    if (is_ascii(name))
        return name;
    for (bool first = true; more; first = false) {
        more = slice_cut(name, '.', &label, &name);
        (void)!host_name_ascii(&label, arena, &ignored);
        out = arena_join(arena, (struct slice[]){out, first ? SLICE("") : SLICE("."), label}, 3);
    }
    return out;
}
