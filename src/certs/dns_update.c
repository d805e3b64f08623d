/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signature covers the message without the TSIG record, and that record's own fields; an answer's
 * covers the question's signature too, so that an old answer cannot stand in for a new one.
 */
#include "certs/dns_update.h"

#include "base/check.h"

enum { HEADER = 12, NAME_MAX_BYTES = 255, LABEL_MAX = 63, TYPE_CNAME = 5, TYPE_SOA = 6, TYPE_TXT = 16,
       TYPE_TSIG = 250, CLASS_IN = 1, CLASS_NONE = 254, CLASS_ANY = 255, OPCODE_UPDATE = 5,
       ADDITIONAL = 10 };

static const struct {
    const char *name, *hash;
    struct slice wire;
} algorithms[] = {
    {"hmac-md5", "md5", {"hmac-md5.sig-alg.reg.int", 24}},
    {"hmac-md5.sig-alg.reg.int", "md5", {"hmac-md5.sig-alg.reg.int", 24}},
    {"hmac-sha1", "sha1", {"hmac-sha1", 9}},
    {"hmac-sha224", "sha224", {"hmac-sha224", 11}},
    {"hmac-sha256", "sha256", {"hmac-sha256", 11}},
    {"hmac-sha384", "sha384", {"hmac-sha384", 11}},
    {"hmac-sha512", "sha512", {"hmac-sha512", 11}},
};

static struct slice without_dot(struct slice name)
{
    return slice_ends(name, SLICE(".")) ? slice_take(name, name.len - 1) : name;
}

enum err tsig_algorithm(struct slice text, struct tsig_key *key)
{
    for (size_t i = 0; i < sizeof algorithms / sizeof algorithms[0]; i++) {
        if (slice_eq_nocase(without_dot(text), slice_from(algorithms[i].name))) {
            key->hash = algorithms[i].hash;
            key->algorithm = algorithms[i].wire;
            return OK;
        }
    }
    return ERR_INVALID;
}

const char *dns_code_name(unsigned code)
{
    static const char *const names[] = {"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP",
                                        "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
                                        "NOTZONE"};
    static const char *const signing[] = {"BADSIG", "BADKEY", "BADTIME", "BADMODE", "BADNAME",
                                          "BADALG", "BADTRUNC"};
    if (code < sizeof names / sizeof names[0])
        return names[code];
    return code >= 16 && code < 16 + sizeof signing / sizeof signing[0] ? signing[code - 16]
                                                                        : "an unknown code";
}

/* --- writing --- */

static void put_16(struct buffer *b, unsigned n)
{
    char bytes[2] = {(char)(n >> 8), (char)n};
    (void)!buffer_append(b, slice_of(bytes, 2));
}

static void put_32(struct buffer *b, uint32_t n)
{
    put_16(b, n >> 16);
    put_16(b, n & 0xffff);
}

static void put_time(struct buffer *b, int64_t now_s)
{
    put_16(b, (unsigned)((uint64_t)now_s >> 32) & 0xffff);
    put_32(b, (uint32_t)now_s);
}

/* In lower case, as signatures want it; never compressed. */
static enum err put_name(struct buffer *b, struct slice name)
{
    struct slice label, rest = without_dot(name);
    if (rest.len > NAME_MAX_BYTES - 2)
        return ERR_INVALID;
    while (rest.len > 0) {
        slice_cut(rest, '.', &label, &rest);
        if (label.len == 0 || label.len > LABEL_MAX)
            return ERR_INVALID;
        (void)!buffer_append_byte(b, (char)label.len);
        for (size_t i = 0; i < label.len; i++)
            (void)!buffer_append_byte(b, ascii_lower(label.ptr[i]));
    }
    return buffer_append_byte(b, '\0');
}

static enum err put_zone(struct buffer *b, const struct dns_record *r)
{
    TRY(put_name(b, r->zone));
    put_16(b, TYPE_SOA);
    put_16(b, CLASS_IN);
    return OK;
}

static enum err put_record(struct buffer *b, const struct dns_record *r, bool remove)
{
    if (r->text.len > DNS_TEXT_MAX)
        return ERR_INVALID;
    struct buffer name;
    buffer_init(&name, 2 * NAME_MAX_BYTES);
    if (r->name.len > 0 && !slice_is(r->name, "@")) {
        (void)!buffer_append(&name, r->name);
        (void)!BUFFER_PUT(&name, ".");
    }
    enum err e = buffer_append(&name, r->zone);
    if (e == OK && !name.full)
        e = put_name(b, buffer_slice(&name));
    buffer_deinit(&name);
    TRY(e);
    bool text = dns_record_is_text(r);
    put_16(b, text ? TYPE_TXT : TYPE_CNAME);
    put_16(b, remove ? CLASS_NONE : CLASS_IN);
    put_32(b, remove ? 0 : r->ttl_s);
    put_16(b, (unsigned)(text ? r->text.len + 1 : without_dot(r->text).len + 2));
    if (!text)
        return put_name(b, r->text);
    (void)!buffer_append_byte(b, (char)r->text.len);
    return buffer_append(b, r->text);
}

/* What the signature covers of the TSIG record. */
static enum err put_variables(struct buffer *b, const struct tsig_key *key, int64_t time_s,
                              unsigned fudge, unsigned error, struct slice other)
{
    TRY(put_name(b, key->name));
    put_16(b, CLASS_ANY);
    put_32(b, 0);
    TRY(put_name(b, key->algorithm));
    put_time(b, time_s);
    put_16(b, fudge);
    put_16(b, error);
    put_16(b, (unsigned)other.len);
    return buffer_append(b, other);
}

static enum err sign(const struct tsig_key *key, struct slice data, struct tsig_mac *mac)
{
    mac->len = hmac_compute(key->hash, key->secret, data, mac->bytes);
    return mac->len > 0 ? OK : ERR_UNSUPPORTED;
}

static enum err put_signature(struct buffer *b, uint16_t id, int64_t now_s,
                              const struct tsig_key *key, struct tsig_mac *mac)
{
    struct buffer covered;
    buffer_init(&covered, 2 * DNS_UPDATE_MAX);
    enum err e = buffer_append(&covered, buffer_slice(b));
    if (e == OK)
        e = put_variables(&covered, key, now_s, TSIG_FUDGE_S, 0, SLICE_NONE);
    if (e == OK)
        e = sign(key, buffer_slice(&covered), mac);
    buffer_deinit(&covered);
    TRY(e);
    TRY(put_name(b, key->name));
    put_16(b, TYPE_TSIG);
    put_16(b, CLASS_ANY);
    put_32(b, 0);
    size_t length_at = b->len;
    put_16(b, 0);
    TRY(put_name(b, key->algorithm));
    put_time(b, now_s);
    put_16(b, TSIG_FUDGE_S);
    put_16(b, (unsigned)mac->len);
    (void)!buffer_append(b, slice_of((const char *)mac->bytes, mac->len));
    put_16(b, id);
    put_16(b, 0);
    put_16(b, 0);
    size_t length = b->len - length_at - 2;
    if (b->full)
        return ERR_LIMIT;
    b->ptr[length_at] = (char)(length >> 8);
    b->ptr[length_at + 1] = (char)length;
    b->ptr[ADDITIONAL + 1] = 1; /* not counted while it is signed */
    return OK;
}

enum err dns_update_build(struct buffer *b, const struct dns_record *r, bool remove, uint16_t id,
                          int64_t now_s, const struct tsig_key *key, struct tsig_mac *mac)
{
    buffer_clear(b);
    put_16(b, id);
    put_16(b, OPCODE_UPDATE << 11);
    put_16(b, 1); /* zones */
    put_16(b, 0); /* prerequisites */
    put_16(b, 1); /* updates */
    put_16(b, 0); /* additional */
    TRY(put_zone(b, r));
    TRY(put_record(b, r, remove));
    return put_signature(b, id, now_s, key, mac);
}

/* --- reading --- */

struct reader {
    struct slice all;
    size_t at;
    bool bad;
};

static unsigned get(struct reader *r, size_t bytes)
{
    unsigned n = 0;
    if (r->bad || r->all.len - r->at < bytes) {
        r->bad = true;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++)
        n = n << 8 | (unsigned char)r->all.ptr[r->at++];
    return n;
}

static struct slice get_bytes(struct reader *r, size_t len)
{
    if (r->bad || r->all.len - r->at < len) {
        r->bad = true;
        return SLICE_NONE;
    }
    r->at += len;
    return slice_of(r->all.ptr + r->at - len, len);
}

/* Skips a name; with `same`, also whether it is that one, written out in full. */
static bool get_name(struct reader *r, struct slice same)
{
    bool equal = true;
    struct slice label, rest = without_dot(same);
    for (;;) {
        unsigned len = get(r, 1);
        if (r->bad || len == 0)
            return !r->bad && equal && rest.len == 0;
        if (len >= 0xc0) { /* points elsewhere, and ends here */
            (void)get(r, 1);
            return false;
        }
        if (len > LABEL_MAX) {
            r->bad = true;
            return false;
        }
        slice_cut(rest, '.', &label, &rest);
        equal = slice_eq_nocase(get_bytes(r, len), label) && equal;
    }
}

static void skip_record(struct reader *r)
{
    (void)get_name(r, SLICE(""));
    (void)get_bytes(r, 8);
    (void)get_bytes(r, get(r, 2));
}

struct signature {
    int64_t time_s;
    unsigned fudge, error;
    struct slice mac, other;
};

/* The TSIG record, which must be the last. */
static bool read_signature(struct reader *r, const struct tsig_key *key, struct signature *s)
{
    bool named = get_name(r, key->name);
    if (get(r, 2) != TYPE_TSIG || get(r, 2) != CLASS_ANY || get(r, 4) != 0)
        return false;
    (void)get(r, 2);
    named = get_name(r, key->algorithm) && named;
    unsigned high = get(r, 2);
    s->time_s = (int64_t)((uint64_t)high << 32 | get(r, 4));
    s->fudge = get(r, 2);
    s->mac = get_bytes(r, get(r, 2));
    (void)get(r, 2); /* the original id is the one that was sent */
    s->error = get(r, 2);
    s->other = get_bytes(r, get(r, 2));
    return named && !r->bad && r->at == r->all.len;
}

/* The answer up to the signature, as it was before that was added. */
static enum err check(struct slice unsigned_part, uint16_t id, unsigned additional,
                      const struct tsig_key *key, const struct signature *s,
                      const struct tsig_mac *question)
{
    struct buffer covered;
    struct tsig_mac mac;
    buffer_init(&covered, 70000);
    put_16(&covered, (unsigned)question->len);
    (void)!buffer_append(&covered, slice_of((const char *)question->bytes, question->len));
    size_t head = covered.len;
    enum err e = buffer_append(&covered, unsigned_part);
    if (e == OK)
        e = put_variables(&covered, key, s->time_s, s->fudge, s->error, s->other);
    if (e == OK) {
        covered.ptr[head] = (char)(id >> 8);
        covered.ptr[head + 1] = (char)id;
        covered.ptr[head + ADDITIONAL] = (char)((additional - 1) >> 8);
        covered.ptr[head + ADDITIONAL + 1] = (char)(additional - 1);
        e = sign(key, buffer_slice(&covered), &mac);
    }
    buffer_deinit(&covered);
    TRY(e);
    bool same = s->mac.len == mac.len && hmac_equal((const uint8_t *)s->mac.ptr, mac.bytes, mac.len);
    return same ? OK : ERR_INVALID;
}

static enum err fail(const char **why, const char *phrase)
{
    *why = phrase;
    return ERR_INVALID;
}

enum err dns_update_answer(struct slice answer, uint16_t id, int64_t now_s,
                           const struct tsig_key *key, const struct tsig_mac *mac, unsigned *code,
                           const char **why)
{
    struct reader r = {.all = answer};
    struct signature s = {0};
    unsigned got_id = get(&r, 2), flags = get(&r, 2), zones = get(&r, 2);
    unsigned records = get(&r, 2), more = get(&r, 2), additional = get(&r, 2);
    if (r.bad || (flags & 0x8000) == 0 || (flags >> 11 & 15) != OPCODE_UPDATE || got_id != id)
        return fail(why, "the answer is not to this question");
    *code = flags & 15;
    for (; zones > 0 && !r.bad; zones--) {
        (void)get_name(&r, SLICE(""));
        (void)get_bytes(&r, 4);
    }
    for (records += more; records > 0 && !r.bad; records--)
        skip_record(&r);
    for (unsigned i = 1; i < additional && !r.bad; i++)
        skip_record(&r);
    size_t end = r.at;
    if (r.bad)
        return fail(why, "the answer is malformed");
    if (additional == 0) /* a server that takes no signature at all says so without one */
        return *code != 0 ? OK : fail(why, "the answer is not signed");
    if (!read_signature(&r, key, &s))
        return *code != 0 ? OK : fail(why, "the answer is not signed with the key");
    if (s.mac.len == 0 && s.error != 0) {
        *code = s.error;
        return OK;
    }
    if (check(slice_take(answer, end), id, additional, key, &s, mac) != OK)
        return fail(why, "the answer's signature is wrong");
    if (now_s > s.time_s + (int64_t)s.fudge || now_s < s.time_s - (int64_t)s.fudge)
        return fail(why, "the answer was signed at another time: do the clocks agree?");
    return OK;
}
