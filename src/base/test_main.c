/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner behind base/test.h: tests register themselves before main, main runs them in the
 * order of their file and prints TAP ("ok 1 - sentence"), which dev/test counts.
 */
#include "base/test.h"

#include <ftw.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct test_case *first, **last = &first;
static jmp_buf out_of_test;
static char message[2048];
enum { PASSED, FAILED, SKIPPED };

void test_register(struct test_case *t)
{
    *last = t;
    last = &t->next;
}

void test_fail(const char *file, int line, const char *format, ...)
{
    int n = snprintf(message, sizeof message, "%s:%d: ", file, line);
    va_list args;
    va_start(args, format);
    vsnprintf(message + n, sizeof message - (size_t)n, format, args);
    va_end(args);
    longjmp(out_of_test, FAILED);
}

void test_skip(const char *why)
{
    snprintf(message, sizeof message, "%s", why);
    longjmp(out_of_test, SKIPPED);
}

/* --- folders --- */

static char above[64]; /* of all folders of this program; empty: none was wanted */
static pid_t owner;
static unsigned folders;

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *at)
{
    (void)s;
    (void)kind;
    (void)at;
    return remove(path);
}

static void remove_folders(void)
{
    if (getpid() == owner) /* not a child that a test has forked */
        nftw(above, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void test_folder(char *path, size_t cap)
{
    if (above[0] == '\0') {
        snprintf(above, sizeof above, "/tmp/portico-unit-XXXXXX");
        if (mkdtemp(above) == NULL)
            test_fail(__FILE__, __LINE__, "no folder below /tmp can be made");
        owner = getpid();
        atexit(remove_folders);
    }
    snprintf(path, cap, "%s/%u", above, ++folders);
    if (mkdir(path, 0755) != 0)
        test_fail(__FILE__, __LINE__, "cannot make %s", path);
}

int main(int argc, char **argv)
{
    volatile int count = 0, failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (struct test_case *volatile t = first; t != NULL; t = t->next) {
        if (argc > 1 && strstr(t->name, argv[1]) == NULL)
            continue;
        int outcome = setjmp(out_of_test);
        if (outcome == PASSED)
            t->run();
        if (outcome == FAILED)
            failed = failed + 1;
        count = count + 1;
        printf("%s %d - %s", outcome == FAILED ? "not ok" : "ok", count, t->name);
        printf(outcome == SKIPPED ? " # SKIP %s\n" : "%s\n", outcome == SKIPPED ? message : "");
        if (outcome == FAILED)
            printf("# %s\n", message);
    }
    printf("1..%d\n", count);
    return failed > 0;
}
