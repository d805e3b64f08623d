/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread, one poll over three descriptors: the signals, the pair to the server, and nothing
 * else. Signals mean what they mean to Caddy: TERM and INT drain and end (a second one ends at
 * once), QUIT ends at once, USR1 reloads, HUP is ignored. The server is told by messages, so
 * it needs no handler; it is this program again, started from /proc/self/exe with the
 * same arguments and one variable more.
 *
 * A listening socket stays open here while the configuration wants its address: a server that
 * crashed, or is replaced, gets the same ones, and no queued connection is reset.
 */
#include "keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "keeper/keeper_wire.h"
#include "net/listener.h"

enum { OWN_MAX = 4096 };
enum { CRASHES_MAX = 10 }; /* within CRASH_WINDOW_NS: then the keeper gives up */
#define CRASH_WINDOW_NS (60 * NS_PER_S)
#define BACK_OFF_NS (100 * NS_PER_MS) /* after the second crash, doubled by each, up to … */
#define BACK_OFF_MAX_NS (5 * NS_PER_S)
#define KILL_AFTER_NS (3 * NS_PER_S) /* a server that was told to end at once and does not */

struct held {
    char network[16], host[256];
    uint16_t asked_port, port;
    unsigned count;
    int fds[KEEPER_FDS];
    bool used;
    bool wanted; /* by the server that runs now */
};

struct keeper {
    char **argv;
    int signals, server_fd;
    pid_t server;
    bool ready, stopping, final; /* final: the server said that it must not be started again */
    bool was_ready;              /* some server of this keeper has served */
    uint64_t restart_ns;         /* when the next server is started; 0: one runs */
    uint64_t watchdog_ns, watch_ns; /* systemd's interval, halved; when it is due. 0: none */
    bool answered;               /* the server has answered the last ping */
    int status;
    uint64_t kill_ns; /* when a server that was told to end at once is killed; 0: not told */
    uint64_t crashes[CRASHES_MAX]; /* when */
    unsigned crashed;
    struct held held[LISTENERS_MAX];
};

/* --- systemd --- */

static void notify_systemd(const char *text)
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

/* --- sockets --- */

static struct held *find_held(struct keeper *k, const struct keeper_message *m)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        struct held *h = &k->held[i];
        if (h->used && h->asked_port == m->port && strcmp(h->network, m->network) == 0 &&
            strcmp(h->host, m->host) == 0)
            return h;
    }
    return NULL;
}

static struct held *free_held(struct keeper *k)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        if (!k->held[i].used)
            return &k->held[i];
    }
    return NULL;
}

static void release(struct held *h)
{
    for (unsigned i = 0; i < h->count; i++)
        close(h->fds[i]);
    if (network_is_unix(slice_from(h->network)) && h->host[0] != '@') {
        h->host[strcspn(h->host, "|")] = '\0';
        unlink(h->host);
    }
    h->used = false;
}

/* The inodes of all sockets that are held, so that they are not taken for somebody else's. */
static size_t own_inodes(const struct keeper *k, ino_t *out, size_t room)
{
    size_t count = 0;
    struct stat s;
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        const struct held *h = &k->held[i];
        for (unsigned j = 0; h->used && j < h->count && count < room; j++) {
            if (fstat(h->fds[j], &s) == 0)
                out[count++] = s.st_ino;
        }
    }
    return count;
}

/* A socket file that root made for a server of another user. The folder may be that user's: what
 * stands there by now may be a link to something else, which stays root's. */
static void give_away(const struct held *h, uid_t uid, gid_t gid)
{
    char path[sizeof h->host];
    struct stat s;
    memcpy(path, h->host, sizeof path);
    path[strcspn(path, "|")] = '\0';
    if (path[0] == '@')
        return;
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &s) != 0 || !S_ISSOCK(s.st_mode) ||
        fchownat(fd, "", uid, gid, AT_EMPTY_PATH) != 0)
        LOG(LOG_WARN, "", "a socket file stays root's", LOG_CSTR("path", path),
            LOG_CSTR("error", strerror(errno)));
    if (fd >= 0)
        close(fd);
}

static void open_held(struct keeper *k, const struct keeper_message *m, struct keeper_message *answer)
{
    struct held *h = free_held(k);
    if (h == NULL) {
        answer->error = ERR_LIMIT;
        snprintf(answer->text, sizeof answer->text, "more than %d listen addresses", LISTENERS_MAX);
        return;
    }
    memset(h, 0, sizeof *h);
    struct slice network = slice_from(m->network);
    bool single = network_is_unix(network) || network_is_fd(network);
    static ino_t own[OWN_MAX];
    struct listen_request r = {network, slice_from(m->host), m->port, single ? 1 : m->count, own,
                               own_inodes(k, own, OWN_MAX)};
    answer->error = listen_open(&r, h->fds, &h->port, answer->text, sizeof answer->text);
    if (answer->error != OK)
        return;
    memcpy(h->network, m->network, sizeof h->network);
    memcpy(h->host, m->host, sizeof h->host);
    if (network_is_unix(network) && geteuid() == 0 && m->uid != 0)
        give_away(h, m->uid, m->gid);
    h->asked_port = m->port;
    h->count = r.count;
    h->used = true;
}

static void on_listen(struct keeper *k, const struct keeper_message *m)
{
    struct keeper_message answer = {.kind = KEEPER_SOCKETS};
    struct held *h = find_held(k, m);
    if (m->count == 0 || m->count > KEEPER_FDS) {
        answer.error = ERR_INVALID;
    } else if (h == NULL) {
        open_held(k, m, &answer);
        h = answer.error == OK ? find_held(k, m) : NULL;
    }
    if (h != NULL) {
        h->wanted = true;
        answer.port = h->port;
        answer.count = (uint16_t)h->count;
    }
    (void)!keeper_send(k->server_fd, &answer, h != NULL ? h->fds : NULL, h != NULL ? h->count : 0);
}

static void release_all(struct keeper *k)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        if (k->held[i].used)
            release(&k->held[i]);
    }
}

/* What a crashed server had and its successor did not ask for again. */
static void release_unwanted(struct keeper *k)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++) {
        if (k->held[i].used && !k->held[i].wanted)
            release(&k->held[i]);
    }
}

/* --- the server process --- */

static void child_exec(struct keeper *k, int fd, pid_t parent)
{
    char value[16];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
    /* Terminal signals go to the whole foreground group; only the keeper acts on them. */
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    /* Above what systemd may have handed over, so that no number of fd/N is taken. */
    int high = fcntl(fd, F_DUPFD, 1000);
    if (high < 0) /* where so few descriptors are allowed */
        high = fcntl(fd, F_DUPFD, 64);
    if (high < 0) {
        fprintf(stderr, "portico: cannot start the server process: too few file descriptors are "
                "allowed (ulimit -n)\n");
        _exit(1);
    }
    snprintf(value, sizeof value, "%d", high);
    setenv(KEEPER_ENV, value, 1);
    unsetenv("LISTEN_PID"); /* the sockets are the keeper's, and so is what systemd is told */
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_PID");
    unsetenv("WATCHDOG_USEC");
    execv("/proc/self/exe", k->argv);
    fprintf(stderr, "portico: cannot start the server process: %s\n", strerror(errno));
    _exit(1);
}

static enum err start_server(struct keeper *k)
{
    int pair[2];
    pid_t self = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return err_from_errno(errno);
    for (unsigned i = 0; i < LISTENERS_MAX; i++)
        k->held[i].wanted = false;
    k->server = fork();
    if (k->server == 0)
        child_exec(k, pair[1], self);
    close(pair[1]);
    if (k->server < 0) {
        close(pair[0]);
        return err_from_errno(errno);
    }
    k->server_fd = pair[0];
    return OK;
}

/* Never waits for the server: signals must be heard whatever it does. */
static bool tell(struct keeper *k, enum keeper_kind kind)
{
    struct keeper_message m = {.kind = kind};
    return k->server_fd >= 0 && keeper_tell(k->server_fd, &m) == OK;
}

/* `status` tells a person how the last reload went. */
static void on_ready(struct keeper *k, char *status)
{
    char text[KEEPER_TEXT + 64];
    if (!k->ready)
        release_unwanted(k);
    k->ready = k->was_ready = k->answered = true;
    status[strcspn(status, "\n")] = '\0';
    snprintf(text, sizeof text, "READY=1\nMAINPID=%d\nSTATUS=%s", (int)getpid(),
             status[0] != '\0' ? status : "serving");
    notify_systemd(text);
}

static void on_reloading(void)
{
    char text[64];
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)(clock_mono_ns() / NS_PER_US));
    notify_systemd(text);
}

static void on_message(struct keeper *k)
{
    struct keeper_message m;
    struct held *h;
    unsigned none = 0;
    if (keeper_receive(k->server_fd, &m, NULL, &none, 0) != OK) {
        close(k->server_fd); /* it has ended, or is about to: SIGCHLD tells */
        k->server_fd = -1;
        return;
    }
    switch (m.kind) {
    case KEEPER_LISTEN:
        on_listen(k, &m);
        break;
    case KEEPER_RELEASE:
        h = find_held(k, &m);
        if (h != NULL)
            release(h);
        m = (struct keeper_message){.kind = KEEPER_SOCKETS};
        (void)!keeper_send(k->server_fd, &m, NULL, 0);
        break;
    case KEEPER_READY:
        on_ready(k, m.text);
        break;
    case KEEPER_PONG:
        k->answered = true;
        break;
    case KEEPER_RELOADING:
        on_reloading();
        break;
    case KEEPER_STOPPING: /* its copies are the last now, so that it can empty the queues */
        k->stopping = true;
        release_all(k);
        notify_systemd("STOPPING=1");
        break;
    case KEEPER_FAILED:
        k->final = true;
        k->status = (int)m.status;
        break;
    default:
        break;
    }
}

static void on_stop_signal(struct keeper *k, const char *name, bool now)
{
    LOG(LOG_INFO, "", "shutting down", LOG_CSTR("signal", name));
    notify_systemd("STOPPING=1");
    if (k->restart_ns != 0) {
        k->stopping = true; /* nobody is there to be told */
        return;
    }
    if (k->stopping || now) {
        bool told = tell(k, KEEPER_STOP_NOW);
        if (k->kill_ns == 0)
            k->kill_ns = clock_mono_ns() + (told ? KILL_AFTER_NS : 0);
        k->status = now && !k->stopping ? 2 : k->status;
    } else if (!tell(k, KEEPER_STOP)) {
        k->kill_ns = clock_mono_ns(); /* it has not read a hundred messages: nobody is there */
    }
    k->stopping = true;
}

/* Crashes within the window, this one counted. */
static unsigned count_crash(struct keeper *k)
{
    uint64_t now = clock_mono_ns();
    unsigned count = 0;
    k->crashes[k->crashed++ % CRASHES_MAX] = now;
    for (unsigned i = 0; i < CRASHES_MAX && i < k->crashed; i++)
        count += now - k->crashes[i] < CRASH_WINDOW_NS;
    return count;
}

/* False when the server is not to be started once more. The first crash is followed by a start at
 * once; a server that goes on crashing gets longer and longer pauses, and then none any more. */
static bool plan_restart(struct keeper *k)
{
    unsigned count = count_crash(k);
    uint64_t pause = count < 2 ? 0 : BACK_OFF_NS << (count - 2);
    if (pause > BACK_OFF_MAX_NS)
        pause = BACK_OFF_MAX_NS;
    if (!k->was_ready)
        return false;
    if (count >= CRASHES_MAX) {
        LOG(LOG_ERROR, "", "the server process keeps crashing: giving up",
            LOG_NUM("crashes", count), LOG_DUR("within", CRASH_WINDOW_NS));
        return false;
    }
    LOG(LOG_WARN, "", "the server process is started again, on the same sockets",
        LOG_DUR("after", pause), LOG_NUM("crashes", count));
    k->restart_ns = clock_mono_ns() + pause;
    return true;
}

/* True when the keeper has nothing left to keep. */
static bool on_server_end(struct keeper *k, int wait_status)
{
    if (k->server_fd >= 0) {
        struct pollfd p = {k->server_fd, POLLIN, 0};
        while (k->server_fd >= 0 && poll(&p, 1, 0) == 1) /* its last words */
            on_message(k);
        if (k->server_fd >= 0)
            close(k->server_fd);
        k->server_fd = -1;
    }
    k->server = 0;
    if (WIFEXITED(wait_status) && (k->stopping || k->final || WEXITSTATUS(wait_status) == 0)) {
        if (k->status == 0)
            k->status = WEXITSTATUS(wait_status);
        return true;
    }
    if (k->stopping) {
        k->status = k->status != 0 ? k->status : 1;
        return true;
    }
    LOG(LOG_ERROR, "", "the server process ended unexpectedly",
        LOG_NUM("signal", WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0),
        LOG_NUM("status", WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 0));
    k->ready = false;
    if (plan_restart(k))
        return false;
    k->status = 1;
    return true;
}

/* True when no server can be started. */
static bool restart(struct keeper *k)
{
    k->restart_ns = 0;
    if (start_server(k) == OK)
        return false;
    LOG(LOG_ERROR, "", "the server process cannot be started", LOG_CSTR("error", strerror(errno)));
    k->status = 1;
    return true;
}

static bool reap(struct keeper *k)
{
    int wait_status;
    pid_t pid;
    bool over = false;
    while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
        if (pid == k->server)
            over = on_server_end(k, wait_status);
    }
    return over;
}

/* True when all is over. */
static bool on_signal(struct keeper *k)
{
    struct signalfd_siginfo info;
    if (read(k->signals, &info, sizeof info) != (ssize_t)sizeof info)
        return false;
    switch (info.ssi_signo) {
    case SIGINT:
        on_stop_signal(k, "SIGINT", false);
        break;
    case SIGTERM:
        on_stop_signal(k, "SIGTERM", false);
        break;
    case SIGQUIT:
        on_stop_signal(k, "SIGQUIT", true);
        break;
    case SIGUSR1:
        if (!tell(k, KEEPER_RELOAD))
            LOG(LOG_ERROR, "", "the server process does not listen: not reloading");
        break;
    case SIGCHLD:
        return reap(k);
    default:
        break;
    }
    return false;
}

/* What systemd handed over stays here: fd/N asks for it. */
static void keep_handed_over(void)
{
    uint64_t count, pid;
    const char *fds = getenv("LISTEN_FDS"), *to = getenv("LISTEN_PID");
    if (fds == NULL || to == NULL || !slice_to_u64(slice_from(fds), 1000, &count) ||
        !slice_to_u64(slice_from(to), INT32_MAX, &pid) || (pid_t)pid != getpid())
        return;
    for (int fd = 3; fd < 3 + (int)count; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static int catch_signals(void)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++)
        sigaddset(&set, caught[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* WATCHDOG_USEC: the keeper vouches for the server only while that one answers. */
static void read_watchdog(struct keeper *k)
{
    uint64_t us, pid;
    const char *interval = getenv("WATCHDOG_USEC"), *who = getenv("WATCHDOG_PID");
    if (interval == NULL || !slice_to_u64(slice_from(interval), UINT64_MAX / NS_PER_US, &us) ||
        us == 0)
        return;
    if (who != NULL && (!slice_to_u64(slice_from(who), INT32_MAX, &pid) || (pid_t)pid != getpid()))
        return;
    k->watchdog_ns = us * NS_PER_US / 2;
    k->watch_ns = clock_mono_ns() + k->watchdog_ns;
}

static void watch(struct keeper *k)
{
    if (k->answered || !k->ready)
        notify_systemd("WATCHDOG=1");
    else
        LOG(LOG_ERROR, "", "the server process does not answer: the watchdog is not told");
    if (k->ready)
        k->answered = false;
    (void)!tell(k, KEEPER_PING);
    k->watch_ns = clock_mono_ns() + k->watchdog_ns;
}

static void sooner(uint64_t *earliest, uint64_t ns)
{
    if (ns != 0 && (*earliest == 0 || ns < *earliest))
        *earliest = ns;
}

/* Milliseconds for poll: until the next thing that is due, or without end. */
static int next_ms(const struct keeper *k)
{
    uint64_t earliest = 0, now = clock_mono_ns();
    sooner(&earliest, k->restart_ns);
    sooner(&earliest, k->watch_ns);
    if (k->kill_ns > 0)
        sooner(&earliest, now + 100 * NS_PER_MS);
    if (earliest == 0)
        return -1;
    uint64_t ms = earliest > now ? (earliest - now + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms < 60000 ? (int)ms : 60000;
}

/* What time brings. True when all is over. */
static bool on_time(struct keeper *k)
{
    uint64_t now = clock_mono_ns();
    if (k->kill_ns > 0 && k->server > 0 && now >= k->kill_ns)
        kill(k->server, SIGKILL);
    if (k->watch_ns != 0 && now >= k->watch_ns)
        watch(k);
    if (k->restart_ns != 0 && k->stopping)
        return true;
    return k->restart_ns != 0 && now >= k->restart_ns && restart(k);
}

static void keep(struct keeper *k)
{
    for (bool over = false; !over;) {
        struct pollfd p[2] = {{k->signals, POLLIN, 0}, {k->server_fd, POLLIN, 0}};
        int n = poll(p, 2, next_ms(k));
        if (n < 0 && errno != EINTR)
            return;
        if (n > 0 && p[1].revents != 0 && k->server_fd >= 0)
            on_message(k);
        if (n > 0 && p[0].revents != 0)
            over = on_signal(k);
        over = on_time(k) || over;
    }
}

/* Each connection is one, so as many as the system lets us have, as Go does. */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
}

int keeper_run(char **argv)
{
    static struct keeper k;
    raise_descriptors();
    k.argv = argv;
    k.server_fd = -1;
    keep_handed_over();
    k.signals = catch_signals();
    read_watchdog(&k);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (k.signals < 0 || start_server(&k) != OK) {
        fprintf(stderr, "portico: cannot start: %s\n", strerror(errno));
        return 1;
    }
    keep(&k);
    release_all(&k);
    close(k.signals);
    return k.status;
}
