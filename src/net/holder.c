/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/net/tcp and tcp6 give the inode of the socket that listens on a port; the links in
 * /proc/PID/fd tell which process has it open. Both are facts of the moment: by the time a person
 * reads the answer, it may have changed.
 */
#include "net/holder.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void (*port_holder_hook)(struct slice host, uint16_t port, char *out, size_t cap);

static bool is_own(unsigned long inode, const ino_t *own, size_t own_count)
{
    for (size_t i = 0; i < own_count; i++) {
        if (own[i] == inode)
            return true;
    }
    return false;
}

/* The inode of a socket that listens on the port and is none of ours, or 0. *ours: how many are. */
static unsigned long find_inode(const char *table, uint16_t port, const ino_t *own,
                                size_t own_count, size_t *ours)
{
    char line[512];
    unsigned long inode = 0;
    FILE *f = fopen(table, "re");
    if (f == NULL)
        return 0;
    while (inode == 0 && fgets(line, sizeof line, f) != NULL) {
        unsigned local_port, state;
        unsigned long found;
        if (sscanf(line, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*x:%*x %*x:%*x %*x %*u %*d %lu",
                   &local_port, &state, &found) != 3 ||
            local_port != port || state != 0x0A)
            continue;
        if (is_own(found, own, own_count))
            ++*ours;
        else
            inode = found;
    }
    fclose(f);
    return inode;
}

static unsigned long find_foreign(uint16_t port, const ino_t *own, size_t own_count, size_t *ours)
{
    unsigned long inode = find_inode("/proc/net/tcp", port, own, own_count, ours);
    return inode != 0 ? inode : find_inode("/proc/net/tcp6", port, own, own_count, ours);
}

bool port_foreign(uint16_t port, const ino_t *own, size_t own_count)
{
    size_t ours = 0;
    return find_foreign(port, own, own_count, &ours) != 0 || ours == 0;
}

static bool has_socket(const char *pid, const char *wanted)
{
    char path[64], target[64];
    struct dirent *entry;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%.16s/fd", pid);
    DIR *dir = opendir(path);
    if (dir == NULL)
        return false;
    while (!found && (entry = readdir(dir)) != NULL) {
        char link[400];
        snprintf(link, sizeof link, "%s/%s", path, entry->d_name);
        ssize_t n = readlink(link, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = '\0';
        found = strcmp(target, wanted) == 0;
    }
    closedir(dir);
    return found;
}

static void put_program(const char *pid, char *out, size_t cap)
{
    char path[64], name[64] = "?";
    snprintf(path, sizeof path, "/proc/%.16s/comm", pid);
    FILE *f = fopen(path, "re");
    if (f != NULL) {
        if (fgets(name, sizeof name, f) != NULL)
            name[strcspn(name, "\n")] = '\0';
        fclose(f);
    }
    snprintf(out, cap, "%s (pid %.16s)", name, pid);
}

void port_holder(struct slice host, uint16_t port, char *out, size_t cap)
{
    struct dirent *entry;
    char wanted[64];
    size_t ours = 0;
    out[0] = '\0';
    if (port_holder_hook != NULL)
        port_holder_hook(host, port, out, cap);
    if (out[0] != '\0')
        return;
    unsigned long inode = find_foreign(port, NULL, 0, &ours);
    if (inode == 0)
        return;
    snprintf(wanted, sizeof wanted, "socket:[%lu]", inode);
    snprintf(out, cap, "a process of another user");
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        return;
    while ((entry = readdir(proc)) != NULL) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !has_socket(entry->d_name, wanted))
            continue;
        put_program(entry->d_name, out, cap);
        break;
    }
    closedir(proc);
}
