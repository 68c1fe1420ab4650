/* Stored numbers to fp32 and back, rounding to the nearest, ties to even; NaN stays NaN. Without branches and special
   instructions, so that a compiler can vectorise the loops for any processor. */

#include <stdint.h>
#include <string.h>

/* Inlined always: on its own, a helper would be compiled for the narrowest vectors only. */
#define INLINE static inline __attribute__((always_inline))

enum { BF16, F16, F32 };

INLINE float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE float from_bfloat(uint16_t bfloat) {
    return from_bits((uint32_t)bfloat << 16);
}

INLINE float from_half(uint16_t half) {
    uint32_t magnitude = half & 0x7fffu;
    uint32_t normal = (magnitude << 13) + (112u << 23); /* the exponents' biases are 15 and 127 */
    uint32_t special = normal + (112u << 23);           /* infinity and NaN have the largest exponent in both */
    uint32_t subnormal = to_bits((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t bits = magnitude < 0x400u ? subnormal : magnitude < 0x7c00u ? normal : special;
    return from_bits(bits | (uint32_t)(half & 0x8000u) << 16);
}

INLINE uint16_t to_half(float value) {
    uint32_t bits = to_bits(value), magnitude = bits & 0x7fffffffu;
    /* Half the last digit, less one if that is even: carries exactly where rounding goes up, up to infinity. */
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    /* The last digit of numbers in [0.5, 1) is 2^-24, as is that of fp16's subnormal numbers. */
    uint32_t subnormal = to_bits(from_bits(magnitude) + 0.5f) - to_bits(0.5f);
    uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    uint32_t half = magnitude < 0x38800000u ? subnormal : magnitude < 0x47800000u ? normal : special;
    return (uint16_t)(half | (bits >> 16 & 0x8000u));
}

INLINE uint16_t to_bfloat(float value) {
    uint32_t bits = to_bits(value);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded);
}

/* to[0 .. n) = elements [start, start + n) of the data. */
INLINE void read_numbers(float *restrict to, const void *data, int64_t dtype, int64_t start, int n) {
    if (dtype == BF16) {
        const uint16_t *from = (const uint16_t *)data + start;
        for (int i = 0; i < n; i++) to[i] = from_bfloat(from[i]);
    } else if (dtype == F16) {
        const uint16_t *from = (const uint16_t *)data + start;
        for (int i = 0; i < n; i++) to[i] = from_half(from[i]);
    } else {
        memcpy(to, (const float *)data + start, (size_t)n * sizeof(float));
    }
}

/* Elements [start, start + n) of the data = from[0 .. n). */
INLINE void write_numbers(void *data, int64_t dtype, int64_t start, const float *restrict from, int n) {
    if (dtype == BF16) {
        uint16_t *to = (uint16_t *)data + start;
        for (int i = 0; i < n; i++) to[i] = to_bfloat(from[i]);
    } else if (dtype == F16) {
        uint16_t *to = (uint16_t *)data + start;
        for (int i = 0; i < n; i++) to[i] = to_half(from[i]);
    } else {
        memcpy((float *)data + start, from, (size_t)n * sizeof(float));
    }
}

/* Of elements [start, start + n), n at most 32,768, those that are NaN or infinite. */
INLINE int count_non_finite(const void *data, int64_t dtype, int64_t start, int n) {
    if (dtype == F32) {
        const uint32_t *from = (const uint32_t *)data + start;
        int count = 0;
        for (int i = 0; i < n; i++) count += (from[i] & 0x7f800000u) == 0x7f800000u;
        return count;
    }
    const uint16_t *from = (const uint16_t *)data + start;
    uint16_t exponent = dtype == BF16 ? 0x7f80u : 0x7c00u, count = 0;
    for (int i = 0; i < n; i++) count = (uint16_t)(count + ((from[i] & exponent) == exponent));
    return count;
}
