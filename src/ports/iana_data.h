/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registry as it is stored: rows in the order of their first ports, and one text that holds all
 * names and descriptions one behind the other, so that nothing is relocated when the program starts.
 */
#pragma once

#include <stdint.h>

struct iana_row {
    uint16_t first, last;
    uint8_t protocols; /* 1 << enum port_protocol */
    uint8_t name_len, description_len;
    uint32_t at; /* of the name in iana_text; the description stands behind it */
};

extern const struct iana_row iana_rows[];
extern const unsigned iana_rows_count, iana_longest_range;
extern const char iana_text[], iana_data_date[], iana_data_origin[];
