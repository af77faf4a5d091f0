#pragma once

/*
 * A disk made of text, and policies in shorthand, for the plan's tests. One entry a line:
 *
 *     d PATH            directory             f PATH [TEXT]    regular file
 *     o PATH            something else        l PATH TARGET    symlink
 *     x PATH            directory that the server may not search
 *     c PATH            directory that folds case, as far as being listed goes
 *     = PATH OTHER      the same object as OTHER (declared before): a second mount of it
 *
 * Parents that are not declared are directories. In TEXT and TARGET '|' stands for a newline.
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/path.h"
#include "sandbox/plan/plan.h"
#include "sandbox/policy/policy.h"

struct fake_entry {
    char path[256];
    char text[1024];
    char type;
    uint64_t ino;
};

struct fake_disk {
    struct fake_entry entries[512];
    size_t n;
    uint64_t next_ino;
    size_t looks; /* how often the disk was asked */
};

static inline struct fake_entry *fake_find(struct fake_disk *disk, const char *path)
{
    for (size_t i = 0; i < disk->n; i++)
        if (strcmp(disk->entries[i].path, path) == 0)
            return &disk->entries[i];
    return NULL;
}

static inline void fake_add(struct fake_disk *disk, char type, const char *path, const char *text)
{
    char parent[256];
    char *slash;
    struct fake_entry *entry = fake_find(disk, path);

    (void)snprintf(parent, sizeof(parent), "%s", path);
    slash = strrchr(parent, '/');
    slash[slash == parent] = '\0';
    if (strcmp(path, "/") != 0 && !fake_find(disk, parent))
        fake_add(disk, 'd', parent, "");
    if (!entry) {
        assert(disk->n < sizeof(disk->entries) / sizeof(disk->entries[0]));
        entry = &disk->entries[disk->n++];
    }
    entry->type = type;
    entry->ino = ++disk->next_ino;
    (void)snprintf(entry->path, sizeof(entry->path), "%s", path);
    (void)snprintf(entry->text, sizeof(entry->text), "%s", text);
    for (char *p = entry->text; *p; p++)
        *p = *p == '|' ? '\n' : *p;
    if (type == '=') {
        const struct fake_entry *other = fake_find(disk, text);

        assert(other);
        entry->type = other->type;
        entry->ino = other->ino;
    }
}

static inline void fake_remove(struct fake_disk *disk, const char *path)
{
    struct fake_entry *entry = fake_find(disk, path);

    if (entry)
        *entry = disk->entries[--disk->n];
}

static inline void fake_read(struct fake_disk *disk, const char *text)
{
    while (*text) {
        char line[1300], path[256] = "", rest[1024] = "", type = 0;
        size_t len = strcspn(text, "\n");

        (void)snprintf(line, sizeof(line), "%.*s", (int)len, text);
        if (sscanf(line, " %c %255s %1023[^\n]", &type, path, rest) >= 2)
            fake_add(disk, type, path, rest);
        text += len + (text[len] == '\n');
    }
}

/* An ancestor that the server may not search. */
static inline bool fake_is_blocked(struct fake_disk *disk, const char *path)
{
    for (size_t i = 0; i < disk->n; i++)
        if (disk->entries[i].type == 'x' && bly_path_is_within(path, disk->entries[i].path) &&
            strcmp(path, disk->entries[i].path) != 0)
            return true;
    return false;
}

static inline enum bly_node_type fake_type(char type)
{
    return strchr("dxc", type) ? BLY_NODE_DIR
           : type == 'f'       ? BLY_NODE_FILE
           : type == 'l'       ? BLY_NODE_LINK
                               : BLY_NODE_OTHER;
}

static inline int fake_look(void *ctx, const char *path, struct bly_node *ret_node)
{
    struct fake_disk *disk = ctx;
    const struct fake_entry *entry = fake_find(disk, path);

    disk->looks++;
    *ret_node = (struct bly_node){0};
    if (fake_is_blocked(disk, path))
        return -EACCES;
    if (!entry)
        return 0;
    ret_node->type = fake_type(entry->type);
    ret_node->dev = 1;
    ret_node->ino = entry->ino;
    return 0;
}

static inline int fake_text(struct fake_disk *disk, const char *path, char type, char **ret_text)
{
    const struct fake_entry *entry = fake_find(disk, path);

    disk->looks++;
    if (fake_is_blocked(disk, path))
        return -EACCES;
    if (!entry)
        return -ENOENT;
    if (entry->type != type)
        return -EINVAL;
    *ret_text = strdup(entry->text);
    return *ret_text ? 0 : -ENOMEM;
}

static inline int fake_read_link(void *ctx, const char *path, char **ret_target)
{
    return fake_text(ctx, path, 'l', ret_target);
}

static inline int fake_read_small(void *ctx, const char *path, size_t max, char **ret_text)
{
    (void)max;
    return fake_text(ctx, path, 'f', ret_text);
}

static inline int fake_list(void *ctx, const char *path, bool *ret_folds, bly_probe_each each,
                            void *arg)
{
    struct fake_disk *disk = ctx;
    const struct fake_entry *dir = fake_find(disk, path);

    if (!dir)
        return -ENOENT;
    if (dir->type == 'x')
        return -EACCES;
    if (ret_folds)
        *ret_folds = dir->type == 'c';
    for (size_t i = 0; each && i < disk->n; i++) {
        const char *entry = disk->entries[i].path;
        size_t len = strcmp(path, "/") == 0 ? 0 : strlen(path);

        if (bly_path_is_within(entry, path) && strcmp(entry, path) != 0 &&
            !strchr(entry + len + 1, '/')) {
            /* Some file systems tell what a name is, others do not. */
            int r = each(arg, entry + len + 1,
                         i % 2 == 0 ? BLY_NODE_ABSENT : fake_type(disk->entries[i].type));

            if (r != 0)
                return r < 0 ? r : 0;
        }
    }
    return 0;
}

static inline struct bly_probe fake_probe(struct fake_disk *disk)
{
    return (struct bly_probe){fake_look, fake_read_link, fake_read_small, fake_list, disk};
}

static inline struct fake_disk *fake_new(const char *text)
{
    struct fake_disk *disk = calloc(1, sizeof(*disk));

    assert(disk);
    fake_add(disk, 'd', "/", "");
    fake_read(disk, text);
    return disk;
}

/*
 * Shorthand of a policy, one word pair or word a line or separated by ';': "r PATH", "w PATH",
 * "deny PATH", "skip PATH" (read, skipped when missing), "glob PATTERN", "minimal", "net", "tmp"
 * (write to /tmp if it is a directory), "off" (no file wall), "depth N".
 */
static inline struct bly_policy *policy_of(const char *text)
{
    static const struct bly_policy_env env = {"/", NULL};
    static char json[1 << 20];
    struct bly_policy *policy = NULL;
    struct bly_err err = {0};
    bool net = false, off = false;
    unsigned depth = 0;
    char *to = json;

    to += sprintf(to, "{\"cwd\":\"file:///w\",\"windowsSandboxLevel\":\"disabled\",\"permissions\":"
                      "{\"type\":\"managed\",\"file_system\":{\"entries\":[");
    while (*text) {
        char word[16] = "", path[512] = "";
        size_t len = strcspn(text, ";\n");
        char item[600];
        const char *access = NULL;

        (void)snprintf(item, sizeof(item), "%.*s", (int)len, text);
        (void)sscanf(item, " %15s %511s", word, path);
        text += len + (text[len] != '\0');
        net = net || strcmp(word, "net") == 0;
        off = off || strcmp(word, "off") == 0;
        if (strcmp(word, "depth") == 0)
            depth = (unsigned)atoi(path);
        if (strcmp(word, "r") == 0 || strcmp(word, "skip") == 0)
            access = "read";
        else if (strcmp(word, "w") == 0)
            access = "write";
        else if (strcmp(word, "deny") == 0)
            access = "deny";
        if (access)
            to += sprintf(to, "{\"path\":{\"type\":\"path\",\"path\":\"%s\"},\"access\":\"%s\"%s},",
                          path, access,
                          strcmp(word, "skip") == 0 ? ",\"missing_path_behavior\":\"skip\"" : "");
        else if (strcmp(word, "glob") == 0)
            to += sprintf(to,
                          "{\"path\":{\"type\":\"glob_pattern\",\"pattern\":\"%s\"},"
                          "\"access\":\"deny\"},",
                          path);
        else if (strcmp(word, "minimal") == 0)
            to += sprintf(to, "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"minimal\"}},"
                              "\"access\":\"read\"},");
        else if (strcmp(word, "tmp") == 0)
            to += sprintf(to, "{\"path\":{\"type\":\"special\",\"value\":{\"kind\":\"slash_tmp\"}},"
                              "\"access\":\"write\"},");
    }
    if (to[-1] == ',')
        to--;
    to += sprintf(to, "],\"type\":\"%s\"", off ? "unrestricted" : "restricted");
    if (depth)
        to += sprintf(to, ",\"glob_scan_max_depth\":%u", depth);
    (void)sprintf(to, "},\"network\":\"%s\"}}", net ? "enabled" : "restricted");
    if (off) { /* an unrestricted file system has no entries */
        (void)sprintf(
            json,
            "{\"cwd\":\"file:///w\",\"windowsSandboxLevel\":\"disabled\",\"permissions\":{"
            "\"type\":\"managed\",\"file_system\":{\"type\":\"unrestricted\"},"
            "\"network\":\"%s\"}}",
            net ? "enabled" : "restricted");
    }
    if (bly_policy_parse_text(json, &env, &policy, &err) < 0) {
        fprintf(stderr, "policy: %s\n%s\n", err.text, json);
        abort();
    }
    return policy;
}
