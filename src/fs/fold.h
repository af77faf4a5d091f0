#pragma once

/*
 * Directories that fold case (FS_CASEFOLD_FL): there ".Git" is ".git", and protected as well. Only
 * the disk can tell, and it is asked when a protected name comes along in other letters, which is
 * as good as never. At the time of the decision, because an empty directory can be made to fold.
 * Blocking.
 */
#include <stdbool.h>

#include "sandbox/policy/policy.h"

/* bly_policy_explain(), with protected names in any letters where `folds` says that a directory
 * makes no difference. `path` as there. */
enum bly_access bly_fold_explain(const struct bly_policy *policy, const char *path,
                                 bool (*folds)(const char *dir), struct bly_denial *ret_reason);
/* Without the reason. */
enum bly_access bly_fold_decide(const struct bly_policy *policy, const char *path,
                                bool (*folds)(const char *dir));

/* What the disk says; a directory that cannot be asked might. */
bool bly_fold_on_disk(const char *dir);
