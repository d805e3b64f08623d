/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Prometheus' own clients tell of their process, from /proc: the usual names.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/log_queue.h"
#include "http/http_metrics.h"

static size_t read_text(const char *path, char *text, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, cap - 1) : 0;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

static unsigned count_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d != NULL && readdir(d) != NULL)
        n++;
    if (d != NULL)
        closedir(d);
    return n > 3 ? n - 3 : 0; /* ".", ".." and the folder's own */
}

static double started; /* seconds since the epoch */

/* Field 22 of /proc/self/stat, in ticks after boot; /proc/stat tells the boot. */
static void read_start(void)
{
    char text[1024], *at;
    unsigned long long ticks = 0, boot = 0;
    static char all[65536];
    read_text("/proc/self/stat", text, sizeof text);
    at = strrchr(text, ')');
    for (unsigned i = 0; at != NULL && i < 20; i++)
        at = strchr(at + 1, ' ');
    if (at != NULL)
        ticks = strtoull(at, NULL, 10);
    read_text("/proc/stat", all, sizeof all);
    at = strstr(all, "btime ");
    if (at != NULL)
        boot = strtoull(at + 6, NULL, 10);
    started = (double)boot + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* Workers and the admin endpoint ask. */
static double start_seconds(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_start);
    return started;
}

enum err process_metrics_put(struct buffer *b)
{
    char text[256];
    struct rusage use = {0};
    struct rlimit fds = {0};
    unsigned long long total = 0, resident = 0;
    getrusage(RUSAGE_SELF, &use);
    getrlimit(RLIMIT_NOFILE, &fds);
    read_text("/proc/self/statm", text, sizeof text);
    sscanf(text, "%llu %llu", &total, &resident);
    unsigned long long page = (unsigned long long)sysconf(_SC_PAGESIZE);
    double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
                 (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    return buffer_append_f(
        b,
        "# HELP portico_log_dropped_total Log lines dropped since the start.\n"
        "# TYPE portico_log_dropped_total counter\nportico_log_dropped_total %llu\n"
        "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n"
        "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.2f\n"
        "# HELP process_max_fds Maximum number of open file descriptors.\n"
        "# TYPE process_max_fds gauge\nprocess_max_fds %llu\n"
        "# HELP process_open_fds Number of open file descriptors.\n"
        "# TYPE process_open_fds gauge\nprocess_open_fds %u\n"
        "# HELP process_resident_memory_bytes Resident memory size in bytes.\n"
        "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %llu\n"
        "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.\n"
        "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %.2f\n"
        "# HELP process_virtual_memory_bytes Virtual memory size in bytes.\n"
        "# TYPE process_virtual_memory_bytes gauge\nprocess_virtual_memory_bytes %llu\n",
        (unsigned long long)log_queue_dropped(), cpu, (unsigned long long)fds.rlim_cur, count_fds(),
        resident * page, start_seconds(), total * page);
}
