#pragma once

/*
 * BLY_SANITIZED is 1 in a build with AddressSanitizer, which reserves terabytes of address space
 * and makes system calls of its own.
 */
#if defined(__SANITIZE_ADDRESS__) /* gcc */
#define BLY_SANITIZED 1
#elif defined(__has_feature) /* clang */
#if __has_feature(address_sanitizer)
#define BLY_SANITIZED 1
#endif
#endif
#ifndef BLY_SANITIZED
#define BLY_SANITIZED 0
#endif
