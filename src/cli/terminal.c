#include "cli/terminal.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
    DRAIN_MS = 1000, /* for a terminal outside that takes nothing */
    REST_MS = 50,    /* until the terminal inside is looked at that nobody had open */
};

void bly_terminal_init(struct bly_terminal *terminal)
{
    *terminal = (struct bly_terminal){.in_fd = -EBADF, .out_fd = -EBADF, .master_fd = -EBADF};
}

int bly_terminal_begin(struct bly_terminal *terminal, int in_fd, int out_fd, int master_fd)
{
    struct termios raw;

    terminal->master_fd = master_fd;
    if (tcgetattr(in_fd, &terminal->before) < 0)
        return -errno;
    raw = terminal->before;
    /* The terminal inside begins as ours was: its user's keys and modes. */
    (void)tcsetattr(master_fd, TCSANOW, &terminal->before);
    cfmakeraw(&raw);
    if (tcsetattr(in_fd, TCSANOW, &raw) < 0)
        return -errno;
    terminal->in_fd = in_fd;
    terminal->out_fd = out_fd;
    bly_terminal_resize(terminal);
    return 0;
}

void bly_terminal_resize(const struct bly_terminal *terminal)
{
    struct winsize size;

    if (terminal->master_fd >= 0 && ioctl(terminal->out_fd, TIOCGWINSZ, &size) == 0)
        (void)ioctl(terminal->master_fd, TIOCSWINSZ, &size);
}

static bool is_empty(const struct bly_terminal_flow *flow)
{
    return flow->at == flow->len;
}

int bly_terminal_prepare(struct bly_terminal *terminal, struct pollfd fds[BLY_TERMINAL_FDS])
{
    bool typed = !is_empty(&terminal->typed), shown = !is_empty(&terminal->shown);
    bool rests = terminal->rests;

    fds[0] = (struct pollfd){.fd = typed ? -1 : terminal->in_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = shown ? terminal->out_fd : -1, .events = POLLOUT};
    fds[2] = (struct pollfd){.fd = rests || (shown && !typed) ? -1 : terminal->master_fd,
                             .events = (short)((shown ? 0 : POLLIN) | (typed ? POLLOUT : 0))};
    terminal->rests = false;
    return rests ? REST_MS : -1;
}

/* False: nothing comes from there any more. */
static bool fill(struct bly_terminal_flow *flow, int fd)
{
    ssize_t n = read(fd, flow->data, sizeof(flow->data));

    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    flow->at = 0;
    flow->len = (size_t)n;
    return n > 0;
}

/* What can no longer be written is dropped. */
static bool empty(struct bly_terminal_flow *flow, int fd)
{
    ssize_t n = write(fd, flow->data + flow->at, flow->len - flow->at);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    flow->at = n < 0 ? flow->len : flow->at + (size_t)n;
    return n >= 0;
}

void bly_terminal_pump(struct bly_terminal *terminal, const struct pollfd fds[BLY_TERMINAL_FDS])
{
    if (fds[0].revents != 0 && !fill(&terminal->typed, terminal->in_fd))
        terminal->in_fd = -EBADF; /* Hung up: SIGHUP says so, too. */
    if (fds[1].revents != 0)
        (void)empty(&terminal->shown, terminal->out_fd);
    if ((fds[2].revents & POLLOUT) && !is_empty(&terminal->typed))
        (void)empty(&terminal->typed, terminal->master_fd);
    /* EIO: the command has closed its terminal. It may be about to exit, and to close the master
     * now would send it SIGHUP; or it opens /dev/tty again. */
    if ((fds[2].revents & (POLLIN | POLLHUP | POLLERR)) && is_empty(&terminal->shown) &&
        !fill(&terminal->shown, terminal->master_fd))
        terminal->rests = true;
}

static void drain(struct bly_terminal *terminal)
{
    do {
        struct pollfd out = {.fd = terminal->out_fd, .events = POLLOUT};

        while (!is_empty(&terminal->shown) && poll(&out, 1, DRAIN_MS) == 1)
            (void)empty(&terminal->shown, terminal->out_fd);
        if (!is_empty(&terminal->shown))
            return;
    } while (terminal->master_fd >= 0 && fill(&terminal->shown, terminal->master_fd) &&
             !is_empty(&terminal->shown));
}

void bly_terminal_end(struct bly_terminal *terminal)
{
    if (terminal->out_fd >= 0) {
        drain(terminal);
        (void)tcsetattr(terminal->out_fd, TCSADRAIN, &terminal->before);
    }
    terminal->master_fd = bly_close(terminal->master_fd);
    terminal->in_fd = terminal->out_fd = -EBADF;
}
