/* SPDX-License-Identifier: Apache-2.0 */
/*
 * encode: compresses responses on their way out, as the request's Accept-Encoding allows.
 *
 *     {"handler": "encode", "encodings": {"gzip": {}, "zstd": {}, "br": {}}, "prefer": ["zstd", "gzip"],
 *      "minimum_length": 512, "match": {"status_code": [2]}}
 *
 * A wrapping sink decides when it knows the length: from the head, or from the first bytes, which it
 * gathers until they are enough. What is compressed is gathered too, 16 KiB at a time, so the head
 * waits for the first of it: a response that is compressed to less leaves with a Content-Length and
 * in one piece. Each piece is compressed on the loop's own stack in a turn of its own (or, at levels
 * that take long, on the offload pool), so that one large response does not hold up the others.
 *
 * Since head, data and end may be held here, head_sent is set as soon as a head is accepted: from then
 * on the status is settled, as if it were on the wire.
 */
#include <errno.h>
#include <unistd.h>

#include "handlers/encoder.h"
#include "handlers/handlers.h"
#include "http/accept_encoding.h"
#include "http/response_match.h"
#include "http/route.h"
#include "loop/await.h"

enum { MINIMUM_LENGTH = 512, ENCODINGS_MAX = 8 };

struct encode {
    struct encoder_settings *encodings[ENCODINGS_MAX];
    struct slice prefer[ENCODINGS_MAX];
    size_t encodings_count, prefer_count;
    struct response_match match;
    int64_t minimum_length;
};

enum state {
    WAITING,  /* for a head, or for enough bytes to decide */
    PLAIN,    /* not compressed: all is passed on */
    ENCODING,
};

struct encode_sink {
    struct sink sink;
    const struct encode *config;
    const struct encoder_settings *settings; /* of the coding that was chosen */
    struct encoder *encoder;                 /* at work; NULL before its first bytes */
    struct slice input;                      /* of the piece in hand */
    int64_t left;                            /* of the announced length; -1: unknown */
    struct response *res;                    /* the head, once it came */
    enum state state;
    bool reserved, ended;
    bool head_below; /* the head has gone on */
    char *gathered;  /* WAITING: first bytes */
    size_t gathered_len;
};

/* --- provisioning --- */

static const char *const members[] = {"encodings", "prefer", "minimum_length", "match", NULL};

/* What Caddy compresses when nothing is said. */
static const char default_match[] =
    "{\"headers\":{\"Content-Type\":[\"application/atom+xml*\",\"application/eot*\","
    "\"application/font*\",\"application/geo+json*\",\"application/graphql+json*\","
    "\"application/graphql-response+json*\",\"application/javascript*\",\"application/json*\","
    "\"application/ld+json*\",\"application/manifest+json*\",\"application/opentype*\","
    "\"application/otf*\",\"application/rss+xml*\",\"application/truetype*\",\"application/ttf*\","
    "\"application/vnd.api+json*\",\"application/vnd.ms-fontobject*\",\"application/wasm*\","
    "\"application/x-httpd-cgi*\",\"application/x-javascript*\",\"application/x-opentype*\","
    "\"application/x-otf*\",\"application/x-perl*\",\"application/x-protobuf*\","
    "\"application/x-ttf*\",\"application/xhtml+xml*\",\"application/xml*\",\"font/ttf*\","
    "\"font/otf*\",\"image/svg+xml*\",\"image/vnd.microsoft.icon*\",\"image/x-icon*\","
    "\"multipart/bag*\",\"multipart/mixed*\",\"text/*\"]}}";

static struct encoder_settings *find_encoding(const struct encode *e, struct slice name)
{
    for (size_t i = 0; i < e->encodings_count; i++) {
        if (slice_eq(e->encodings[i]->type->name, name))
            return e->encodings[i];
    }
    return NULL;
}

static enum err read_encodings(struct encode *e, const json_t *json, struct provision *p)
{
    const struct module *m;
    const char *name;
    json_t *value;
    void *cfg;
    if (json == NULL || json_is_null(json))
        return OK;
    if (!json_is_object(json))
        return provision_fail(p, "\"encodings\" must be an object");
    json_object_foreach((json_t *)(uintptr_t)json, name, value)
    {
        if (e->encodings_count == ENCODINGS_MAX)
            return provision_fail(p, "more than %d encodings", ENCODINGS_MAX);
        TRY(provision_module(p, "http.encoders", name, value, &m, &cfg));
        e->encodings[e->encodings_count++] = cfg;
    }
    return OK;
}

static enum err read_prefer(struct encode *e, const json_t *json, struct provision *p)
{
    static const struct slice order[] = {{"zstd", 4}, {"br", 2}, {"gzip", 4}};
    struct slice *names;
    size_t count;
    TRY(provision_texts(p, json, "prefer", &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (find_encoding(e, names[i]) == NULL)
            return provision_fail(p, "encoding " SLICE_FMT " not enabled", SLICE_ARG(names[i]));
        for (size_t k = 0; k < e->prefer_count; k++) {
            if (slice_eq(e->prefer[k], names[i]))
                return provision_fail(p, "encoding " SLICE_FMT " is duplicated in prefer",
                                      SLICE_ARG(names[i]));
        }
        e->prefer[e->prefer_count++] = names[i];
    }
    for (size_t i = 0; count == 0 && i < sizeof order / sizeof order[0]; i++) {
        if (find_encoding(e, order[i]) != NULL)
            e->prefer[e->prefer_count++] = order[i];
    }
    return OK;
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct encode *e = cfg;
    const json_t *match = json_object_get(json, "match");
    TRY(provision_members(p, json, members));
    TRY(read_encodings(e, json_object_get(json, "encodings"), p));
    TRY(read_prefer(e, json, p));
    TRY(provision_int(p, json, "minimum_length", 0, INT64_MIN, INT64_MAX, &e->minimum_length));
    if (e->minimum_length == 0)
        e->minimum_length = MINIMUM_LENGTH;
    if (match != NULL && !json_is_null(match))
        return response_match_provision(&e->match, match, p);
    json_t *fallback = json_loads(default_match, 0, NULL);
    enum err result = response_match_provision(&e->match, fallback, p);
    json_decref(fallback);
    return result;
}

/* --- deciding --- */

static struct encode_sink *of(struct sink *s)
{
    return (struct encode_sink *)s; /* its first member */
}

/* Cache-Control: no-transform, however it stands there; the first field counts, as in Caddy. */
static bool may_transform(const struct fields *fields)
{
    struct slice value;
    return !fields_get(fields, SLICE("Cache-Control"), &value) ||
           slice_find_slice(value, SLICE("no-transform")) == SIZE_MAX;
}

static bool is_event_stream(const struct fields *fields)
{
    struct slice type;
    if (!fields_get(fields, SLICE("Content-Type"), &type) ||
        !slice_starts_nocase(type, SLICE("text/event-stream")))
        return false;
    type = slice_skip(type, sizeof "text/event-stream" - 1);
    while (type.len > 0 && (type.ptr[0] == ' ' || type.ptr[0] == '\t'))
        type = slice_skip(type, 1);
    return type.len == 0 || type.ptr[0] == ';';
}

static void add_vary(struct fields *fields)
{
    uint32_t at = 0;
    for (struct field *f; (f = fields_find(fields, SLICE("Vary"), &at)) != NULL;) {
        struct slice rest = f->value, one;
        while (rest.len > 0) {
            slice_cut(rest, ',', &one, &rest);
            if (slice_eq_nocase(slice_trim(one), SLICE("Accept-Encoding")))
                return;
        }
    }
    fields_add(fields, SLICE("Vary"), SLICE("Accept-Encoding"));
}

/* A strong ETag names one form of the content (RFC 9110 §8.8.3.3), so the coding joins it. */
static void mark_etag(struct fields *fields, struct slice coding, struct arena *arena)
{
    struct slice etag;
    if (!fields_get(fields, SLICE("Etag"), &etag) || etag.len == 0 ||
        slice_starts(etag, SLICE("W/")))
        return;
    if (slice_ends(etag, SLICE("\"")))
        etag.len--;
    fields_set(fields, SLICE("Etag"),
               arena_join(arena, (struct slice[]){etag, SLICE("-"), coding, SLICE("\"")}, 4));
}

static bool wants_encoding(const struct encode_sink *s)
{
    const struct fields *fields = &s->res->fields;
    struct slice coding;
    return !(fields_get(fields, SLICE("Content-Encoding"), &coding) && coding.len > 0) &&
           may_transform(fields) && response_match(&s->config->match, s->res->status, fields);
}

static void change_head(struct encode_sink *s)
{
    struct fields *fields = &s->res->fields;
    struct slice coding = s->settings->type->name;
    s->res->content_length = -1;
    s->res->length_told = false;
    fields_remove(fields, SLICE("Content-Length"));
    fields_set(fields, SLICE("Content-Encoding"), coding);
    add_vary(fields);
    fields_remove(fields, SLICE("Accept-Ranges"));
    mark_etag(fields, coding, s->sink.exchange->arena);
}

/* --- towards the wire --- */

static enum err pass_head(struct encode_sink *s)
{
    if (s->head_below)
        return OK;
    s->head_below = true;
    return sink_pass_head(&s->sink, s->res);
}

/* Decides that nothing is compressed; what was held goes on. */
static enum err be_plain(struct encode_sink *s)
{
    s->state = PLAIN;
    TRY(pass_head(s));
    size_t len = s->gathered_len;
    s->gathered_len = 0;
    return len > 0 ? sink_pass_data(&s->sink, slice_of(s->gathered, len), LEND_BORROWED) : OK;
}

static enum err pass_output(struct encode_sink *s)
{
    struct encoder *e = s->encoder;
    size_t len = e != NULL ? e->out_len : 0;
    TRY(pass_head(s));
    if (len == 0)
        return OK;
    e->out_len = 0;
    return sink_pass_data(&s->sink, slice_of(e->out, len), LEND_BORROWED);
}

/* --- compressing --- */

struct piece {
    struct encode_sink *sink;
    enum encoder_step step;
    bool fine, done;
};

static void run_piece(void *arg)
{
    struct piece *p = arg;
    struct encoder *e = p->sink->encoder;
    p->fine = e->settings.type->run(e, p->step, &p->done);
}

/* Taking one as late as this, many small responses of a turn share one warm encoder. */
static void take_and_run(void *arg)
{
    struct piece *p = arg;
    struct encode_sink *s = p->sink;
    if (s->encoder == NULL)
        s->encoder = encoder_take(s->settings);
    s->encoder->input = s->input;
    run_piece(p);
}

static enum err run_away(struct piece *p)
{
    struct encode_sink *s = p->sink;
    if (!s->settings->slow) {
        await_on_loop(take_and_run, p);
    } else {
        if (s->encoder == NULL)
            s->encoder = encoder_take(s->settings);
        s->encoder->input = s->input;
        TRY(await_offload(run_piece, p));
    }
    s->input = s->encoder->input;
    return p->fine ? OK : ERR_IO;
}

/* All of `bytes`, and at a flush or the end all that is held back; output that fills its buffer goes
 * on. */
static enum err compress(struct encode_sink *s, struct slice bytes, enum encoder_step step)
{
    struct piece p = {.sink = s};
    do {
        bool last = bytes.len <= ENCODER_PIECE;
        p.step = last ? step : ENCODE_MORE;
        s->input = slice_take(bytes, ENCODER_PIECE);
        size_t before = s->input.len;
        TRY(run_away(&p));
        bytes = slice_skip(bytes, before - s->input.len);
        if (s->encoder->out_len == ENCODER_PIECE)
            TRY(pass_output(s));
    } while (bytes.len > 0 || (!p.done && step != ENCODE_MORE));
    s->ended = step == ENCODE_END;
    return OK;
}

/* The last bytes of an announced length end the stream at once, in the same turn. */
static enum err compress_more(struct encode_sink *s, struct slice bytes)
{
    bool last = s->left >= 0 && (uint64_t)s->left == bytes.len;
    if (s->left >= 0 && (uint64_t)s->left < bytes.len)
        return ERR_INVALID; /* more than the head announced */
    if (s->left >= 0)
        s->left -= (int64_t)bytes.len;
    return compress(s, bytes, last ? ENCODE_END : ENCODE_MORE);
}

static void give_encoder(struct encode_sink *s)
{
    if (s->encoder != NULL)
        encoder_give(s->encoder);
    else if (s->reserved)
        encoder_unreserve(s->settings);
    s->encoder = NULL;
    s->reserved = false;
}

static void on_exchange_end(struct exchange *x, void *arg)
{
    (void)x;
    give_encoder(arg);
}

static enum err begin(struct encode_sink *s)
{
    struct slice first = slice_of(s->gathered, s->gathered_len);
    if (!wants_encoding(s) || !encoder_reserve(s->settings))
        return be_plain(s);
    s->reserved = true;
    exchange_on_end(s->sink.exchange, on_exchange_end, s);
    s->left = s->res->content_length;
    change_head(s);
    s->state = ENCODING;
    s->gathered_len = 0;
    return first.len > 0 ? compress_more(s, first) : OK;
}

/* --- the sink --- */

static enum err on_head(struct sink *sink, struct response *res)
{
    struct encode_sink *s = of(sink);
    struct exchange *x = sink->exchange;
    int64_t minimum = s->config->minimum_length;
    s->res = res;
    if (res->status == 304)
        add_vary(&res->fields);
    if (res->status == 206 || res->status / 100 == 1 || minimum < 0)
        return be_plain(s);
    if (exchange_bodiless(x, res->status)) { /* as the answer to GET would be announced */
        if (x->req.method_id == METHOD_HEAD && res->content_length > minimum && wants_encoding(s))
            change_head(s);
        return be_plain(s);
    }
    res->head_sent = true; /* settled, though it may be held here */
    if (is_event_stream(&res->fields)) {
        TRY(begin(s));
        return pass_head(s);
    }
    if (res->content_length < 0)
        return OK;
    return res->content_length > minimum ? begin(s) : be_plain(s);
}

/* The first bytes of an unknown length: kept until they are enough, or too many to keep. */
static enum err gather(struct encode_sink *s, struct slice bytes)
{
    int64_t minimum = s->config->minimum_length;
    size_t cap = minimum < ENCODER_PIECE ? (size_t)minimum : ENCODER_PIECE;
    size_t len = s->gathered_len + bytes.len;
    if (len <= cap) {
        if (s->gathered == NULL)
            s->gathered = arena_alloc(s->sink.exchange->arena, cap);
        if (bytes.len > 0)
            memcpy(s->gathered + s->gathered_len, bytes.ptr, bytes.len);
        s->gathered_len = len;
        return OK;
    }
    TRY(len > (size_t)minimum ? begin(s) : be_plain(s));
    return s->sink.type->data(&s->sink, bytes, LEND_BORROWED);
}

static enum err on_data(struct sink *sink, struct slice bytes, enum lend lend)
{
    struct encode_sink *s = of(sink);
    if (s->state == PLAIN)
        return sink_pass_data(sink, bytes, lend);
    return s->state == WAITING ? gather(s, bytes) : compress_more(s, bytes);
}

static enum err compress_file(struct encode_sink *s, int fd, uint64_t offset, uint64_t len)
{
    if (s->encoder == NULL)
        s->encoder = encoder_take(s->settings);
    struct encoder *e = s->encoder;
    while (len > 0) {
        ssize_t n = pread(fd, e->file, len < sizeof e->file ? len : sizeof e->file, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* shorter than its head said: the response cannot end cleanly */
            return ERR_IO;
        TRY(compress_more(s, slice_of(e->file, (size_t)n)));
        offset += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return OK;
}

static enum err on_file(struct sink *sink, int fd, uint64_t offset, uint64_t len)
{
    struct encode_sink *s = of(sink);
    if (s->state == WAITING)
        TRY(len > (uint64_t)s->config->minimum_length ? begin(s) : be_plain(s));
    if (s->state == PLAIN)
        return sink_pass_file(sink, fd, offset, len);
    return compress_file(s, fd, offset, len);
}

static enum err on_flush(struct sink *sink)
{
    struct encode_sink *s = of(sink);
    if (s->state == WAITING && s->gathered_len == 0)
        return OK; /* the head waits for what will decide it, as in Caddy */
    if (s->state == WAITING)
        TRY(be_plain(s));
    if (s->state == ENCODING) {
        if (!s->ended)
            TRY(compress(s, SLICE_NONE, ENCODE_FLUSH));
        TRY(pass_output(s));
    }
    return sink_pass_flush(sink);
}

static enum err on_end(struct sink *sink, const struct fields *trailers)
{
    struct encode_sink *s = of(sink);
    if (s->state == WAITING && s->res != NULL) {
        if (trailers == NULL)
            s->res->content_length = (int64_t)s->gathered_len;
        TRY(be_plain(s));
    }
    if (s->state == ENCODING && s->reserved) {
        if (s->left > 0)
            return ERR_INVALID; /* less than the head announced: only a cut tells the client */
        if (!s->ended)
            TRY(compress(s, SLICE_NONE, ENCODE_END));
        if (!s->head_below && trailers == NULL)
            s->res->content_length = (int64_t)s->encoder->out_len;
        TRY(pass_output(s));
        give_encoder(s);
    }
    return sink_pass_end(sink, trailers);
}

static void on_abort(struct sink *sink, enum err why)
{
    sink_pass_abort(sink, why);
}

static const struct sink_type encode_sink_type = {
    .inform = sink_pass_inform,
    .head = on_head,
    .data = on_data,
    .file = on_file,
    .flush = on_flush,
    .end = on_end,
    .abort = on_abort,
};

/* --- the handler --- */

static const struct encoder_settings *choose(const struct encode *e, const struct request *req)
{
    struct accepted accepted[ACCEPTED_MAX];
    struct slice field;
    if (!fields_get(&req->fields, SLICE("Accept-Encoding"), &field) ||
        fields_has(&req->fields, SLICE("Sec-WebSocket-Key")) || !may_transform(&req->fields))
        return NULL;
    size_t n = accepted_encodings(field, e->prefer, e->prefer_count, accepted);
    for (size_t i = 0; i < n; i++) {
        struct encoder_settings *s = find_encoding(e, slice_of(accepted[i].name, accepted[i].len));
        if (s != NULL)
            return s;
    }
    return NULL;
}

/* Whoever set the ETag knows nothing of what mark_etag adds. */
static void unmark_condition(struct exchange *x, struct slice coding)
{
    struct slice etag;
    struct slice mark = arena_join(x->arena, (struct slice[]){SLICE("-"), coding, SLICE("\"")}, 3);
    if (!fields_get(&x->req.fields, SLICE("If-None-Match"), &etag) ||
        slice_starts(etag, SLICE("W/")) || !slice_ends(etag, mark))
        return;
    etag = slice_take(etag, etag.len - mark.len);
    fields_set(&x->req.fields, SLICE("If-None-Match"),
               arena_join(x->arena, (struct slice[]){etag, SLICE("\"")}, 2));
}

static enum err serve(const void *cfg, struct exchange *x, const struct chain *next)
{
    const struct encode *e = cfg;
    const struct encoder_settings *settings = choose(e, &x->req);
    if (settings == NULL)
        return chain_next(x, next);
    unmark_condition(x, settings->type->name);
    struct encode_sink *s = ARENA_NEW(x->arena, struct encode_sink);
    exchange_wrap(x, &s->sink, &encode_sink_type);
    s->config = e;
    s->settings = settings;
    return chain_next(x, next);
}

const struct module handler_encode = {
    .id = "http.handlers.encode",
    .cfg_size = sizeof(struct encode),
    .provision = provision,
    .serve = serve,
};
