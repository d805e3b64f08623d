/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A resumed handshake checks no certificate, so that a session is good only as long as the
 * certificate that its first handshake has seen. The lock is held for a few pointers, and only when a
 * connection is opened or a ticket comes, never by a request on a kept connection.
 */
#include "tls/client_sessions.h"

#include <time.h>

#include <openssl/ssl.h>

#include "base/mem.h"

struct named {
    struct list node;
    struct slice name;
    SSL_SESSION *sessions[SESSIONS_EACH]; /* the newest last */
    unsigned count;
};

void client_sessions_init(struct client_sessions *c)
{
    pthread_mutex_init(&c->lock, NULL);
    map_init(&c->names, false);
    list_init(&c->used);
    c->count = 0;
}

static void drop(struct client_sessions *c, struct named *n)
{
    map_remove(&c->names, n->name);
    list_remove(&n->node);
    c->count--;
    while (n->count > 0)
        SSL_SESSION_free(n->sessions[--n->count]);
    mem_free((void *)(uintptr_t)n->name.ptr);
    mem_free(n);
}

void client_sessions_deinit(struct client_sessions *c)
{
    while (!list_empty(&c->used))
        drop(c, CONTAINER_OF(c->used.next, struct named, node));
    map_deinit(&c->names);
    pthread_mutex_destroy(&c->lock);
}

static struct named *make(struct client_sessions *c, struct slice name)
{
    if (c->count == SESSION_NAMES_MAX)
        drop(c, CONTAINER_OF(c->used.prev, struct named, node));
    struct named *n = NEW(struct named);
    n->name = slice_of(slice_dup(name), name.len);
    list_init(&n->node);
    map_put(&c->names, n->name, n);
    c->count++;
    return n;
}

static SSL_SESSION *remove_at(struct named *n, unsigned i)
{
    SSL_SESSION *s = n->sessions[i];
    n->count--;
    memmove(n->sessions + i, n->sessions + i + 1, (n->count - i) * sizeof n->sessions[0]);
    return s;
}

void client_sessions_put(struct client_sessions *c, struct slice name, struct ssl_session_st *s)
{
    pthread_mutex_lock(&c->lock);
    struct named *n = map_get(&c->names, name);
    if (n == NULL)
        n = make(c, name);
    list_remove(&n->node);
    list_prepend(&c->used, &n->node);
    if (n->count == SESSIONS_EACH)
        SSL_SESSION_free(remove_at(n, 0));
    n->sessions[n->count++] = s;
    pthread_mutex_unlock(&c->lock);
}

static bool is_good(SSL_SESSION *s)
{
    time_t now = time(NULL), end = SSL_SESSION_get_time(s) + SSL_SESSION_get_timeout(s);
    const X509 *peer = SSL_SESSION_get0_peer(s);
    return SSL_SESSION_is_resumable(s) == 1 && now < end &&
           (peer == NULL || X509_cmp_time(X509_get0_notAfter(peer), &now) > 0);
}

static SSL_SESSION *newest(struct named *n)
{
    while (n->count > 0) {
        SSL_SESSION *s = n->sessions[n->count - 1];
        if (!is_good(s)) {
            SSL_SESSION_free(remove_at(n, n->count - 1));
            continue;
        }
        if (SSL_SESSION_get_protocol_version(s) >= TLS1_3_VERSION)
            return remove_at(n, n->count - 1);
        SSL_SESSION_up_ref(s);
        return s;
    }
    return NULL;
}

struct ssl_session_st *client_sessions_take(struct client_sessions *c, struct slice name)
{
    SSL_SESSION *s = NULL;
    pthread_mutex_lock(&c->lock);
    struct named *n = map_get(&c->names, name);
    if (n != NULL) {
        list_remove(&n->node);
        list_prepend(&c->used, &n->node);
        s = newest(n);
        if (n->count == 0)
            drop(c, n);
    }
    pthread_mutex_unlock(&c->lock);
    return s;
}

unsigned client_sessions_count(struct client_sessions *c)
{
    unsigned count = 0;
    pthread_mutex_lock(&c->lock);
    LIST_FOR(n, &c->used)
        count += CONTAINER_OF(n, struct named, node)->count;
    pthread_mutex_unlock(&c->lock);
    return count;
}
