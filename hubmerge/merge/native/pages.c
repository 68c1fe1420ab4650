/* Memory that maps a file, made ready before it is read: a file that cannot be read is then an error of this call, where
   reading the memory would end the process with SIGBUS. */

#define _DEFAULT_SOURCE

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__linux__) && !defined(MADV_POPULATE_READ)
#define MADV_POPULATE_READ 22 /* since Linux 5.14; older systems answer EINVAL */
#endif

/* Brings the pages of [start, start + size) into memory. Returns 0, or an errno: EFAULT where the file ends before. */
int hubmerge_populate(const void *start, int64_t size) {
#if defined(MADV_POPULATE_READ)
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)start & ~(page - 1);
    while (madvise((void *)first, (uintptr_t)start + (uintptr_t)size - first, MADV_POPULATE_READ))
        if (errno != EINTR && errno != EAGAIN) return errno;
    return 0;
#else
    (void)start, (void)size;
    return ENOSYS;
#endif
}
