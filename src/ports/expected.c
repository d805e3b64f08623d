/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables of common knowledge. A program's name is the executable's, or the first 15 letters of its
 * thread's name where that is all there is to see; either is compared by its beginning.
 */
#include "ports/expected.h"

#define WEB "portico caddy nginx apache2 httpd lighttpd haproxy h2o traefik envoy varnishd squid "       \
            "docker-proxy openresty angie"
#define MAIL "master exim exim4 sendmail smtpd opensmtpd postfix stalwart maddy"
#define BOXES "dovecot imap-login pop3-login courier cyrus imapd pop3d stalwart maddy"

enum { TCP = 1 << PORT_TCP, UDP = 1 << PORT_UDP, BOTH = TCP | UDP };

static const struct {
    uint16_t port;
    unsigned protocols;
    const char *programs; /* with spaces between them */
} usual[] = {
    {21, TCP, "vsftpd proftpd pure-ftpd ftpd inetd xinetd"},
    {22, TCP, "sshd dropbear tinysshd"},
    {23, TCP, "telnetd in.telnetd inetd xinetd"},
    {25, TCP, MAIL},
    {53, BOTH, "named unbound dnsmasq systemd-resolve knotd kresd nsd pdns coredns pihole AdGuardHome "
               "aardvark-dns dnsdist connmand libvirtd"},
    {67, UDP, "dhcpd dnsmasq kea-dhcp systemd-network udhcpd"},
    {68, UDP, "dhclient dhcpcd systemd-network NetworkManager udhcpc connmand"},
    {80, TCP, WEB},
    {110, TCP, BOXES},
    {123, UDP, "ntpd chronyd systemd-timesyn ntpsec openntpd"},
    {143, TCP, BOXES},
    {161, UDP, "snmpd"},
    {389, TCP, "slapd ns-slapd lldap samba"},
    {443, TCP, WEB},
    {445, TCP, "smbd samba ksmbd"},
    {465, TCP, MAIL},
    {587, TCP, MAIL},
    {631, BOTH, "cupsd cups-browsed"},
    {636, TCP, "slapd ns-slapd lldap samba"},
    {993, TCP, BOXES},
    {995, TCP, BOXES},
    {3306, TCP, "mysqld mariadbd mysqlrouter proxysql docker-proxy"},
    {5432, TCP, "postgres pgbouncer pgpool docker-proxy"},
    {6379, TCP, "redis-server valkey-server keydb-server dragonfly docker-proxy"},
};

/* Programs that start others on their sockets, or run anything. */
static const char any_port[] = "systemd inetd xinetd init rootlessport slirp4netns pasta conmon socat ncat";

static bool begins_one_of(const char *list, struct slice program)
{
    struct slice rest = slice_from(list), name;
    bool more = program.len > 0;
    while (more) {
        more = slice_cut(rest, ' ', &name, &rest);
        if (slice_starts(program, name) || (program.len == 15 && slice_starts(name, program)))
            return true;
    }
    return false;
}

bool expected_program(uint16_t port, enum port_protocol protocol, struct slice program)
{
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        if (usual[i].port == port && (usual[i].protocols & (1U << protocol)) != 0)
            return begins_one_of(usual[i].programs, program) || begins_one_of(any_port, program);
    }
    return true;
}

bool expected_is_web(struct slice program)
{
    return begins_one_of("nginx apache2 httpd lighttpd h2o traefik openresty angie", program);
}

bool expected_is_publisher(struct slice program)
{
    return begins_one_of("docker-proxy rootlessport rootlesskit", program);
}

bool expected_may_publish(struct slice program)
{
    return slice_is(program, "dockerd") || slice_is(program, "conmon");
}

const char *expected_private(uint16_t port, enum port_protocol protocol)
{
    static const struct {
        uint16_t port;
        unsigned protocols;
        const char *why;
    } ports[] = {
        {111, BOTH, "it tells strangers which services run here, and is misused for attacks"},
        {445, TCP, "shared folders are for networks of one's own"},
        {2019, TCP, "who reaches the admin API rules the web server"},
        {2375, TCP, "who reaches Docker's API without TLS has the machine"},
        {2379, TCP, "etcd is for the programs of a cluster"},
        {3306, TCP, "a database is for the programs of this machine or its network"},
        {5432, TCP, "a database is for the programs of this machine or its network"},
        {6379, TCP, "Redis asks for no password by default"},
        {9200, TCP, "Elasticsearch is for the programs of this machine or its network"},
        {11211, BOTH, "Memcached asks for no password, and is misused for attacks"},
        {27017, TCP, "a database is for the programs of this machine or its network"},
    };
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        if (ports[i].port == port && (ports[i].protocols & (1U << protocol)) != 0)
            return ports[i].why;
    }
    return NULL;
}

const char *expected_plaintext(uint16_t port, enum port_protocol protocol)
{
    static const struct {
        uint16_t port;
        unsigned protocols;
        const char *instead;
    } ports[] = {
        {21, TCP, "Use SFTP (a part of SSH) or HTTPS for files."},
        {23, TCP, "Use SSH."},
        {110, TCP, "Use POP3 with TLS (port 995), and shut this one."},
        {143, TCP, "Use IMAP with TLS (port 993), and shut this one."},
        {161, UDP, "Use SNMP version 3, and let only the network of the administrators reach it."},
        {389, TCP, "Use LDAP with TLS (port 636), and shut this one."},
        {512, TCP, "Use SSH."},
        {513, TCP, "Use SSH."},
        {514, TCP, "Use SSH."},
        {5900, TCP, "Let it through SSH's tunnel only."},
    };
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        if (ports[i].port == port && (ports[i].protocols & (1U << protocol)) != 0)
            return ports[i].instead;
    }
    return NULL;
}
