/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which connection policy a handshake gets:
 *
 *     "sni": ["example.com", "*.example.net"]        "sni_regexp": {"pattern": "^a[0-9]+\\."}
 *     "remote_ip": {"ranges": ["10.0.0.0/8"], "not_ranges": ["10.1.0.0/16"]}
 *     "local_ip": {"ranges": ["192.0.2.1"]}
 *
 * Asked once a handshake, on the worker's thread; names of policies are looked up by an index
 * (tls/policy_index.c), however many. Placeholders are those of the process, settled at the start.
 */
#include <netinet/in.h>

#include "http/host_name.h"
#include "http/regexp.h"
#include "http/tls_modules.h"
#include "net/ip_set.h"
#include "pki/subject.h"

/* --- sni --- */

struct match_sni {
    struct slice *names; /* and patterns */
    size_t count;
};

static enum err provision_sni(void *cfg, const json_t *json, struct provision *p)
{
    struct match_sni *m = cfg;
    size_t i;
    json_t *v;
    if (!json_is_array(json))
        return provision_fail(p, "\"sni\" must be an array of strings");
    m->names = ARENA_ARRAY(p->arena, struct slice, json_array_size(json) + 1);
    json_array_foreach((json_t *)(uintptr_t)json, i, v)
    {
        if (!json_is_string(v))
            return provision_fail(p, "\"sni\" must be an array of strings");
        struct slice text = slice_of(json_string_value(v), json_string_length(v));
        text = template_expand_now(arena_copy(p->arena, text), p->arena);
        m->names[m->count++] = host_name_ascii_labels(text, p->arena);
    }
    return OK;
}

static bool matches_sni(const void *cfg, const struct tls_hello *hello)
{
    const struct match_sni *m = cfg;
    for (size_t i = 0; i < m->count; i++)
        if (subject_matches(hello->server_name, m->names[i]))
            return true;
    return false;
}

static struct slice *names_of(const void *cfg, size_t *count)
{
    const struct match_sni *m = cfg;
    *count = m->count;
    return m->names;
}

const struct module hello_match_sni = {
    .id = "tls.handshake_match.sni",
    .cfg_size = sizeof(struct match_sni),
    .provision = provision_sni,
    .face = &(const struct hello_match){matches_sni, names_of},
};

/* --- sni_regexp --- */

struct match_sni_regexp {
    struct regexp *regexp;
};

static bool is_word(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = ascii_lower(s.ptr[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_')
            return false;
    }
    return true;
}

static enum err provision_regexp(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"name", "pattern", NULL};
    struct match_sni_regexp *m = cfg;
    struct slice name, pattern;
    TRY(provision_members(p, json, known));
    TRY(provision_text(p, json, "name", SLICE_NONE, &name));
    TRY(provision_text(p, json, "pattern", SLICE(""), &pattern));
    if (!is_word(name))
        return provision_fail(p, "invalid regexp name (must contain only word characters): " SLICE_FMT,
                              SLICE_ARG(name));
    return regexp_compile(p, template_expand_now(pattern, p->arena), &m->regexp);
}

static void release_regexp(void *cfg)
{
    struct match_sni_regexp *m = cfg;
    regexp_free(m->regexp);
}

/* A name that takes too long to match does not match. */
static bool matches_regexp(const void *cfg, const struct tls_hello *hello)
{
    const struct match_sni_regexp *m = cfg;
    struct slice groups[REGEXP_GROUPS_MAX];
    size_t n;
    return regexp_match(m->regexp, hello->server_name, groups, &n) == OK && n > 0;
}

const struct module hello_match_sni_regexp = {
    .id = "tls.handshake_match.sni_regexp",
    .cfg_size = sizeof(struct match_sni_regexp),
    .provision = provision_regexp,
    .release = release_regexp,
    .face = &(const struct hello_match){matches_regexp, NULL},
};

/* --- remote_ip, local_ip --- */

struct match_address {
    struct ip_set in, out;
};

static enum err read_ranges(struct ip_set *set, const json_t *json, const char *key,
                            struct provision *p)
{
    struct slice *texts;
    size_t count;
    TRY(provision_texts(p, json, key, &texts, &count));
    struct ip_range *ranges = ARENA_ARRAY(p->arena, struct ip_range, count + 1);
    for (size_t i = 0; i < count; i++) {
        struct slice text = template_expand_now(texts[i], p->arena);
        if (!ip_range_parse(text, &ranges[i]))
            return provision_fail(p, "\"%s\": invalid IP address or CIDR range: '" SLICE_FMT "'", key,
                                  SLICE_ARG(slice_take(text, 100)));
    }
    *set = ip_set_build(ranges, count);
    return OK;
}

static enum err provision_remote(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"ranges", "not_ranges", NULL};
    struct match_address *m = cfg;
    TRY(provision_members(p, json, known));
    TRY(read_ranges(&m->in, json, "ranges", p));
    return read_ranges(&m->out, json, "not_ranges", p);
}

static enum err provision_local(void *cfg, const json_t *json, struct provision *p)
{
    static const char *const known[] = {"ranges", NULL};
    struct match_address *m = cfg;
    TRY(provision_members(p, json, known));
    return read_ranges(&m->in, json, "ranges", p);
}

static bool address_of(const struct sockaddr_storage *from, struct ip_address *a)
{
    *a = (struct ip_address){0};
    if (from != NULL && from->ss_family == AF_INET) {
        memcpy(a->bytes, &((const struct sockaddr_in *)from)->sin_addr, 4);
        return true;
    }
    if (from == NULL || from->ss_family != AF_INET6)
        return false;
    const struct in6_addr *six = &((const struct sockaddr_in6 *)from)->sin6_addr;
    a->is_six = !IN6_IS_ADDR_V4MAPPED(six); /* what comes to a socket of both families */
    memcpy(a->bytes, six->s6_addr + (a->is_six ? 0 : 12), a->is_six ? 16 : 4);
    return true;
}

static bool matches(const struct match_address *m, const struct sockaddr_storage *from)
{
    struct ip_address a;
    return address_of(from, &a) && (m->in.count == 0 || ip_set_has(&m->in, &a)) &&
           (m->out.count == 0 || !ip_set_has(&m->out, &a));
}

static bool matches_remote(const void *cfg, const struct tls_hello *hello)
{
    return matches(cfg, hello->remote);
}

static bool matches_local(const void *cfg, const struct tls_hello *hello)
{
    return matches(cfg, hello->local);
}

const struct module hello_match_remote_ip = {
    .id = "tls.handshake_match.remote_ip",
    .cfg_size = sizeof(struct match_address),
    .provision = provision_remote,
    .face = &(const struct hello_match){matches_remote, NULL},
};

const struct module hello_match_local_ip = {
    .id = "tls.handshake_match.local_ip",
    .cfg_size = sizeof(struct match_address),
    .provision = provision_local,
    .face = &(const struct hello_match){matches_local, NULL},
};
