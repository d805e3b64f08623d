/* SPDX-License-Identifier: Apache-2.0 */
/*
 * certmagic's rules. A window decides first, a little early rather than late, because nobody looks
 * again before the next interval. The end of the lifetime is heeded whatever a window says: in its
 * last twentieth then, else in its last third, or in its last minutes.
 */
#include "certs/renewal.h"

#include <jansson.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "certs/large_stack.h"
#include "certs/timestamp.h"

enum { LOOK_AGAIN_DEFAULT_S = 6 * 3600 };

static bool in_last(struct renewal_span span, double ratio, int64_t now_s)
{
    double lifetime = (double)(span.not_after_s + 1 - span.not_before_s);
    return (double)now_s > (double)(span.not_after_s + 1) - lifetime * ratio;
}

static int64_t random_between(int64_t from, int64_t to)
{
    uint64_t r = 0;
    if (to <= from)
        return from;
    (void)!getrandom(&r, sizeof r, GRND_NONBLOCK);
    return from + (int64_t)(r % (uint64_t)(to - from));
}

bool renewal_has_window(const struct renewal_info *i)
{
    return i->start_s != 0 && i->end_s != 0;
}

bool renewal_wants_look(const struct renewal_info *i, int64_t now_s)
{
    return renewal_has_window(i) && now_s >= i->look_again_s;
}

enum renewal_reason renewal_due(struct renewal_span span, const struct renewal_info *i, double ratio,
                                int64_t interval_s, int64_t now_s)
{
    int64_t selected = i->selected_s;
    if (selected == 0 && renewal_has_window(i))
        selected = random_between(i->start_s + 1, i->end_s);
    if (selected != 0 && now_s > selected - interval_s)
        return RENEWAL_BY_WINDOW;
    if (selected != 0 && in_last(span, 1.0 / 20, now_s))
        return RENEWAL_EMERGENCY;
    if (in_last(span, ratio, now_s))
        return RENEWAL_BY_RATIO;
    if (in_last(span, 1.0 / 50, now_s) || span.not_after_s + 1 - now_s < interval_s * 5)
        return RENEWAL_EMERGENCY;
    return RENEWAL_NOT_YET;
}

void renewal_update(struct renewal_info *i, const struct renewal_window *w, int64_t now_s)
{
    bool same = i->start_s == w->start_s && i->end_s == w->end_s && i->selected_s != 0;
    if (!same)
        i->selected_s = random_between(w->start_s + 1, w->end_s);
    i->start_s = w->start_s;
    i->end_s = w->end_s;
    int64_t wait = (int64_t)(w->look_again_ns / NS_PER_S);
    i->look_again_s = now_s + (wait > 0 ? wait : LOOK_AGAIN_DEFAULT_S);
}

/* --- as it is kept --- */

static int64_t time_of(const json_t *object, const char *key)
{
    int64_t s = 0;
    const json_t *v = json_object_get(object, key);
    if (json_is_string(v) && !timestamp_read(slice_of(json_string_value(v), json_string_length(v)), &s))
        s = 0;
    return s;
}

struct kept {
    struct slice data, id, explanation_url, out;
    struct renewal_info *info;
    struct arena *arena;
};

static json_t *parse(struct slice text)
{
    return json_loadb(text.ptr != NULL ? text.ptr : "", text.len, 0, NULL);
}

static void read_kept(void *arg)
{
    struct kept *k = arg;
    struct renewal_info *i = k->info;
    json_t *data = parse(k->data);
    const json_t *info = json_object_get(data, "renewal_info");
    const json_t *window = json_object_get(info, "suggestedWindow");
    i->start_s = time_of(window, "start");
    i->end_s = time_of(window, "end");
    i->selected_s = time_of(info, "_selectedTime");
    i->look_again_s = time_of(info, "_retryAfter");
    json_decref(data);
}

void renewal_read(struct slice issuer_data, struct renewal_info *i)
{
    struct kept k = {.data = issuer_data, .info = i};
    *i = (struct renewal_info){0};
    on_large_stack(read_kept, &k);
}

static void put_time(json_t *object, const char *key, int64_t s, struct arena *arena)
{
    struct slice text = timestamp_text(arena, s);
    json_object_set_new(object, key, json_stringn(text.ptr, text.len));
}

static void put_text(json_t *object, const char *key, struct slice text)
{
    if (text.len > 0)
        json_object_set_new(object, key, json_stringn(text.ptr, text.len));
}

static void put_kept(void *arg)
{
    struct kept *k = arg;
    const struct renewal_info *i = k->info;
    json_t *data = parse(k->data), *info = json_object(), *window = json_object();
    if (!json_is_object(data)) {
        json_decref(data);
        data = json_object();
    }
    put_time(window, "start", i->start_s, k->arena);
    put_time(window, "end", i->end_s, k->arena);
    json_object_set_new(info, "suggestedWindow", window);
    put_text(info, "explanationURL", k->explanation_url);
    put_text(info, "_uniqueIdentifier", k->id);
    if (i->look_again_s > 0)
        put_time(info, "_retryAfter", i->look_again_s, k->arena);
    put_time(info, "_selectedTime", i->selected_s, k->arena);
    json_object_set_new(data, "renewal_info", info);
    char *dump = json_dumps(data, JSON_COMPACT);
    k->out = arena_copy(k->arena, slice_from(dump));
    free(dump);
    json_decref(data);
}

struct slice renewal_put(struct slice issuer_data, const struct renewal_info *i, struct slice id,
                         struct slice explanation_url, struct arena *arena)
{
    struct renewal_info copy = *i;
    struct kept k = {.data = issuer_data, .id = id, .explanation_url = explanation_url,
                     .info = &copy, .arena = arena};
    on_large_stack(put_kept, &k);
    return k.out;
}
