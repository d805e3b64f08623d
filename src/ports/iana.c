/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the registry: by number with a search in the sorted rows, by name with a walk over all.
 * A protocol has at most one row for a port, but rows of different protocols may share a number and
 * a range may hold others, so the search goes back from the last row that could begin at or before
 * the port, as far as the longest range reaches.
 */
#include "ports/iana.h"

#include "ports/iana_data.h"

enum { ANY_PROTOCOL = (1 << PORT_PROTOCOLS) - 1 };

static void fill(const struct iana_row *r, struct iana_entry *e)
{
    const char *text = iana_text + r->at;
    *e = (struct iana_entry){slice_of(text, r->name_len),
                             slice_of(text + r->name_len, r->description_len), r->first, r->last,
                             r->protocols};
}

/* The first row whose port is above. */
static unsigned row_above(uint16_t port)
{
    unsigned low = 0, high = iana_rows_count;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (iana_rows[middle].first <= port)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool iana_find(uint16_t port, enum port_protocol protocol, struct iana_entry *e)
{
    /* UDP-Lite has no numbers of its own: it takes those of UDP. */
    unsigned bit = 1U << (protocol == PORT_UDPLITE ? PORT_UDP : protocol);
    for (unsigned i = row_above(port); i > 0; i--) {
        const struct iana_row *r = &iana_rows[i - 1];
        if (r->first + iana_longest_range < port)
            return false;
        if (r->last >= port && (r->protocols & bit) != 0) {
            fill(r, e);
            return true;
        }
    }
    return false;
}

/* --- queries --- */

static bool parse_numbers(struct slice text, struct iana_query *q)
{
    struct slice from, to;
    uint64_t first, last;
    bool range = slice_cut(text, '-', &from, &to);
    if (!slice_to_u64(from, 65535, &first) || (range && !slice_to_u64(to, 65535, &last)))
        return false;
    q->numbers = true;
    q->first = (uint16_t)first;
    q->last = (uint16_t)(range ? last : first);
    return q->first <= q->last;
}

bool iana_query_parse(struct slice text, struct iana_query *q)
{
    struct slice what, protocol;
    enum port_protocol p;
    *q = (struct iana_query){.protocols = ANY_PROTOCOL};
    if (slice_cut(text, '/', &what, &protocol)) {
        if (!port_protocol_parse(protocol, &p))
            return false;
        q->protocols = 1U << (p == PORT_UDPLITE ? PORT_UDP : p);
    }
    bool digits = what.len > 0;
    for (size_t i = 0; i < what.len; i++)
        digits = digits && ((what.ptr[i] >= '0' && what.ptr[i] <= '9') || what.ptr[i] == '-');
    if (digits)
        return parse_numbers(what, q);
    q->name = what;
    return what.len > 0;
}

/* A * takes any run of characters; one mark to go back to is enough. */
static bool name_matches(struct slice pattern, struct slice name)
{
    size_t p = 0, n = 0, star = SIZE_MAX, mark = 0;
    while (n < name.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            mark = n;
        } else if (p < pattern.len && ascii_lower(pattern.ptr[p]) == ascii_lower(name.ptr[n])) {
            p++;
            n++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            n = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

static bool fits(const struct iana_query *q, const struct iana_row *r)
{
    if ((r->protocols & q->protocols) == 0)
        return false;
    if (q->numbers)
        return r->first <= q->last && r->last >= q->first;
    return name_matches(q->name, slice_of(iana_text + r->at, r->name_len));
}

bool iana_next(const struct iana_query *q, unsigned *at, struct iana_entry *e)
{
    for (unsigned i = *at; i < iana_rows_count; i++) {
        if (fits(q, &iana_rows[i])) {
            fill(&iana_rows[i], e);
            *at = i + 1;
            return true;
        }
    }
    *at = iana_rows_count;
    return false;
}

/* --- what is fixed --- */

enum iana_class iana_class_of(uint16_t port)
{
    return port < 1024 ? IANA_SYSTEM : port < 49152 ? IANA_USER : IANA_DYNAMIC;
}

const char *iana_class_name(enum iana_class c)
{
    static const char *const names[] = {"system", "user", "dynamic"};
    return names[c];
}

const char *iana_date(void)
{
    return iana_data_date;
}

const char *iana_origin(void)
{
    return iana_data_origin;
}

enum { TCP = 1 << PORT_TCP, UDP = 1 << PORT_UDP, BOTH = TCP | UDP };

static const struct {
    uint16_t port;
    unsigned protocols;
    const char *text;
} explained[] = {
    {20, TCP, "FTP's data: the files themselves travel here, while 21 carries the commands."},
    {21, TCP, "FTP, files by commands, password and all, in clear text; SFTP (on 22) or HTTPS do "
              "the same in secret."},
    {22, TCP, "SSH: a terminal on this machine from elsewhere, encrypted; also SFTP and Git."},
    {23, TCP, "Telnet: a terminal without any encryption; SSH (22) has replaced it."},
    {25, TCP, "SMTP: mail servers hand each other their mail here."},
    {53, BOTH, "DNS: turns names such as example.com into addresses; questions mostly by UDP, long "
               "answers by TCP."},
    {67, UDP, "DHCP's server: gives the devices of a network their addresses."},
    {68, UDP, "DHCP's client: this machine waits for its address here."},
    {69, UDP, "TFTP: files without any password, mostly for devices that start from the network."},
    {80, TCP, "HTTP, the web without encryption; today mostly there to redirect to HTTPS (443)."},
    {110, TCP, "POP3: fetches mail, password and all, in clear text; 995 is the same with TLS."},
    {111, BOTH, "Sun RPC's portmapper: says which port an RPC service (such as NFS) has."},
    {123, UDP, "NTP: keeps the clocks of machines together."},
    {137, UDP, "NetBIOS names: how older Windows networks find each other."},
    {139, TCP, "NetBIOS sessions: shared folders of older Windows networks."},
    {143, TCP, "IMAP: reads mail that stays on the server, in clear text unless STARTTLS is used; "
               "993 is the same with TLS."},
    {161, UDP, "SNMP: asks devices how they are; versions 1 and 2 have a password in clear text."},
    {162, UDP, "SNMP traps: devices tell by themselves that something is wrong."},
    {194, BOTH, "IRC, chat in channels; in practice most servers are on 6667 and 6697 (TLS)."},
    {389, TCP, "LDAP: a directory of people and passwords; 636 is the same with TLS."},
    {443, TCP, "HTTPS: the web, encrypted (HTTP over TLS)."},
    {443, UDP, "HTTP/3: the web, encrypted, over QUIC instead of TCP."},
    {445, TCP, "SMB: shared folders and printers of Windows networks; never for the world."},
    {465, TCP, "Sending mail over TLS (submissions): mail programs hand in what was written."},
    {514, UDP, "Syslog: log lines of other machines, without encryption."},
    {515, TCP, "LPD: an old way to hand files to a printer."},
    {546, UDP, "DHCPv6's client: this machine waits for its IPv6 settings here."},
    {547, UDP, "DHCPv6's server: gives IPv6 settings to the devices of a network."},
    {587, TCP, "Sending mail (submission): mail programs hand in what was written, with STARTTLS."},
    {631, BOTH, "IPP: printers and CUPS."},
    {636, TCP, "LDAP over TLS: a directory of people and passwords, encrypted."},
    {873, TCP, "rsync: copies folders between machines, without encryption."},
    {993, TCP, "IMAP over TLS: reads mail that stays on the server."},
    {995, TCP, "POP3 over TLS: fetches mail."},
    {1883, TCP, "MQTT: messages of sensors and devices; 8883 is the same with TLS."},
    {2019, TCP, "The admin API of portico and Caddy: whoever reaches it rules the web server."},
    {2049, TCP, "NFS: folders shared between Unix machines."},
    {3000, TCP, "Assigned to something old; in practice where web programs listen while they are "
                "developed (Node.js, Rails, Grafana)."},
    {3306, TCP, "MySQL and MariaDB: a database; for the programs of this machine or its network."},
    {3389, TCP, "RDP: the screen of a Windows machine from elsewhere."},
    {5353, UDP, "mDNS: devices of a network find each other by names that end in .local."},
    {5432, TCP, "PostgreSQL: a database; for the programs of this machine or its network."},
    {5900, TCP, "VNC: the screen of a machine from elsewhere, mostly without encryption."},
    {6379, TCP, "Redis: a store in memory, by default without any password; for this machine only."},
    {6667, TCP, "IRC, chat in channels, without encryption."},
    {8000, TCP, "An alternate port for HTTP, often a web program behind a front door."},
    {8080, TCP, "An alternate port for HTTP: web programs and proxies that are no system's."},
    {8443, TCP, "An alternate port for HTTPS."},
    {9090, TCP, "Often Prometheus or a machine's console (Cockpit)."},
    {9200, TCP, "Often Elasticsearch: a store that is searched; for this machine or its network."},
    {11211, BOTH, "Memcached: a store in memory without any password; for this machine only."},
    {27017, TCP, "MongoDB: a database; for the programs of this machine or its network."},
    {51820, UDP, "Often WireGuard: a private network over the internet (assigned to nobody)."},
};

const char *iana_explained(uint16_t port, enum port_protocol protocol)
{
    for (size_t i = 0; i < sizeof explained / sizeof *explained; i++) {
        if (explained[i].port == port && (explained[i].protocols & (1U << protocol)) != 0)
            return explained[i].text;
    }
    return NULL;
}
