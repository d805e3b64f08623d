/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico hash-password: what basic_auth takes in place of a password. On a terminal it asks twice
 * and shows nothing; the terminal is put back whatever happens, Ctrl-C too.
 */
#include <signal.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

#include "app/commands.h"
#include "base/mem.h"
#include "handlers/password.h"

enum { PASSWORD_MAX = 4096 };

static const struct flag flags[] = {
    {"plaintext", 'p', true, NULL, "the password; visible to others in the list of processes", NULL},
    {"algorithm", 'a', true, NULL, "bcrypt or argon2id", "bcrypt"},
    {"bcrypt-cost", 0, true, "int", "bcrypt: each one more doubles the work", "14"},
    {"argon2id-time", 0, true, "uint32", "argon2id: number of passes", "1"},
    {"argon2id-memory", 0, true, "uint32", "argon2id: memory in KiB", "47104"},
    {"argon2id-threads", 0, true, "uint8", "argon2id: number of lanes", "1"},
    {"argon2id-keylen", 0, true, "uint32", "argon2id: bytes of the hash", "32"},
    {0},
};

static struct termios shown; /* the terminal as it was, for the signal handler */

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    _exit(EXIT_STARTUP);
}

static bool read_line(char out[PASSWORD_MAX], size_t *len)
{
    int c;
    *len = 0;
    while ((c = getchar()) != EOF && c != '\n') {
        if (*len == PASSWORD_MAX) {
            cli_fail("the password is longer than %d bytes", PASSWORD_MAX);
            return false;
        }
        out[(*len)++] = (char)c;
    }
    if (c == EOF && *len == 0) {
        cli_fail("plaintext is required");
        return false;
    }
    return true;
}

static bool ask(const char *what, char out[PASSWORD_MAX], size_t *len)
{
    struct termios hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden) != 0) {
        cli_fail("the terminal cannot be told to show nothing");
        return false;
    }
    fprintf(stderr, "%s password: ", what);
    bool good = read_line(out, len);
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    fputc('\n', stderr);
    return good;
}

static bool ask_twice(char out[PASSWORD_MAX], size_t *len)
{
    char again[PASSWORD_MAX];
    size_t again_len;
    signal(SIGINT, on_interrupt);
    bool good = ask("Enter", out, len) && ask("Confirm", again, &again_len);
    signal(SIGINT, SIG_DFL);
    bool same = good && again_len == *len && memcmp(again, out, *len) == 0;
    explicit_bzero(again, sizeof again);
    if (good && !same)
        cli_fail("password does not match");
    return same;
}

/* The costs as flags, in their ranges. */
static bool read_costs(const struct command_line *l, struct argon2id_costs *costs)
{
    int64_t time, memory, threads, len;
    if (!flag_number(l, "argon2id-time", 1, UINT32_MAX, &time) ||
        !flag_number(l, "argon2id-memory", 8, UINT32_MAX, &memory) ||
        !flag_number(l, "argon2id-threads", 1, UINT8_MAX, &threads) ||
        !flag_number(l, "argon2id-keylen", 4, 128, &len))
        return false;
    *costs = (struct argon2id_costs){(uint32_t)time, (uint32_t)memory, (uint32_t)threads,
                                     (uint32_t)len};
    return true;
}

static int print_hash(const struct command_line *l, struct slice password)
{
    char hash[PASSWORD_TEXT_MAX];
    const char *why = "", *algorithm = flag_value(l, "algorithm");
    struct argon2id_costs costs;
    int64_t cost;
    enum err e;
    if (strcmp(algorithm, "bcrypt") == 0) {
        if (!flag_number(l, "bcrypt-cost", INT32_MIN, INT32_MAX, &cost))
            return EXIT_STARTUP;
        if (cost < BCRYPT_COST_MIN || cost > BCRYPT_COST_MAX)
            cost = BCRYPT_COST; /* as Caddy */
        e = bcrypt_hash(password, (int)cost, hash, &why);
    } else if (strcmp(algorithm, "argon2id") == 0) {
        if (!read_costs(l, &costs))
            return EXIT_STARTUP;
        e = argon2id_hash(password, costs, hash, &why);
    } else {
        return cli_fail("unrecognized hash algorithm: %s", algorithm);
    }
    if (e != OK)
        return cli_fail("%s", why[0] != '\0' ? why : err_text(e));
    puts(hash);
    return EXIT_OK;
}

static int run(const struct command_line *l)
{
    char typed[PASSWORD_MAX];
    size_t len = 0;
    const char *plain = flag_value(l, "plaintext");
    struct slice password = slice_from(plain);
    if (password.len == 0) {
        bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &shown) == 0;
        if (!(terminal ? ask_twice(typed, &len) : read_line(typed, &len)))
            return EXIT_STARTUP;
        password = slice_of(typed, len);
    }
    if (password.len == 0)
        return cli_fail("plaintext is required");
    int status = print_hash(l, password);
    explicit_bzero(typed, sizeof typed);
    return status;
}

const struct command command_hash_password = {
    .name = "hash-password",
    .usage = "[--plaintext <password>] [--algorithm <argon2id|bcrypt>] [--bcrypt-cost <difficulty>] "
             "[--argon2id-time <iterations>] [--argon2id-memory <KiB>] [--argon2id-threads <n>] "
             "[--argon2id-keylen <bytes>]",
    .help = "Hashes a password for basic_auth",
    .about = "Prints the hash of a password, as basic_auth wants it. Without --plaintext the password\n"
             "is asked for twice on a terminal, without showing it, and read from standard input\n"
             "otherwise.",
    .flags = flags,
    .run = run,
};
