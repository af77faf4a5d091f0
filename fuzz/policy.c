/*
 * The policy languages. An input that begins with '{' is a sandbox context, in either form; any
 * other is the argv of the sandbox wrapper, one argument a line.
 */
#include "base/cleanup.h"
#include "fuzz.h"
#include "sandbox/policy/wrapper.h"

static void pack(const struct bly_policy *policy, struct bly_buf *buf)
{
    bly_buf_init(buf, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_policy_pack(policy, buf) == 0);
}

static void check_packed(const struct bly_policy *policy)
{
    bly_autobuf struct bly_buf packed, again;
    struct bly_policy *copy = NULL;
    struct bly_reader reader;

    pack(policy, &packed);
    reader = bly_reader_of(packed.data, packed.len);
    FUZZ_MUST(bly_policy_unpack(&reader, &copy) == 0);
    FUZZ_MUST(reader.pos == packed.len);
    FUZZ_MUST(copy->reads_all == policy->reads_all && copy->writes_all == policy->writes_all);
    pack(copy, &again);
    fuzz_check_same(&packed, &again);
    bly_policy_unref(copy);
}

static bool names_explicitly(const struct bly_policy *policy, const char *path)
{
    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct bly_rule *rule = &policy->rules[i];

        if (!(rule->flags & BLY_RULE_IMPLIED) && strcmp(rule->path, path) == 0)
            return true;
    }
    return false;
}

/* Whoever may write to a root may not write to what steers the tools that work there. */
static void check_protection(const struct bly_policy *policy, const char *root)
{
    /* Spelled out once more: a name that is lost from the list would not be missed otherwise. */
    static const char *const names[] = {".git", ".agents", ".codex", ".aws", NULL};

    for (const char *const *name = names; *name; name++) {
        bly_autofree char *path = bly_path_join(root, *name);
        bly_autofree char *below = bly_path_join(path, "hooks");

        if (names_explicitly(policy, path))
            continue;
        FUZZ_MUST(bly_policy_decide(policy, path) != BLY_ACCESS_WRITE);
        FUZZ_MUST(!bly_policy_writes_tree(policy, path));
        FUZZ_MUST(!bly_policy_writes_tree(policy, root));
        if (!names_explicitly(policy, below))
            FUZZ_MUST(bly_policy_decide(policy, below) != BLY_ACCESS_WRITE);
    }
}

static void check_rules(const struct bly_policy *policy)
{
    FUZZ_MUST(policy->wall || (policy->n_rules == 0 && policy->n_deny_globs == 0));
    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct bly_rule *rule = &policy->rules[i];
        enum bly_access access = bly_policy_decide(policy, rule->path);

        fuzz_check_path(rule->path);
        if (bly_policy_writes_tree(policy, rule->path))
            FUZZ_MUST(access == BLY_ACCESS_WRITE);
        if (rule->access == BLY_ACCESS_DENY)
            FUZZ_MUST(access == BLY_ACCESS_DENY);
        if (rule->access == BLY_ACCESS_READ)
            FUZZ_MUST(access == BLY_ACCESS_READ || access == BLY_ACCESS_DENY);
        if (rule->access == BLY_ACCESS_WRITE)
            FUZZ_MUST(access == BLY_ACCESS_WRITE ||
                      (access == BLY_ACCESS_DENY && policy->n_deny_globs > 0));
        if (rule->access == BLY_ACCESS_WRITE && strcmp(rule->path, "/") != 0)
            check_protection(policy, rule->path);
    }
}

/* What we write about a policy is a context that means the same. */
static void check_written(const struct bly_policy *policy)
{
    bly_autobuf struct bly_buf json, packed, again;
    struct bly_policy *copy = NULL;
    int r;

    bly_buf_init(&json, FUZZ_OUTPUT_MAX);
    pack(policy, &packed);
    bly_buf_init(&again, FUZZ_OUTPUT_MAX);
    r = bly_policy_print_json(policy, &json);
    if (r == -EILSEQ) /* a pattern below a directory whose name is not UTF-8 */
        return;
    FUZZ_MUST(r == 0 && bly_buf_add_char(&json, '\0') == 0);
    FUZZ_MUST(bly_policy_parse_text((const char *)json.data, &fuzz_env, &copy, NULL) == 0);
    pack(copy, &again);
    fuzz_check_same(&packed, &again);
    bly_policy_unref(copy);
}

static void check_policy(const struct bly_policy *policy)
{
    bly_autobuf struct bly_buf text;

    check_packed(policy);
    check_written(policy);
    check_rules(policy);
    bly_buf_init(&text, FUZZ_OUTPUT_MAX);
    FUZZ_MUST(bly_policy_print(policy, &text) == 0);
}

/* ---- the order of lists ---- */

static void reverse(yyjson_mut_doc *doc, yyjson_mut_val *value)
{
    yyjson_mut_val *reversed = yyjson_mut_arr(doc), *item;
    yyjson_mut_obj_iter iter;

    if (yyjson_mut_is_obj(value)) {
        iter = yyjson_mut_obj_iter_with(value);
        while ((item = yyjson_mut_obj_iter_next(&iter)) != NULL)
            reverse(doc, yyjson_mut_obj_iter_get_val(item));
    }
    if (!yyjson_mut_is_arr(value))
        return;
    while ((item = yyjson_mut_arr_remove_first(value)) != NULL) {
        reverse(doc, item);
        yyjson_mut_arr_prepend(reversed, item);
    }
    while ((item = yyjson_mut_arr_remove_first(reversed)) != NULL)
        yyjson_mut_arr_append(value, item);
}

/* The JSON text with all its lists the other way round; malloc'ed, NULL when it is none. */
static char *reversed_text(const char *json)
{
    yyjson_doc *doc = NULL;
    yyjson_mut_doc *copy;
    char *text;

    if (bly_json_read_copy(json, strlen(json), &doc, NULL) < 0)
        return NULL;
    copy = yyjson_doc_mut_copy(doc, NULL);
    FUZZ_MUST(copy);
    reverse(copy, yyjson_mut_doc_get_root(copy));
    text = yyjson_mut_write(copy, 0, NULL);
    yyjson_mut_doc_free(copy);
    yyjson_doc_free(doc);
    return text;
}

static void check_equal(const struct bly_policy *a, const struct bly_policy *b)
{
    bly_autobuf struct bly_buf packed_a, packed_b;

    pack(a, &packed_a);
    pack(b, &packed_b);
    fuzz_check_same(&packed_a, &packed_b);
}

/* ---- contexts ---- */

static void check_context(const char *json)
{
    bly_autofree char *reversed = reversed_text(json);
    struct bly_policy *policy = NULL, *twin = NULL;
    struct bly_err err = {0};
    int r = bly_policy_parse_text(json, &fuzz_env, &policy, &err);

    if (r < 0)
        fuzz_check_failure(r, &err);
    else
        check_policy(policy);
    if (reversed) {
        FUZZ_MUST(bly_policy_parse_text(reversed, &fuzz_env, &twin, NULL) == r);
        if (r == 0)
            check_equal(policy, twin);
    }
    bly_policy_unref(policy);
    bly_policy_unref(twin);
}

/* ---- the wrapper's argv ---- */

enum { ARGS_MAX = 64 };

static size_t split(char *text, char **argv)
{
    size_t n = 0;
    char *arg;

    while (n < ARGS_MAX && (arg = strsep(&text, "\n")) != NULL)
        argv[n++] = arg;
    argv[n] = NULL;
    return n;
}

static void check_wrapper_twin(char *const *argv, size_t argc, int r,
                               const struct bly_wrapper *wrapper)
{
    struct bly_wrapper twin = {0};
    char *reversed[ARGS_MAX + 1] = {NULL};
    char *args[ARGS_MAX + 1] = {NULL};

    for (size_t i = 0; i < argc; i++) {
        reversed[i] = reversed_text(argv[i]);
        args[i] = reversed[i] ? reversed[i] : argv[i];
    }
    FUZZ_MUST(bly_wrapper_parse(args, argc, &fuzz_env, &twin, NULL) == r);
    if (r == 0) {
        FUZZ_MUST(twin.command_index == wrapper->command_index);
        check_equal(wrapper->policy, twin.policy);
    }
    bly_wrapper_deinit(&twin);
    for (size_t i = 0; i < argc; i++)
        free(reversed[i]);
}

static void check_wrapper(char *text)
{
    struct bly_wrapper wrapper = {0};
    char *argv[ARGS_MAX + 1];
    size_t argc = split(text, argv);
    struct bly_err err = {0};
    int r = bly_wrapper_parse(argv, argc, &fuzz_env, &wrapper, &err);

    (void)bly_wrapper_recognise(argv[0]);
    if (r < 0) {
        fuzz_check_failure(r, &err);
        FUZZ_MUST(err.kind == BLY_ERR_PARAMS);
    } else {
        FUZZ_MUST(wrapper.command_index > 1 && wrapper.command_index < argc);
        FUZZ_MUST(strcmp(argv[wrapper.command_index - 1], "--") == 0);
        if (wrapper.command_cwd)
            fuzz_check_path(wrapper.command_cwd);
        check_policy(wrapper.policy);
    }
    check_wrapper_twin(argv, argc, r, &wrapper);
    bly_wrapper_deinit(&wrapper);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bly_autofree char *text = fuzz_string(data, size);

    if (text[0] == '{')
        check_context(text);
    else
        check_wrapper(text);
    return 0;
}
