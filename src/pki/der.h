/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DER (X.690) as slices: a value is cut off the front, nothing is copied.
 */
#pragma once

#include "base/slice.h"

enum der_tag {
    DER_BOOLEAN = 0x01,
    DER_INTEGER = 0x02,
    DER_BIT_STRING = 0x03,
    DER_OCTET_STRING = 0x04,
    DER_OID = 0x06,
    DER_UTF8 = 0x0c,
    DER_PRINTABLE = 0x13,
    DER_TELETEX = 0x14,
    DER_IA5 = 0x16,
    DER_UTC_TIME = 0x17,
    DER_TIME = 0x18,
    DER_UNIVERSAL = 0x1c,
    DER_BMP = 0x1e,
    DER_SEQUENCE = 0x30,
    DER_SET = 0x31,
    DER_CONTEXT = 0x80,             /* + number: a plain one */
    DER_CONTEXT_CONSTRUCTED = 0xa0, /* + number: one with values inside */
};

/* Cuts the next value off: its tag, what is inside. False: the end, or malformed; nothing is cut. */
bool der_next(struct slice *from, int *tag, struct slice *inside);

/* The next value, if it has that tag. */
bool der_take(struct slice *from, int tag, struct slice *inside);

/* UTCTime or GeneralizedTime in the form that certificates have (RFC 5280 §4.1.2.5). */
bool der_time(int tag, struct slice, int64_t *seconds);
