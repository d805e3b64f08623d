/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one small error type. HTTP statuses, TLS alerts and errno values are other types; a sentence
 * for a person travels beside the error (struct diag, an exchange's error), not in it.
 */
#pragma once

enum err {
    OK = 0,
    ERR_INVALID,     /* malformed input or argument */
    ERR_LIMIT,       /* a budget or a maximum is used up */
    ERR_NOT_FOUND,   /* no such file, key, host, route */
    ERR_DENIED,      /* permission refused */
    ERR_EXISTS,      /* taken already: an address, a name */
    ERR_CLOSED,      /* the peer left, or the stream is shut */
    ERR_TIMEOUT,     /* the deadline passed */
    ERR_CANCELLED,   /* ended from our side: drain, shutdown */
    ERR_IO,          /* the kernel refused for another reason */
    ERR_UNSUPPORTED, /* known, but not here: kernel, library or build lacks it */
    ERR_FAILED,      /* a handler failed; the exchange holds status and sentence */
};

/* A constant phrase such as "timed out"; never NULL. */
const char *err_text(enum err);

/* Maps a positive errno to the nearest error; 0 is OK. */
enum err err_from_errno(int);

#define TRY(expression)                                                                            \
    do {                                                                                           \
        enum err try_err_ = (expression);                                                          \
        if (__builtin_expect(try_err_ != OK, 0))                                                   \
            return try_err_;                                                                       \
    } while (0)

#define MUST_USE __attribute__((warn_unused_result))
