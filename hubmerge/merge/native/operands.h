/* The operands of a kernel, decoded chunk by chunk. */

#include "numbers.h"

#define CHUNK 512 /* elements; a dozen fp32 buffers fit an L1 cache of 32 KiB */

/* One version of a function for each vector width; the C library chooses when it loads them. x86-64 without that has no
   fused multiply-add to rely on, and torch is faster than one in software. */
#if !defined(__x86_64__)
#define KERNEL
#elif defined(__GLIBC__)
#define KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#error "cannot choose between versions of a function here; the torch kernels are used instead"
#endif

typedef float Chunk[CHUNK] __attribute__((aligned(64)));

/* One block of `count` tensors, as stored. A base, where there is one, comes first. */
typedef struct {
    int64_t count;
    int64_t elements;
    struct {
        const void *data;
        int64_t dtype;
    } tensors[];
} Operands;

typedef struct {
    void *data;
    int64_t dtype;
} Output;

/* Reads elements [start, start + n) and fills the rest of the chunk with zeros, which change no sum. */
INLINE void decode(float *restrict to, const Operands *operands, int64_t index, int64_t start, int n) {
    read_numbers(to, operands->tensors[index].data, operands->tensors[index].dtype, start, n);
    for (int i = n; i < CHUNK; i++) to[i] = 0.0f;
}

INLINE void encode(const Output *out, int64_t start, const float *restrict from, int n) {
    write_numbers(out->data, out->dtype, start, from, n);
}

INLINE int chunk_length(int64_t elements, int64_t start) {
    return elements - start < CHUNK ? (int)(elements - start) : CHUNK;
}

/* Reads task vector `v`: x - base. */
INLINE void decode_delta(
    float *restrict to, const Operands *operands, int v, int64_t start, int n, const float *restrict base) {
    if (operands->tensors[v + 1].dtype == BF16 && n == CHUNK) { /* nearly always: one loop instead of two */
        const uint16_t *from = (const uint16_t *)operands->tensors[v + 1].data + start;
        for (int i = 0; i < CHUNK; i++) to[i] = from_bfloat(from[i]) - base[i];
    } else {
        decode(to, operands, v + 1, start, n);
        for (int i = 0; i < CHUNK; i++) to[i] -= base[i];
    }
}
