/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as each of the small texts that a configuration or a request holds: the first byte says
 * which. What is accepted must hold what its parser promises.
 */
#include "base/check.h"
#include "base/text.h"
#include "config/env_file.h"
#include "http/regexp.h"
#include "http/template.h"
#include "http/uri.h"
#include "http/url_pattern.h"
#include "net/address.h"
#include "net/ip_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct arena arena;
static struct exchange x;

static void begin_exchange(void)
{
    x = (struct exchange){.arena = &arena};
    fields_init(&x.req.fields, &arena);
    fields_init(&x.res.fields, &arena);
    fields_add(&x.req.fields, SLICE("Cookie"), SLICE("a=b; c=\"d\""));
    x.req.method = x.req.original_method = SLICE("GET");
    x.req.host = x.req.original_host = SLICE("a.example.com:80");
    x.req.uri = (struct uri){.path = SLICE("/a/b.c"), .raw_path = SLICE("/a/b.c"),
                             .query = SLICE("d=e&d=f"), .has_query = true};
    x.req.original_uri = x.req.uri;
    x.remote_host = x.local_host = x.client_ip = SLICE("127.0.0.1");
    x.remote_port = x.local_port = SLICE("1");
}

static void try_address(struct slice in)
{
    struct network_address a;
    struct address_error why;
    if (address_parse(in, SLICE("tcp"), 80, &a, &arena, &why) != OK)
        return;
    ASSERT(a.first_port <= a.last_port && a.network.len > 0);
    ASSERT(address_text(&a, &arena).len > 0);
}

static void try_numbers(struct slice in)
{
    int64_t ns, again;
    uint64_t bytes;
    struct buffer b;
    buffer_init(&b, 1 << 20);
    if (duration_parse(in, &ns) == OK) {
        ASSERT(duration_put(&b, ns) == OK);
        ASSERT(duration_parse(buffer_slice(&b), &again) == OK && again == ns);
    }
    buffer_clear(&b);
    if (size_parse(in, &bytes) == OK)
        ASSERT(size_put(&b, bytes) == OK);
    buffer_clear(&b);
    (void)!base64_decode(&b, in);
    buffer_deinit(&b);
}

static void try_env_file(struct slice in)
{
    struct env_var *vars;
    size_t count;
    struct diag diag = {0};
    if (env_file_parse(&arena, in, &vars, &count, &diag) == OK)
        ASSERT(count <= in.len);
}

static void try_template(struct slice in)
{
    struct template t;
    if (slice_find_slice(in, SLICE("{file.")) != SIZE_MAX)
        return; /* reads what it names */
    begin_exchange();
    template_compile(&t, in, &arena);
    struct slice out = template_expand(&t, &x);
    ASSERT(!t.constant || slice_eq(out, t.text));
    (void)template_expand_known(&t, &x);
}

static void try_regexp(struct slice in)
{
    struct provision p = {.arena = &arena};
    struct regexp *re;
    struct slice pattern, subject, groups[REGEXP_GROUPS_MAX], out;
    size_t n;
    slice_cut(in, '\n', &pattern, &subject);
    if (regexp_compile(&p, pattern, &re) != OK) {
        ASSERT(p.error[0] != '\0');
        return;
    }
    if (regexp_match(re, subject, groups, &n) == OK) {
        for (size_t i = 0; i < n; i++)
            ASSERT(groups[i].len <= subject.len);
    }
    (void)!regexp_replace(re, subject, SLICE("$1${x}-"), &arena, &out);
    regexp_free(re);
}

static void try_url_pattern(struct slice in)
{
    struct provision p = {.arena = &arena};
    struct url_pattern u;
    struct url_groups groups;
    struct slice pattern, subject;
    bool matches;
    slice_cut(in, '\n', &pattern, &subject);
    if (url_pattern_compile(&p, pattern, SLICE("https://a.example:1/b/c"), false, &u) != OK)
        ASSERT(p.error[0] != '\0');
    for (unsigned i = 0; p.error[0] == '\0' && i < URL_PARTS; i++) {
        if (url_component_match(&u, (enum url_part)i, subject, &groups, &matches) == OK && matches)
            ASSERT(groups.count <= (u.parts[i].all ? 1 : u.parts[i].groups_count));
    }
    url_pattern_release(&u);
}

static void try_queries(struct slice in)
{
    struct slice rest = in, key, value, out;
    size_t total = 0;
    while (query_next(&rest, &key, &value))
        total += key.len + value.len;
    ASSERT(total <= in.len);
    (void)query_get(in, SLICE("a"), &arena, &out);
    (void)!query_decode(in, &arena, &out);
    if (uri_decode(in, &arena, &out) == OK)
        ASSERT(out.len <= in.len);
    ASSERT(query_decode(query_escape(in, &arena), &arena, &out) == OK && slice_eq(out, in));
}

static void try_ranges(struct slice in)
{
    struct ip_range range;
    struct ip_address a;
    char text[IP_TEXT_MAX];
    if (ip_parse(in, &a))
        ASSERT(ip_text(&a, text) > 0);
    if (ip_range_parse(in, &range))
        ASSERT(ip_range_has(&range, &range.first) && ip_range_has(&range, &range.last));
}

static void (*const parsers[])(struct slice) = {
    try_address, try_numbers, try_env_file, try_template, try_regexp, try_queries, try_ranges,
    try_url_pattern,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 4096)
        return 0;
    arena_init(&arena, 8192);
    parsers[data[0] % (sizeof parsers / sizeof parsers[0])](slice_of((const char *)data + 1,
                                                                     size - 1));
    arena_deinit(&arena);
    return 0;
}
