/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every offset of a reply is checked; a compressed name may jump only backwards, so that it ends.
 * Names are read into text; a label with a dot or an odd byte in it makes a name that is not ours,
 * and its record is skipped.
 */
#include "certs/dns_message.h"

enum { HEADER = 12, LABEL_MAX = 63, EDNS_SIZE = 1232, TYPE_OPT = 41, CLASS_IN = 1 };

struct slice dns_name_normal(struct slice name, struct arena *a)
{
    bool dot = name.len > 0 && name.ptr[name.len - 1] == '.';
    struct slice s = arena_join(a, (struct slice[]){name, dot ? SLICE("") : SLICE(".")}, 2);
    for (size_t i = 0; i < s.len; i++)
        ((char *)s.ptr)[i] = ascii_lower(s.ptr[i]);
    return s;
}

/* --- writing --- */

static enum err put_u16(struct buffer *b, unsigned n)
{
    TRY(buffer_append_byte(b, (char)(n >> 8)));
    return buffer_append_byte(b, (char)n);
}

static enum err put_name(struct buffer *b, struct slice name)
{
    struct slice label;
    size_t from = b->len;
    while (slice_cut(name, '.', &label, &name) || label.len > 0) {
        if (label.len == 0 || label.len > LABEL_MAX)
            return ERR_INVALID;
        TRY(buffer_append_byte(b, (char)label.len));
        TRY(buffer_append(b, label));
        if (name.len == 0)
            break;
    }
    if (b->len - from > DNS_NAME_MAX - 1)
        return ERR_INVALID;
    return buffer_append_byte(b, 0);
}

enum err dns_question_put(struct buffer *b, uint16_t id, struct slice name, enum dns_type type)
{
    TRY(put_u16(b, id));
    TRY(buffer_append(b, SLICE("\x01\x00" "\0\1" "\0\0" "\0\0" "\0\1"))); /* RD; QD 1, AR 1 */
    TRY(put_name(b, name));
    TRY(put_u16(b, type));
    TRY(put_u16(b, CLASS_IN));
    TRY(buffer_append_byte(b, 0)); /* OPT, of the root (RFC 6891 §6.1.2) */
    TRY(put_u16(b, TYPE_OPT));
    TRY(put_u16(b, EDNS_SIZE));
    return buffer_append(b, SLICE("\0\0\0\0" "\0\0"));
}

/* --- reading --- */

struct cursor {
    struct slice all;
    size_t at;
};

static bool get_u16(struct cursor *c, unsigned *n)
{
    if (c->all.len - c->at < 2)
        return false;
    const unsigned char *p = (const unsigned char *)c->all.ptr + c->at;
    *n = (unsigned)p[0] << 8 | p[1];
    c->at += 2;
    return true;
}

static bool skip(struct cursor *c, size_t n)
{
    if (c->all.len - c->at < n)
        return false;
    c->at += n;
    return true;
}

static bool plain_label(struct slice label)
{
    for (size_t i = 0; i < label.len; i++)
        if (label.ptr[i] <= ' ' || label.ptr[i] == '.' || label.ptr[i] >= 0x7f)
            return false;
    return true;
}

struct name {
    char text[DNS_NAME_MAX + 1];
    size_t len;
    bool odd;
};

static bool add_label(struct name *n, struct slice label)
{
    if (n->len + label.len + 1 > DNS_NAME_MAX)
        return false;
    n->odd |= !plain_label(label);
    for (size_t i = 0; i < label.len; i++)
        n->text[n->len++] = ascii_lower(label.ptr[i]);
    n->text[n->len++] = '.';
    return true;
}

/* Leaves the cursor behind the name, not behind what it points to. */
static bool get_name(struct cursor *c, struct name *n)
{
    size_t at = c->at, limit = c->at; /* a pointer must lead before `limit` */
    bool jumped = false;
    n->len = 0;
    n->odd = false;
    for (;;) {
        if (at >= c->all.len)
            return false;
        unsigned char len = (unsigned char)c->all.ptr[at];
        if (len >= 0xc0) {
            if (c->all.len - at < 2)
                return false;
            size_t to = (size_t)(len & 0x3f) << 8 | (unsigned char)c->all.ptr[at + 1];
            if (!jumped)
                c->at = at + 2;
            jumped = true;
            if (to >= limit)
                return false;
            limit = at = to;
            continue;
        }
        if (len > LABEL_MAX || c->all.len - at - 1 < len)
            return false;
        if (len == 0)
            break;
        if (!add_label(n, slice_of(c->all.ptr + at + 1, len)))
            return false;
        at += 1 + (size_t)len;
    }
    if (!jumped)
        c->at = at + 1;
    return true;
}

static struct slice kept(const struct name *n, struct arena *a)
{
    return n->len == 0 ? SLICE(".") : arena_copy(a, slice_of(n->text, n->len));
}

static bool get_strings(struct slice data, struct arena *a, struct slice *joined)
{
    char *out = arena_alloc(a, data.len + 1);
    size_t len = 0;
    while (data.len > 0) {
        size_t one = (unsigned char)data.ptr[0];
        if (data.len - 1 < one)
            return false;
        memcpy(out + len, data.ptr + 1, one);
        len += one;
        data = slice_skip(data, 1 + one);
    }
    *joined = slice_of(out, len);
    return true;
}

/* One record; *keep: it is of a type that is looked for, and its names are plain. */
static bool get_record(struct cursor *c, struct arena *a, struct dns_seen *out, bool *keep)
{
    struct name owner, target;
    unsigned type, class, len;
    *keep = false;
    if (!get_name(c, &owner) || !get_u16(c, &type) || !get_u16(c, &class) || !skip(c, 4) ||
        !get_u16(c, &len) || c->all.len - c->at < len)
        return false;
    struct cursor data = {slice_take(c->all, c->at + len), c->at};
    c->at += len;
    bool wanted = class == CLASS_IN && !owner.odd;
    if (wanted && (type == DNS_NS || type == DNS_CNAME || type == DNS_SOA)) {
        if (!get_name(&data, &target))
            return false;
        *keep = !target.odd;
        *out = (struct dns_seen){kept(&owner, a), type, kept(&target, a)};
    } else if (wanted && type == DNS_TXT) {
        *keep = true;
        *out = (struct dns_seen){.owner = kept(&owner, a), .type = DNS_TXT};
        return get_strings(slice_skip(data.all, data.at), a, &out->data);
    }
    return true;
}

/* The question comes back, so that a stray reply is not taken for this one's. */
static bool is_question(struct cursor *c, struct slice name, enum dns_type type, struct arena *a)
{
    struct name asked;
    unsigned t, class;
    return get_name(c, &asked) && get_u16(c, &t) && get_u16(c, &class) && t == type &&
           class == CLASS_IN &&
           slice_eq(slice_of(asked.text, asked.len), dns_name_normal(name, a));
}

enum err dns_reply_read(struct slice bytes, uint16_t id, struct slice name, enum dns_type type,
                        struct arena *a, struct dns_reply *out)
{
    struct cursor c = {bytes, 0};
    unsigned got, flags, questions, answers;
    out->count = 0;
    if (!get_u16(&c, &got) || !get_u16(&c, &flags) || !get_u16(&c, &questions) ||
        !get_u16(&c, &answers) || !skip(&c, HEADER - 8) || got != id || !(flags & 0x8000) ||
        questions != 1 || !is_question(&c, name, type, a))
        return ERR_INVALID;
    out->code = flags & 15;
    out->truncated = (flags & 0x0200) != 0;
    for (unsigned i = 0; i < answers && out->count < DNS_RECORDS_MAX; i++) {
        bool keep;
        if (!get_record(&c, a, &out->records[out->count], &keep))
            return out->truncated ? OK : ERR_INVALID;
        out->count += keep;
    }
    return OK;
}
