/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Automatic HTTPS: documents in, documents out.
 */
#include "http/auto_https.h"

#include "base/log.h"
#include "base/test.h"

static struct arena arena;
static struct provision provision;
static struct auto_https a;
static const char *loaded; /* the name that a loaded certificate has */

static bool has_certificate(void *arg, struct slice name)
{
    (void)arg;
    return loaded != NULL && slice_is(name, loaded);
}

/* A test is written with ' for ". */
static json_t *parse(const char *text)
{
    char *copy = strdup(text);
    json_error_t why;
    for (char *c = copy; *c != '\0'; c++)
        *c = *c == '\'' ? '"' : *c;
    json_t *json = json_loads(copy, JSON_DECODE_ANY, &why);
    if (json == NULL)
        test_fail(__FILE__, __LINE__, "%s: %s", why.text, copy);
    free(copy);
    return json;
}

static enum err apply(const char *http, const char *tls)
{
    log_set_threshold(LOG_FATAL);
    arena_deinit(&arena);
    arena_init(&arena, 16384);
    auto_https_free(&a);
    provision = (struct provision){.arena = &arena};
    a = (struct auto_https){.http_port = 80, .https_port = 443, .has_certificate = has_certificate};
    json_t *given = parse(http), *before = json_deep_copy(given), *app = parse(tls);
    auto_https_begin(&a, given, app);
    enum err e = auto_https_apply(&a, &provision);
    CHECK(json_equal(given, before)); /* the document stays as it is */
    json_decref(given);
    json_decref(before);
    json_decref(app);
    return e;
}

static void expect(const json_t *got, const char *text)
{
    json_t *want = parse(text);
    if (!json_equal(got, want))
        test_fail(__FILE__, __LINE__, "%s", json_dumps(got, JSON_COMPACT));
    json_decref(want);
}

static const json_t *server(const char *name)
{
    return json_object_get(json_object_get(a.http, "servers"), name);
}

#define REDIRECT_TO(match, port)                                                                   \
    "{'match':[" match "],'handle':[{'handler':'static_response','status_code':308,"               \
    "'headers':{'Location':['https://{http.request.host_in_url}" port "{http.request.uri}']},"     \
    "'close':true}]}"
#define CATCH_ALL REDIRECT_TO("{'protocol':'http'}", "")
#define SITE(name) "{'match':[{'host':['" name "']}]}"

TEST("a site with a name is served over TLS, managed and redirected to")
{
    CHECK_OK(apply("{'servers':{'srv0':{'listen':[':443'],'routes':[" SITE("example.com") "]}}}",
                   "null"));
    expect(a.names, "['example.com']");
    expect(a.policies, "[{}]");
    expect(server("srv0"), "{'listen':[':443'],'routes':[" SITE("example.com") "],"
                           "'tls_connection_policies':[{}]}");
    expect(server("remaining_auto_https_redirects"),
           "{'listen':[':80'],'routes':[" REDIRECT_TO("{'protocol':'http','host':['example.com']}", "")
           "," CATCH_ALL "]}");
}

TEST("local names get a policy with the internal issuer, made of the catch-all policy")
{
    CHECK_OK(apply("{'servers':{'s':{'listen':[':443'],'routes':[{'match':[{'host':['localhost',"
                   "'example.com','10.0.0.1','1.2.3.4']}]}]}}}", "null"));
    expect(a.policies, "[{},{'subjects':['localhost','10.0.0.1','1.2.3.4'],"
                       "'issuers':[{'module':'internal'}]}]");
    CHECK_OK(apply("{'servers':{'s':{'listen':[':443'],'routes':[{'match':[{'host':['localhost',"
                   "'1.2.3.4']}]}]}}}",
                   "{'automation':{'policies':[{'key_type':'p384','issuers':[{'module':'acme'}]}]}}"));
    expect(a.policies, "[{'key_type':'p384','subjects':['localhost'],"
                       "'issuers':[{'module':'internal'}]}]");
}

TEST("names that a policy of the user's has are left to it; internal ones need no issuer")
{
    CHECK_OK(apply("{'servers':{'s':{'listen':[':443'],'routes':[" SITE("a.localhost") ","
                   SITE("example.com") "]}}}",
                   "{'automation':{'policies':[{'subjects':['a.localhost']},"
                   "{'subjects':['b.localhost']},{'subjects':['example.com']}]}}"));
    expect(a.policies, "[{}]");
    expect(a.names, "['a.localhost','example.com']");
    expect(a.tls, "{'automation':{'policies':[{'subjects':['a.localhost'],"
                  "'issuers':[{'module':'internal'}]},{'subjects':['b.localhost']},"
                  "{'subjects':['example.com']}]}}");
}

TEST("a server on the HTTP port only stays as it is; redirects go behind its sites")
{
    CHECK_OK(apply("{'servers':{'a':{'listen':[':80'],'routes':[" SITE("x.com") ",{'handle':[]}]},"
                   "'b':{'listen':[':443'],'routes':[" SITE("y.com") "]}}}", "null"));
    expect(server("a"), "{'listen':[':80'],'routes':[" SITE("x.com") ","
                        REDIRECT_TO("{'protocol':'http','host':['y.com']}", "")
                        ",{'handle':[]}," CATCH_ALL "]}");
    CHECK(server("remaining_auto_https_redirects") == NULL);
    expect(a.names, "['y.com']");
}

TEST("before a catch-all of the user's without any named site the redirects come first")
{
    CHECK_OK(apply("{'servers':{'a':{'listen':[':80'],'routes':[{'handle':[]}]},"
                   "'b':{'listen':[':443'],'routes':[" SITE("y.com") "]}}}", "null"));
    expect(server("a"), "{'listen':[':80'],'routes':["
                        REDIRECT_TO("{'protocol':'http','host':['y.com']}", "")
                        ",{'handle':[]}," CATCH_ALL "]}");
}

TEST("another port than the HTTPS port stands in Location; the HTTPS port wins over it")
{
    CHECK_OK(apply("{'servers':{'a':{'listen':[':8443'],'routes':[" SITE("x.com") "," SITE("y.com")
                   "]},'b':{'listen':[':443'],'routes':[" SITE("y.com") "]}}}", "null"));
    expect(json_object_get(server("remaining_auto_https_redirects"), "routes"),
           "[" REDIRECT_TO("{'protocol':'http','host':['x.com']}", ":8443") ","
           REDIRECT_TO("{'protocol':'http','host':['y.com']}", "") "," CATCH_ALL "]");
}

TEST("exact names are redirected before wildcards")
{
    CHECK_OK(apply("{'servers':{'a':{'listen':[':10443'],'routes':[" SITE("*.localhost") "]},"
                   "'b':{'listen':[':443'],'routes':[" SITE("dev.localhost") "]}}}", "null"));
    expect(json_object_get(server("remaining_auto_https_redirects"), "routes"),
           "[" REDIRECT_TO("{'protocol':'http','host':['dev.localhost']}", "") ","
           REDIRECT_TO("{'protocol':'http','host':['*.localhost']}", ":10443") "," CATCH_ALL "]");
}

TEST("redirects answer on the hosts that the sites are bound to")
{
    CHECK_OK(apply("{'servers':{'a':{'listen':['127.0.0.1:443','[::1]:443'],'routes':[" SITE("x.com")
                   "],'logs':{}}}}", "null"));
    expect(json_object_get(server("remaining_auto_https_redirects"), "listen"),
           "['127.0.0.1:80','[::1]:80']");
    expect(json_object_get(server("remaining_auto_https_redirects"), "logs"), "{}");
}

TEST("a server that listens on both ports has one port in clear, and redirects of its own")
{
    CHECK_OK(apply("{'servers':{'a':{'listen':[':80',':443'],'routes':[" SITE("localhost") "]}}}",
                   "null"));
    expect(server("a"), "{'listen':[':80',':443'],'tls_connection_policies':[{}],'routes':["
                        SITE("localhost") "," REDIRECT_TO("{'protocol':'http','host':['localhost']}", "")
                        "," CATCH_ALL "]}");
}

TEST("each switch turns off what it says")
{
    static const char all[] = "{'servers':{'a':{'listen':[':443'],'automatic_https':{%s},'routes':["
                              SITE("x.com") "," SITE("y.com") "]}}}";
    char text[512];
    snprintf(text, sizeof text, all, "'disable':true");
    CHECK_OK(apply(text, "null"));
    expect(a.names, "[]");
    expect(a.policies, "[]");
    CHECK(json_object_get(server("a"), "tls_connection_policies") == NULL);
    snprintf(text, sizeof text, all, "'disable_redirects':true");
    CHECK_OK(apply(text, "null"));
    expect(a.names, "['x.com','y.com']");
    CHECK(server("remaining_auto_https_redirects") == NULL);
    snprintf(text, sizeof text, all, "'disable_certificates':true");
    CHECK_OK(apply(text, "null"));
    expect(a.names, "[]");
    expect(json_object_get(server("a"), "tls_connection_policies"), "[{}]");
    CHECK(server("remaining_auto_https_redirects") != NULL);
    snprintf(text, sizeof text, all, "'skip':['x.com'],'skip_certificates':['y.com']");
    CHECK_OK(apply(text, "null"));
    expect(a.names, "[]");
    /* Nothing is managed here, so only the catch-all could be added to a server of the user's. */
    expect(json_object_get(server("remaining_auto_https_redirects"), "routes"),
           "[" REDIRECT_TO("{'protocol':'http','host':['y.com']}", "") "," CATCH_ALL "]");
    snprintf(text, sizeof text, all, "'x':true");
    CHECK_INT(apply(text, "null"), ERR_INVALID);
    CHECK(strstr(provision.error, "apps.http.servers.a: unknown member \"x\"") != NULL);
}

TEST("names of loaded certificates are not managed, unless these are to be ignored")
{
    loaded = "x.com";
    CHECK_OK(apply("{'servers':{'a':{'listen':[':443'],'routes':[" SITE("x.com") "," SITE("y.com")
                   "]}}}", "null"));
    expect(a.names, "['y.com']");
    CHECK_OK(apply("{'servers':{'a':{'listen':[':443'],'routes':[" SITE("x.com") "],"
                   "'automatic_https':{'ignore_loaded_certificates':true}}}}", "null"));
    expect(a.names, "['x.com']");
    loaded = NULL;
}

TEST("a server without names is redirected to for any name, behind the user's own catch-all")
{
    CHECK_OK(apply("{'servers':{'a':{'listen':[':443'],'tls_connection_policies':[{}]},"
                   "'b':{'listen':[':80'],'routes':[{'handle':[]}]}}}", "null"));
    expect(a.names, "[]");
    expect(server("b"), "{'listen':[':80'],'routes':[{'handle':[]}," CATCH_ALL "]}");
    CHECK_OK(apply("{'servers':{'a':{'listen':[':8443']}}}", "null"));
    CHECK(json_object_get(server("a"), "tls_connection_policies") == NULL);
    CHECK_OK(apply("{'servers':{'a':{'listen':[':443']}}}", "null"));
    expect(json_object_get(server("a"), "tls_connection_policies"), "[{}]");
}

TEST("names that no certificate can have are redirected, but not managed")
{
    CHECK_OK(apply("{'servers':{'a':{'listen':[':443'],'routes':[{'match':[{'host':["
                   "'{http.vars.x}','é.com','*.a.com','b.*.com']}]}]}}}", "null"));
    expect(a.names, "['xn--9ca.com','*.a.com']");
    expect(json_array_get(json_object_get(server("remaining_auto_https_redirects"), "routes"), 0),
           REDIRECT_TO("{'protocol':'http','host':['{http.vars.x}','xn--9ca.com','*.a.com',"
                       "'b.*.com']}", ""));
}

TEST("placeholders of the process are settled in names and addresses")
{
    setenv("AUTO_HTTPS_TEST", "x.com", 1);
    setenv("AUTO_HTTPS_PORT", "443", 1);
    CHECK_OK(apply("{'servers':{'a':{'listen':[':{env.AUTO_HTTPS_PORT}'],'routes':["
                   SITE("{env.AUTO_HTTPS_TEST}") "]}}}", "null"));
    expect(a.names, "['x.com']");
    expect(json_object_get(server("a"), "listen"), "[':443']");
    CHECK_INT(apply("{'servers':{'a':{'listen':[':443'],'routes':[" SITE("{env.NO_SUCH_NAME}")
                    "]}}}", "null"), ERR_INVALID);
}

TEST("values of other kinds are left to those who read them")
{
    CHECK_OK(apply("{'servers':{'a':null,'b':{'listen':7,'routes':{},'automatic_https':null},"
                   "'c':{'listen':[1,null,':443'],'routes':[{'match':[{'host':'x'}]},null,7]}}}",
                   "null"));
    CHECK_OK(apply("{'servers':7}", "7"));
    CHECK_INT(apply("{'servers':{'a':{'automatic_https':7}}}", "null"), ERR_INVALID);
}
