/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc read by system calls alone: thousands of processes are walked for each ledger, and stdio or
 * opendir would cost more than what is read.
 */
#pragma once

#include <sys/types.h>

#include "base/buffer.h"
#include "base/err.h"

enum { PROC_NAME_MAX = 48, DENTS_SIZE = 32 << 10, PROCESSES_ENOUGH = 128 /* for a thread */ };

/* Calls `each` for every entry of the folder whose name is a number; from its start, whatever was
 * read before. `dents`: DENTS_SIZE bytes to work in. */
enum err dir_numbers(int dir, char *dents, void (*each)(void *arg, uint32_t number), void *arg);

/* "812/ns/net": a number and what stands behind it; returns `out`. */
const char *proc_name(char out[PROC_NAME_MAX], uint32_t number, const char *tail);

/* The pids of /proc, in order. On the heap. */
enum err pids_read(int proc, pid_t **pids, size_t *count);

/* The start of a small file, or a link's target: at most `cap` bytes. Empty: it could not be read,
 * errno says why. */
struct slice read_at(int dir, const char *name, char *buffer, size_t cap);
struct slice read_link_at(int dir, const char *name, char *buffer, size_t cap);

/* A whole file into the buffer, instead of what is there. ERR_LIMIT: longer than the buffer may be. */
enum err read_whole_at(int dir, const char *name, struct buffer *);

/* "socket:[123]" or "net:[123]": the number, 0 when the text is another. */
uint64_t link_number(struct slice target, struct slice kind);

/* The last part of the executable's path, without " (deleted)", or the process's own short name. */
struct slice program_read(int proc, pid_t, char *buffer, size_t cap);

/* Whether it is one of the kernel's own threads (of pid 2). */
bool is_kernel_thread(int proc, pid_t);
