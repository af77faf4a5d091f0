#pragma once

/*
 * libcurl, loaded when the operator has switched http/request on and not before: linked, its
 * thirty libraries would be mapped and relocated at every start of this binary, which is also the
 * launcher's (docs/DEPENDENCIES.md has the figures). This table is all of libcurl that is used.
 * Loading blocks: before the loop runs. Only for src/server/http_*.
 */
#include <curl/curl.h>

struct bly_err;

struct bly_http_library {
    void *object; /* from dlopen(3); stays mapped until the process ends */
    CURLcode (*global_init)(long flags);
    void (*global_cleanup)(void);
    curl_version_info_data *(*version_info)(CURLversion version);
    CURL *(*easy_init)(void);
    void (*easy_cleanup)(CURL *easy);
    CURLcode (*easy_setopt)(CURL *easy, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *easy, CURLINFO info, ...);
    CURLcode (*easy_pause)(CURL *easy, int mask);
    const char *(*easy_strerror)(CURLcode code);
    CURLM *(*multi_init)(void);
    CURLMcode (*multi_cleanup)(CURLM *multi);
    CURLMcode (*multi_setopt)(CURLM *multi, CURLMoption option, ...);
    CURLMcode (*multi_add_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_remove_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_socket_action)(CURLM *multi, curl_socket_t fd, int events, int *ret_running);
    CURLMcode (*multi_assign)(CURLM *multi, curl_socket_t fd, void *arg);
    CURLMsg *(*multi_info_read)(CURLM *multi, int *ret_left);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
};

/*
 * Loads and initialises it. BLY_ERR_UNSUPPORTED with `err` set when there is none, or one that is
 * too old, or one whose name lookups would block; -ENOMEM.
 */
int bly_http_library_open(struct bly_http_library **ret_library, struct bly_err *err);
struct bly_http_library *bly_http_library_free(struct bly_http_library *library); /* NULL is fine */
