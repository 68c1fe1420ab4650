/* The hot loops of the merge methods, over one block of every operand at a time.

   Each function decodes its operands from the dtype in which they are stored, computes in fp32 and rounds once. It
   works on chunks of CHUNK elements in buffers on the stack, so that whatever a formula needs between two loads stays
   in the L1 cache, and every inner loop is one that a compiler can vectorise.

   The torch kernels in ../methods are the definition. Combinations follow their order of operations, so results are the
   same to the bit: fmaf stands where torch's `add_(x, alpha=c)` multiplies and adds in one rounding, and nothing else
   may be contracted or reassociated (-ffp-contract=off, no -ffast-math). Sums are taken in fp64 in their own order. */

#include "operands.h"

#include <math.h>

#define MAX_VECTORS 32
#define LANES 32 /* partial sums: whole vectors of any width, so that the order of addition does not depend on it */

/* What is kept of a task vector: everything, nothing, a band of magnitudes, or a random choice. */
enum { KEEP_ALL, KEEP_NONE, KEEP_BAND, KEEP_RANDOM };

/* The largest magnitudes: those above the threshold, and those equal to it before element `ties_stop` of the tensor. */
typedef struct {
    float threshold;
    int64_t ties_stop;
} Cut;

typedef struct {
    int32_t kind;
    int32_t has_inner; /* KEEP_BAND: what is among the largest by `outer`, if there is one, but not by `inner` */
    int32_t has_outer;
    Cut inner;
    Cut outer;
    uint32_t first_key; /* KEEP_RANDOM: elements whose lane is below the limit */
    uint32_t second_key;
    int32_t lane_limit;
} Rule;

/* How task vectors are added up: arrays with an entry for each of them. */
typedef struct {
    const Rule *rules;
    const float *coefficients; /* weight and rescaling; without election the factor too */
    const float *weights;      /* what normalizing divides by the sum of */
    float factor;
    int32_t elects;
    int32_t normalizes; /* only where signs are elected: elsewhere it is part of the coefficients */
} Sum;

/* acc = c x, or acc += c x in one rounding if it is not the first of a sum. */
INLINE void accumulate(float *restrict acc, const float *restrict x, float c, int is_first) {
    if (is_first)
        for (int i = 0; i < CHUNK; i++) acc[i] = x[i] * c;
    else
        for (int i = 0; i < CHUNK; i++) acc[i] = fmaf(x[i], c, acc[i]);
}

INLINE void add_products(double *restrict lanes, const float *restrict x, const float *restrict y) {
    for (int i = 0; i < CHUNK; i += LANES)
        for (int lane = 0; lane < LANES; lane++) lanes[lane] += (double)(x[i + lane] * y[i + lane]);
}

INLINE void add_magnitudes(double *restrict lanes, const float *restrict x) {
    for (int i = 0; i < CHUNK; i += LANES)
        for (int lane = 0; lane < LANES; lane++) lanes[lane] += (double)fabsf(x[i + lane]);
}

INLINE double sum_of_lanes(const double *lanes) {
    double sum = 0.0;
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

/* Clears what is not among the largest: before `ties_stop` what is equal to the threshold is. NaN is never cleared. */
INLINE void keep_largest(float *restrict x, Cut cut, int64_t start) {
    int64_t left = cut.ties_stop - start;
    int ties = left < 0 ? 0 : left < CHUNK ? (int)left : CHUNK;
    for (int i = 0; i < ties; i++) x[i] = fabsf(x[i]) < cut.threshold ? 0.0f : x[i];
    for (int i = ties; i < CHUNK; i++) x[i] = fabsf(x[i]) <= cut.threshold ? 0.0f : x[i];
}

INLINE void keep_band(float *restrict x, const Rule *rule, int64_t start) {
    Chunk outliers;
    if (rule->has_inner) {
        memcpy(outliers, x, sizeof outliers);
        keep_largest(outliers, rule->inner, start);
    }
    if (rule->has_outer) keep_largest(x, rule->outer, start);
    if (rule->has_inner)
        for (int i = 0; i < CHUNK; i++) x[i] -= outliers[i];
}

/* "triple32" by Chris Wellons, https://github.com/skeeto/hash-prospector, with two keys; see ../methods/masks.py. */
INLINE uint32_t hash(uint32_t x, uint32_t first_key, uint32_t second_key) {
    x ^= first_key;
    x = (x ^ x >> 17) * 0xed5ad4bbu;
    x = (x ^ x >> 11 ^ second_key) * 0xac4c1b51u;
    x = (x ^ x >> 15) * 0x31848babu;
    return x ^ x >> 14;
}

INLINE void keep_random(float *restrict x, const Rule *rule, int64_t start) {
    union {
        uint32_t pairs[CHUNK / 2 + 1];
        int16_t lanes[CHUNK + 2];
    } random;
    uint32_t first = (uint32_t)(start >> 1), first_key = rule->first_key, second_key = rule->second_key;
    const int16_t *lanes = random.lanes + (start & 1);
    int16_t limit = (int16_t)rule->lane_limit;
    for (int i = 0; i <= CHUNK / 2; i++) random.pairs[i] = hash(first + (uint32_t)i, first_key, second_key);
    for (int i = 0; i < CHUNK; i++) x[i] *= lanes[i] < limit ? 1.0f : 0.0f;
}

/* Clears what is not kept of a chunk that begins at element `start` of the tensor. */
INLINE void keep(float *restrict x, const Rule *rule, int64_t start) {
    if (rule->kind == KEEP_BAND)
        keep_band(x, rule, start);
    else if (rule->kind == KEEP_RANDOM)
        keep_random(x, rule, start);
    else if (rule->kind == KEEP_NONE)
        memset(x, 0, CHUNK * sizeof(float));
}

INLINE void elect(Chunk *deltas, const float *coefficients, int count, float *restrict signs) {
    for (int v = 0; v < count; v++) accumulate(signs, deltas[v], coefficients[v], v == 0);
    for (int i = 0; i < CHUNK; i++) signs[i] = signs[i] >= 0.0f ? 1.0f : -1.0f;
}

/* Adds what has the elected sign, times that sign, to `total`, and the weight to `divisor` where that is not zero. */
INLINE void add_if_elected(float *restrict total, float *restrict divisor, const float *restrict delta,
                           const float *restrict signs, float coefficient, float weight, int is_first, int normalizes) {
    for (int i = 0; i < CHUNK; i++) {
        float x = delta[i] * signs[i];
        x = (coefficient >= 0.0f ? x < 0.0f : x > 0.0f) ? 0.0f : x;
        total[i] = is_first ? x * coefficient : fmaf(x, coefficient, total[i]);
        if (normalizes) divisor[i] = (is_first ? 0.0f : divisor[i]) + (x != 0.0f ? weight : 0.0f);
    }
}

INLINE void add_elected(float *restrict base, Chunk *deltas, int count, const Sum *sum, int normalizes) {
    const float *c = sum->coefficients, *w = sum->weights;
    Chunk signs, total, divisor;
    elect(deltas, c, count, signs);
    add_if_elected(total, divisor, deltas[0], signs, c[0], w[0], 1, normalizes);
    for (int v = 1; v < count; v++) add_if_elected(total, divisor, deltas[v], signs, c[v], w[v], 0, normalizes);
    float factor = sum->factor;
    if (normalizes)
        for (int i = 0; i < CHUNK; i++)
            base[i] += factor * (total[i] * signs[i]) / (divisor[i] == 0.0f ? 1.0f : divisor[i]);
    else
        for (int i = 0; i < CHUNK; i++) base[i] += factor * total[i] * signs[i];
}

INLINE void add_all(float *restrict base, Chunk *deltas, int count, const Sum *sum) {
    for (int v = 0; v < count; v++) accumulate(base, deltas[v], sum->coefficients[v], 0);
}

/* ---- the processor -------------------------------------------------------------------------------------------- */

/* Without fused multiply-add torch rounds differently, and is faster than doing it in software. */
int hubmerge_has_fused_multiply_add(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 1;
#endif
}

/* ---- blocks --------------------------------------------------------------------------------------------------- */

/* out = sum of c x over the operands. */
KERNEL void hubmerge_weighted_sum(const Operands *operands, const float *coefficients, const Output *out) {
    Chunk x, sum;
    for (int64_t start = 0; start < operands->elements; start += CHUNK) {
        int n = chunk_length(operands->elements, start);
        for (int64_t index = 0; index < operands->count; index++) {
            decode(x, operands, index, start, n);
            accumulate(sum, x, coefficients[index], index == 0);
        }
        encode(out, start, sum, n);
    }
}

/* dots = <a, a>, <a, b>, <b, b> of two operands: products in fp32, their sum in fp64. */
KERNEL void hubmerge_dots(const Operands *operands, double *dots) {
    Chunk a, b;
    double aa[LANES] = {0}, ab[LANES] = {0}, bb[LANES] = {0};
    for (int64_t start = 0; start < operands->elements; start += CHUNK) {
        int n = chunk_length(operands->elements, start);
        decode(a, operands, 0, start, n);
        decode(b, operands, 1, start, n);
        add_products(aa, a, a);
        add_products(ab, a, b);
        add_products(bb, b, b);
    }
    dots[0] = sum_of_lanes(aa);
    dots[1] = sum_of_lanes(ab);
    dots[2] = sum_of_lanes(bb);
}

/* Counts NaN and infinity among stored elements: those whose exponent has all its bits. */
KERNEL void hubmerge_count_non_finite(const Operands *operands, int64_t *count) {
    const void *data = operands->tensors[0].data;
    int64_t dtype = operands->tensors[0].dtype;
    for (int64_t start = 0; start < operands->elements; start += CHUNK)
        *count += count_non_finite(data, dtype, start, chunk_length(operands->elements, start));
}

/* thinned[v] = what is kept of x - base; `first` is the number of the block's first element in its tensor. */
KERNEL void hubmerge_thin(const Operands *operands, const Rule *rules, int64_t first, float *const *thinned) {
    Chunk base, x;
    for (int64_t start = 0; start < operands->elements; start += CHUNK) {
        int n = chunk_length(operands->elements, start);
        decode(base, operands, 0, start, n);
        for (int v = 0; v < (int)operands->count - 1; v++) {
            decode_delta(x, operands, v, start, n, base);
            keep(x, &rules[v], first + start);
            memcpy(thinned[v] + start, x, n * sizeof(float));
        }
    }
}

/* Adds the sum of |x - base| to before[v] and that of what is kept of it to after[v].
   `first` is the number of the block's first element in its tensor. */
KERNEL void hubmerge_l1(const Operands *operands, const Rule *rules, int64_t first, double *before, double *after) {
    Chunk base, x;
    double all[MAX_VECTORS][LANES] = {{0}}, kept[MAX_VECTORS][LANES] = {{0}};
    int count = (int)operands->count - 1;
    for (int64_t start = 0; start < operands->elements; start += CHUNK) {
        int n = chunk_length(operands->elements, start);
        decode(base, operands, 0, start, n);
        for (int v = 0; v < count; v++) {
            decode_delta(x, operands, v, start, n, base);
            add_magnitudes(all[v], x);
            keep(x, &rules[v], first + start);
            add_magnitudes(kept[v], x);
        }
    }
    for (int v = 0; v < count; v++) {
        before[v] += sum_of_lanes(all[v]);
        after[v] += sum_of_lanes(kept[v]);
    }
}

/* out = base + factor * (what is kept of the task vectors, added up as `sum` says). `first` is as above. */
KERNEL void hubmerge_add_task_vectors(const Operands *operands, const Sum *sum, int64_t first, const Output *out) {
    Chunk base, deltas[MAX_VECTORS];
    int count = (int)operands->count - 1;
    for (int64_t start = 0; start < operands->elements; start += CHUNK) {
        int n = chunk_length(operands->elements, start);
        decode(base, operands, 0, start, n);
        for (int v = 0; v < count; v++) {
            decode_delta(deltas[v], operands, v, start, n, base);
            keep(deltas[v], &sum->rules[v], first + start);
        }
        if (sum->elects && sum->normalizes)
            add_elected(base, deltas, count, sum, 1);
        else if (sum->elects)
            add_elected(base, deltas, count, sum, 0);
        else
            add_all(base, deltas, count, sum);
        encode(out, start, base, n);
    }
}
