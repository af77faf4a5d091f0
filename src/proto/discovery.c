#include "proto/discovery.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/json.h"
#include "base/path.h"
#include "fs/fs.h"
#include "proto/encode.h"
#include "rpc/rpc.h"

enum {
    JSON_MAX = 67108864 + 1, /* of each list; no answer is longer */
    TEXT_MAX = 8192,         /* of a warning, but for its URIs */
    ROOT_VALUES = 8,         /* an object's members and itself */
    FILE_VALUES = 3,
};

const struct bly_fs_walk bly_discovery_walk = {
    .max_depth = 6,
    .max_directories = 2000,
    .max_entries = 20000,
    .follow_directory_symlinks = true,
};

/* Of several in one directory the first one counts. */
static const char *const manifests[] = {
    ".codex-plugin/plugin.json",
    ".claude-plugin/plugin.json",
    ".cursor-plugin/plugin.json",
};

/*
 * A file from the listing. In the order of URIs, which is not that of paths: a skill's own, of a
 * manifest that of the plugin's directory.
 */
struct found {
    char *path, *uri; /* owned */
    size_t kind;      /* of a manifest */
};

struct found_list {
    struct found *items; /* owned */
    size_t n, cap;
};

enum stage { PLUGIN, MCP_CONFIG, APPS_CONFIG, SKILLS, ABOVE, NESTED, FINISHED };

struct bly_discovery {
    char *root;
    struct found_list skills, nested;
    enum stage stage;
    size_t tried;               /* what the stage has been told about, in files or whole skills */
    bool metadata;              /* of skill number `tried` is next */
    char *next;                 /* the file wanted; owned */
    char *above;                /* the directory that stage ABOVE is at; owned */
    char *mcp_path, *apps_path; /* owned; NULL: none */
    size_t bytes;               /* read so far */
    /* JSON: values or empty, then lists without their brackets. */
    struct bly_buf manifest, mcp_config, apps_config;
    struct bly_buf skills_json, namespaces, warnings;
    size_t values;
    int error; /* 0 or -ENOMEM */
};

/* ---- what is told --------------------------------------------------------------------------- */

static void begin_item(struct bly_buf *list)
{
    if (list->len > 0)
        BLY_ADD(list, ",");
}

/* "BEFORE URI AFTER", AFTER as of printf. */
__attribute__((format(printf, 4, 5))) static void warn(struct bly_discovery *d, const char *before,
                                                       const char *path, const char *after, ...)
{
    bly_autobuf struct bly_buf text;
    char rest[TEXT_MAX];
    va_list ap;

    va_start(ap, after);
    (void)vsnprintf(rest, sizeof(rest), after, ap);
    va_end(ap);
    bly_buf_init(&text, JSON_MAX);
    bly_buf_add_str(&text, before);
    if (path)
        bly_path_to_uri(&text, path);
    bly_buf_add_str(&text, rest);
    begin_item(&d->warnings);
    bly_json_add_str(&d->warnings, (const char *)text.data, text.len);
    d->values++;
    if (text.error)
        d->error = -ENOMEM;
}

static void add_file(struct bly_discovery *d, struct bly_buf *buf, const char *text, size_t len)
{
    BLY_ADD(buf, "{\"path\":");
    bly_encode_uri(buf, d->next);
    BLY_ADD(buf, ",\"contents\":");
    bly_json_add_str(buf, text, len);
    BLY_ADD(buf, "}");
    d->values += FILE_VALUES;
}

static char *keep(struct bly_discovery *d, char *owned)
{
    if (!owned)
        d->error = -ENOMEM;
    return owned;
}

/* ---- the plugin of the root ----------------------------------------------------------------- */

/* A path that stays below the root: "./" and then names, none of which is "..". */
static const char *fault_of(const char *text, size_t len)
{
    const char *const outside = "path must remain below the capability root";
    bool named = false;

    if (len < 2 || memcmp(text, "./", 2) != 0)
        return "path must start with `./`";
    if (memchr(text, '\0', len))
        return outside;
    for (const char *p = text + 2; *p; p += strcspn(p, "/"), p += *p == '/') {
        size_t n = strcspn(p, "/");

        if (n == 2 && memcmp(p, "..", 2) == 0)
            return outside;
        named |= n > 0 && !(n == 1 && *p == '.');
    }
    return named ? NULL : outside;
}

/* The file that `member` of the manifest names, or else the usual one. */
static char *config_path(struct bly_discovery *d, yyjson_val *manifest, const char *member,
                         const char *usual)
{
    yyjson_val *value = yyjson_obj_get(manifest, member);
    const char *name = yyjson_get_str(value);
    const char *fault = name ? fault_of(name, yyjson_get_len(value)) : NULL;

    char before[64];

    (void)snprintf(before, sizeof(before), "ignoring %s in ", member);
    if (fault)
        warn(d, before, d->next, ": %s", fault);
    return keep(d, bly_path_join(d->root, name && !fault ? name : usual));
}

/* A manifest that is no JSON names nothing. One with the servers in it needs no file of them. */
static void read_plugin(struct bly_discovery *d, const char *text, size_t len)
{
    yyjson_doc *doc = NULL;
    yyjson_val *manifest = NULL;
    int r = bly_json_read_copy(text, len, &doc, NULL);

    if (r == -ENOMEM)
        d->error = r;
    if (r == 0)
        manifest = yyjson_doc_get_root(doc);
    if (!yyjson_is_obj(yyjson_obj_get(manifest, "mcpServers")))
        d->mcp_path = config_path(d, manifest, "mcpServers", ".mcp.json");
    d->apps_path = config_path(d, manifest, "apps", ".app.json");
    yyjson_doc_free(doc);

    add_file(d, &d->manifest, text, len);
    begin_item(&d->namespaces);
    add_file(d, &d->namespaces, text, len);
}

static char *plugin_path(struct bly_discovery *d)
{
    if (d->manifest.len > 0 || d->tried == BLY_LEN(manifests))
        return NULL;
    return keep(d, bly_path_join(d->root, manifests[d->tried]));
}

static char *mcp_path(struct bly_discovery *d)
{
    return d->tried == 0 && d->mcp_path ? keep(d, strdup(d->mcp_path)) : NULL;
}

static void read_mcp(struct bly_discovery *d, const char *text, size_t len)
{
    add_file(d, &d->mcp_config, text, len);
}

static char *apps_path(struct bly_discovery *d)
{
    return d->tried == 0 && d->apps_path ? keep(d, strdup(d->apps_path)) : NULL;
}

static void read_apps(struct bly_discovery *d, const char *text, size_t len)
{
    add_file(d, &d->apps_config, text, len);
}

/* ---- skills --------------------------------------------------------------------------------- */

static char *skill_path(struct bly_discovery *d)
{
    const char *path;

    if (d->tried == d->skills.n)
        return NULL;
    path = d->skills.items[d->tried].path;
    return keep(d, d->metadata ? bly_path_join(path, "../agents/openai.yaml") : strdup(path));
}

static void read_skill(struct bly_discovery *d, const char *text, size_t len)
{
    struct bly_buf *buf = &d->skills_json;

    if (d->metadata) {
        add_file(d, buf, text, len);
        BLY_ADD(buf, "}");
        return;
    }
    begin_item(buf);
    BLY_ADD(buf, "{\"instructions\":");
    add_file(d, buf, text, len);
    BLY_ADD(buf, ",\"metadata\":");
    d->values++;
}

static void missed_skill(struct bly_discovery *d)
{
    if (!d->metadata)
        return;
    BLY_ADD(&d->skills_json, "null}");
    d->values++;
}

/* ---- manifests that give skills a namespace ------------------------------------------------- */

static void read_namespace(struct bly_discovery *d, const char *text, size_t len)
{
    begin_item(&d->namespaces);
    add_file(d, &d->namespaces, text, len);
    if (d->stage == ABOVE) {
        free(d->above);
        d->above = NULL;
    }
}

/* A root without a manifest belongs to the nearest one above it. */
static char *above_path(struct bly_discovery *d)
{
    size_t kind = d->tried % BLY_LEN(manifests);

    if (d->manifest.len > 0)
        return NULL;
    if (d->tried == 0)
        d->above = keep(d, strdup(d->root));
    if (kind == 0 && d->above) {
        char *up = strcmp(d->above, "/") == 0 ? NULL : keep(d, bly_path_parent(d->above));

        free(d->above);
        d->above = up;
    }
    return d->above ? keep(d, bly_path_join(d->above, manifests[kind])) : NULL;
}

static char *nested_path(struct bly_discovery *d)
{
    return d->tried < d->nested.n ? keep(d, strdup(d->nested.items[d->tried].path)) : NULL;
}

/* ---- stage by stage ------------------------------------------------------------------------- */

static const struct {
    char *(*path)(struct bly_discovery *d); /* NULL: the stage is over */
    void (*read)(struct bly_discovery *d, const char *text, size_t len);
} stages[] = {
    [PLUGIN] = {plugin_path, read_plugin},  [MCP_CONFIG] = {mcp_path, read_mcp},
    [APPS_CONFIG] = {apps_path, read_apps}, [SKILLS] = {skill_path, read_skill},
    [ABOVE] = {above_path, read_namespace}, [NESTED] = {nested_path, read_namespace},
};

const char *bly_discovery_next(struct bly_discovery *d)
{
    free(d->next);
    d->next = NULL;
    for (; d->stage < FINISHED && d->error == 0; d->stage++, d->tried = 0) {
        d->next = stages[d->stage].path(d);
        if (d->next)
            return d->next;
    }
    return NULL;
}

size_t bly_discovery_room(const struct bly_discovery *d)
{
    size_t room = BLY_DISCOVERY_ROOT_MAX - d->bytes;

    return room < BLY_DISCOVERY_FILE_MAX ? room : BLY_DISCOVERY_FILE_MAX;
}

/* One file is dealt with. A skill with instructions has another one. */
static void move_on(struct bly_discovery *d, bool read)
{
    if (d->stage == SKILLS && !read)
        missed_skill(d);
    d->metadata = d->stage == SKILLS && read && !d->metadata;
    d->tried += !d->metadata;
}

void bly_discovery_not_read(struct bly_discovery *d, const struct bly_err *err)
{
    char why[BLY_ERR_TEXT_MAX];

    if (err->kind == BLY_ERR_INVALID && err->sys == EFBIG) {
        bly_discovery_too_long(d, BLY_FS_READ_MAX);
        return;
    }
    /* What is not there, and what is there but no file, is no news. */
    if (err->kind != BLY_ERR_INVALID && bly_rpc_code(err) != BLY_RPC_NOT_FOUND) {
        bly_rpc_failure_text(err, why, sizeof(why));
        warn(d, "failed to read capability file ", d->next, ": %s", why);
    }
    move_on(d, false);
}

void bly_discovery_too_long(struct bly_discovery *d, uint64_t bytes)
{
    if (bytes > BLY_DISCOVERY_FILE_MAX)
        warn(d, "capability file ", d->next, " exceeds the %d-byte limit", BLY_DISCOVERY_FILE_MAX);
    else
        warn(d, "capability root bundle exceeds the ", NULL, "%d-byte limit",
             BLY_DISCOVERY_ROOT_MAX);
    move_on(d, false);
}

void bly_discovery_read(struct bly_discovery *d, const char *text, size_t len)
{
    size_t valid, bad;

    if (len > bly_discovery_room(d)) {
        bly_discovery_too_long(d, len);
        return;
    }
    valid = bly_json_utf8_len(text, len, &bad);
    if (valid < len && bad > 0)
        warn(d, "capability file ", d->next,
             " is not UTF-8: invalid utf-8 sequence of %zu bytes from index %zu", bad, valid);
    else if (valid < len)
        warn(d, "capability file ", d->next,
             " is not UTF-8: incomplete utf-8 byte sequence from index %zu", valid);
    else
        stages[d->stage].read(d, text, len);
    d->bytes += valid == len ? len : 0;
    move_on(d, valid == len);
}

/* ---- the listing ---------------------------------------------------------------------------- */

/* `dir_len`: what of the path goes into the URI. */
static void add_found(struct bly_discovery *d, struct found_list *list, const char *path,
                      size_t dir_len, size_t kind)
{
    bly_autofree char *dir = keep(d, strndup(path, dir_len));
    struct bly_buf uri;
    struct found *item;

    if (!dir)
        return;
    if (list->n == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 16;
        struct found *items = realloc(list->items, cap * sizeof(*items));

        if (!keep(d, (char *)items))
            return;
        list->items = items;
        list->cap = cap;
    }
    item = &list->items[list->n++];
    bly_buf_init(&uri, JSON_MAX);
    bly_path_to_uri(&uri, dir);
    item->path = keep(d, strdup(path));
    item->uri = keep(d, (char *)bly_buf_take(&uri, &(size_t){0}));
    item->kind = kind;
}

/* The number of the manifest that `path` is, BLY_LEN(manifests) when none; and its directory. */
static size_t manifest_kind(const char *path, size_t *ret_dir_len)
{
    size_t len = strlen(path), kind;

    for (kind = 0; kind < BLY_LEN(manifests); kind++) {
        size_t n = strlen(manifests[kind]);

        if (len > n && path[len - n - 1] == '/' && strcmp(path + len - n, manifests[kind]) == 0) {
            *ret_dir_len = len - n - 1;
            break;
        }
    }
    return kind;
}

static void note_file(struct bly_discovery *d, const char *path)
{
    size_t dir_len = 0;
    size_t root_len = strcmp(d->root, "/") == 0 ? 0 : strlen(d->root);
    size_t kind = manifest_kind(path, &dir_len);

    if (strcmp(bly_path_base(path), "SKILL.md") == 0)
        add_found(d, &d->skills, path, strlen(path), 0);
    else if (kind < BLY_LEN(manifests) && dir_len > root_len)
        add_found(d, &d->nested, path, dir_len, kind);
}

/* A helper writes the listing, and what is behind a wall is not believed: only real paths below. */
static bool is_below_root(const struct bly_discovery *d, const char *path)
{
    bly_autofree char *normal = NULL;
    size_t len = strlen(path);

    return len <= BLY_PATH_MAX && bly_path_normalise(path, len, &normal) == 0 &&
           strcmp(normal, path) == 0 && bly_path_is_within(path, d->root);
}

static void note_entry(struct bly_discovery *d, struct bly_reader *in)
{
    uint8_t flags = bly_get_u8(in);
    bly_autofree char *path = bly_get_str(in);
    bly_autofree char *message = flags & BLY_FS_ENTRY_ERROR ? bly_get_str(in) : NULL;

    if (!path || !is_below_root(d, path))
        return;
    if (message)
        warn(d, "failed to scan capability path ", path, ": %s", message);
    else if (flags & BLY_FS_ENTRY_FILE)
        note_file(d, path);
}

static int compare_found(const void *left, const void *right)
{
    const struct found *a = left, *b = right;
    int order = strcmp(a->uri, b->uri);

    return order != 0 ? order : (int)a->kind - (int)b->kind;
}

static void sort(struct found_list *list)
{
    if (list->n > 1)
        qsort(list->items, list->n, sizeof(*list->items), compare_found);
}

/* Of several manifests of a directory the first one counts. */
static void drop_repeated(struct found_list *list)
{
    size_t n = 0;

    for (size_t i = 0; i < list->n; i++) {
        struct found *item = &list->items[i];

        if (n == 0 || strcmp(list->items[n - 1].uri, item->uri) != 0) {
            list->items[n++] = *item;
        } else {
            free(item->path);
            free(item->uri);
        }
    }
    list->n = n;
}

void bly_discovery_listed(struct bly_discovery *d, const struct bly_fs_reply *reply)
{
    struct bly_reader in = bly_reader_of(reply->entries.data, reply->entries.len);

    for (size_t i = 0; i < reply->n_entries && !in.bad && d->error == 0; i++)
        note_entry(d, &in);
    if (reply->truncated)
        warn(d, "capability scan reached its traversal limit (root: ", d->root, ")");
    if (d->error < 0)
        return;
    sort(&d->skills);
    sort(&d->nested);
    drop_repeated(&d->nested);
}

void bly_discovery_not_listed(struct bly_discovery *d, const struct bly_err *err)
{
    char why[BLY_ERR_TEXT_MAX];

    bly_rpc_failure_text(err, why, sizeof(why));
    warn(d, "failed to scan capability path ", d->root, ": %s", why);
}

/* ---- the answer ----------------------------------------------------------------------------- */

static void add_json(struct bly_buf *buf, const struct bly_buf *json)
{
    if (json->error && !buf->error)
        buf->error = json->error;
    if (json->len > 0)
        bly_buf_add(buf, json->data, json->len);
    else
        BLY_ADD(buf, "null");
}

static void add_list(struct bly_buf *buf, const char *name, const struct bly_buf *items)
{
    bly_buf_printf(buf, ",\"%s\":[", name);
    if (items->len > 0 || items->error)
        add_json(buf, items);
    BLY_ADD(buf, "]");
}

static void add_plugin(const struct bly_discovery *d, size_t *values, struct bly_buf *buf)
{
    if (d->manifest.len == 0) {
        BLY_ADD(buf, "null");
        return;
    }
    BLY_ADD(buf, "{\"manifest\":");
    add_json(buf, &d->manifest);
    BLY_ADD(buf, ",\"mcpConfig\":");
    add_json(buf, &d->mcp_config);
    BLY_ADD(buf, ",\"appsConfig\":");
    add_json(buf, &d->apps_config);
    BLY_ADD(buf, "}");
    *values += 2; /* nulls, at most */
}

int bly_discovery_add(const struct bly_discovery *d, const char *id, size_t id_len, size_t *values,
                      struct bly_buf *buf)
{
    if (d->error && !buf->error)
        buf->error = d->error;
    BLY_ADD(buf, "{\"id\":");
    bly_json_add_str(buf, id, id_len);
    BLY_ADD(buf, ",\"path\":");
    bly_encode_uri(buf, d->root);
    BLY_ADD(buf, ",\"plugin\":");
    add_plugin(d, values, buf);
    add_list(buf, "skills", &d->skills_json);
    add_list(buf, "namespaceManifests", &d->namespaces);
    add_list(buf, "warnings", &d->warnings);
    *values += ROOT_VALUES + d->values;
    return BLY_ADD(buf, ",\"error\":null}");
}

int bly_discovery_add_error(const char *id, size_t id_len, const char *uri, size_t uri_len,
                            const char *error, size_t *values, struct bly_buf *buf)
{
    BLY_ADD(buf, "{\"id\":");
    bly_json_add_str(buf, id, id_len);
    BLY_ADD(buf, ",\"path\":");
    bly_json_add_str(buf, uri, uri_len);
    BLY_ADD(buf, ",\"plugin\":null,\"skills\":[],\"namespaceManifests\":[],\"warnings\":[],"
                 "\"error\":");
    bly_json_add_cstr(buf, error);
    *values += ROOT_VALUES;
    return BLY_ADD(buf, "}");
}

int bly_discovery_new(const char *path, struct bly_discovery **ret_discovery)
{
    struct bly_discovery *d = calloc(1, sizeof(*d));

    if (!d || !(d->root = strdup(path))) {
        free(d);
        return -ENOMEM;
    }
    bly_buf_init(&d->manifest, JSON_MAX);
    bly_buf_init(&d->mcp_config, JSON_MAX);
    bly_buf_init(&d->apps_config, JSON_MAX);
    bly_buf_init(&d->skills_json, JSON_MAX);
    bly_buf_init(&d->namespaces, JSON_MAX);
    bly_buf_init(&d->warnings, JSON_MAX);
    *ret_discovery = d;
    return 0;
}

static void free_list(struct found_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        free(list->items[i].path);
        free(list->items[i].uri);
    }
    free(list->items);
}

struct bly_discovery *bly_discovery_free(struct bly_discovery *d)
{
    if (!d)
        return NULL;
    free_list(&d->skills);
    free_list(&d->nested);
    bly_buf_deinit(&d->manifest);
    bly_buf_deinit(&d->mcp_config);
    bly_buf_deinit(&d->apps_config);
    bly_buf_deinit(&d->skills_json);
    bly_buf_deinit(&d->namespaces);
    bly_buf_deinit(&d->warnings);
    free(d->next);
    free(d->above);
    free(d->mcp_path);
    free(d->apps_path);
    free(d->root);
    free(d);
    return NULL;
}
