#pragma once

/*
 * What runs inside the wall. The warm helper answers requests on a SOCK_SEQPACKET socket, one at a
 * time, in order, until the socket ends; its wire format is fs/helper/wire.h. Uses base, fs/ops and
 * itself.
 */
struct bly_policy;

/*
 * Loop of a warm helper; returns an exit status when the socket is closed. No exec, no threads.
 * `folded`: see fs/fold.h. It is handed in because the wall does not allow what sorting rules takes
 * (qsort() asks the kernel how much memory there is).
 */
int bly_helper_main(int socket_fd, const struct bly_policy *policy,
                    const struct bly_policy *folded);
