/*
 * From a policy and a disk to a plan. The first line of the input is a sandbox context; each line
 * behind it puts something on the disk, as in tests/unit/sandbox/plan/fake_disk.h: "d PATH",
 * "f PATH TEXT", "l PATH TARGET", "o PATH", "x PATH".
 *
 * The mounts are an implementation of the decision function, so both must agree about every path on
 * the disk; and where a program might create what is protected, the plan has to say so. Neither is
 * trusted to judge the other: a third answer comes from what the client wrote, by the shortest code
 * that follows the specification's words (3.2, 3.4). And neither the order of the entries nor the
 * way through a printed policy makes a difference.
 */
#include "base/cleanup.h"
#include "fuzz.h"
#include "sandbox/plan/plan_internal.h"
#include "sandbox/policy/glob.h"
#include "unit/sandbox/plan/fake_disk.h"

/* ---- the disk ---- */

static const struct fake_entry *entry_above(struct fake_disk *disk, const char *path)
{
    bly_autofree char *dir = strdup(path);

    FUZZ_MUST(dir);
    while (dir[1] != '\0') {
        const struct fake_entry *entry = fake_find(disk, dir);
        char *slash = strrchr(dir, '/');

        if (entry)
            return entry;
        slash[slash == dir] = '\0';
    }
    return fake_find(disk, "/");
}

/* Below directories only, and nothing twice, since a disk cannot contradict itself. */
static bool fits_on(struct fake_disk *disk, const char *path)
{
    const struct fake_entry *above = entry_above(disk, path);

    return strcmp(above->path, path) != 0 && (above->type == 'd' || above->type == 'x') &&
           strlen(path) < sizeof(above->path) &&
           disk->n + bly_path_depth(path) < BLY_LEN(disk->entries);
}

static void put_line(struct fake_disk *disk, char *line)
{
    char type = line[0];
    char *rest = line + 2, *path = NULL;
    const char *name;

    if (!type || !strchr("dflox", type) || line[1] != ' ')
        return;
    name = strsep(&rest, " ");
    if (bly_path_normalise(name, strlen(name), &path) < 0)
        return;
    if (fits_on(disk, path))
        fake_add(disk, type, path, rest ? rest : "");
    free(path);
}

static struct fake_disk *disk_of(char *text)
{
    struct fake_disk *disk = fake_new("");
    char *line;

    while ((line = strsep(&text, "\n")) != NULL)
        put_line(disk, line);
    return disk;
}

/* ---- what the mounts give ---- */

enum surface { CLOSED, READABLE, WRITABLE, PRIVATE };

static enum surface surface_of(const struct bly_plan *plan, const char *path)
{
    const struct bly_step *top = &plan->steps[0];

    for (size_t i = 1; i < plan->n_steps; i++) {
        if (bly_path_is_within(path, plan->steps[i].path) &&
            strlen(plan->steps[i].path) >= strlen(top->path))
            top = &plan->steps[i];
    }
    switch (top->kind) {
    case BLY_STEP_READ:
        return READABLE;
    case BLY_STEP_WRITE:
    case BLY_STEP_PIN:
        return WRITABLE;
    case BLY_STEP_TMPFS:
    case BLY_STEP_MASK_DIR:
    case BLY_STEP_MASK_FILE:
        return CLOSED;
    case BLY_STEP_PIN_LINK:
    case BLY_STEP_PROC:
    case BLY_STEP_PROC_READ:
    case BLY_STEP_DEV:
    case BLY_STEP_SHM:
    case BLY_STEP_LINK:
    case BLY_STEP_KINDS:
        break;
    }
    return PRIVATE;
}

static bool is_kernels(const char *path)
{
    return bly_path_is_within(path, "/proc") || bly_path_is_within(path, "/dev") ||
           bly_path_is_within(path, "/sys");
}

static bool is_matched(const struct bly_policy *policy, const char *path)
{
    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        if (bly_glob_covers(policy->deny_globs[i], path))
            return true;
    }
    return false;
}

static void check_entry(const struct bly_plan *plan, const struct fake_entry *entry)
{
    const char *path = entry->path;
    const struct bly_policy *policy = bly_plan_policy(plan);
    enum bly_access access = bly_policy_decide(policy, path);
    enum surface surface = surface_of(plan, path);

    /* A helper asks before it opens, and a scan may have been told not to look everywhere. */
    if (is_matched(policy, path) &&
        (plan->purpose == BLY_FOR_HELPER || policy->glob_scan_max_depth > 0))
        return;
    if (surface == WRITABLE)
        FUZZ_MUST(access == BLY_ACCESS_WRITE);
    if (surface == READABLE)
        FUZZ_MUST(access == BLY_ACCESS_READ || access == BLY_ACCESS_WRITE);
    if (entry->type == 'x') /* may be closed: nobody knows whether a pattern matches in there */
        return;
    if (access == BLY_ACCESS_WRITE)
        FUZZ_MUST(surface == WRITABLE);
    if (access == BLY_ACCESS_READ)
        FUZZ_MUST(surface == READABLE || surface == PRIVATE);
}

/* ---- what the client asked for, read from the printed policy ---- */

/* Length of the directory that `line`'s path names, when it is `path` or above it; -1 otherwise. */
static int reach(const char *line, const char *path)
{
    size_t len = strcspn(line, " \n");

    if (len == 1)
        return 0;
    if (strncmp(line, path, len) != 0 || (path[len] != '/' && path[len] != '\0'))
        return -1;
    return (int)len;
}

/* A name that is protected in one of the roots, unless a rule of its own says otherwise. */
static bool is_below_protected(const char *root, const char *path)
{
    static const char *const names[] = {".git", ".agents", ".codex", ".aws"};
    int len = reach(root, path);

    if (len <= 0 || path[len] != '/')
        return false;
    for (size_t i = 0; i < BLY_LEN(names); i++) {
        size_t n = strlen(names[i]);

        if (strncmp(path + len + 1, names[i], n) == 0 &&
            (path[len + 1 + n] == '/' || path[len + 1 + n] == '\0'))
            return true;
    }
    return false;
}

/* One rule in the words of bly_policy_print(). */
struct said {
    enum bly_access access;
    const char *path;
};

static bool read_line(const char *line, struct said *ret)
{
    static const struct {
        const char *word;
        enum bly_access access;
    } words[] = {{"ro ", BLY_ACCESS_READ}, {"rw ", BLY_ACCESS_WRITE}, {"deny ", BLY_ACCESS_DENY}};

    for (size_t i = 0; i < BLY_LEN(words); i++) {
        if (strncmp(line, words[i].word, strlen(words[i].word)) != 0)
            continue;
        *ret = (struct said){words[i].access, line + strlen(words[i].word)};
        return strstr(line, " implied") == NULL || strstr(line, " implied") > strchr(line, '\n');
    }
    return false;
}

/*
 * What the rules permit, without their order, their sorting or any search: all lines are looked at
 * for each level of the path. Globs and platform defaults are left to the caller.
 */
static enum bly_access reference(const char *text, const char *path)
{
    enum bly_access state = BLY_ACCESS_NONE;

    for (int len = 0; len <= (int)strlen(path); len++) {
        enum bly_access here = BLY_ACCESS_NONE;
        bool guarded = false;

        for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
            struct said said;

            if (!read_line(line, &said))
                continue;
            if (reach(said.path, path) == len && said.access > here)
                here = said.access;
            /* The protected name one component below this root ends here. */
            if (said.access == BLY_ACCESS_WRITE && is_below_protected(said.path, path)) {
                int root = reach(said.path, path);

                guarded = guarded || root + 1 + (int)strcspn(path + root + 1, "/") == len;
            }
        }
        if (here == BLY_ACCESS_NONE && guarded)
            here = BLY_ACCESS_READ;
        if (here == BLY_ACCESS_READ && state == BLY_ACCESS_DENY)
            continue;
        if (here != BLY_ACCESS_NONE)
            state = here;
    }
    return state;
}

/* Whether a symlink, or what the server cannot see, makes a path mean something else on this disk;
 * spaces and control characters would need a parser of their own. */
static bool is_plain(struct fake_disk *disk, const char *text)
{
    for (size_t i = 0; i < disk->n; i++)
        if (disk->entries[i].type == 'l' || disk->entries[i].type == 'x' ||
            strpbrk(disk->entries[i].path, " \\\n"))
            return false;
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        struct said said;
        const char *space;

        if (!read_line(line, &said))
            continue;
        space = strchr(said.path, ' ');
        if ((space && space < strchr(line, '\n')) || memchr(line, '\\', strcspn(line, "\n")))
            return false;
    }
    return true;
}

/* Grants of what does not exist count for nothing, and neither do names below what is a file. */
static bool is_all_there(struct fake_disk *disk, const char *text)
{
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        struct said said;
        char path[256];

        if (!read_line(line, &said))
            continue;
        if (strcspn(said.path, "\n") >= sizeof(path))
            return false;
        (void)snprintf(path, sizeof(path), "%.*s", (int)strcspn(said.path, "\n"), said.path);
        if (!fake_find(disk, path))
            return false;
    }
    return true;
}

/* No view shows more than was asked for: not a byte that is denied, no protected name to write. */
static void check_promise(const struct bly_plan *plan, const char *text, const char *path)
{
    enum surface surface = surface_of(plan, path);
    enum bly_access asked = reference(text, path);

    if (surface == WRITABLE)
        FUZZ_MUST(asked == BLY_ACCESS_WRITE);
    if (surface == READABLE)
        FUZZ_MUST(asked == BLY_ACCESS_READ || asked == BLY_ACCESS_WRITE);
    if (bly_policy_decide(bly_plan_policy(plan), path) == BLY_ACCESS_WRITE)
        FUZZ_MUST(asked == BLY_ACCESS_WRITE);
}

static void check_promises(const struct bly_plan *plan, const struct bly_policy *policy,
                           struct fake_disk *disk)
{
    bly_autobuf struct bly_buf text;
    const char *rules;

    bly_buf_init(&text, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_policy_print(policy, &text) == 0 && bly_buf_add_char(&text, '\0') == 0);
    rules = (const char *)text.data;
    if (policy->minimal || !is_plain(disk, rules) || !is_all_there(disk, rules))
        return;
    for (size_t i = 0; i < disk->n; i++) {
        const char *path = disk->entries[i].path;

        if (is_kernels(path) || fake_find(disk, "/proc/self/mountinfo"))
            continue;
        check_promise(plan, rules, path);
    }
}

/* ---- what is not there ---- */

static bool is_absent(const struct bly_plan *plan, const char *dir, const char *name)
{
    for (size_t i = 0; i < plan->n_absents; i++) {
        if (strcmp(plan->absents[i].dir, dir) == 0 && strcmp(plan->absents[i].name, name) == 0)
            return true;
    }
    return false;
}

/* A plan that was made before it came into being must not be used any more. */
static void check_watched(const struct bly_plan *plan, struct fake_disk *disk, const char *path)
{
    struct bly_probe probe = fake_probe(disk);

    if (strlen(path) >= sizeof(disk->entries[0].path) || disk->n == BLY_LEN(disk->entries))
        return;
    fake_add(disk, 'd', path, "");
    FUZZ_MUST(bly_plan_fits(plan, &probe) == BLY_PLAN_STALE);
    fake_remove(disk, path);
}

/* A restriction of something that is not there, where it could be made. */
static void check_missing(const struct bly_plan *plan, struct fake_disk *disk,
                          const struct bly_rule *rule)
{
    const struct fake_entry *above = entry_above(disk, rule->path);
    bly_autofree char *edge = strdup(rule->path);
    size_t len = strcmp(above->path, "/") == 0 ? 1 : strlen(above->path) + 1;

    FUZZ_MUST(edge);
    if (above->type != 'd' || strcmp(above->path, rule->path) == 0 ||
        fake_is_blocked(disk, rule->path) || surface_of(plan, above->path) != WRITABLE)
        return;
    edge[len + strcspn(edge + len, "/")] = '\0'; /* the first component that is missing */
    if (plan->purpose == BLY_FOR_PROCESS)
        FUZZ_MUST(is_absent(plan, above->path, edge + len));
    check_watched(plan, disk, edge);
}

static bool is_restriction(const struct bly_rule *rule)
{
    return (rule->access == BLY_ACCESS_READ || rule->access == BLY_ACCESS_DENY) &&
           !(rule->flags & BLY_RULE_SKIP_MISSING);
}

/* ---- a plan ---- */

static void check_packed(const struct bly_plan *plan)
{
    bly_autobuf struct bly_buf packed, again;
    struct bly_plan *copy = NULL;
    struct bly_reader reader;

    bly_buf_init(&packed, FUZZ_OUTPUT_MAX);
    bly_buf_init(&again, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_plan_pack(plan, &packed) == 0);
    reader = bly_reader_of(packed.data, packed.len);
    FUZZ_MUST(bly_plan_unpack(&reader, &copy) == 0);
    FUZZ_MUST(reader.pos == packed.len);
    FUZZ_MUST(bly_plan_pack(copy, &again) == 0);
    fuzz_check_same(&packed, &again);
    bly_plan_free(copy);
}

static void check_plan(const struct bly_plan *plan, const struct bly_policy *given,
                       struct fake_disk *disk)
{
    const struct bly_policy *policy = bly_plan_policy(plan);
    struct bly_probe probe = fake_probe(disk);

    check_packed(plan);
    FUZZ_MUST(bly_plan_fits(plan, &probe) == 0);
    if (plan->network_only)
        return;
    for (size_t i = 0; i < disk->n; i++) {
        const struct fake_entry *entry = &disk->entries[i];

        if (entry->type != 'l' && !is_kernels(entry->path) && !fake_is_blocked(disk, entry->path))
            check_entry(plan, entry);
    }
    check_promises(plan, given, disk);
    for (size_t i = 0; i < policy->n_rules; i++) {
        if (is_restriction(&policy->rules[i]) && !is_kernels(policy->rules[i].path))
            check_missing(plan, disk, &policy->rules[i]);
    }
}

/* What else ought to give the same plan: the policy written down and read again. */
static void check_twin(const struct bly_plan *plan, int r, const struct bly_policy *twin,
                       enum bly_purpose purpose, struct fake_disk *disk)
{
    struct bly_probe probe = fake_probe(disk);
    bly_autobuf struct bly_buf packed, again;
    struct bly_plan *other = NULL;

    bly_buf_init(&packed, FUZZ_OUTPUT_MAX);
    bly_buf_init(&again, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_plan_make(twin, purpose, &probe, NULL, 0, &other, NULL) == r);
    if (r < 0)
        return;
    FUZZ_MUST(bly_plan_pack(plan, &packed) == 0 && bly_plan_pack(other, &again) == 0);
    fuzz_check_same(&packed, &again);
    bly_plan_free(other);
}

static void make(const struct bly_policy *policy, const struct bly_policy *twin,
                 enum bly_purpose purpose, struct fake_disk *disk)
{
    struct bly_probe probe = fake_probe(disk);
    struct bly_plan *plan = NULL;
    struct bly_err err = {0};
    int r = bly_plan_make(policy, purpose, &probe, NULL, 0, &plan, &err);

    if (twin)
        check_twin(plan, r, twin, purpose, disk);
    if (r < 0) {
        fuzz_check_failure(r, &err);
        return;
    }
    check_plan(plan, policy, disk);
    bly_plan_free(plan);
}

/* The same policy by way of its JSON, with the entries the other way round. */
static struct bly_policy *twin_of(const struct bly_policy *policy)
{
    bly_autobuf struct bly_buf json;
    struct bly_policy *twin = NULL;
    yyjson_doc *doc = NULL;
    yyjson_mut_doc *copy;
    yyjson_mut_val *entries, *entry, *reversed;
    char *text;

    bly_buf_init(&json, FUZZ_OUTPUT_MAX);
    if (bly_policy_print_json(policy, &json) == -EILSEQ)
        return NULL;
    FUZZ_MUST(bly_json_read_copy((const char *)json.data, json.len, &doc, NULL) == 0);
    copy = yyjson_doc_mut_copy(doc, NULL);
    FUZZ_MUST(copy);
    entries = yyjson_mut_doc_ptr_get(copy, "/permissions/file_system/entries");
    reversed = yyjson_mut_arr(copy);
    while ((entry = yyjson_mut_arr_remove_first(entries)) != NULL)
        yyjson_mut_arr_prepend(reversed, entry);
    while ((entry = yyjson_mut_arr_remove_first(reversed)) != NULL)
        yyjson_mut_arr_append(entries, entry);
    text = yyjson_mut_write(copy, 0, NULL);
    FUZZ_MUST(text && bly_policy_parse_text(text, &fuzz_env, &twin, NULL) == 0);
    free(text);
    yyjson_mut_doc_free(copy);
    yyjson_doc_free(doc);
    return twin;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bly_autofree char *text = fuzz_string(data, size);
    char *rest = text;
    const char *json = strsep(&rest, "\n");
    struct bly_policy *policy = NULL, *twin;
    struct fake_disk *disk;

    if (bly_policy_parse_text(json, &fuzz_env, &policy, NULL) < 0)
        return 0;
    disk = disk_of(rest);
    twin = twin_of(policy);
    if (policy->wall)
        make(policy, twin, BLY_FOR_HELPER, disk);
    if (policy->wall || !policy->network)
        make(policy, twin, BLY_FOR_PROCESS, disk);
    bly_policy_unref(twin);
    free(disk);
    bly_policy_unref(policy);
    return 0;
}
