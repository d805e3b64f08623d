/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The document goes as a memory file, which the helper reads as foreign input: the server may have
 * been taken over. What would shut somebody out who is connected now is not done here either, and a
 * trial that somebody has begun by hand is left alone. The table stays when portico ends.
 */
#include "app/ports_keep.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/keeper_link.h"
#include "base/fd_write.h"
#include "base/log.h"
#include "base/mem.h"
#include "config/jsonx.h"
#include "keeper/keeper.h"
#include "keeper/powers.h"
#include "ports/enforce_document.h"

enum { SCRIPT_MAX = 256 << 20 };

void ports_ask_keeper(struct slice document)
{
    int fd = memfd_create("portico-ports", MFD_CLOEXEC);
    bool sent = fd >= 0 && fd_write_all(fd, document) == OK &&
                keeper_link_pass(KEEPER_ENFORCE, fd) == OK;
    if (!sent)
        LOG(LOG_ERROR, "ports", "the keeper could not be told which ports to keep shut");
    if (fd >= 0)
        close(fd);
}

/* ---- the helper ---- */

static json_t *read_document(void)
{
    const char *number = getenv(FIREWALL_ENV);
    struct stat st;
    struct diag d = {0};
    uint64_t fd;
    if (number == NULL || !slice_to_u64(slice_from(number), INT32_MAX, &fd) ||
        fstat((int)fd, &st) != 0 || st.st_size < 0 || (size_t)st.st_size > JSONX_MAX_SIZE)
        return NULL;
    unsetenv(FIREWALL_ENV);
    char *bytes = mem_alloc((size_t)st.st_size + 1);
    ssize_t n = pread((int)fd, bytes, (size_t)st.st_size, 0);
    close((int)fd);
    json_t *document =
        n == st.st_size ? jsonx_load(SLICE_NONE, slice_of(bytes, (size_t)n), &d) : NULL;
    mem_free(bytes);
    return document;
}

static int failed(const char *error)
{
    LOG(LOG_ERROR, "ports", "the ports are not kept as the configuration says",
        LOG_CSTR("error", error));
    return 1;
}

static int take_away(const struct enforce_state *now)
{
    char error[1024];
    if (!now->present)
        return 0;
    if (enforce_remove(error, sizeof error) != OK)
        return failed(error);
    LOG(LOG_INFO, "ports", "no port is kept shut any more: the table inet portico is gone");
    return 0;
}

static bool cuts(const struct enforce_plan *plan, struct arena *arena)
{
    struct slice *cut;
    size_t count;
    if (enforce_would_cut(plan, arena, &cut, &count) != OK) {
        LOG(LOG_ERROR, "ports", "who is connected cannot be seen, so nobody is shut out");
        return true;
    }
    for (size_t i = 0; i < count; i++)
        LOG(LOG_ERROR, "ports", "somebody who is connected would be shut out", LOG_STR("who", cut[i]));
    return count > 0;
}

/* `again`: these rules were in force, and somebody has taken the table away. */
static int put_in_force(const struct enforce_wish *wish, const struct enforce_state *now, bool again,
                        struct arena *arena)
{
    char mark[17], error[1024];
    struct buffer script;
    enforce_mark(&wish->plan, mark);
    if (again && now->present)
        return 0; /* somebody else's rules, of `ports apply` */
    if (now->trial_left_s > 0)
        return failed("a trial is running: confirm it or roll it back, then reload");
    if (now->current != 0 && strcmp(now->current_mark, mark) == 0)
        return 0; /* and so the counters go on */
    if (!again && cuts(&wish->plan, arena))
        return failed("it would cut connections: declare their networks, or portico ports apply --force");
    buffer_init(&script, SCRIPT_MAX);
    enum err e = enforce_script(&wish->plan, now, 0, &script);
    if (e == OK)
        e = enforce_apply(buffer_slice(&script), error, sizeof error);
    else
        snprintf(error, sizeof error, "%s", err_text(e));
    buffer_deinit(&script);
    if (e != OK)
        return failed(error);
    if (again)
        LOG(LOG_WARN, "ports", "the table inet portico had been removed, as a flush of the whole ruleset "
            "does: ports are kept shut again");
    else
        LOG(LOG_INFO, "ports", "ports are kept as the configuration says: table inet portico");
    return 0;
}

int ports_keep(void)
{
    char error[2048];
    struct arena arena;
    struct enforce_wish wish;
    struct enforce_state now;
    bool again = getenv(FIREWALL_AGAIN_ENV) != NULL;
    unsetenv(FIREWALL_AGAIN_ENV);
    powers_of_firewall();
    json_t *document = read_document();
    if (document == NULL)
        return failed("the document could not be read");
    arena_init(&arena, 1 << 16);
    int status;
    if (enforce_document(document, NULL, &arena, &wish, error, sizeof error) != OK ||
        enforce_state_read(&arena, &now, error, sizeof error) != OK)
        status = failed(error);
    else if (!wish.nftables)
        status = again ? 0 : take_away(&now); /* what is there by now somebody has applied by hand */
    else
        status = put_in_force(&wish, &now, again, &arena);
    arena_deinit(&arena);
    json_decref(document);
    return status;
}
