#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "execbench/program.h"
#include "execbench/workload.h"

enum { PATH_BYTES = GROUND_PATH_MAX + 128 };

/* Asks for a file that the policy of `root` does not cover. */
static int must_not_read(struct subject *subject, const char *path, const char *root,
                         const char *what)
{
    struct bly_buf *params = subject_params(subject);
    struct reply reply;
    int r;

    (void)bly_buf_printf(params, "{\"path\":\"%s%s\"", subject_scheme(subject), path);
    subject_add_wall(subject, params, root, WALL_WARM);
    (void)bly_buf_add_char(params, '}');
    r = subject_ask(subject, subject->wire, "fs/readFile", params, &reply);
    if (r == 0 && !reply.error.at)
        return subject_wrong(subject, "the wall does not hold: %s was read", what);
    return r;
}

static int must_be_intact(struct subject *subject, const char *who)
{
    char path[PATH_BYTES];

    (void)snprintf(path, sizeof(path), "%s/victim", subject->ground->outside);
    if (ground_compare(path, "intact", strlen("intact")) == 0)
        return 0;
    return subject_wrong(subject, "the wall does not hold: %s wrote outside of it", who);
}

/* Whatever the server answers, the disk says whether it held. */
static int must_not_write(struct subject *subject, enum wall wall)
{
    struct bly_buf *params = subject_params(subject);
    struct reply reply;
    int r;

    (void)bly_buf_printf(params, "{\"path\":\"%s%s/victim\",\"dataBase64\":\"SEFDSw==\"",
                         subject_scheme(subject), subject->ground->outside);
    subject_add_wall(subject, params, subject->ground->workspace, wall);
    (void)bly_buf_add_char(params, '}');
    r = subject_ask(subject, subject->wire, "fs/writeFile", params, &reply);
    return r < 0 ? r : must_be_intact(subject, "a request");
}

static int try_files(struct subject *subject)
{
    const struct ground *ground = subject->ground;
    char path[PATH_BYTES], first[GROUND_PATH_MAX + 64], second[GROUND_PATH_MAX + 64];
    int r;

    (void)snprintf(path, sizeof(path), "%s/secret", ground->outside);
    r = must_not_read(subject, path, ground->workspace, "a file outside");
    if (r < 0)
        return r;
    (void)snprintf(path, sizeof(path), "%s/link", ground->workspace);
    r = must_not_read(subject, path, ground->workspace, "a file outside, through a link,");
    if (r < 0)
        return r;
    ground_make_cold(ground, subject->letter, subject->n_cold, subject->n_cold + 2);
    ground_cold_path(ground, subject->letter, subject->n_cold++, first);
    ground_cold_path(ground, subject->letter, subject->n_cold++, second);
    (void)snprintf(path, sizeof(path), "%s/f4k", second);
    r = must_not_read(subject, path, first, "the workspace of another policy");
    if (r == 0)
        r = must_not_write(subject, WALL_WARM);
    if (r == 0)
        r = must_not_write(subject, WALL_WIDE);
    return r;
}

static int run_shell(struct subject *subject, const char *script, enum wall wall,
                     struct program *program)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};

    return program_run(subject, program, argv, (struct program_how){.wall = wall});
}

static int try_programs(struct subject *subject)
{
    struct program program;
    char script[PATH_BYTES + 64];
    int r;

    program_init(&program);
    (void)snprintf(script, sizeof(script), "cat %s/secret", subject->ground->outside);
    r = run_shell(subject, script, WALL_WARM, &program);
    if (r == 0 && (program.exit_code == 0 || memmem(program.output.data, program.output.len,
                                                    GROUND_SECRET, strlen(GROUND_SECRET))))
        r = subject_wrong(subject, "the wall does not hold: a program read outside of it");
    (void)snprintf(script, sizeof(script), "echo HACK > %s/victim", subject->ground->outside);
    if (r == 0)
        r = run_shell(subject, script, WALL_WIDE, &program);
    if (r == 0)
        r = must_be_intact(subject, "a program");
    program_deinit(&program);
    return r;
}

/* Tries once, and afterwards gives the same answer. */
static int check(struct subject *subject, enum trust *trust, char *why, size_t why_len,
                 int (*try)(struct subject *))
{
    if (*trust == TRUST_UNTRIED) {
        int r = try(subject);

        *trust = r == 0 ? TRUST_HOLDS : TRUST_BROKEN;
        if (r < 0)
            (void)snprintf(why, why_len, "%.*s", (int)why_len - 1, subject->err.text);
    }
    return *trust == TRUST_HOLDS ? 0 : subject_wrong(subject, "%s", why);
}

int wall_check_files(struct subject *subject)
{
    return check(subject, &subject->file_wall, subject->file_why, sizeof(subject->file_why),
                 try_files);
}

int wall_check_programs(struct subject *subject)
{
    return check(subject, &subject->program_wall, subject->program_why,
                 sizeof(subject->program_why), try_programs);
}
