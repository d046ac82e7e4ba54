/* A program of WASI preview 1 that does the same, and nothing else. */
volatile int limit = 0;

static inline __attribute__((always_inline)) int divided(int whole, int part) {
    return whole / part;
}

static __attribute__((noinline)) int share(int count) {
    return divided(count * 100, limit);
}

__attribute__((import_module("wasi_snapshot_preview1"), import_name("proc_exit")))
void leave(int status);

__attribute__((export_name("_start"))) void start(void) {
    limit = share(3);
    leave(limit);
}
