/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Media types by file name extension, with "; charset=utf-8" on text.
 */
#pragma once

#include "base/slice.h"

/* The type of a file name's extension (behind its last dot), or the empty slice when unknown. */
struct slice mime_by_name(struct slice filename);
