#include "proto/proto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "proto/decode.h"
#include "proto/envp.h"
#include "sandbox/policy/policy.h"
#include "sandbox/policy/wrapper.h"

/* The members as they were sent, types checked. */
struct members {
    yyjson_val *argv, *env, *sandbox;
    const char *cwd, *arg0;
    size_t cwd_len, arg0_len;
    struct bly_env_policy env_policy;
};

static int nul_byte(struct bly_err *err)
{
    return bly_fail(err, BLY_ERR_SPAWN, 0, "nul byte found in provided data");
}

static void read_argv(struct bly_decoder *d, struct members *m)
{
    yyjson_val *arg;
    size_t i, n;

    m->argv = bly_decode_array(d, "argv", BLY_REQUIRED);
    yyjson_arr_foreach (m->argv, i, n, arg) {
        if (!yyjson_is_str(arg))
            bly_decode_mistyped(d, "argv", arg, "a string");
    }
}

/* We have no proxy: a program that must not reach the network without one must not run. */
static void refuse_managed_network(struct bly_decoder *d, const struct members *m, bool enforce,
                                   bool proxy)
{
    if (d->error == 0 && ((enforce && m->sandbox) || proxy))
        d->error = bly_fail(d->err, BLY_ERR_PARAMS, EINVAL, "managed networking is not supported");
}

static int read_members(struct bly_decoder *d, struct members *m, struct bly_start_params *p)
{
    bool enforce, proxy;

    p->process_id = bly_decode_str(d, "processId", BLY_REQUIRED, &p->process_id_len);
    read_argv(d, m);
    m->cwd = bly_decode_str(d, "cwd", BLY_REQUIRED, &m->cwd_len);
    m->env_policy = bly_decode_env_policy(d, "envPolicy");
    m->env = bly_decode_str_map(d, "env");
    p->tty = bly_decode_bool(d, "tty", BLY_REQUIRED, false);
    p->pipe_stdin = bly_decode_bool(d, "pipeStdin", BLY_DEFAULTED, false);
    m->arg0 = bly_decode_str(d, "arg0", BLY_OPTIONAL, &m->arg0_len);
    m->sandbox = bly_decode_any(d, "sandbox", BLY_OPTIONAL);
    enforce = bly_decode_bool(d, "enforceManagedNetwork", BLY_DEFAULTED, false);
    (void)bly_decode_object(d, "managedNetwork", BLY_OPTIONAL);
    proxy = bly_decode_object(d, "networkProxy", BLY_OPTIONAL) != NULL;

    if (d->error == 0 && yyjson_arr_size(m->argv) == 0)
        d->error = bly_fail(d->err, BLY_ERR_PARAMS, EINVAL, "argv must not be empty");
    refuse_managed_network(d, m, enforce, proxy);
    return d->error;
}

/* The array and its strings in one block, like the environment. */
static int copy_argv(yyjson_val *argv, struct bly_start_params *p, struct bly_err *err)
{
    size_t size = (yyjson_arr_size(argv) + 1) * sizeof(char *);
    yyjson_val *arg;
    size_t i, n;
    char *at;

    yyjson_arr_foreach (argv, i, n, arg) {
        if (memchr(yyjson_get_str(arg), '\0', yyjson_get_len(arg)))
            return nul_byte(err);
        size += yyjson_get_len(arg) + 1;
    }
    p->argv = malloc(size);
    if (!p->argv)
        return bly_fail_sys(err, ENOMEM, "cannot keep the arguments");

    p->argc = yyjson_arr_size(argv);
    at = (char *)(p->argv + p->argc + 1);
    yyjson_arr_foreach (argv, i, n, arg) {
        p->argv[i] = at;
        at = (char *)mempcpy(at, yyjson_get_str(arg), yyjson_get_len(arg) + 1);
    }
    p->argv[p->argc] = NULL;
    return 0;
}

static int copy_arg0(const struct members *m, struct bly_start_params *p, struct bly_err *err)
{
    if (!m->arg0)
        return 0;

    if (memchr(m->arg0, '\0', m->arg0_len))
        return nul_byte(err);

    p->arg0 = strdup(m->arg0);
    return p->arg0 ? 0 : bly_fail_sys(err, ENOMEM, "cannot keep arg0");
}

/*
 * A client of dialect A brings its own wall: a program of its installation, in front of the
 * command. That program is not here. We build the wall it stands for, or run nothing.
 */
static int unwrap(const struct members *m, const struct bly_policy_env *env,
                  struct bly_start_params *p, struct bly_err *err)
{
    __attribute__((cleanup(bly_wrapper_deinit))) struct bly_wrapper wrapper = {0};
    int r;

    if (!bly_wrapper_recognise(p->argv[0]))
        return 0;

    if (m->sandbox)
        return bly_fail(err, BLY_ERR_PARAMS, EINVAL,
                        "a sandbox context and a sandbox program cannot be combined");

    r = bly_wrapper_parse(p->argv, p->argc, env, &wrapper, err);
    if (r == -ENOMEM)
        return bly_fail_sys(err, ENOMEM, "cannot keep a policy");
    if (r < 0)
        return r;

    p->policy = bly_take_ptr(&wrapper.policy);
    if (wrapper.command_cwd) {
        free(p->cwd);
        p->cwd = bly_take_ptr(&wrapper.command_cwd);
    }
    /* It named the wrapper. */
    free(p->arg0);
    p->arg0 = NULL;
    p->argc -= wrapper.command_index;
    memmove(p->argv, p->argv + wrapper.command_index, (p->argc + 1) * sizeof(*p->argv));
    return 0;
}

static int decode(yyjson_val *params, const struct bly_policy_env *env, char *const *server_env,
                  struct bly_start_params *p, struct bly_err *err)
{
    struct bly_decoder d = bly_decoder_of(params, "params", err);
    struct members m = {0};
    int r = read_members(&d, &m, p);

    if (r < 0)
        return r;

    p->cwd = bly_decode_path_text(&d, m.cwd, m.cwd_len);
    p->policy = bly_decode_sandbox(&d, m.sandbox, env);
    if (d.error < 0)
        return d.error;

    r = copy_argv(m.argv, p, err);
    if (r < 0)
        return r;

    r = copy_arg0(&m, p, err);
    if (r < 0)
        return r;

    r = unwrap(&m, env, p, err);
    if (r < 0)
        return r;

    if (p->argv[0][0] == '\0')
        return bly_fail(err, BLY_ERR_SPAWN, 0, "missing program for %s spawn",
                        p->tty ? "PTY" : "pipe");

    return bly_env_build(&m.env_policy, m.env, server_env, &p->envp, err);
}

int bly_proto_decode_start(yyjson_val *params, const struct bly_policy_env *env,
                           char *const *server_env, struct bly_start_params *ret,
                           struct bly_err *err)
{
    int r;

    *ret = (struct bly_start_params){0};
    r = decode(params, env, server_env, ret, err);
    if (r < 0)
        bly_start_params_deinit(ret);
    return r;
}

void bly_start_params_deinit(struct bly_start_params *params)
{
    free(params->argv);
    free(params->arg0);
    free(params->cwd);
    free(params->envp);
    bly_policy_unref(params->policy);
    *params = (struct bly_start_params){0};
}
