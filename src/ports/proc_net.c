/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line of tcp, udp and udplite: "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000
 * 00000000  1000  0 12345 …": slot, local and remote address, state, queues, timer, retransmits,
 * user, timeout, inode. An address is 32-bit words in the machine's byte order, in hexadecimal; the
 * port is a number. Of sctp/eps: endpoint, socket, style, state, bucket, port, user, inode, then the
 * addresses as people write them.
 */
#include "ports/proc_net.h"

#include "base/mem.h"
#include "base/text.h"

static struct slice next_word(struct slice *line)
{
    while (line->len > 0 && line->ptr[0] == ' ')
        *line = slice_skip(*line, 1);
    size_t n = slice_find(*line, ' ');
    struct slice word = slice_take(*line, n);
    *line = slice_skip(*line, word.len);
    return word;
}

static bool hex_u32(struct slice digits, uint32_t *out)
{
    *out = 0;
    if (digits.len == 0 || digits.len > 8)
        return false;
    for (size_t i = 0; i < digits.len; i++) {
        int v = hex_value(digits.ptr[i]);
        if (v < 0)
            return false;
        *out = *out << 4 | (uint32_t)v;
    }
    return true;
}

/* "0100007F:1F90" or 32 digits of it. */
static bool read_address(struct slice word, bool is_six, uint8_t bytes[16], uint16_t *port)
{
    struct slice digits, tail;
    uint32_t value;
    size_t words = is_six ? 4 : 1;
    if (!slice_cut(word, ':', &digits, &tail) || digits.len != 8 * words)
        return false;
    for (size_t i = 0; i < words; i++) {
        if (!hex_u32(slice_of(digits.ptr + 8 * i, 8), &value))
            return false;
        memcpy(bytes + 4 * i, &value, 4);
    }
    if (!hex_u32(tail, &value) || value > UINT16_MAX)
        return false;
    *port = (uint16_t)value;
    return true;
}

static bool read_line(struct slice line, bool is_six, struct bound_socket *s)
{
    uint8_t bytes[16];
    uint32_t state;
    uint64_t uid;
    next_word(&line);
    if (!read_address(next_word(&line), is_six, bytes, &s->port))
        return false;
    next_word(&line);
    if (!hex_u32(next_word(&line), &state) || state > UINT8_MAX)
        return false;
    for (int i = 0; i < 3; i++)
        next_word(&line);
    if (!slice_to_u64(next_word(&line), UINT32_MAX, &uid))
        return false;
    next_word(&line);
    if (!slice_to_u64(next_word(&line), UINT64_MAX, &s->inode))
        return false;
    s->state = (uint8_t)state;
    s->uid = (uid_t)uid;
    if (is_six)
        bound_set_six(s, bytes, false);
    else
        bound_set_four(s, bytes);
    return true;
}

static enum err keep(const struct bound_socket *one, struct socket_list *list)
{
    struct bound_socket *s = socket_list_add(list);
    if (s == NULL)
        return ERR_LIMIT;
    *s = *one;
    return OK;
}

/* The lines behind the first, which names the columns. */
static bool next_line(struct slice *text, struct slice *line)
{
    if (text->len == 0)
        return false;
    slice_cut(*text, '\n', line, text);
    return true;
}

enum err proc_net_parse(struct slice text, enum port_protocol protocol, bool is_six,
                        struct socket_list *list, size_t *odd)
{
    struct slice line;
    uint8_t wanted = protocol == PORT_TCP ? STATE_LISTEN : STATE_CLOSE;
    next_line(&text, &line);
    while (next_line(&text, &line)) {
        struct bound_socket one = {.protocol = (uint8_t)protocol};
        if (!read_line(line, is_six, &one))
            ++*odd;
        else if (one.state == wanted && one.port != 0)
            TRY(keep(&one, list));
    }
    return OK;
}

static enum err read_endpoint(struct slice line, struct socket_list *list, size_t *odd)
{
    struct bound_socket one = {.protocol = PORT_SCTP};
    uint64_t state, port, uid;
    struct ip_address address;
    for (int i = 0; i < 3; i++)
        next_word(&line);
    if (!slice_to_u64(next_word(&line), UINT8_MAX, &state)) {
        ++*odd;
        return OK;
    }
    next_word(&line);
    if (!slice_to_u64(next_word(&line), UINT16_MAX, &port) ||
        !slice_to_u64(next_word(&line), UINT32_MAX, &uid) ||
        !slice_to_u64(next_word(&line), UINT64_MAX, &one.inode)) {
        ++*odd;
        return OK;
    }
    one.state = (uint8_t)state;
    one.port = (uint16_t)port;
    one.uid = (uid_t)uid;
    for (struct slice word = next_word(&line); word.len > 0; word = next_word(&line)) {
        if (!ip_parse(word, &address))
            continue;
        if (address.is_six)
            bound_set_six(&one, address.bytes, false);
        else
            bound_set_four(&one, address.bytes);
        if (port != 0)
            TRY(keep(&one, list));
    }
    return OK;
}

enum err proc_sctp_parse(struct slice text, struct socket_list *list, size_t *odd)
{
    struct slice line;
    next_line(&text, &line);
    while (next_line(&text, &line))
        TRY(read_endpoint(line, list, odd));
    return OK;
}

void proc_net_guess_dual(struct socket_list *list, size_t first)
{
    uint8_t *four = mem_zalloc(UINT16_MAX + 1); /* a bit per protocol */
    for (size_t i = first; i < list->count; i++) {
        const struct bound_socket *s = &list->items[i];
        if (s->family == PORT_IP4)
            four[s->port] |= (uint8_t)(1u << s->protocol);
    }
    for (size_t i = first; i < list->count; i++) {
        struct bound_socket *s = &list->items[i];
        if (s->family == PORT_DUAL && four[s->port] & (1u << s->protocol))
            s->family = PORT_IP6;
    }
    mem_free(four);
}
