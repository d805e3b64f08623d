/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico fmt: a Caddyfile in its standard form, on stdout, as a difference, or into the file.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/commands.h"
#include "app/config_file.h"
#include "base/fd_write.h"
#include "base/mem.h"
#include "config/format.h"

static const struct flag flags[] = {
    {"config", 'c', true, "FILE", "configuration file, - for standard input", NULL},
    {"overwrite", 'w', false, NULL, "write the result into the file", NULL},
    {"diff", 'd', false, NULL, "print what changes", NULL},
    {0},
};

/* --- differences --- */

/* Tables of the longest common part are this large at most; beyond, all old lines come first. */
enum { TABLE_MAX = 16 << 20 };

struct lines {
    struct slice *items;
    size_t count;
};

static struct lines split(struct slice text)
{
    struct lines l = {0};
    size_t most = 1;
    for (size_t i = 0; i < text.len; i++)
        most += text.ptr[i] == '\n';
    l.items = mem_resize(NULL, most, sizeof *l.items);
    while (slice_cut(text, '\n', &l.items[l.count++], &text))
        ;
    return l;
}

static void print_line(const char *mark, struct slice line)
{
    printf("%s" SLICE_FMT "\n", mark, SLICE_ARG(line));
}

static void print_changed(const struct slice *old, size_t olds, const struct slice *new,
                          size_t news)
{
    size_t width = news + 1, i = 0, k = 0;
    if (olds > 0 && news > 0 && olds + 1 <= TABLE_MAX / width) {
        unsigned *common = mem_zalloc((olds + 1) * width * sizeof *common);
        for (size_t x = olds; x-- > 0;)
            for (size_t y = news; y-- > 0;) {
                unsigned down = common[(x + 1) * width + y], right = common[x * width + y + 1];
                common[x * width + y] = slice_eq(old[x], new[y])
                                            ? common[(x + 1) * width + y + 1] + 1
                                            : (down > right ? down : right);
            }
        while (i < olds && k < news) {
            if (slice_eq(old[i], new[k])) {
                print_line("  ", old[i++]);
                k++;
            } else if (common[(i + 1) * width + k] >= common[i * width + k + 1]) {
                print_line("- ", old[i++]);
            } else {
                print_line("+ ", new[k++]);
            }
        }
        mem_free(common);
    }
    while (i < olds)
        print_line("- ", old[i++]);
    while (k < news)
        print_line("+ ", new[k++]);
}

static void print_difference(struct slice old_text, struct slice new_text)
{
    struct lines old = split(old_text), new = split(new_text);
    size_t head = 0, tail = 0;
    while (head < old.count && head < new.count && slice_eq(old.items[head], new.items[head]))
        print_line("  ", old.items[head++]);
    while (tail < old.count - head && tail < new.count - head &&
           slice_eq(old.items[old.count - 1 - tail], new.items[new.count - 1 - tail]))
        tail++;
    print_changed(old.items + head, old.count - head - tail, new.items + head,
                  new.count - head - tail);
    for (size_t i = old.count - tail; i < old.count; i++)
        print_line("  ", old.items[i]);
    mem_free(old.items);
    mem_free(new.items);
}

/* --- writing --- */

/* Beside the file and then in its place, so that a full disk never costs the Caddyfile. */
static int overwrite(const char *path, struct slice text)
{
    char *real = realpath(path, NULL), *beside = NULL;
    struct stat st;
    int fd = -1;
    if (real != NULL && stat(real, &st) == 0 && asprintf(&beside, "%s.XXXXXX", real) > 0)
        fd = mkstemp(beside);
    bool done = fd >= 0 && fchown(fd, st.st_uid, st.st_gid) == 0 &&
                fchmod(fd, st.st_mode & 07777) == 0 && fd_write_all(fd, text) == OK && fsync(fd) == 0 &&
                rename(beside, real) == 0;
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (fd >= 0 && !done)
        unlink(beside);
    free(beside);
    free(real);
    return done ? EXIT_OK : cli_fail("overwriting formatted file: %s: %s", path, strerror(why));
}

static int answer(const struct command_line *l, const char *path, struct slice text,
                  struct slice formatted)
{
    unsigned line;
    if (strcmp(path, "-") != 0 && flag_on(l, "overwrite"))
        return overwrite(path, formatted);
    if (strcmp(path, "-") != 0 && flag_on(l, "diff"))
        print_difference(text, formatted);
    else
        fwrite(formatted.ptr, 1, formatted.len, stdout);
    if (fflush(stdout) != 0)
        return cli_fail("writing: %s", strerror(errno));
    if (strcmp(path, "-") == 0 || !caddyfile_format_differs(text, &line))
        return EXIT_OK;
    return cli_fail("%s:%u: Caddyfile input is not formatted; Tip: use '--overwrite' to update your "
                    "Caddyfile in-place instead of previewing it. Consult '--help' for more options",
                    path, line);
}

static int run(const struct command_line *l)
{
    const char *named = flag_value(l, "config"), *path = l->args_count > 0 ? l->args[0] : named;
    char error[4096], *bytes;
    size_t len;
    struct buffer formatted;
    if (named != NULL && l->args_count > 0)
        return cli_fail("fmt does not support multiple files %s %s", named, l->args[0]);
    path = path != NULL ? path : "Caddyfile";
    if (file_read_all(path, &bytes, &len, error, sizeof error) != OK)
        return cli_fail("%s", error);
    buffer_init(&formatted, SIZE_MAX);
    int status = caddyfile_format(slice_of(bytes, len), &formatted) == OK
                     ? answer(l, path, slice_of(bytes, len), buffer_slice(&formatted))
                     : cli_fail("%s: too large to format", path);
    buffer_deinit(&formatted);
    mem_free(bytes);
    return status;
}

const struct command command_fmt = {
    .name = "fmt",
    .usage = "[--overwrite] [--diff] [FILE]",
    .help = "Formats a Caddyfile",
    .flags = flags,
    .max_args = 1,
    .run = run,
};
