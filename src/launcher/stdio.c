#include "launcher/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { ROWS = 24, COLUMNS = 80 };

static const struct bly_stdio nothing = {.child = {-EBADF, -EBADF, -EBADF},
                                         .server = {-EBADF, -EBADF, -EBADF}};

/* The child's end blocks, as programs expect; the two ends are two open file descriptions. */
static int open_pipe(int *read_end, int *write_end, const int *server_end)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    *read_end = fds[0];
    *write_end = fds[1];
    return fcntl(*server_end, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
}

static int open_pipes(bool pipe_stdin, struct bly_stdio *stdio)
{
    int r = 0;

    if (pipe_stdin)
        r = open_pipe(&stdio->child[0], &stdio->server[0], &stdio->server[0]);
    else
        stdio->child[0] = STDIN_FILENO; /* /dev/null in a spawner */
    if (r == 0)
        r = open_pipe(&stdio->server[1], &stdio->child[1], &stdio->server[1]);
    if (r == 0)
        r = open_pipe(&stdio->server[2], &stdio->child[2], &stdio->server[2]);
    return r;
}

static int open_terminal(struct bly_stdio *stdio)
{
    const struct winsize size = {.ws_row = ROWS, .ws_col = COLUMNS};
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

    if (master < 0)
        return -errno;
    stdio->server[1] = master;
    if (unlockpt(master) < 0 || ioctl(master, TIOCSWINSZ, &size) < 0)
        return -errno;
    /* By descriptor: /dev/pts may be another instance than the one /dev/ptmx belongs to. */
    stdio->child[0] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (stdio->child[0] < 0)
        return -errno;
    stdio->child[1] = stdio->child[0];
    stdio->child[2] = stdio->child[0];
    return 0;
}

int bly_stdio_none(struct bly_stdio *ret_stdio)
{
    *ret_stdio = nothing;
    return 0;
}

int bly_stdio_open(bool tty, bool pipe_stdin, struct bly_stdio *ret_stdio)
{
    struct bly_stdio stdio = nothing;
    int r = tty ? open_terminal(&stdio) : open_pipes(pipe_stdin, &stdio);

    if (r < 0) {
        bly_stdio_close(&stdio);
        return r;
    }
    *ret_stdio = stdio;
    return 0;
}

void bly_stdio_close_child(struct bly_stdio *stdio)
{
    if (stdio->child[1] == stdio->child[0]) /* a terminal */
        stdio->child[1] = stdio->child[2] = -EBADF;
    for (int i = 0; i < 3; i++) {
        if (stdio->child[i] > STDIN_FILENO)
            bly_close(stdio->child[i]);
        stdio->child[i] = -EBADF;
    }
}

void bly_stdio_close(struct bly_stdio *stdio)
{
    bly_stdio_close_child(stdio);
    for (int i = 0; i < 3; i++)
        stdio->server[i] = bly_close(stdio->server[i]);
}
