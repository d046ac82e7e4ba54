/* Makes system calls fail by schedule, for tests: loaded before the C library (LD_PRELOAD).
 *
 *   MIDGE_FAULT_CALL    name of the function that fails: mmap mprotect write fsync rename ...
 *   MIDGE_FAULT_ERRNO   what it fails with, as a number
 *   MIDGE_FAULT_EVERY   each so many calls ...
 *   MIDGE_FAULT_FIRST   ... from this one on, counted from 1 ...
 *   MIDGE_FAULT_COUNT   ... so many times
 *   MIDGE_FAULT_SWITCH  only while this file exists
 *   MIDGE_FAULT_THREAD  only in threads whose name begins like this
 *
 * Of mmap only private mappings fail: a ring's are shared, and are made once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <unistd.h>

static const char *call_name, *switch_name, *thread_name;
static long every = 1, first = 1, count, fault_errno;
static atomic_long seen, failed;

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void read_schedule(void)
{
    fault_errno = number("MIDGE_FAULT_ERRNO", ENOMEM);
    every = number("MIDGE_FAULT_EVERY", 1);
    first = number("MIDGE_FAULT_FIRST", 1);
    count = number("MIDGE_FAULT_COUNT", 1);
    switch_name = getenv("MIDGE_FAULT_SWITCH");
    thread_name = getenv("MIDGE_FAULT_THREAD");
    /* Looked up now: a signal handler calls it. */
    mprotect(NULL, 0, PROT_NONE);
    call_name = getenv("MIDGE_FAULT_CALL");
}

/* Runs in signal handlers too: no lock, no allocation. */
static int fails(const char *name)
{
    if (!call_name || strcmp(call_name, name) != 0)
        return 0;
    int before = errno;
    int is_off = switch_name && access(switch_name, F_OK) != 0;
    errno = before;
    if (is_off)
        return 0;
    if (thread_name) {
        char own[16] = "";
        prctl(PR_GET_NAME, own);
        errno = before;
        if (strncmp(own, thread_name, strlen(thread_name)) != 0)
            return 0;
    }
    long turn = atomic_fetch_add(&seen, 1) + 1 - first;
    if (turn < 0 || turn % every != 0 || atomic_fetch_add(&failed, 1) >= count)
        return 0;
    errno = (int)fault_errno;
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset)
{
    static __typeof__(&mmap) next;
    if (!next)
        next = NEXT(mmap);
    if ((flags & MAP_PRIVATE) && fails("mmap"))
        return MAP_FAILED;
    return next(address, length, protection, flags, file, offset);
}

void *mmap64(void *, size_t, int, int, int, off_t) __attribute__((alias("mmap")));

int mprotect(void *address, size_t length, int protection)
{
    static __typeof__(&mprotect) next;
    if (!next)
        next = NEXT(mprotect);
    return fails("mprotect") ? -1 : next(address, length, protection);
}

int memfd_create(const char *name, unsigned flags)
{
    static __typeof__(&memfd_create) next;
    if (!next)
        next = NEXT(memfd_create);
    return fails("memfd_create") ? -1 : next(name, flags);
}

int ftruncate(int file, off_t length)
{
    static __typeof__(&ftruncate) next;
    if (!next)
        next = NEXT(ftruncate);
    return fails("ftruncate") ? -1 : next(file, length);
}

int ftruncate64(int, off_t) __attribute__((alias("ftruncate")));

ssize_t write(int file, const void *bytes, size_t size)
{
    static __typeof__(&write) next;
    if (!next)
        next = NEXT(write);
    /* Messages go through. */
    return file > 2 && fails("write") ? -1 : next(file, bytes, size);
}

int fsync(int file)
{
    static __typeof__(&fsync) next;
    if (!next)
        next = NEXT(fsync);
    return fails("fsync") ? -1 : next(file);
}

int rename(const char *from, const char *to)
{
    static __typeof__(&rename) next;
    if (!next)
        next = NEXT(rename);
    return fails("rename") ? -1 : next(from, to);
}

int ioctl(int file, unsigned long request, ...)
{
    static __typeof__(&ioctl) next;
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (!next)
        next = NEXT(ioctl);
    return fails("ioctl") ? -1 : next(file, request, argument);
}

/* The ring's calls come this way: 425 is io_uring_setup, 426 io_uring_enter. */
long syscall(long call, ...)
{
    static __typeof__(&syscall) next;
    long a[6];
    va_list rest;
    va_start(rest, call);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    if (!next)
        next = NEXT(syscall);
    if (call == 425 && fails("io_uring_setup"))
        return -1;
    if (call == 426 && fails("io_uring_enter"))
        return -1;
    return next(call, a[0], a[1], a[2], a[3], a[4], a[5]);
}
