/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settled before any thread starts.
 */
#include "app/program_name.h"

static bool called_caddy;

void program_name_set(bool caddy)
{
    called_caddy = caddy;
}

const char *program_name(void)
{
    return called_caddy ? "caddy" : "portico";
}
