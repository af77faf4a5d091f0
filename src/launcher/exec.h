#pragma once

/*
 * Finding and executing a program as execvpe(3) does, with a search path that comes from the new
 * environment and without the fallback to a shell. Spec: protocol.md 4.3.2, "Program search".
 */

/* Returns only on failure: a negative errno, -ENOENT or -EACCES when nothing was found. */
int bly_exec(const char *program, char *const *argv, char *const *envp);
