/* What tools make a component of, that does the same: each module of it has DWARF of its own. */
volatile int limit = 0;

static inline __attribute__((always_inline)) int divided(int whole, int part) {
    return whole / part;
}

static __attribute__((noinline)) int share(int count) {
    return divided(count * 100, limit);
}

__attribute__((import_module("wasi:http/types@0.2.12"), import_name("[resource-drop]incoming-request")))
void drop_request(int request);

__attribute__((export_name("wasi:http/incoming-handler@0.2.12#handle")))
void handle(int request, int out) {
    drop_request(request);
    limit = share(out);
}
