/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What systemd is told (sd_notify(3)) and its watchdog: the keeper vouches for the server only while
 * that one answers.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "keeper/keeper_parts.h"

void systemd_notify(const char *text)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof a.sun_path)
        return;
    size_t len = strlen(path);
    memcpy(a.sun_path, path, len);
    if (path[0] == '@')
        a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&a,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}

void systemd_ready(const char *status)
{
    char text[KEEPER_TEXT + 64];
    int len = (int)strcspn(status, "\n");
    snprintf(text, sizeof text, "READY=1\nMAINPID=%d\nSTATUS=%.*s", (int)getpid(),
             len > 0 ? len : (int)strlen("serving"), len > 0 ? status : "serving");
    systemd_notify(text);
}

void systemd_reloading(void)
{
    char text[64];
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)(clock_mono_ns() / NS_PER_US));
    systemd_notify(text);
}

static void on_watch(struct moment *m)
{
    struct keeper *k = CONTAINER_OF(m, struct keeper, watchdog.next);
    if (k->watchdog.answered || !k->server.ready)
        systemd_notify("WATCHDOG=1");
    else
        LOG(LOG_ERROR, "", "the server process does not answer: the watchdog is not told");
    if (k->server.ready)
        k->watchdog.answered = false;
    (void)server_tell(k, KEEPER_PING);
    moment_set(&k->rounds, m, clock_mono_ns() + k->watchdog.interval_ns);
}

/* WATCHDOG_USEC, when it is meant for this process. */
void watchdog_init(struct keeper *k)
{
    uint64_t us, pid;
    const char *interval = getenv("WATCHDOG_USEC"), *who = getenv("WATCHDOG_PID");
    moment_init(&k->watchdog.next, on_watch);
    if (interval == NULL || !slice_to_u64(slice_from(interval), UINT64_MAX / NS_PER_US, &us) ||
        us == 0)
        return;
    if (who != NULL && (!slice_to_u64(slice_from(who), INT32_MAX, &pid) || (pid_t)pid != getpid()))
        return;
    k->watchdog.interval_ns = us * NS_PER_US / 2;
    moment_set(&k->rounds, &k->watchdog.next, clock_mono_ns() + k->watchdog.interval_ns);
}
