/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptions of services: what is read, what is refused and in which words, what makes a new
 * process necessary.
 */
#include <signal.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/test.h"
#include "services/environment.h"
#include "services/service.h"

static struct arena arena;
static char error[1024];

static enum err read_text(const char *text, const struct origins *origins, struct service **out,
                          size_t *count)
{
    json_error_t e;
    json_t *app = json_loads(text, 0, &e);
    if (app == NULL)
        test_fail(__FILE__, __LINE__, "%s: %s", text, e.text);
    if (arena.chunk_size == 0)
        arena_init(&arena, 4096);
    error[0] = '\0';
    enum err result = services_read(app, origins, &arena, out, count, error, sizeof error);
    json_decref(app);
    return result;
}

static struct service *read_good(const char *text)
{
    struct service *s;
    size_t count;
    if (read_text(text, NULL, &s, &count) != OK)
        test_fail(__FILE__, __LINE__, "%s", error);
    CHECK(count > 0);
    return s;
}

static void refused(const char *text, const char *why)
{
    struct service *s;
    size_t count;
    CHECK_INT(read_text(text, NULL, &s, &count), ERR_INVALID);
    CHECK_INT(count, 0);
    if (strstr(error, why) == NULL)
        test_fail(__FILE__, __LINE__, "\"%s\" does not hold \"%s\"", error, why);
}

TEST("without the app there is no service")
{
    struct service *s;
    size_t count = 1;
    CHECK_OK(services_read(NULL, NULL, &arena, &s, &count, error, sizeof error));
    CHECK_INT(count, 0);
}

TEST("a name and a program are enough")
{
    struct service *s = read_good("{\"services\":[{\"name\":\"a\",\"run\":[\"./a\",\"b c\"]}]}");
    CHECK_TEXT(s->name, "a");
    CHECK_INT(s->run_count, 2);
    CHECK_TEXT(s->run[1], "b c");
    CHECK_TEXT(s->host, "127.0.0.1");
    CHECK_INT(s->port, 0);
    CHECK_INT(s->range_first, 3000);
    CHECK_INT(s->range_last, 3999);
    CHECK_INT(s->replicas, 1);
    CHECK_INT(s->health.kind, HEALTH_NONE);
    CHECK_INT(s->restart, RESTART_ALWAYS);
    CHECK_INT(s->stop_signal, SIGTERM);
    CHECK_INT(s->ready_ns, 30 * NS_PER_S);
    CHECK(s->confine && !s->socket && !s->on_demand);
}

TEST("every member is read")
{
    struct service *s = read_good(
        "{\"services\":[{\"name\":\"simon\",\"run\":[\"node\",\"index.js\"],\"dir\":\"/srv/simon\","
        "\"env\":{\"NODE_ENV\":\"production\"},\"user\":\"simon\",\"group\":\"www\","
        "\"host\":\"::1\",\"port\":3000,\"replicas\":2,"
        "\"health\":{\"uri\":\"/healthz\",\"interval\":\"1s\",\"timeout\":500000000,\"status\":2,"
        "\"fails\":2,\"passes\":3},\"ready_timeout\":\"5s\","
        "\"restart\":{\"policy\":\"on-failure\",\"delay\":\"1s\",\"max_delay\":\"2s\","
        "\"give_up\":0,\"within\":\"10s\"},\"stop_signal\":\"int\",\"stop_timeout\":\"3s\","
        "\"limits\":{\"memory\":268435456,\"cpu\":0.5,\"tasks\":64,\"files\":1024},"
        "\"watch\":[\".\"],\"after\":[\"b\"],\"on_demand\":{\"idle\":\"1m\",\"queue\":7},"
        "\"socket\":true,\"confine\":false},{\"name\":\"b\",\"run\":[\"b\"]}]}");
    CHECK_TEXT(s->env[0], "NODE_ENV=production");
    CHECK_TEXT(s->group, "www");
    CHECK_INT(s->port, 3000);
    CHECK_INT(s->health.kind, HEALTH_HTTP);
    CHECK_INT(s->health.timeout_ns, NS_PER_S / 2);
    CHECK_INT(s->health.passes, 3);
    CHECK_INT(s->restart, RESTART_ON_FAILURE);
    CHECK_INT(s->give_up, 0);
    CHECK_INT(s->stop_signal, SIGINT);
    CHECK_INT(s->memory, 268435456);
    CHECK(s->cpu > 0.49 && s->cpu < 0.51);
    CHECK_INT(s->demand_queue, 7);
    CHECK_INT(s->idle_ns, 60 * NS_PER_S);
    CHECK(s->socket && !s->confine && s->on_demand);
}

TEST("what is wrong is said in a sentence")
{
    refused("{\"x\":1}", "unknown member \"x\"");
    refused("{\"services\":{}}", "must be an array");
    refused("{\"services\":[{\"run\":[\"x\"]}]}", "needs a \"name\"");
    refused("{\"services\":[{\"name\":\"-a\",\"run\":[\"x\"]}]}", "cannot name a service");
    refused("{\"services\":[{\"name\":\"a\"}]}", "needs \"run\"");
    refused("{\"services\":[{\"name\":\"a\",\"run\":\"x\"}]}", "array of strings");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"prot\":1}]}", "unknown member \"prot\"");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"port\":70000}]}", "from 0 to 65535");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"port\":65535,\"replicas\":2}]}",
            "beyond 65535");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"port\":1,\"port_range\":\"3-9\"}]}",
            "exclude each other");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"port_range\":\"3000-3001\","
            "\"replicas\":2}]}", "one to change over");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"host\":\"localhost\"}]}", "no IP address");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"health\":{}}]}", "needs one of");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"health\":{\"uri\":\"x\"}}]}",
            "begin with '/'");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"stop_signal\":\"SIGFOO\"}]}",
            "is no signal");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"limits\":{\"cpu\":0}}]}", "cores");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"env\":{\"A=B\":\"\"}}]}",
            "cannot name a variable");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"env_files\":[\"/nowhere/env\"]}]}",
            "/nowhere/env: No such file");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"after\":[\"b\"]}]}",
            "no service of that name");
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"after\":[\"b\"]},"
            "{\"name\":\"b\",\"run\":[\"x\"],\"after\":[\"a\"]}]}", "circle");
}

TEST("two services cannot have one name or one port, and both places are told")
{
    struct origins o;
    struct service *s;
    size_t count;
    refused("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"]},{\"name\":\"A\",\"run\":[\"x\"]}]}",
            "is given twice");
    origins_init(&o);
    origins_add(&o, SLICE("apps.services.services[0]"), SLICE("a"), SLICE("Caddyfile"), 2);
    origins_add(&o, SLICE("apps.services.services[1]"), SLICE("b"), SLICE("Caddyfile"), 9);
    origins_sort(&o);
    CHECK_INT(read_text("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"port\":3000,\"replicas\":3},"
                        "{\"name\":\"b\",\"run\":[\"x\"],\"port\":3002}]}", &o, &s, &count),
              ERR_INVALID);
    CHECK_TEXT(slice_from(error), "Caddyfile:9: apps.services: port 3002 is wanted twice: both by "
               "service a (Caddyfile:2) and service b (Caddyfile:9)");
    origins_deinit(&o);
}

TEST("the digest changes with what a process cannot be given later, and with nothing else")
{
    uint64_t base = read_good("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"]}]}")->digest;
    CHECK(base == read_good("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"replicas\":2,"
                            "\"health\":{\"tcp\":true},\"watch\":[\".\"],\"stop_timeout\":\"1s\"}]}")
                      ->digest);
    CHECK(base != read_good("{\"services\":[{\"name\":\"a\",\"run\":[\"x\",\"\"]}]}")->digest);
    CHECK(base != read_good("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"dir\":\"/\"}]}")->digest);
    CHECK(base != read_good("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"env\":{\"A\":\"1\"}}]}")
                      ->digest);
    CHECK(base != read_good("{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"confine\":false}]}")
                      ->digest);
}

TEST("a file of variables counts by what it holds")
{
    char path[] = "/tmp/portico-env-XXXXXX", text[256];
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, "A=1\n", 4) == 4);
    snprintf(text, sizeof text, "{\"services\":[{\"name\":\"a\",\"run\":[\"x\"],\"env_files\":[\"%s\"],"
             "\"env\":{\"B\":\"{port} {host} {replica} {x}\"}}]}", path);
    struct service *s = read_good(text);
    struct slice *env;
    size_t count, found = 0;
    CHECK_OK(environment_make(s, 3001, 1, &arena, &env, &count, error, sizeof error));
    for (size_t i = 0; i < count; i++)
        found += slice_is(env[i], "A=1") || slice_is(env[i], "B=3001 127.0.0.1 2 {x}") ||
                 slice_is(env[i], "PORT=3001") || slice_is(env[i], "HOST=127.0.0.1");
    CHECK_INT(found, 4);
    CHECK(write(fd, "A=2\n", 4) == 4);
    CHECK(s->digest != read_good(text)->digest);
    close(fd);
    unlink(path);
}
