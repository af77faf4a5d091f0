#include "base/base64_wide.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>

#define WITH_AVX2 __attribute__((target("avx2")))

/*
 * Spreads 24 bytes (12 in the low half of each 16-byte lane) into 32 six-bit numbers, in order. The
 * shuffle puts each group of three bytes into four as (1 0 2 1); two multiplications by powers of
 * two then move all four numbers into place at once.
 */
WITH_AVX2 static __m256i split_sextets(__m256i in)
{
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10));
    __m256i groups = _mm256_shuffle_epi8(in, order);
    __m256i first_third = _mm256_and_si256(groups, _mm256_set1_epi32(0x0fc0fc00));
    __m256i second_fourth = _mm256_and_si256(groups, _mm256_set1_epi32(0x003f03f0));

    return _mm256_or_si256(_mm256_mulhi_epu16(first_third, _mm256_set1_epi32(0x04000040)),
                           _mm256_mullo_epi16(second_fourth, _mm256_set1_epi32(0x01000010)));
}

/* Numbers to symbols: each range of the alphabet is a constant away from its numbers. */
WITH_AVX2 static __m256i to_symbols(__m256i sextets)
{
    /* Slot 0: 26..51 (a-z); 1..10: 52..61 (0-9); 11: '+'; 12: '/'; 13: 0..25 (A-Z). */
    const __m256i distance = _mm256_broadcastsi128_si256(
        _mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                      '0' - 52, '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0));
    __m256i slot = _mm256_subs_epu8(sextets, _mm256_set1_epi8(51));
    __m256i upper = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), sextets);

    slot = _mm256_or_si256(slot, _mm256_and_si256(upper, _mm256_set1_epi8(13)));
    return _mm256_add_epi8(sextets, _mm256_shuffle_epi8(distance, slot));
}

WITH_AVX2 static size_t encode_avx2(const uint8_t *in, size_t n, char *out)
{
    size_t i = 0;

    /* 24 bytes a step, read as two overlapping loads that end 28 bytes in. */
    for (; n - i >= 28; i += 24) {
        __m128i low = _mm_loadu_si128((const __m128i *)(const void *)(in + i));
        __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(in + i + 12));
        __m256i text = to_symbols(split_sextets(_mm256_set_m128i(high, low)));

        _mm256_storeu_si256((__m256i *)(void *)(out + i / 3 * 4), text);
    }
    return i;
}

/*
 * Symbols to numbers. A byte is a symbol when the row of its low half and that of its high half
 * have no bit in common: bit k of by_high stands for one kind of high half, and by_low has the bit
 * set when that pair is outside the alphabet. False when one of the 32 bytes is no symbol.
 */
WITH_AVX2 static bool to_sextets(__m256i text, __m256i *ret_sextets)
{
    /* Kinds: 1: '+' '/' (2x); 2: '0'-'9' (3x); 4: 4x, 6x; 8: 5x, 7x; 16: everything else. */
    const __m256i by_low =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
                                                  0x11, 0x11, 0x13, 0x1a, 0x1b, 0x1b, 0x1b, 0x1a));
    const __m256i by_high =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08,
                                                  0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10));
    /* By high half; '/' is the one symbol that is not with its neighbours and uses slot 1. */
    const __m256i distance = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 63 - '/', 62 - '+', 52 - '0', -'A', -'A', 26 - 'a', 26 - 'a', 0, 0, 0, 0, 0, 0, 0, 0));
    const __m256i half = _mm256_set1_epi8(0x0f);
    __m256i high = _mm256_and_si256(_mm256_srli_epi32(text, 4), half);
    __m256i low = _mm256_and_si256(text, half);
    __m256i fault =
        _mm256_and_si256(_mm256_shuffle_epi8(by_low, low), _mm256_shuffle_epi8(by_high, high));
    __m256i slash = _mm256_cmpeq_epi8(text, _mm256_set1_epi8('/'));

    *ret_sextets =
        _mm256_add_epi8(text, _mm256_shuffle_epi8(distance, _mm256_add_epi8(high, slash)));
    return _mm256_testz_si256(fault, fault);
}

/* 32 numbers into 24 bytes at the start of the result. */
WITH_AVX2 static __m256i join_sextets(__m256i sextets)
{
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1));
    __m256i pairs = _mm256_maddubs_epi16(sextets, _mm256_set1_epi32(0x01400140));
    __m256i groups = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x00011000));

    return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(groups, order),
                                       _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7));
}

WITH_AVX2 static size_t decode_avx2(const uint8_t *in, size_t len, uint8_t *out)
{
    size_t i = 0;

    /*
     * Each step writes 32 bytes of which 24 count. The other 8 need room in `out`, hence the 44,
     * and when out is in they fall on symbols that have been read.
     */
    for (; len - i >= 44; i += 32) {
        __m256i sextets;

        if (!to_sextets(_mm256_loadu_si256((const __m256i *)(const void *)(in + i)), &sextets))
            break;
        _mm256_storeu_si256((__m256i *)(void *)(out + i / 4 * 3), join_sextets(sextets));
    }
    return i;
}

size_t bly_base64_encode_wide(const uint8_t *in, size_t n, char *out)
{
    return __builtin_cpu_supports("avx2") ? encode_avx2(in, n, out) : 0;
}

size_t bly_base64_decode_wide(const uint8_t *in, size_t len, uint8_t *out)
{
    return __builtin_cpu_supports("avx2") ? decode_avx2(in, len, out) : 0;
}

#else

size_t bly_base64_encode_wide(const uint8_t *in, size_t n, char *out)
{
    (void)in, (void)n, (void)out;
    return 0;
}

size_t bly_base64_decode_wide(const uint8_t *in, size_t len, uint8_t *out)
{
    (void)in, (void)len, (void)out;
    return 0;
}

#endif
