/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment is asked each time: --envfile may have changed it.
 */
#include "app/folders.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/program_name.h"
#include "base/fd_write.h"

static const char *variable(const char *name)
{
    const char *v = getenv(name);
    return v != NULL && v[0] != '\0' ? v : NULL;
}

void folder_home(char out[FOLDER_MAX])
{
    const char *home = variable("HOME");
    snprintf(out, FOLDER_MAX, "%s", home != NULL ? home : ".");
}

static void below(const char *base, const char *home_folder, char out[FOLDER_MAX])
{
    const char *home = variable("HOME");
    if (base != NULL)
        snprintf(out, FOLDER_MAX, "%s/%s", base, program_name());
    else if (home != NULL)
        snprintf(out, FOLDER_MAX, "%s/%s/%s", home, home_folder, program_name());
    else
        snprintf(out, FOLDER_MAX, "./%s", program_name());
}

void folder_config(char out[FOLDER_MAX])
{
    below(variable("XDG_CONFIG_HOME"), ".config", out);
}

void folder_data(char out[FOLDER_MAX])
{
    below(variable("XDG_DATA_HOME"), ".local/share", out);
}

void folder_autosave(char out[FOLDER_MAX])
{
    char folder[FOLDER_MAX];
    folder_config(folder);
    snprintf(out, FOLDER_MAX, "%.*s/autosave.json", FOLDER_MAX - 32, folder);
}

enum err folder_make(const char *path, unsigned mode)
{
    char part[FOLDER_MAX];
    size_t len = strlen(path);
    if (len >= sizeof part)
        return ERR_LIMIT;
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        part[i] = '\0';
        if (mkdir(part, mode) != 0 && errno != EEXIST)
            return err_from_errno(errno);
        if (i < len)
            part[i] = '/';
    }
    return OK;
}

enum err folder_write(const char *path, const char *bytes, size_t len, char *error, size_t cap)
{
    char fresh[FOLDER_MAX + 16];
    snprintf(fresh, sizeof fresh, "%s.%d.new", path, (int)getpid());
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        snprintf(error, cap, "open %s: %s", fresh, strerror(errno));
        return err_from_errno(errno);
    }
    enum err e = fd_write_all(fd, slice_of(bytes, len));
    if (close(fd) != 0 && e == OK)
        e = err_from_errno(errno);
    if (e == OK && rename(fresh, path) != 0)
        e = err_from_errno(errno);
    if (e == OK)
        return OK;
    unlink(fresh);
    snprintf(error, cap, "write %s: %s", path, err_text(e));
    return e;
}
