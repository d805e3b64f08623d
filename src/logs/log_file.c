/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logs in files that roll: by size, after an interval, or at times of the day. A file that rolls is
 * renamed to NAME-TIME-REASON.EXT and a new one takes its place; what becomes of the rolled ones is
 * the mill's (logs/log_mill.c). Lines are never torn over two files.
 *
 * A path need not be a file: a FIFO without a reader, or a device, takes what it takes and never
 * holds up the log thread. When somebody else moves the file away (logrotate), the next write finds
 * out within a second and opens the path anew.
 *
 *     {"output": "file", "filename": "/var/log/access.log", "mode": "0640", "dir_mode": "inherit",
 *      "roll": true, "roll_size_mb": 100, "roll_interval": "24h", "roll_minutes": [0, 30],
 *      "roll_at": ["00:00"], "roll_gzip": true, "roll_compression": "zstd",
 *      "roll_local_time": false, "roll_keep": 10, "roll_keep_days": 90,
 *      "backup_time_format": "2006-01-02T15-04-05.000"}
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "logs/log_mill.h"
#include "logs/writers.h"

#define CHECK_NS NS_PER_S           /* between two looks whether the path is still the file */
#define ROLL_RETRY_NS (10 * NS_PER_S)
#define MINUTES_A_DAY 1440
#define DEFAULT_LAYOUT "2006-01-02T15-04-05.000"

enum dir_mode { DIR_GIVEN, DIR_INHERIT, DIR_FROM_FILE };

struct file_options {
    struct slice path, key;
    mode_t mode;     /* 0: 0600 for a new file, an old one stays */
    enum dir_mode dir_mode;
    mode_t dir_bits; /* DIR_GIVEN */
    bool roll;
    uint64_t size_max, interval_ns;
    uint8_t marks[MINUTES_A_DAY / 8]; /* minutes of the day at which it rolls */
    bool has_marks;
    struct log_rolled rolled;
};

struct file_writer {
    struct log_writer writer;
    struct file_options options; /* its path is malloc'd and ends in NUL */
    int fd;
    uint64_t size, checked_ns, rolled_ns, no_roll_before_ns;
    int64_t minute; /* the last one looked at for marks */
    bool regular;
};

/* --- options --- */

static const char *const members[] = {
    "output", "filename", "mode", "dir_mode", "roll", "roll_size_mb", "roll_interval",
    "roll_minutes", "roll_at", "roll_gzip", "roll_compression", "roll_local_time", "roll_keep",
    "roll_keep_days", "backup_time_format", NULL};

static bool parse_mode(struct slice text, mode_t *mode)
{
    unsigned v = 0;
    if (text.len == 0 || text.len > 6)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '7')
            return false;
        v = v * 8 + (unsigned)(text.ptr[i] - '0');
    }
    *mode = v & 07777;
    return true;
}

static enum err read_modes(struct file_options *o, const json_t *json, struct provision *p)
{
    struct slice mode, dir;
    TRY(provision_text(p, json, "mode", SLICE_NONE, &mode));
    TRY(provision_text(p, json, "dir_mode", SLICE_NONE, &dir));
    dir = slice_trim(dir);
    if (mode.len > 0 && !parse_mode(mode, &o->mode))
        return provision_fail(p, "\"mode\" must be octal digits such as \"0640\"");
    o->dir_bits = 0700;
    if (slice_eq_nocase(dir, SLICE("inherit")))
        o->dir_mode = DIR_INHERIT;
    else if (slice_eq_nocase(dir, SLICE("from_file")))
        o->dir_mode = DIR_FROM_FILE;
    else if (dir.len > 0 && !slice_is(dir, "0") && !parse_mode(dir, &o->dir_bits))
        return provision_fail(p, "\"dir_mode\" must be \"inherit\", \"from_file\" or octal digits "
                              "such as \"0755\"");
    return OK;
}

static enum err read_compression(struct file_options *o, const json_t *json, struct provision *p)
{
    struct slice text;
    bool gzip;
    TRY(provision_bool(p, json, "roll_gzip", true, &gzip));
    TRY(provision_text(p, json, "roll_compression", SLICE_NONE, &text));
    text = slice_trim(text);
    o->rolled.compression = gzip ? LOG_COMPRESS_GZIP : LOG_COMPRESS_NONE;
    if (slice_eq_nocase(text, SLICE("none")))
        o->rolled.compression = LOG_COMPRESS_NONE;
    else if (slice_eq_nocase(text, SLICE("gzip")))
        o->rolled.compression = LOG_COMPRESS_GZIP;
    else if (slice_eq_nocase(text, SLICE("zstd")))
        o->rolled.compression = LOG_COMPRESS_ZSTD;
    else if (text.len > 0)
        return provision_fail(p, "invalid roll_compression: " SLICE_FMT, SLICE_ARG(text));
    return OK;
}

/* A layout is good when what it writes can be read again to the same second. */
static enum err read_layout(struct file_options *o, const json_t *json, struct provision *p)
{
    char text[TIME_TEXT_MAX];
    struct slice layout;
    int64_t then = INT64_C(1747957319987654321), back;
    struct time_layout *l = &o->rolled.layout;
    TRY(provision_text(p, json, "backup_time_format", SLICE_NONE, &layout));
    (void)!time_layout_compile(l, SLICE(DEFAULT_LAYOUT));
    if (layout.len == 0)
        return OK;
    if (time_layout_compile(l, layout) != OK || slice_find(layout, '/') != SIZE_MAX ||
        time_layout_read(l, slice_of(text, time_layout_put(l, then, false, text)), false,
                         &back) != OK ||
        back / (int64_t)NS_PER_S != then / (int64_t)NS_PER_S) {
        log_complain("portico: backup_time_format \"" SLICE_FMT "\" cannot be read back: using "
                DEFAULT_LAYOUT "\n", SLICE_ARG(layout));
        (void)!time_layout_compile(l, SLICE(DEFAULT_LAYOUT));
    }
    return OK;
}

static void set_mark(struct file_options *o, unsigned minute)
{
    o->marks[minute / 8] |= (uint8_t)(1u << minute % 8);
    o->has_marks = true;
}

/* Values that are no time are passed over with a warning, as in Caddy. */
static enum err read_marks(struct file_options *o, const json_t *json, struct provision *p)
{
    struct slice *times, hour, minute;
    size_t count;
    uint64_t h, m;
    const json_t *minutes = json_object_get(json, "roll_minutes");
    if (minutes != NULL && !json_is_null(minutes) && !json_is_array(minutes))
        return provision_fail(p, "\"roll_minutes\" must be an array of numbers");
    for (size_t i = 0; i < json_array_size(minutes); i++) {
        json_t *v = json_array_get(minutes, i);
        if (!json_is_integer(v))
            return provision_fail(p, "\"roll_minutes\" must be an array of numbers");
        if (json_integer_value(v) < 0 || json_integer_value(v) > 59)
            log_complain("portico: roll_minutes: %lld is no minute\n",
                    (long long)json_integer_value(v));
        for (unsigned k = 0; json_integer_value(v) >= 0 && json_integer_value(v) < 60 && k < 24; k++)
            set_mark(o, k * 60 + (unsigned)json_integer_value(v));
    }
    TRY(provision_texts(p, json, "roll_at", &times, &count));
    for (size_t i = 0; i < count; i++) {
        if (slice_cut(times[i], ':', &hour, &minute) && slice_to_u64(hour, 23, &h) &&
            slice_to_u64(minute, 59, &m))
            set_mark(o, (unsigned)(h * 60 + m));
        else
            log_complain("portico: roll_at: \"" SLICE_FMT "\" is no time of the day\n",
                    SLICE_ARG(times[i]));
    }
    return OK;
}

static enum err read_rolling(struct file_options *o, const json_t *json, struct provision *p)
{
    int64_t mb, interval;
    TRY(provision_bool(p, json, "roll", true, &o->roll));
    TRY(provision_int(p, json, "roll_size_mb", 0, 0, INT64_C(1) << 40, &mb));
    TRY(provision_duration(p, json, "roll_interval", 0, &interval));
    TRY(provision_int(p, json, "roll_keep", 0, INT32_MIN, INT32_MAX, &o->rolled.keep));
    TRY(provision_int(p, json, "roll_keep_days", 0, INT32_MIN, 36500, &o->rolled.keep_days));
    TRY(provision_bool(p, json, "roll_local_time", false, &o->rolled.local_time));
    o->size_max = (uint64_t)(mb > 0 ? mb : 100) << 20;
    o->interval_ns = interval > 0 ? (uint64_t)interval : 0;
    if (o->rolled.keep == 0)
        o->rolled.keep = 10;
    if (o->rolled.keep_days == 0)
        o->rolled.keep_days = 90;
    TRY(read_compression(o, json, p));
    TRY(read_layout(o, json, p));
    return read_marks(o, json, p);
}

static enum err provision(void *cfg, const json_t *json, struct provision *p)
{
    struct file_options *o = cfg;
    TRY(provision_members(p, json, members));
    TRY(log_text(p, json, "filename", &o->path));
    if (o->path.len == 0 || memchr(o->path.ptr, '\0', o->path.len) != NULL)
        return provision_fail(p, "\"filename\" must name the file to write to");
    o->key = arena_join(p->arena, (struct slice[]){SLICE("file:"), o->path}, 2);
    TRY(read_modes(o, json, p));
    return read_rolling(o, json, p);
}

/* --- opening --- */

/* Whoever may read may enter. */
static mode_t enterable(mode_t bits)
{
    return bits | (bits & 0400) >> 2 | (bits & 0040) >> 2 | (bits & 0004) >> 2;
}

static mode_t folder_bits(const struct file_options *o, const char *existing)
{
    struct stat st;
    if (o->dir_mode == DIR_FROM_FILE)
        return enterable(o->mode & 0777) | 0200;
    if (o->dir_mode == DIR_INHERIT)
        return enterable(stat(existing, &st) == 0 ? st.st_mode & 0777 : 0700);
    return o->dir_bits;
}

/* mkdir -p of what lies above the last slash. */
static enum err make_folders(const struct file_options *o, char *error, size_t cap)
{
    char *path = slice_dup(o->path);
    enum err e = OK;
    mode_t bits = 0;
    for (char *at = strchr(path + 1, '/'); e == OK && at != NULL; at = strchr(at + 1, '/')) {
        struct stat st;
        *at = '\0';
        if (stat(path, &st) != 0) {
            char *above = slice_dup(slice_from(path));
            char *slash = strrchr(above, '/');
            if (slash != NULL)
                slash[slash == above] = '\0';
            if (bits == 0)
                bits = folder_bits(o, slash != NULL ? above : ".");
            mem_free(above);
            if (mkdir(path, bits) != 0 && errno != EEXIST) {
                e = err_from_errno(errno);
                snprintf(error, cap, "mkdir %s: %s", path, strerror(errno));
            }
        }
        *at = '/';
    }
    mem_free(path);
    return e;
}

/* A FIFO that nobody reads refuses writers alone, so it is opened for both. */
static int open_path(const char *path, mode_t mode)
{
    int flags = O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = open(path, O_WRONLY | flags, mode);
    return fd < 0 && errno == ENXIO ? open(path, O_RDWR | flags, mode) : fd;
}

static enum err open_file(struct file_writer *f)
{
    const struct file_options *o = &f->options;
    struct stat st;
    int fd = open_path(o->path.ptr, o->mode != 0 ? o->mode : 0600);
    if (fd < 0)
        return err_from_errno(errno);
    if (fstat(fd, &st) != 0 ||
        (o->mode != 0 && S_ISREG(st.st_mode) && (st.st_mode & 07777) != o->mode &&
         fchmod(fd, o->mode) != 0)) {
        int kept = errno;
        close(fd);
        errno = kept;
        return err_from_errno(kept);
    }
    if (f->fd >= 0)
        close(f->fd);
    f->fd = fd;
    f->regular = S_ISREG(st.st_mode);
    f->size = f->regular ? (uint64_t)st.st_size : 0;
    return OK;
}

static int64_t minute_now(const struct file_options *o, int64_t wall_ns)
{
    time_t t = (time_t)(wall_ns / (int64_t)NS_PER_S);
    struct tm tm = {0};
    if (o->rolled.local_time)
        localtime_r(&t, &tm);
    return (t + tm.tm_gmtoff) / 60;
}

static const struct log_writer_type file_type, marked_file_type;

static enum err open_writer(const void *cfg, struct log_writer **out, char *error, size_t cap)
{
    const struct file_options *o = cfg;
    TRY(make_folders(o, error, cap));
    struct file_writer *f = NEW(struct file_writer);
    f->options = *o;
    f->options.path = slice_of(slice_dup(o->path), o->path.len);
    f->fd = -1;
    f->writer.type = o->roll && o->has_marks ? &marked_file_type : &file_type;
    f->writer.name = f->options.path.ptr;
    f->checked_ns = f->rolled_ns = clock_mono_ns();
    f->minute = minute_now(o, clock_wall_ns());
    enum err e = open_file(f);
    if (e != OK) {
        snprintf(error, cap, "open %s: %s", f->writer.name, strerror(errno));
        mem_free((void *)(uintptr_t)f->options.path.ptr);
        mem_free(f);
        return e;
    }
    if (o->roll && f->regular)
        log_mill_add(f->options.path.ptr, &f->options.rolled);
    *out = &f->writer;
    return OK;
}

/* --- rolling --- */

/* Never onto a file that is there: in one millisecond there may be two. */
static bool move_aside(const struct file_writer *f, const char *reason)
{
    struct buffer to;
    int64_t wall = clock_wall_ns();
    bool moved = false;
    buffer_init(&to, 8192);
    for (unsigned i = 0; i < 5000 && !moved; i++, wall += NS_PER_MS) {
        buffer_clear(&to);
        if (log_rolled_name(&to, f->options.path.ptr, &f->options.rolled, wall, reason) != OK ||
            buffer_append_byte(&to, '\0') != OK)
            break;
        moved = renameat2(AT_FDCWD, f->options.path.ptr, AT_FDCWD, to.ptr, RENAME_NOREPLACE) == 0;
        if (!moved && errno == EINVAL) /* a file system without it */
            moved = access(to.ptr, F_OK) != 0 && rename(f->options.path.ptr, to.ptr) == 0;
        if (!moved && errno != EEXIST)
            break;
    }
    buffer_deinit(&to);
    return moved;
}

static void roll(struct file_writer *f, const char *reason, uint64_t now)
{
    struct stat st;
    bool known = fstat(f->fd, &st) == 0;
    if (!move_aside(f, reason)) {
        log_complain("portico: rolling the log %s: %s; going on in it\n", f->writer.name,
                strerror(errno));
        f->no_roll_before_ns = now + ROLL_RETRY_NS;
        return;
    }
    if (open_file(f) != OK) { /* the old one, under its new name, is still open: go on there */
        log_complain("portico: opening the log %s: %s\n", f->writer.name, strerror(errno));
        f->no_roll_before_ns = now + ROLL_RETRY_NS;
        return;
    }
    if (known) {
        (void)!fchown(f->fd, st.st_uid, st.st_gid);
        fchmod(f->fd, f->options.mode != 0 ? f->options.mode : st.st_mode & 07777);
    }
    f->checked_ns = now;
    log_mill_add(f->options.path.ptr, &f->options.rolled);
}

static bool crossed_mark(struct file_writer *f, int64_t wall_ns)
{
    int64_t now = minute_now(&f->options, wall_ns), from = f->minute;
    f->minute = now;
    if (now - from > MINUTES_A_DAY)
        from = now - MINUTES_A_DAY;
    for (int64_t m = from + 1; m <= now; m++) {
        unsigned minute = (unsigned)(m % MINUTES_A_DAY);
        if ((f->options.marks[minute / 8] >> minute % 8 & 1) != 0)
            return true;
    }
    return false;
}

static void roll_by_time(struct file_writer *f, uint64_t now)
{
    const struct file_options *o = &f->options;
    bool due = o->interval_ns > 0 && now - f->rolled_ns >= o->interval_ns;
    if (o->has_marks && crossed_mark(f, clock_wall_ns()))
        due = true;
    if (!due)
        return;
    f->rolled_ns = now;
    if (f->size > 0)
        roll(f, "time", now);
}

/* What goes into the file before it must roll: whole lines. */
static struct slice fitting(const struct file_writer *f, struct slice bytes)
{
    uint64_t room = f->options.size_max > f->size ? f->options.size_max - f->size : 0;
    if (bytes.len <= room)
        return bytes;
    size_t end = slice_find_last(slice_take(bytes, (size_t)room), '\n');
    return slice_take(bytes, end == SIZE_MAX ? 0 : end + 1);
}

/* A line longer than a file may be goes into one of its own. */
static struct slice first_line(struct slice bytes)
{
    size_t end = slice_find(bytes, '\n');
    return end == SIZE_MAX ? bytes : slice_take(bytes, end + 1);
}

/* --- writing --- */

static void find_moved(struct file_writer *f, uint64_t now)
{
    struct stat open_one, at_path;
    if (now - f->checked_ns < CHECK_NS)
        return;
    f->checked_ns = now;
    if (!f->regular || fstat(f->fd, &open_one) != 0)
        return;
    if (stat(f->options.path.ptr, &at_path) != 0 || at_path.st_ino != open_one.st_ino ||
        at_path.st_dev != open_one.st_dev)
        (void)!open_file(f);
    else
        f->size = (uint64_t)open_one.st_size; /* somebody may have emptied it */
}

static enum err on_write(struct log_writer *w, struct slice bytes, size_t *taken)
{
    struct file_writer *f = CONTAINER_OF(w, struct file_writer, writer);
    uint64_t now = clock_mono_ns();
    find_moved(f, now);
    if (f->options.roll && f->regular && now >= f->no_roll_before_ns) {
        roll_by_time(f, now);
        struct slice part = fitting(f, bytes);
        if (part.len == 0 && f->size > 0) {
            roll(f, "size", now);
            part = fitting(f, bytes);
        }
        bytes = part.len > 0 ? part : first_line(bytes);
    }
    ssize_t n = write(f->fd, bytes.ptr, bytes.len);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? ERR_TIMEOUT : err_from_errno(errno);
    f->size += (uint64_t)n;
    *taken = (size_t)n;
    return n > 0 ? OK : ERR_IO;
}

static int on_poll_fd(struct log_writer *w)
{
    struct file_writer *f = CONTAINER_OF(w, struct file_writer, writer);
    return f->regular ? -1 : f->fd;
}

static void on_tick(struct log_writer *w, int64_t wall_ns)
{
    struct file_writer *f = CONTAINER_OF(w, struct file_writer, writer);
    (void)wall_ns;
    if (f->regular)
        roll_by_time(f, clock_mono_ns());
}

static void on_close(struct log_writer *w)
{
    struct file_writer *f = CONTAINER_OF(w, struct file_writer, writer);
    close(f->fd);
    mem_free((void *)(uintptr_t)f->options.path.ptr);
    mem_free(f);
}

/* The options of a later configuration with the same path. */
static void on_told(struct log_writer *w, void *message)
{
    struct file_writer *f = CONTAINER_OF(w, struct file_writer, writer);
    struct file_options *fresh = message;
    mode_t before = f->options.mode;
    fresh->path = f->options.path;
    f->options = *fresh;
    f->writer.type = fresh->roll && fresh->has_marks ? &marked_file_type : &file_type;
    f->minute = minute_now(fresh, clock_wall_ns());
    if (fresh->mode != 0 && fresh->mode != before && f->regular)
        fchmod(f->fd, fresh->mode);
    mem_free(fresh);
}

static void *message_of(const void *cfg)
{
    struct file_options *o = mem_alloc(sizeof *o);
    *o = *(const struct file_options *)cfg;
    o->path = o->key = SLICE_NONE;
    return o;
}

static const struct log_writer_type file_type = {on_write, on_poll_fd, NULL, on_close, on_told};
static const struct log_writer_type marked_file_type = {on_write, on_poll_fd, on_tick, on_close,
                                                        on_told};

static struct slice key_of(const void *cfg)
{
    return ((const struct file_options *)cfg)->key;
}

static const struct log_writer_face face = {key_of, open_writer, message_of, false, false};

const struct module log_writer_file = {
    .id = "caddy.logging.writers.file",
    .cfg_size = sizeof(struct file_options),
    .provision = provision,
    .face = &face,
};
