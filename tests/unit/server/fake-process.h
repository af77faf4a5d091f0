#pragma once

/*
 * Processes, plans and spawners that do what the test says. Stands in for src/process/process.c and
 * for the server's side of src/launcher. One process at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The latest process the server started; all zero before that. */
struct fake_process {
    bool started; /* bly_process_start() was called */
    bool closed;  /* bly_process_close() was called */
    bool walled, paused, terminated, interrupted;
    char written[64]; /* everything written to it */
    unsigned n_written;
};
extern struct fake_process fake_process;

void fake_process_reset(void);
bool fake_plan_wanted(void); /* the planner has a job */
void fake_plan_done(bool works);

void fake_process_started(void);
void fake_process_not_started(int sys);
void fake_process_says(const char *text);
void fake_process_exits(int code);
void fake_process_closes(void);
/* From now on writes are not answered until fake_process_takes(). */
void fake_process_is_full(void);
void fake_process_takes(void);
