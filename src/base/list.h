/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive doubly linked lists: a node sits inside what it links, a head is a node of its own. An
 * initialised node that is in no list points at itself, so list_remove is always safe on it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

/* Inserts `node` before `at`; with a head, at the end of its list. */
static inline void list_add_before(struct list *at, struct list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void list_append(struct list *head, struct list *node)
{
    list_add_before(head, node);
}

static inline void list_prepend(struct list *head, struct list *node)
{
    list_add_before(head->next, node);
}

static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* Takes the first node out; NULL when the list is empty. */
static inline struct list *list_pop(struct list *head)
{
    if (list_empty(head))
        return NULL;
    struct list *node = head->next;
    list_remove(node);
    return node;
}

#define LIST_FOR(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)

/* The current node may be removed inside the body. */
#define LIST_FOR_SAFE(it, head)                                                                    \
    for (struct list *it = (head)->next, *it##_next = it->next; it != (head);                      \
         it = it##_next, it##_next = it->next)
