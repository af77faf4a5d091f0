#include "sandbox/enforce/rung.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/plan/plan_internal.h"
#include "sandbox/plan/unmounted.h"

/* What Landlock alone cannot do for a plan. */
enum shortfall {
    NOTHING,
    HOLDS_BACK,  /* part of a granted directory is denied or read-only, protected names included */
    HIDES,       /* a program may not see what is outside of the grants */
    NETWORK,     /* no wall but around the network */
    OLD_ABI,     /* signals to other processes, abstract sockets */
    NOT_ALLOWED, /* it would do, but the operator has not said so */
};

static const char *const shortfalls[] = {
    [NOTHING] = "",
    [HOLDS_BACK] = "Landlock alone cannot hold back parts of a directory that is granted",
    [HIDES] = "Landlock alone cannot hide files from a program",
    [NETWORK] = "Landlock alone cannot keep a program from the network",
    [OLD_ABI] = "Landlock of this kernel cannot keep a program from other processes "
                "(that takes Linux 6.12)",
    [NOT_ALLOWED] = "a program that may read everything runs behind Landlock alone only with "
                    "--allow-landlock-processes",
};

static enum bly_wall_kind kind_of(const struct bly_plan *plan)
{
    if (plan->purpose == BLY_FOR_HELPER)
        return BLY_WALL_HELPER;
    if (plan->network_only)
        return BLY_WALL_NETWORK_ONLY;
    return plan->network ? BLY_WALL_PROCESS_ONLINE : BLY_WALL_PROCESS;
}

static enum shortfall shortfall_of(const struct bly_features *features, const struct bly_plan *plan)
{
    unsigned needs = bly_plan_needs(plan);

    if (plan->network_only)
        return NETWORK;
    /* A helper decides before it looks, so it hides; what it holds back has that one wall. */
    if (plan->purpose == BLY_FOR_HELPER)
        return (needs & BLY_NEEDS_HOLDING_BACK) && !features->allow_fs ? HOLDS_BACK : NOTHING;
    if (needs & BLY_NEEDS_HOLDING_BACK)
        return HOLDS_BACK;
    if (needs & BLY_NEEDS_HIDING)
        return HIDES;
    if (features->landlock_abi < BLY_LANDLOCK_ABI_PROCESS)
        return OLD_ABI;
    return features->allow_processes ? NOTHING : NOT_ALLOWED;
}

static int refuse(const struct bly_features *features, enum bly_wall_kind kind,
                  enum shortfall shortfall, struct bly_err *err)
{
    const char *fix = features->fix[0] != '\0' ? features->fix : "see `bailey doctor`";

    if (!features->works[BLY_WALL_LANDLOCK])
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOSYS,
                        "namespaces cannot be used (%s), nor can Landlock "
                        "(%s): %s",
                        features->why_not[kind], features->why_not[BLY_WALL_LANDLOCK], fix);
    return bly_fail(err, BLY_ERR_UNSUPPORTED, EPERM, "namespaces cannot be used (%s), and %s: %s",
                    features->why_not[kind], shortfalls[shortfall], fix);
}

int bly_rung_choose(const struct bly_features *features, const struct bly_plan *plan,
                    struct bly_err *err)
{
    enum bly_wall_kind kind = kind_of(plan);
    enum shortfall shortfall;

    if (features->works[kind] && plan->n_absents > 0 && !features->works[BLY_WALL_SUPERVISION])
        return bly_fail(err, BLY_ERR_UNSUPPORTED, ENOSYS,
                        "names that do not exist yet cannot be protected (%s)",
                        features->why_not[BLY_WALL_SUPERVISION]);
    if (features->works[kind])
        return BLY_RUNG_NAMESPACES;
    shortfall = shortfall_of(features, plan);
    if (!features->works[BLY_WALL_LANDLOCK] || shortfall != NOTHING)
        return refuse(features, kind, shortfall, err);
    return BLY_RUNG_LANDLOCK;
}

enum bly_rung bly_rung_of_machine(const struct bly_features *features)
{
    if (features->works[BLY_WALL_HELPER] && features->works[BLY_WALL_PROCESS])
        return BLY_RUNG_NAMESPACES;
    if (features->works[BLY_WALL_HELPER] || features->works[BLY_WALL_LANDLOCK])
        return BLY_RUNG_LANDLOCK;
    return BLY_RUNG_REFUSED;
}

const char *bly_rung_reason(const struct bly_features *features)
{
    static const enum bly_wall_kind kinds[] = {BLY_WALL_HELPER, BLY_WALL_PROCESS, BLY_WALL_LANDLOCK,
                                               BLY_WALL_SUPERVISION};

    for (size_t i = 0; i < BLY_LEN(kinds); i++)
        if (!features->works[kinds[i]])
            return features->why_not[kinds[i]];
    return NULL;
}
