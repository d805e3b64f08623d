/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heap. Running out of it ends the process (peers are held by budgets, not by malloc), so
 * nothing here returns NULL. Free with mem_free, or free for what a library hands on.
 */
#pragma once

#include <stddef.h>

void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *old, size_t size) __attribute__((returns_nonnull));

/* Room for `count` elements, grown from `old`; ends the process when count × size overflows. */
void *mem_resize(void *old, size_t count, size_t size) __attribute__((returns_nonnull));
void mem_free(void *);

#define NEW(type) ((type *)mem_zalloc(sizeof(type)))

/* Gives the kernel back what was freed in between: after something large that is done seldom. */
void mem_give_back(void);
