#pragma once

/*
 * Log lines on stderr: `level event key=value ...`, one line per event, values quoted and escaped
 * when they need it. Only server, launcher and cli log above debug level. One write(2) per line, so
 * lines of several processes do not mix. Any thread.
 */
enum bly_log_level { BLY_LOG_ERROR, BLY_LOG_WARN, BLY_LOG_INFO, BLY_LOG_DEBUG };

/* Lines above this level are dropped. Call before threads start. */
void bly_log_set_level(enum bly_log_level level);

/* Name ("error", "warn", "info", "debug") to level; -EINVAL. */
int bly_log_level_parse(const char *name, enum bly_log_level *ret);

/*
 * `fmt` gives the pairs, e.g. bly_log(BLY_LOG_INFO, "process-exit", "session=%s code=%d", id,
 * code). Control characters in the result are escaped.
 */
void bly_log(enum bly_log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
