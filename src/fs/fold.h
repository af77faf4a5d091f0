#pragma once

/*
 * Directories that fold case (FS_CASEFOLD_FL): there ".Git" is ".git", and what a policy says about
 * one name it says about the other. Only the disk can tell, and it is asked when the answer would
 * depend on it, which is as good as never. At the time of the decision, because an empty directory
 * can be made to fold. Blocking.
 */
#include <stdbool.h>

#include "sandbox/policy/policy.h"

struct bly_fold {
    const struct bly_policy *policy;
    const struct bly_policy *folded; /* bly_policy_casefold(); NULL: the disk is always asked, and
                                        nothing is permitted in what folds */
    bool (*folds)(const char *dir);  /* bly_fold_on_disk() */
};

/*
 * bly_policy_explain(), and where a directory above `path` folds, nothing that is not permitted
 * under all names that mean the same there. `path` as there.
 */
enum bly_access bly_fold_explain(const struct bly_fold *fold, const char *path,
                                 struct bly_denial *ret_reason);
/* Without the reason. */
enum bly_access bly_fold_decide(const struct bly_fold *fold, const char *path);

/* Whether `test`, a question about a tree such as bly_policy_writes_tree(), is answered with yes in
 * the same way. */
bool bly_fold_holds(const struct bly_fold *fold, const char *path,
                    bool (*test)(const struct bly_policy *policy, const char *path));

/* What the disk says; a directory that cannot be asked might. */
bool bly_fold_on_disk(const char *dir);
