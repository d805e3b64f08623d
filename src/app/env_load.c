/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The person's process loads them, and the server inherits them with the rest.
 */
#include "app/env_load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "app/config_file.h"
#include "app/folders.h"
#include "base/mem.h"
#include "config/env_file.h"
#include "version.h"

static enum err set_all(const struct env_var *vars, size_t count, struct arena *a)
{
    for (size_t i = 0; i < count; i++) {
        if (setenv(arena_str(a, vars[i].name), arena_str(a, vars[i].value), 0) != 0) {
            cli_fail("loading additional environment variables: setting environment variables: %s",
                     strerror(errno));
            return ERR_INVALID;
        }
    }
    return OK;
}

static enum err load(const char *path)
{
    char error[512], *bytes;
    size_t len, count;
    struct diag why;
    struct env_var *vars;
    struct arena arena;
    diag_clear(&why);
    if (access(path, R_OK) != 0) {
        cli_fail("loading additional environment variables: reading environment file: open %s: %s",
                 path, strerror(errno));
        return ERR_IO;
    }
    if (file_read_all(path, &bytes, &len, error, sizeof error) != OK) {
        cli_fail("loading additional environment variables: %s", error);
        return ERR_IO;
    }
    arena_init(&arena, 16384);
    enum err e = env_file_parse(&arena, slice_of(bytes, len), &vars, &count, &why);
    if (e != OK)
        cli_fail("loading additional environment variables: parsing environment file: %s", why.text);
    else
        e = set_all(vars, count, &arena);
    arena_deinit(&arena);
    mem_free(bytes);
    return e;
}

enum err env_load(const struct command_line *l)
{
    struct slice files[FLAG_VALUES_MAX];
    size_t count = flag_values(l, "envfile", files);
    for (size_t i = 0; i < count; i++) {
        char *path = slice_dup(files[i]);
        enum err e = load(path);
        mem_free(path);
        if (e != OK)
            return e;
    }
    return OK;
}

void env_print(void)
{
    extern char **environ;
    char folder[FOLDER_MAX];
    folder_home(folder);
    printf("%s.HomeDir=%s\n", cli_program(), folder);
    folder_data(folder);
    printf("%s.AppDataDir=%s\n", cli_program(), folder);
    folder_config(folder);
    printf("%s.AppConfigDir=%s\n", cli_program(), folder);
    folder_autosave(folder);
    printf("%s.ConfigAutosavePath=%s\n", cli_program(), folder);
    printf("%s.Version=v%s\n", cli_program(), PORTICO_VERSION);
    printf("runtime.GOOS=linux\nruntime.NumCPU=%ld\n", sysconf(_SC_NPROCESSORS_ONLN));
    if (getcwd(folder, sizeof folder) != NULL)
        printf("os.Getwd=%s\n", folder);
    putchar('\n');
    for (char **e = environ; *e != NULL; e++)
        puts(*e);
    fflush(stdout);
}
