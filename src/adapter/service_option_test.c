/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The global option `service`: what each line becomes, and how mistakes are told.
 */
#include <stdlib.h>

#include "adapter/adapter.h"
#include "base/test.h"

static struct diag diag;

static char *adapt_text(const char *text)
{
    json_t *document, *warnings;
    if (adapt_caddyfile_alone(SLICE("Caddyfile"), slice_from(text), &document, &warnings, &diag) != OK)
        return NULL;
    json_t *app = json_object_get(json_object_get(document, "apps"), "services");
    char *out = json_dumps(json_object_get(app, "services"), JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(document);
    json_decref(warnings);
    return out;
}

static void becomes(const char *lines, const char *want)
{
    char text[2048], full[2048];
    snprintf(text, sizeof text, "{\n\tservice a {\n\t\trun x\n\t\t%s\n\t}\n}\n", lines);
    snprintf(full, sizeof full, "[{\"name\":\"a\",\"run\":[\"x\"]%s%s}]", want[0] != '\0' ? "," : "", want);
    char *got = adapt_text(text);
    if (got == NULL)
        test_fail(__FILE__, __LINE__, "%s: %s", lines, diag.text);
    CHECK_TEXT(slice_from(got), full);
    free(got);
}

static void refused(const char *lines, const char *why)
{
    char text[2048];
    snprintf(text, sizeof text, "{\n\tservice a {\n\t\trun x\n\t\t%s\n\t}\n}\n", lines);
    char *got = adapt_text(text);
    if (got != NULL)
        test_fail(__FILE__, __LINE__, "%s became %s", lines, got);
    if (strstr(diag.text, why) == NULL)
        test_fail(__FILE__, __LINE__, "\"%s\" does not hold \"%s\"", diag.text, why);
}

TEST("a Caddyfile without services has no such app")
{
    json_t *document, *warnings;
    CHECK_OK(adapt_caddyfile_alone(SLICE("Caddyfile"), SLICE(":80\n"), &document, &warnings, &diag));
    CHECK(json_object_get(json_object_get(document, "apps"), "services") == NULL);
    json_decref(document);
    json_decref(warnings);
}

TEST("each line becomes a member")
{
    becomes("", "");
    becomes("dir /srv/a", "\"dir\":\"/srv/a\"");
    becomes("port 3000", "\"port\":3000");
    becomes("port 4000-4100", "\"port_range\":\"4000-4100\"");
    becomes("user www:web", "\"user\":\"www\",\"group\":\"web\"");
    becomes("user www web", "\"user\":\"www\",\"group\":\"web\"");
    becomes("env A 1\n\t\tenv B \"2 3\"", "\"env\":{\"A\":\"1\",\"B\":\"2 3\"}");
    becomes("env {\n\t\t\tA 1\n\t\t}", "\"env\":{\"A\":\"1\"}");
    becomes("env_file /a /b", "\"env_files\":[\"/a\",\"/b\"]");
    becomes("replicas 3", "\"replicas\":3");
    becomes("health /h", "\"health\":{\"uri\":\"/h\"}");
    becomes("health tcp", "\"health\":{\"tcp\":true}");
    becomes("health command ./ok now", "\"health\":{\"command\":[\"./ok\",\"now\"]}");
    becomes("health /h {\n\t\t\tinterval 1s\n\t\t\tstatus 2xx\n\t\t\tfails 2\n\t\t}",
            "\"health\":{\"uri\":\"/h\",\"interval\":1000000000,\"status\":2,\"fails\":2}");
    becomes("ready 5s", "\"ready_timeout\":5000000000");
    becomes("restart never", "\"restart\":{\"policy\":\"never\"}");
    becomes("restart {\n\t\t\tgive_up 5 20s\n\t\t}",
            "\"restart\":{\"give_up\":5,\"within\":20000000000}");
    becomes("stop_signal INT\n\t\tstop_timeout 3s",
            "\"stop_signal\":\"INT\",\"stop_timeout\":3000000000");
    becomes("limits {\n\t\t\tmemory 256MiB\n\t\t\tcpu 0.5\n\t\t\ttasks 64\n\t\t\tfiles 1024\n\t\t}",
            "\"limits\":{\"memory\":268435456,\"cpu\":0.5,\"tasks\":64,\"files\":1024}");
    becomes("watch", "\"watch\":[\".\"]");
    becomes("watch src lib", "\"watch\":[\"src\",\"lib\"]");
    becomes("on_demand", "\"on_demand\":{}");
    becomes("on_demand {\n\t\t\tidle 1m\n\t\t\tqueue 7\n\t\t}",
            "\"on_demand\":{\"idle\":60000000000,\"queue\":7}");
    becomes("socket", "\"socket\":true");
    becomes("confine off", "\"confine\":false");
    becomes("confine on", "");
}

TEST("mistakes are told with what was meant and where it stands")
{
    refused("prot 3000", "unrecognized option of a service 'prot' - did you mean 'port'?, at Caddyfile:4");
    refused("port x", "'x' is no port; write a number from 1 to 65535, or a range such as 3000-3999");
    refused("run y", "'run' is written twice");
    refused("health h", "health is a path such as /healthz, or tcp, or command");
    refused("health /h {\n\t\t\tintervall 1s\n\t\t}", "did you mean 'interval'?");
    refused("restart sometimes", "always, on-failure, never");
    refused("ready soon", "is no duration");
    refused("limits {\n\t\t\tmemory lots\n\t\t}", "is no size");
    refused("confine maybe", "confine is on or off");
    refused("after b", "no service of that name");
    refused("stop_signal X", "is no signal");
}

TEST("a service that is not there is no upstream")
{
    const char *text = "{\n\tservice simon {\n\t\trun x\n\t}\n}\n:80 {\n\treverse_proxy service/simom\n}\n";
    CHECK(adapt_text(text) == NULL);
    CHECK(strstr(diag.text, "there is no service 'simom' - did you mean 'simon'?") != NULL);
    CHECK(adapt_text("{\n\tservice a {\n\t\trun x\n\t}\n}\n:80 {\n\treverse_proxy service/a b:1\n}\n") ==
          NULL);
    CHECK(strstr(diag.text, "cannot stand beside other upstreams") != NULL);
}

TEST("two services with one port are told with both places")
{
    CHECK(adapt_text("{\n\tservice a {\n\t\trun x\n\t\tport 3000\n\t}\n"
                     "\tservice b {\n\t\trun x\n\t\tport 3000\n\t}\n}\n") == NULL);
    CHECK(strstr(diag.text, "Caddyfile:6: apps.services: port 3000 is wanted twice: both by service a "
                            "(Caddyfile:2) and service b (Caddyfile:6)") != NULL);
}
