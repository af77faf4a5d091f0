#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The packed form, and properties that hold for any policy. */

/* ---- pseudo-random policies ---- */

static uint64_t seed = 88172645463325252u; /* xorshift, the same in every run */

static unsigned pick(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 16) % n);
}

enum { MAX_ENTRIES = 14, ENTRY_SIZE = 200, JSON_SIZE = MAX_ENTRIES * ENTRY_SIZE + 512 };

struct draft {
    char entries[MAX_ENTRIES][ENTRY_SIZE];
    unsigned n;
};

static const char *const names[] = {"a", "b", "c", ".git", ".codex", "a.env"};

static void make_path(char *path, size_t size)
{
    unsigned depth = pick(4);

    path[0] = '\0';
    for (unsigned i = 0; i < depth; i++)
        snprintf(path + strlen(path), size - strlen(path), "/%s", names[pick(BLY_LEN(names))]);
    if (depth == 0)
        snprintf(path, size, "/");
}

static void make_entry(char *entry)
{
    static const char *const accesses[] = {"read", "write", "deny", "none"};
    static const char *const kinds[] = {"root",   "minimal",   "project_roots",
                                        "tmpdir", "slash_tmp", "unknown"};
    static const char *const globs[] = {"**/*.env", "/a/*", "/b/**/c", "codex-project-roots://x*",
                                        "/a/b"};
    const char *access = accesses[pick(BLY_LEN(accesses))];
    char path[64];

    make_path(path, sizeof(path));
    switch (pick(8)) {
    case 0:
        snprintf(entry, ENTRY_SIZE, SPECIAL("%s", "%s"), kinds[pick(BLY_LEN(kinds))], access);
        break;
    case 1:
        snprintf(entry, ENTRY_SIZE, GLOB("%s", "%s"), globs[pick(BLY_LEN(globs))], access);
        break;
    case 2:
        snprintf(entry, ENTRY_SIZE, BELOW_ROOTS("%s", "%s"), names[pick(BLY_LEN(names))], access);
        break;
    default:
        snprintf(entry, ENTRY_SIZE, AT("%s%s", "%s"), pick(2) ? "file://" : "", path, access);
    }
}

static void make_draft(struct draft *draft)
{
    draft->n = pick(MAX_ENTRIES + 1);
    for (unsigned i = 0; i < draft->n; i++)
        make_entry(draft->entries[i]);
}

static void shuffle(struct draft *draft)
{
    for (unsigned i = draft->n; i > 1; i--) {
        char entry[ENTRY_SIZE];
        unsigned j = pick(i);

        memcpy(entry, draft->entries[i - 1], ENTRY_SIZE);
        memcpy(draft->entries[i - 1], draft->entries[j], ENTRY_SIZE);
        memcpy(draft->entries[j], entry, ENTRY_SIZE);
    }
}

static struct bly_policy *compile(const struct draft *draft)
{
    char list[JSON_SIZE] = "";
    char json[JSON_SIZE + 512];

    for (unsigned i = 0; i < draft->n; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? "," : "",
                 draft->entries[i]);
    snprintf(json, sizeof(json),
             PROFILE_WITH("%s", "", "restricted",
                          "\"cwd\":\"/a\",\"workspaceRoots\":[\"/a\",\"file:///b\"],"),
             list);
    return parse(json);
}

/* ---- packing ---- */

static struct bly_buf pack(const struct bly_policy *policy)
{
    struct bly_buf buf;

    bly_buf_init(&buf, 1 << 24);
    assert_int_equal(bly_policy_pack(policy, &buf), 0);
    return buf;
}

static int unpack(const void *data, size_t len, struct bly_policy **ret)
{
    struct bly_reader reader = bly_reader_of(data, len);
    int r = bly_policy_unpack(&reader, ret);

    if (r == 0)
        assert_int_equal(reader.pos, len);
    return r;
}

static void assert_same(const struct bly_policy *a, const struct bly_policy *b)
{
    char *text_a = print(a);
    char *text_b = print(b);

    assert_string_equal(text_a, text_b);
    assert_int_equal(a->reads_all, b->reads_all);
    assert_int_equal(a->writes_all, b->writes_all);
    free(text_a);
    free(text_b);
}

static void packing_keeps_everything(void **state)
{
    (void)state;

    for (int i = 0; i < 2000; i++) {
        struct draft draft;
        struct bly_policy *back = NULL;

        make_draft(&draft);

        struct bly_policy *policy = compile(&draft);
        struct bly_buf buf = pack(policy);

        assert_int_equal(unpack(buf.data, buf.len, &back), 0);
        assert_same(policy, back);

        struct bly_buf again = pack(back);

        assert_int_equal(again.len, buf.len);
        assert_memory_equal(again.data, buf.data, buf.len);

        struct bly_policy *copy = bly_policy_copy(policy);

        assert_same(policy, copy);
        bly_policy_unref(copy);
        bly_policy_unref(back);
        bly_policy_unref(policy);
        bly_buf_deinit(&buf);
        bly_buf_deinit(&again);
    }
}

static void whatever_unpacks_is_canonical(void **state)
{
    unsigned good = 0;
    (void)state;

    for (int i = 0; i < 3000; i++) {
        struct draft draft;
        struct bly_policy *back = NULL;
        struct bly_reader reader;

        make_draft(&draft);

        struct bly_policy *policy = compile(&draft);
        struct bly_buf buf = pack(policy);

        for (unsigned k = pick(3) + 1; k > 0; k--)
            buf.data[pick((unsigned)buf.len)] ^= (uint8_t)(1u << pick(8));
        reader = bly_reader_of(buf.data, buf.len);
        if (bly_policy_unpack(&reader, &back) == 0) {
            struct bly_buf again = pack(back);

            /* A length that became smaller leaves something behind, which is its reader's affair.
             */
            assert_int_equal(again.len, reader.pos);
            assert_memory_equal(again.data, buf.data, reader.pos);
            bly_buf_deinit(&again);
            bly_policy_unref(back);
            good++;
        }
        bly_policy_unref(policy);
        bly_buf_deinit(&buf);
    }
    assert_true(good > 0 && good < 3000);
}

static void a_cut_policy_does_not_unpack(void **state)
{
    struct bly_policy *policy =
        parse(PROFILE(SPECIAL("root", "read") "," AT("/w", "write") "," GLOB("/w/*.x", "deny")));
    struct bly_buf buf = pack(policy);
    (void)state;

    for (size_t len = 0; len < buf.len; len++) {
        struct bly_policy *back = NULL;

        assert_int_equal(unpack(buf.data, len, &back), -EBADMSG);
        assert_null(back);
    }
    bly_buf_deinit(&buf);
    bly_policy_unref(policy);
}

/* Policies made by hand that a compiler never makes. */
static void only_the_canonical_form_unpacks(void **state)
{
    static char slash[] = "/", w[] = "/w", wa[] = "/w/a", twice[] = "/w//a", relative[] = "w",
                climbing[] = "/w/..", tail[] = "/w/";
    static const struct {
        const char *what;
        struct bly_rule rules[2];
        size_t n;
        int result;
    } rows[] = {
        {"sorted", {{slash, BLY_ACCESS_READ, 0}, {w, BLY_ACCESS_WRITE, 0}}, 2, 0},
        {"not sorted", {{w, BLY_ACCESS_READ, 0}, {slash, BLY_ACCESS_WRITE, 0}}, 2, -EBADMSG},
        {"deeper first", {{wa, BLY_ACCESS_READ, 0}, {w, BLY_ACCESS_WRITE, 0}}, 2, -EBADMSG},
        {"twice", {{w, BLY_ACCESS_READ, 0}, {w, BLY_ACCESS_WRITE, 0}}, 2, -EBADMSG},
        {"no access", {{w, BLY_ACCESS_NONE, 0}}, 1, -EBADMSG},
        {"unknown access", {{w, (enum bly_access)4, 0}}, 1, -EBADMSG},
        {"unknown flag", {{w, BLY_ACCESS_READ, 8}}, 1, -EBADMSG},
        {"doubled slash", {{twice, BLY_ACCESS_READ, 0}}, 1, -EBADMSG},
        {"trailing slash", {{tail, BLY_ACCESS_READ, 0}}, 1, -EBADMSG},
        {"dot-dot", {{climbing, BLY_ACCESS_READ, 0}}, 1, -EBADMSG},
        {"relative", {{relative, BLY_ACCESS_READ, 0}}, 1, -EBADMSG},
    };
    (void)state;

    for (size_t i = 0; i < BLY_LEN(rows); i++) {
        for (int wall = 0; wall < 2; wall++) {
            struct bly_rule rules[2] = {rows[i].rules[0], rows[i].rules[1]};
            struct bly_policy made = {.wall = wall, .rules = rules, .n_rules = rows[i].n};
            struct bly_policy *back = NULL;
            struct bly_buf buf = pack(&made);

            if (unpack(buf.data, buf.len, &back) != (wall ? rows[i].result : -EBADMSG))
                fail_msg("%s, wall %d", rows[i].what, wall);
            bly_policy_unref(back);
            bly_buf_deinit(&buf);
        }
    }
}

static void a_path_with_a_nul_does_not_unpack(void **state)
{
    struct bly_policy *policy = parse(PROFILE_WITH(AT("/wxyz", "read"), "", "restricted", ""));
    struct bly_policy *back = NULL;
    struct bly_buf buf = pack(policy);
    (void)state;

    uint8_t *path = memmem(buf.data, buf.len, "/wxyz", 5);

    assert_non_null(path);
    path[3] = '\0';
    assert_int_equal(unpack(buf.data, buf.len, &back), -EBADMSG);
    bly_buf_deinit(&buf);
    bly_policy_unref(policy);
}

static void references_are_counted(void **state)
{
    struct bly_policy *policy = parse(PROFILE(SPECIAL("root", "read")));
    (void)state;

    assert_ptr_equal(bly_policy_ref(policy), policy);
    assert_null(bly_policy_unref(policy));
    assert_int_equal(bly_policy_decide(policy, "/x"), BLY_ACCESS_READ);
    assert_null(bly_policy_unref(policy));
    assert_null(bly_policy_unref(NULL));
}

/* ---- properties ---- */

static void the_order_of_entries_does_not_matter(void **state)
{
    (void)state;

    for (int i = 0; i < 1000; i++) {
        struct draft draft;

        make_draft(&draft);

        struct bly_policy *first = compile(&draft);

        for (int k = 0; k < 3; k++) {
            shuffle(&draft);

            struct bly_policy *other = compile(&draft);

            assert_same(first, other);
            bly_policy_unref(other);
        }
        bly_policy_unref(first);
    }
}

/* An explicit write rule at `path` or between it and its protected ancestor `from`. */
static bool is_opened(const struct bly_policy *policy, const char *path, size_t from)
{
    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct bly_rule *rule = &policy->rules[i];
        size_t len = strlen(rule->path);

        if (rule->access == BLY_ACCESS_WRITE && len >= from &&
            strncmp(rule->path, path, len) == 0 && (path[len] == '/' || path[len] == '\0'))
            return true;
    }
    return false;
}

static void a_protected_name_is_never_writable_by_accident(void **state)
{
    unsigned seen = 0;
    (void)state;

    for (int i = 0; i < 4000; i++) {
        struct draft draft;

        make_draft(&draft);

        struct bly_policy *policy = compile(&draft);

        for (size_t k = 0; policy->wall && k < policy->n_rules; k++) {
            const struct bly_rule *root = &policy->rules[k];
            char path[256];

            if (root->access != BLY_ACCESS_WRITE || root->path[1] == '\0')
                continue;
            for (const char *const *name = bly_policy_protected_names; *name; name++) {
                int len = snprintf(path, sizeof(path), "%s/%s", root->path, *name);

                if (!is_opened(policy, path, (size_t)len))
                    assert_int_not_equal(bly_policy_decide(policy, path), BLY_ACCESS_WRITE);
                strcat(path, "/hooks/x");
                if (!is_opened(policy, path, (size_t)len))
                    assert_int_not_equal(bly_policy_decide(policy, path), BLY_ACCESS_WRITE);
                seen++;
            }
        }
        bly_policy_unref(policy);
    }
    assert_true(seen > 1000);
}

/* The decision, written down a second time as the specification says it, without any search. For a
 * policy that is spelled out. */
static enum bly_access decide_slowly(const struct bly_policy *policy, const char *path)
{
    enum bly_access state = BLY_ACCESS_NONE;

    if (!policy->wall)
        return BLY_ACCESS_WRITE;
    for (size_t i = 0; i < policy->n_rules; i++) { /* the list is sorted by depth */
        const struct bly_rule *rule = &policy->rules[i];
        size_t len = strlen(rule->path);

        if (len > 1 &&
            (strncmp(path, rule->path, len) != 0 || (path[len] != '/' && path[len] != '\0')))
            continue;
        if (rule->access != BLY_ACCESS_READ || state != BLY_ACCESS_DENY)
            state = rule->access;
    }
    for (size_t i = 0; i < policy->n_deny_globs; i++) {
        char part[256];

        for (size_t len = 1; len <= strlen(path); len++) {
            snprintf(part, sizeof(part), "%.*s", (int)len, path);
            if ((path[len] == '/' || path[len] == '\0') &&
                bly_glob_match(policy->deny_globs[i], part))
                state = BLY_ACCESS_DENY;
        }
    }
    return state;
}

static void the_search_finds_what_a_scan_finds(void **state)
{
    (void)state;

    for (int i = 0; i < 3000; i++) {
        struct draft draft;

        make_draft(&draft);

        struct bly_policy *policy = compile(&draft);
        struct bly_policy *whole = bly_policy_spell_out(policy);

        assert_non_null(whole);
        for (int k = 0; k < 20; k++) {
            char path[64];

            make_path(path, sizeof(path));
            assert_int_equal(bly_policy_decide(policy, path), decide_slowly(whole, path));
            assert_int_equal(bly_policy_decide(whole, path), decide_slowly(whole, path));
        }
        bly_policy_unref(whole);
        bly_policy_unref(policy);
    }
}

static void a_whole_tree_has_nothing_in_it_that_is_not_writable(void **state)
{
    unsigned whole = 0;
    (void)state;

    for (int i = 0; i < 3000; i++) {
        struct draft draft;
        char top[64];

        make_draft(&draft);
        make_path(top, sizeof(top));

        struct bly_policy *policy = compile(&draft);

        for (int k = 0; bly_policy_writes_tree(policy, top) && k < 40; k++) {
            char below[128];
            char rest[64];

            make_path(rest, sizeof(rest));
            snprintf(below, sizeof(below), "%s%s", strcmp(top, "/") == 0 ? "" : top,
                     strcmp(rest, "/") == 0 && strcmp(top, "/") != 0 ? "" : rest);
            assert_int_equal(bly_policy_decide(policy, below), BLY_ACCESS_WRITE);
            whole++;
        }
        bly_policy_unref(policy);
    }
    assert_true(whole > 1000);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(packing_keeps_everything),
        cmocka_unit_test(whatever_unpacks_is_canonical),
        cmocka_unit_test(a_cut_policy_does_not_unpack),
        cmocka_unit_test(only_the_canonical_form_unpacks),
        cmocka_unit_test(a_path_with_a_nul_does_not_unpack),
        cmocka_unit_test(references_are_counted),
        cmocka_unit_test(the_order_of_entries_does_not_matter),
        cmocka_unit_test(a_protected_name_is_never_writable_by_accident),
        cmocka_unit_test(the_search_finds_what_a_scan_finds),
        cmocka_unit_test(a_whole_tree_has_nothing_in_it_that_is_not_writable),
    };

    return cmocka_run_group_tests_name("policy wire and properties", tests, NULL, NULL);
}
