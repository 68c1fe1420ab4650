/* Passes over task vectors that find which of their elements are the largest; see kernels.c. */

#include "operands.h"

#include <math.h>

/* What is counted of one task vector's magnitudes; the counts begin at zero. */
typedef struct {
    int64_t series; /* number of the task vector */
    float low, high;
    float *inside; /* room for what lies strictly between the bounds */
    int64_t above, at_high, at_low, inside_count;
} Tally;

/* Returns a bit for each of 64 flags that are 0 or 1: the multiplication brings those of eight bytes together. */
INLINE uint64_t packed(const uint8_t *flags) {
    uint64_t bits = 0;
    for (int byte = 0; byte < 8; byte++) {
        uint64_t eight = 0;
        for (int i = 0; i < 8; i++) eight |= (uint64_t)flags[8 * byte + i] << (8 * i);
        bits |= (eight * 0x0102040810204080u >> 56) << (8 * byte);
    }
    return bits;
}

/* Counts magnitudes above, at and between the bounds, and collects those between them, in order. */
INLINE void tally_chunk(Tally *tally, const float *restrict x, int n) {
    uint8_t is_inside[CHUNK];
    float low = tally->low, high = tally->high;
    int above = 0, at_high = 0, at_low = 0;
    for (int i = 0; i < n; i++) {
        float size = fabsf(x[i]);
        above += size > high;
        at_high += size == high;
        at_low += size == low;
    }
    for (int i = 0; i < CHUNK; i++) is_inside[i] = (fabsf(x[i]) > low) & (fabsf(x[i]) < high);
    memset(is_inside + n, 0, CHUNK - n);
    tally->above += above;
    tally->at_high += at_high;
    tally->at_low += at_low;
    for (int group = 0; group < n; group += 64)
        for (uint64_t bits = packed(is_inside + group); bits; bits &= bits - 1)
            tally->inside[tally->inside_count++] = fabsf(x[group + __builtin_ctzll(bits)]);
}

/* Writes |x - base| of every operand after the first. */
KERNEL void hubmerge_magnitudes(const Operands *operands, float *const *magnitudes) {
    Chunk base, x;
    for (int64_t start = 0; start < operands->elements; start += CHUNK) {
        int n = chunk_length(operands->elements, start);
        decode(base, operands, 0, start, n);
        for (int v = 0; v + 1 < operands->count; v++) {
            decode_delta(x, operands, v, start, n, base);
            for (int i = 0; i < n; i++) magnitudes[v][start + i] = fabsf(x[i]);
        }
    }
}

/* Fills tallies of |x - base|, which begin at zero. Those of one task vector are neighbours. */
KERNEL void hubmerge_tally(const Operands *operands, Tally *tallies, int64_t tally_count) {
    Chunk base, x;
    for (int64_t start = 0; start < operands->elements; start += CHUNK) {
        int n = chunk_length(operands->elements, start);
        int64_t series = -1;
        decode(base, operands, 0, start, n);
        for (int64_t t = 0; t < tally_count; t++) {
            if (tallies[t].series != series) {
                series = tallies[t].series;
                decode_delta(x, operands, (int)series, start, n, base);
            }
            tally_chunk(&tallies[t], x, n);
        }
    }
}

/* Sets `place` to that of the n-th element (from 1) whose |x - base| is `size`; there are as many. */
KERNEL void hubmerge_find(const Operands *operands, const float *size, int64_t n, int64_t *place) {
    Chunk base, x;
    for (int64_t start = 0; start < operands->elements; start += CHUNK) {
        int length = chunk_length(operands->elements, start), equal = 0;
        decode(base, operands, 0, start, length);
        decode_delta(x, operands, 0, start, length, base);
        for (int i = 0; i < length; i++) equal += fabsf(x[i]) == *size;
        if (n > equal) {
            n -= equal;
            continue;
        }
        for (int i = 0; n; i++)
            if (fabsf(x[i]) == *size && !--n) *place = start + i;
        return;
    }
}
