/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All bytes to a file, a pipe or a memory file, as far as it blocks: for small texts, off the loops.
 */
#pragma once

#include "base/slice.h"

/* Interrupted writes go on. After an error, errno says the same in the kernel's words, and a part may
 * have been written. */
enum err fd_write_all(int fd, struct slice);
