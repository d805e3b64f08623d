/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of errors, and which errno means which. The mapping keeps what callers decide by (was the
 * peer gone, was it time, is a limit reached) and folds the rest into ERR_IO.
 */
#include "base/err.h"

#include <errno.h>

static const char *const err_texts[] = {
    [OK] = "ok",
    [ERR_INVALID] = "invalid",
    [ERR_LIMIT] = "limit reached",
    [ERR_NOT_FOUND] = "not found",
    [ERR_DENIED] = "permission denied",
    [ERR_EXISTS] = "already in use",
    [ERR_CLOSED] = "connection closed",
    [ERR_TIMEOUT] = "timed out",
    [ERR_CANCELLED] = "cancelled",
    [ERR_IO] = "input/output error",
    [ERR_UNSUPPORTED] = "not supported",
    [ERR_FAILED] = "failed",
};

const char *err_text(enum err e)
{
    if ((unsigned)e >= sizeof err_texts / sizeof err_texts[0])
        return "unknown error";
    return err_texts[e];
}

enum err err_from_errno(int number)
{
    switch (number) {
    case 0:
        return OK;
    case EINVAL:
    case ENAMETOOLONG:
        return ERR_INVALID;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case ENOSPC:
        return ERR_LIMIT;
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case EADDRINUSE:
    case EEXIST:
        return ERR_EXISTS;
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN:
    case ESHUTDOWN:
        return ERR_CLOSED;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    case ECANCELED:
        return ERR_CANCELLED;
    case ENOSYS:
    case EOPNOTSUPP:
        return ERR_UNSUPPORTED;
    default:
        return ERR_IO;
    }
}
