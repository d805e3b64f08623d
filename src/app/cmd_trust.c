/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portico trust, portico untrust: a root certificate into and out of the trust stores of this
 * machine. It comes from the admin API of a running server, or from a file. Each change is printed,
 * as is where the certificate's own file stands: nobody should have to guess what was done to their
 * machine.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "app/admin_client.h"
#include "app/commands.h"
#include "app/config_file.h"
#include "base/mem.h"
#include "config/jsonx.h"
#include "pki/trust_store.h"

#define SERVER_FLAGS                                                                               \
    {"ca", 0, true, NULL, "id of the authority", NULL},                                            \
    {"address", 0, true, NULL, "address of the admin API (if --config is not used)", NULL},        \
    {"config", 'c', true, NULL, "configuration file (if --address is not used)", NULL},            \
    {"adapter", 'a', true, NULL, "name of the config adapter to apply (with --config)", NULL}

static const struct flag trust_flags[] = {SERVER_FLAGS, {0}};
static const struct flag untrust_flags[] = {
    {"cert", 'p', true, NULL, "file of the certificate that is not to be trusted any more", NULL},
    SERVER_FLAGS,
    {0},
};

enum { FILE_MAX = 1 << 20 };

static void on_told(void *arg, const char *sentence)
{
    (void)arg;
    printf("%s\n", sentence);
}

static const struct trust_note note = {on_told, NULL};

/* The root's PEM, to be freed, out of what the admin API says of an authority. */
static enum err root_of(struct slice body, char **pem, char *error, size_t cap)
{
    struct diag d;
    json_t *info = jsonx_load(SLICE("admin API"), body, &d);
    const char *text = json_string_value(json_object_get(info, "root_certificate"));
    if (text == NULL) {
        snprintf(error, cap, "failed to decode JSON response: there is no root certificate in it");
        json_decref(info);
        return ERR_INVALID;
    }
    *pem = slice_dup(slice_from(text));
    json_decref(info);
    return OK;
}

static enum err ask_server(const struct command_line *l, const char *id, char **pem, char *error,
                           size_t cap)
{
    struct loaded_config c = {0};
    struct buffer answer;
    char path[512], why[1500];
    const char *config = flag_value(l, "config"), *address = flag_value(l, "address");
    if (config != NULL && address == NULL &&
        config_load(config, flag_value(l, "adapter"), &c, why, sizeof why) != OK) {
        snprintf(error, cap, "couldn't determine admin API address: %s", why);
        return ERR_INVALID;
    }
    snprintf(path, sizeof path, "/pki/ca/%s", id);
    buffer_init(&answer, FILE_MAX);
    struct admin_call call = {.address = admin_address(address, c.document), .method = "GET",
                              .path = path, .fields = SLICE(""), .answer = &answer};
    enum err e = admin_request(&call, why, sizeof why);
    if (e != OK)
        snprintf(error, cap, "requesting CA info: %s", why);
    else
        e = root_of(buffer_slice(&answer), pem, error, cap);
    buffer_deinit(&answer);
    config_unload(&c);
    return e;
}

static bool is_id(const char *id)
{
    return id[0] != '\0' && strlen(id) < 256 && strpbrk(id, " /?#%\r\n\t\"\\") == NULL;
}

static int change_by_server(const struct command_line *l,
                            enum err (*change)(struct slice, const struct trust_note *))
{
    char error[2048], *pem = NULL;
    const char *id = flag_value(l, "ca");
    if (id == NULL)
        id = "local";
    if (!is_id(id))
        return cli_fail("--ca %s: not an authority's id", id);
    if (ask_server(l, id, &pem, error, sizeof error) != OK)
        return cli_fail("%s", error);
    printf("root certificate of the authority %s\n", id);
    enum err e = change(slice_from(pem), &note);
    mem_free(pem);
    return e == OK ? EXIT_OK : EXIT_STARTUP;
}

static int run_trust(const struct command_line *l)
{
    return change_by_server(l, trust_install);
}

static int change_by_file(const char *path)
{
    struct buffer text;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return cli_fail("accessing certificate file: %m: %s", path);
    buffer_init(&text, FILE_MAX);
    ssize_t n = 1;
    while (n > 0 && buffer_reserve(&text, 4096) == OK) {
        n = read(fd, text.ptr + text.len, 4096);
        text.len += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    enum err e = n < 0 ? ERR_IO : trust_uninstall(buffer_slice(&text), &note);
    buffer_deinit(&text);
    return e == OK ? EXIT_OK : cli_fail("failed to uninstall certificate file: %s", path);
}

static int run_untrust(const struct command_line *l)
{
    if (!flag_given(l, "cert"))
        return change_by_server(l, trust_uninstall);
    if (flag_given(l, "ca") || flag_given(l, "address") || flag_given(l, "config"))
        return cli_fail("conflicting command line arguments, cannot use --cert with other flags");
    return change_by_file(flag_value(l, "cert"));
}

const struct command command_trust = {
    .name = "trust",
    .usage = "[--ca <id>] [--address <listen>] [--config <path> [--adapter <name>]]",
    .help = "Installs a CA certificate into local trust stores",
    .about = "Adds the root certificate of a running server's authority to the trust stores of this\n"
             "machine, so that programs here believe the certificates that it issues: the system's\n"
             "(which is root's: run it by sudo), and the NSS databases of browsers in your home,\n"
             "where certutil is installed. Every change is printed.\n\n"
             "The certificate is asked for at the admin API: at --address, or where the file of\n"
             "--config says, or at localhost:2019. --ca names another authority than \"local\".",
    .flags = trust_flags,
    .run = run_trust,
};

const struct command command_untrust = {
    .name = "untrust",
    .usage = "[--cert <path>] | [[--ca <id>] [--address <listen>] [--config <path> [--adapter <name>]]]",
    .help = "Untrusts a locally-trusted CA certificate",
    .about = "Removes a root certificate from the trust stores of this machine: the one in the file\n"
             "of --cert, or the one of a running server's authority, which is asked for at the admin\n"
             "API as the command trust does. Files in the server's storage are left as they are.",
    .flags = untrust_flags,
    .run = run_untrust,
};
