#include "proto/proto.h"

#include <stddef.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "proto/encode.h"

/*
 * What this server does beyond what every server does. A client that sees `false` sends nothing of
 * the kind.
 */
static const struct {
    const char *name;
    bool value;
    size_t depends_on; /* offset of a bool in struct bly_environment; 0: on nothing */
} capabilities[] = {
    {"networkProxyLaunch", false},
    {"networkProxyReviewDomains", false},
    {"credentialMasking", false},
    {"credentialMaskingCustomProviders", false},
    {"capabilityDiscoverySandbox", true},
    {"capabilityDiscoveryV2", false},
    {"fsWatchMissing", false, offsetof(struct bly_environment, watches_missing)},
    {"environmentConfigRead", false},
    {"httpHeaderEnvVars", false, offsetof(struct bly_environment, http_header_env_vars)},
    {"sandboxedFileStreaming", true},
    {"fileWriteStreaming", true},
    {"shellSnapshotV2", false},
    {"windowsMxc", false},
    {"linuxRootWritePreservesDevices", false},
    {"linuxApprovedRootWritePreservesRestrictions", false},
};

static bool is_true(size_t i, const struct bly_environment *environment)
{
    size_t offset = capabilities[i].depends_on;

    return capabilities[i].value || (offset && *((const bool *)environment + offset));
}

static void add_capabilities(const struct bly_environment *environment, struct bly_buf *buf)
{
    for (size_t i = 0; i < BLY_LEN(capabilities); i++) {
        bly_buf_add_char(buf, i == 0 ? '{' : ',');
        bly_json_add_cstr(buf, capabilities[i].name);
        BLY_ADD(buf, ":");
        bly_encode_bool(buf, is_true(i, environment));
    }
    BLY_ADD(buf, "}");
}

/* Ours alone: clients ignore members they do not know. */
static void add_sandbox(const struct bly_environment *environment, struct bly_buf *buf)
{
    if (environment->rung == 0)
        return;
    (void)bly_buf_printf(buf, ",\"sandbox\":{\"rung\":%u,\"landlock\":%u", environment->rung,
                         environment->landlock);
    if (environment->rung_reason) {
        BLY_ADD(buf, ",\"reason\":");
        bly_json_add_cstr(buf, environment->rung_reason);
    }
    BLY_ADD(buf, "}");
}

/* What is not known is left out: a null would break the client's connection. */
int bly_proto_encode_environment(const struct bly_environment *environment, struct bly_buf *buf)
{
    BLY_ADD(buf, "{\"shell\":{\"name\":");
    bly_json_add_cstr(buf, environment->shell_name);
    BLY_ADD(buf, ",\"path\":");
    bly_json_add_cstr(buf, environment->shell_path);
    BLY_ADD(buf, "},\"executorVersion\":");
    bly_json_add_cstr(buf, environment->version);
    BLY_ADD(buf, ",\"providerId\":");
    bly_json_add_cstr(buf, environment->provider_id);
    BLY_ADD(buf, ",\"cwd\":");
    bly_encode_uri(buf, environment->cwd);
    if (environment->home) {
        BLY_ADD(buf, ",\"userHomeDir\":");
        bly_encode_uri(buf, environment->home);
    }
    BLY_ADD(buf, ",\"platformOs\":\"linux\",\"temporaryDirectories\":[");
    if (environment->tmpdir)
        bly_encode_uri(buf, environment->tmpdir);
    BLY_ADD(buf, "],\"tempDir\":\"file:///tmp\",\"capabilities\":");
    add_capabilities(environment, buf);
    add_sandbox(environment, buf);
    return BLY_ADD(buf, "}");
}

int bly_proto_encode_initialize(const char *session_id, const struct bly_environment *environment,
                                struct bly_buf *buf)
{
    BLY_ADD(buf, "{\"sessionId\":");
    bly_json_add_cstr(buf, session_id);
    BLY_ADD(buf, ",\"environmentInfo\":");
    bly_proto_encode_environment(environment, buf);
    return BLY_ADD(buf, "}");
}

static void add_no_layers(struct bly_buf *buf, const char *name)
{
    bly_json_add_cstr(buf, name);
    BLY_ADD(buf, ":{\"layers\":[],\"cloudInsertionIndex\":0}");
}

/* This server has no configuration in TOML: there are no layers of it. */
int bly_proto_encode_config(const struct bly_environment *environment, struct bly_buf *buf)
{
    BLY_ADD(buf, "{");
    if (environment->home) {
        BLY_ADD(buf, "\"userHomeDir\":");
        bly_encode_uri(buf, environment->home);
        BLY_ADD(buf, ",");
    }
    if (environment->codex_home) {
        BLY_ADD(buf, "\"codexHomeDir\":");
        bly_encode_uri(buf, environment->codex_home);
        BLY_ADD(buf, ",");
    }
    if (environment->hostname) {
        BLY_ADD(buf, "\"hostname\":");
        bly_json_add_cstr(buf, environment->hostname);
        BLY_ADD(buf, ",");
    }
    add_no_layers(buf, "config");
    BLY_ADD(buf, ",");
    add_no_layers(buf, "requirements");
    return BLY_ADD(buf, "}");
}
