#pragma once

/* Contexts in both policy languages as string literals, and what is the same in all policy tests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/policy/policy.h"

#define PROFILE_WITH(entries, more, network, context)                                              \
    "{\"permissions\":{\"type\":\"managed\",\"file_system\":{\"type\":\"restricted\",\"entries\":" \
    "[" entries "]" more "},\"network\":\"" network "\"}," context                                 \
    "\"windowsSandboxLevel\":\"disabled\"}"
#define WORKSPACE           "\"cwd\":\"file:///w\",\"workspaceRoots\":[\"file:///w\"],"
#define PROFILE(entries)    PROFILE_WITH(entries, "", "restricted", WORKSPACE)
#define ENTRY(path, access) "{\"path\":" path ",\"access\":\"" access "\"}"
#define AT(path, access)    ENTRY("{\"type\":\"path\",\"path\":\"" path "\"}", access)
#define SPECIAL(kind, access) \
    ENTRY("{\"type\":\"special\",\"value\":{\"kind\":\"" kind "\"}}", access)
#define BELOW_ROOTS(subpath, access)                                                           \
    ENTRY("{\"type\":\"special\",\"value\":{\"kind\":\"project_roots\",\"subpath\":\"" subpath \
          "\"}}",                                                                              \
          access)
#define GLOB(pattern, access) \
    ENTRY("{\"type\":\"glob_pattern\",\"pattern\":\"" pattern "\"}", access)

#define LEGACY_WITH(policy, more) \
    "{\"sandboxPolicy\":" policy ",\"windowsSandboxLevel\":\"disabled\"" more "}"
#define LEGACY(policy) LEGACY_WITH(policy, "")
#define NO_TMP         ",\"exclude_tmpdir_env_var\":true,\"exclude_slash_tmp\":true"

static const struct bly_policy_env test_env = {.cwd = "/srv", .tmpdir = "/var/tmp/t"};

/* The policy for `json`; fails the test with the error's text when there is none. */
static inline struct bly_policy *parse_in(const char *json, const struct bly_policy_env *env)
{
    struct bly_policy *policy = NULL;
    struct bly_err err = {0};

    if (bly_policy_parse_text(json, env, &policy, &err) != 0)
        fail_msg("%s: %s", json, err.text);
    return policy;
}

static inline struct bly_policy *parse(const char *json)
{
    return parse_in(json, &test_env);
}

/* Malloc'ed. */
static inline char *print(const struct bly_policy *policy)
{
    struct bly_buf buf;

    bly_buf_init(&buf, SIZE_MAX / 2);
    assert_int_equal(bly_policy_print(policy, &buf), 0);
    bly_buf_add_char(&buf, '\0');
    return (char *)bly_buf_take(&buf, NULL);
}
