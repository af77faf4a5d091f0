#pragma once

/*
 * The least that a message costs: a server that takes each one whole and answers it with the same
 * few words, without a look into it, without a wall. What grows here with the size of a message is
 * the client's and the kernel's, whatever the server is. (floorserve is a bound for servers that do
 * what they are asked.)
 */
#include <sys/types.h>

/*
 * Starts it as a child, on a port of 127.0.0.1. It serves one client of the client library and ends
 * with it, or with us. Returns its pid.
 */
pid_t bench_bare_start(unsigned *ret_port);
