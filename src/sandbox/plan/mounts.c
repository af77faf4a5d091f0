#include "sandbox/plan/mounts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/plan/draft.h"

enum { MOUNT_TABLE_MAX = 8 << 20 };

void bly_mounts_deinit(struct bly_mounts *mounts)
{
    free(mounts->text);
    free(mounts->items);
}

/* The kernel writes space, tab, newline and backslash as three octal digits. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
            from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* "ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE OPTIONS" */
static bool parse_mount(char *line, struct bly_mount *ret)
{
    char *fields[5];
    char *save = NULL;
    char *word = strtok_r(line, " ", &save);

    for (size_t i = 0; i < BLY_LEN(fields); i++) {
        if (!word)
            return false;
        fields[i] = word;
        word = strtok_r(NULL, " ", &save);
    }
    while (word && strcmp(word, "-") != 0)
        word = strtok_r(NULL, " ", &save);
    if (!word)
        return false;
    word = strtok_r(NULL, " ", &save);
    if (!word)
        return false;
    unescape(fields[3]);
    unescape(fields[4]);
    *ret = (struct bly_mount){.device = fields[2],
                              .root = fields[3],
                              .point = fields[4],
                              .type = word,
                              .point_len = strlen(fields[4])};
    return true;
}

int bly_mounts_read(const struct bly_probe *probe, struct bly_mounts *mounts, struct bly_err *err)
{
    char *save = NULL;
    int r = probe->read_small(probe->ctx, BLY_MOUNTS_PATH, MOUNT_TABLE_MAX, &mounts->text);

    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return bly_fail_sys(err, -r, "cannot read the mount table");
    if (strlen(mounts->text) >= MOUNT_TABLE_MAX)
        return bly_fail(err, BLY_ERR_UNSUPPORTED, E2BIG, "the mount table is too large");

    for (char *line = strtok_r(mounts->text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        struct bly_mount *grown = bly_list_add(mounts->items, &mounts->n, sizeof(*mounts->items));

        if (!grown)
            return bly_fail_sys(err, ENOMEM, "cannot read the mount table");
        mounts->items = grown;
        if (!parse_mount(line, &grown[mounts->n - 1]))
            return bly_fail(err, BLY_ERR_UNSUPPORTED, EINVAL, "cannot understand the mount table");
    }
    return 0;
}

/* Options are left out: what a mount permits does not decide what a wall shows of it. */
char *bly_mounts_print(const struct bly_mounts *mounts)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    for (size_t i = 0; i < mounts->n; i++) {
        const struct bly_mount *m = &mounts->items[i];

        (void)fprintf(out, "%s %s %s %s\n", m->device, m->root, m->point, m->type);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

int bly_mounts_text(const struct bly_probe *probe, char **ret_text, struct bly_err *err)
{
    __attribute__((cleanup(bly_mounts_deinit))) struct bly_mounts mounts = {0};
    int r = bly_mounts_read(probe, &mounts, err);

    if (r < 0)
        return r;
    *ret_text = bly_mounts_print(&mounts);
    return *ret_text ? 0 : bly_fail_sys(err, ENOMEM, "cannot read the mount table");
}
