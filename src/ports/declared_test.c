/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a document declares, what of it excludes itself, and what a table makes of it.
 */
#include "ports/declared.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/test.h"

static struct arena arena;
static struct origins origins;
static const struct port_declaration *list;
static size_t count;
static char error[1024];
static struct port_table table;

static void origin(const char *path, const char *name, unsigned line)
{
    origins_add(&origins, slice_from(path), slice_from(name), SLICE("Caddyfile"), line);
    origins_sort(&origins);
}

/* JSON with ' for ", so that it can be read here. */
static json_t *from_text(const char *text)
{
    char copy[2048];
    size_t len = strlen(text);
    CHECK(len < sizeof copy);
    for (size_t i = 0; i <= len; i++)
        copy[i] = text[i] == '\'' ? '"' : text[i];
    return json_loads(copy, 0, NULL);
}

static enum err declared(const char *text)
{
    arena_deinit(&arena);
    arena_init(&arena, 8192);
    json_t *document = from_text(text);
    CHECK(document != NULL);
    error[0] = '\0';
    enum err result = ports_declared(document, &origins, &arena, &list, &count, error, sizeof error);
    json_decref(document);
    return result;
}

static void forget(void)
{
    origins_deinit(&origins);
    origins_init(&origins);
}

static const struct port_declaration *find(enum declared_by by, unsigned port)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i].by == by && list[i].first == port)
            return &list[i];
    }
    return NULL;
}

static struct port_entry *bound(unsigned port, enum port_protocol p, const char *address)
{
    struct port_entry *e = table_add(&table);
    *e = (struct port_entry){.port = (uint16_t)port, .protocol = p, .listening = true, .sockets = 1,
                             .inode = 1000 + port, .netns = 1, .family = PORT_DUAL};
    e->address.is_six = 1;
    if (address[0] != '\0') {
        CHECK(ip_parse(slice_from(address), &e->address));
        e->family = e->address.is_six ? PORT_IP6 : PORT_IP4;
    }
    return e;
}

static struct port_entry *row(unsigned port)
{
    for (size_t i = 0; i < table.count; i++) {
        if (table.entries[i].port == port)
            return &table.entries[i];
    }
    return NULL;
}

static void new_table(void)
{
    table = (struct port_table){.arena = &arena, .netns = 1};
}

#define SITES                                                                                      \
    "{'apps':{'http':{'servers':{'srv0':{'listen':[':443'],'routes':[{'match':[{'host':"           \
    "['example.com']}],'handle':[{'handler':'subroute','routes':[{'handle':[{'handler':"           \
    "'reverse_proxy','upstreams':[{'dial':'localhost:3000'},{'dial':'10.0.0.9:4000'},"             \
    "{'dial':'unix//run/x'},{'dial':'{http.vars.x}:1'}]}]}]}]}]}"

TEST("sites, their redirects, upstreams and the admin API are declared, with their lines")
{
    forget();
    origin("listen :443", "example.com", 7);
    origin("upstream localhost:3000", "localhost:3000", 8);
    CHECK_OK(declared(SITES "}}}}"));
    CHECK_INT(count, 4);
    const struct port_declaration *d = find(DECLARED_SITE, 443);
    CHECK(d != NULL && d->host.len == 0 && d->line == 7 && d->reach == REACH_UNKNOWN);
    CHECK_TEXT(d->name, "example.com");
    CHECK_TEXT(d->file, "Caddyfile");
    CHECK(find(DECLARED_SITE, 80) != NULL && !find(DECLARED_SITE, 80)->plain);
    CHECK_INT(find(DECLARED_UPSTREAM, 3000)->line, 8);
    CHECK_INT(find(DECLARED_ADMIN, 2019)->reach, REACH_DEVICE);
}

TEST("a site on HTTP's port that answers there is told, one that redirects is not")
{
    forget();
    CHECK_OK(declared("{'admin':{'disabled':true},'apps':{'http':{'servers':{'a':{'listen':"
                      "['127.0.0.1:80'],'routes':[{'handle':[{'handler':'file_server'}]}]},"
                      "'b':{'listen':['tcp4/:80','udp/:9','unix//x'],'routes':[{'handle':[{"
                      "'handler':'static_response','headers':{'Location':['x']}}]}]}}}}}"));
    CHECK_INT(count, 3);
    CHECK(list[0].plain && list[0].reach == REACH_DEVICE && !list[1].plain);
    CHECK_INT(list[2].protocol, PORT_UDP);
    CHECK_TEXT(list[0].name, "a");
}

TEST("the app ports is read, and what is wrong with it is an error with its line")
{
    static const char *const bad[][2] = {
        {"{'other':1}", "apps.ports: unknown member 'other'"},
        {"{'others':'network'}", "'others' is world, device or nobody"},
        {"{'enforce':true}", "'enforce' is observe or nftables"},
        {"{'declarations':{}}", "'declarations' is a list"},
        {"{'declarations':[{'ports':['1']}]}", "Caddyfile:3: 'reach' is"},
        {"{'declarations':[{'ports':[1],'reach':'world'}]}", "neither a port"},
        {"{'declarations':[{'ports':['0'],'reach':'world'}]}", "neither a port"},
        {"{'declarations':[{'ports':['9-8'],'reach':'world'}]}", "neither a port"},
        {"{'declarations':[{'reach':'world'}]}", "'ports' is a list"},
        {"{'declarations':[{'ports':['1'],'reach':'network'}]}", "wants 'from'"},
        {"{'declarations':[{'ports':['1'],'reach':'world','from':['::/0']}]}", "stands with"},
        {"{'declarations':[{'ports':['1'],'reach':'device','from':['x']}]}", "neither an add"},
        {"{'declarations':[{'ports':['1'],'reach':'world','protocol':'ip'}]}", "'protocol'"},
        {"{'declarations':[{'ports':['1'],'reach':'world','x':0}]}", "unknown member 'x'"},
        {"{'declarations':[{'ports':['1-9'],'reach':'world'},{'ports':['5'],'reach':"
         "'device','protocol':'udp'}]}", "Caddyfile:4: port 5 (udp) is declared already at Caddyfile:3"},
    };
    struct ports_policy policy;
    forget();
    origin("apps.ports.declarations[0]", "1", 3);
    origin("apps.ports.declarations[1]", "1", 4);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *app = from_text(bad[i][0]);
        error[0] = '\0';
        enum err e = ports_policy_read(app, &origins, &arena, &policy, error, sizeof error);
        json_decref(app);
        CHECK_INT(e, ERR_INVALID);
        for (char *at = error; *at != '\0'; at++)
            *at = *at == '"' ? '\'' : *at;
        if (strstr(error, bad[i][1]) == NULL)
            CHECK_TEXT(slice_from(error), bad[i][1]);
    }
    json_t *app = from_text("{'declarations':[{'ports':['22','80-90'],'protocol':'tcp','name':'x',"
                             "'reach':'device','from':['10.0.0.0/8']},{'ports':['80'],'reach':"
                             "'world','protocol':'udp'}],'others':'device','enforce':'nftables'}");
    CHECK_OK(ports_policy_read(app, NULL, &arena, &policy, error, sizeof error));
    json_decref(app);
    CHECK_INT(policy.count, 3);
    CHECK(policy.nftables && policy.others == REACH_DEVICE && policy.items[1].last == 90);
    CHECK(policy.items[0].from_count == 1 && policy.items[0].reach == REACH_DEVICE);
    CHECK_OK(ports_policy_read(NULL, NULL, &arena, &policy, error, sizeof error));
    CHECK_INT(policy.count, 0);
}

TEST("conflicts name both places")
{
    forget();
    origin("listen :443", "example.com", 7);
    origin("apps.ports.declarations[0]", "443", 3);
    CHECK_INT(declared(SITES "}},'ports':{'declarations':[{'ports':['443'],'reach':'device'}]}}}"),
              ERR_EXISTS);
    CHECK_TEXT(slice_from(error),
               "the site example.com (Caddyfile:7) listens on port 443 of every address, but the declaration "
               "of port 443 (Caddyfile:3) says that only this device may reach it: bind it to 127.0.0.1, or "
               "declare it for more");
    CHECK_OK(declared(SITES "}},'ports':{'declarations':[{'ports':['443'],'reach':'device',"
                            "'from':['10.0.0.0/8']},{'ports':['2019'],'reach':'device'}]}}}"));
    CHECK_INT(declared(SITES "}},'services':{'services':[{'name':'a','port':3000},{'name':'b',"
                             "'port':2999,'replicas':2}]}}}"), ERR_EXISTS);
    CHECK_TEXT(slice_from(error),
               "the service a and the service b both want port 3000: give one of them another");
    CHECK_OK(declared(SITES "}},'services':{'services':[{'name':'a','port':3000},{'name':'b',"
                            "'port':3000,'host':'127.0.0.2'}]}}}"));
    CHECK_INT(declared(SITES "}},'services':{'services':[{'name':'a','port':443}]}}}"), ERR_EXISTS);
}

TEST("a table gets its declarations, and rows for what nobody listens on")
{
    static const struct port_owner owner = {.service = {"simon", 5}};
    forget();
    CHECK_OK(declared(SITES "}},'services':{'services':[{'name':'simon'},{'name':'gone','port':"
                            "4500,'replicas':2}]},'ports':{'declarations':[{'ports':['22','53'],"
                            "'reach':'world'},{'ports':['7000-7010'],'reach':'world'}]}}}"));
    new_table();
    bound(3000, PORT_TCP, "");
    bound(443, PORT_TCP, "");
    bound(443, PORT_UDP, "")->port = 444;
    bound(53, PORT_UDP, "127.0.0.53");
    bound(7004, PORT_TCP, "10.0.0.1");
    bound(80, PORT_TCP, "127.0.0.1");
    bound(20000, PORT_TCP, "127.0.0.1")->owners = (struct port_owner *)&owner;
    bound(22, PORT_TCP, "")->netns = 2;
    table_declare(&table, list, count);
    table_name(&table);
    CHECK_INT(table.entries[0].port, 22);
    CHECK_INT(row(443)->declared_count, 1);
    CHECK_INT(row(444)->declared_count, 0);
    CHECK_INT(row(53)->declared_count, 1);
    CHECK_INT(row(7004)->declared_count, 1);
    CHECK_INT(row(3000)->declared[0]->by, DECLARED_UPSTREAM);
    CHECK_TEXT(row(20000)->declared[0]->name, "simon");
    CHECK_INT(row(4500)->inode, 0);
    CHECK(row(4501) != NULL && row(4501)->declared[0]->first == 4501);
    CHECK(row(4500)->reach == REACH_NOBODY && !row(4500)->listening && row(2019) == NULL);
    CHECK(row(7000) == NULL);
    CHECK_TEXT(row(22)->iana_name, "ssh");
    size_t missing = 0;
    for (size_t i = 0; i < table.count; i++) {
        missing += table.entries[i].inode == 0;
        CHECK(i == 0 || table.entries[i - 1].port <= table.entries[i].port);
    }
    CHECK_INT(missing, 3); /* 22, 4500, 4501; 80 on every address is kept away by 127.0.0.1 */
}

TEST("65,535 declared ports are read and set against an empty table at once")
{
    json_t *app = json_object(), *ports = json_array();
    struct ports_policy policy;
    char text[8];
    for (unsigned p = 1; p < 65536; p++) {
        snprintf(text, sizeof text, "%u", p);
        json_array_append_new(ports, json_string(text));
    }
    json_object_set_new(app, "declarations", json_pack("[{s:o,s:s}]", "ports", ports, "reach", "world"));
    CHECK_OK(ports_policy_read(app, NULL, &arena, &policy, error, sizeof error));
    json_decref(app);
    new_table();
    table_declare(&table, policy.items, policy.count);
    CHECK_INT(table.count, 65535);
    CHECK_OK(declarations_conflict(policy.items, policy.count, error, sizeof error));
    arena_deinit(&arena);
    origins_deinit(&origins);
}

static const char *trouble(const char *service, bool used)
{
    static char text[128];
    char document[512];
    snprintf(document, sizeof document,
             "{'apps':{'http':{'servers':{'s':{'listen':[':80'],'routes':[{'handle':[{'handler':"
             "'reverse_proxy','dynamic_upstreams':{'source':'service','name':'%s'}}]}]}}},'services':{"
             "'services':[{'name':'a'}]}}}", used ? "a" : "b");
    arena_init(&arena, 8192);
    CHECK_OK(declared(document));
    json_t *services = from_text(service);
    declarations_settle(services, &arena, &list, &count);
    json_decref(services);
    text[0] = '\0';
    for (size_t i = 0; i < count; i++)
        if (list[i].by == DECLARED_SERVICE)
            snprintf(text, sizeof text, "%u %d " SLICE_FMT, list[i].first, list[i].used,
                     SLICE_ARG(list[i].trouble));
    arena_deinit(&arena);
    return text;
}

TEST("why no replica of a service answers, and whether a site needs it")
{
    CHECK_TEXT(slice_from(trouble("[{'name':'a','ready':1,'replicas':[{'port':3000,'state':'ready'}]}]",
                                  true)), "3000 1 ");
    CHECK_TEXT(slice_from(trouble("[{'name':'a','ready':0,'replicas':[{'port':3000,'state':'gave up',"
                                  "'reason':'exited with status 3'}]}]", false)),
               "3000 0 gave up: exited with status 3");
    CHECK_TEXT(slice_from(trouble("[{'name':'a','ready':0,'paused':true,'on_demand':true,'replicas':"
                                  "[{'state':'stopped'}]}]", true)), "0 1 stopped");
    CHECK_TEXT(slice_from(trouble("[{'name':'a','ready':0,'paused':false,'on_demand':true,'replicas':"
                                  "[{'state':'stopped'}]}]", true)), "0 1 ");
    CHECK_TEXT(slice_from(trouble("[{'name':'a','ready':0,'last_trouble':'unhealthy: x','replicas':"
                                  "[{'port':3000,'state':'unhealthy'}]}]", true)),
               "3000 1 unhealthy: x");
    CHECK_TEXT(slice_from(trouble("[{'name':'a','ready':0,'replicas':[{'port':3000,'state':'starting'"
                                  "}]}]", true)), "3000 1 ");
}

TEST("services that run: their processes' children are theirs, and so are the ports they were given")
{
    static const struct port_declaration given = {.by = DECLARED_SERVICE, .name = {"simon", 5},
                                                  .host = {"127.0.0.1", 9}, .reach = REACH_DEVICE};
    char text[128];
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    arena_init(&arena, 8192);
    new_table();
    bound(20000, PORT_TCP, "127.0.0.1")->owners = ARENA_NEW(&arena, struct port_owner);
    bound(20001, PORT_TCP, "127.0.0.1")->owners = ARENA_NEW(&arena, struct port_owner);
    table.entries[0].owners->pid = child; /* of the service's process */
    table.entries[1].owners->pid = 1;
    snprintf(text, sizeof text, "[{'name':'simon','replicas':[{'pid':%d,'port':20000}]}]", getpid());
    json_t *services = from_text(text);
    list = &given;
    count = 1;
    table_services(&table, services);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    declarations_settle(services, &arena, &list, &count);
    CHECK_INT(count, 1);
    CHECK_INT(list[0].first, 20000);
    table_declare(&table, list, count);
    CHECK_TEXT(table.entries[0].owners->service, "simon");
    CHECK_INT(table.entries[1].owners->service.len, 0);
    CHECK_INT(table.entries[0].declared_count, 1);
    json_decref(services);
    list = &given;
    declarations_settle(NULL, &arena, &list, &count);
    CHECK(count == 1 && list[0].first == 0);
    arena_deinit(&arena);
}
