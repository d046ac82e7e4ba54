/* work: takes as long, and as much memory, as it is told: what a call of a trace stands for. */
#include "midge.h"

#define WASM_PAGE 65536u
#define PAGE 4096u

/* Reads a parameter's digits; 0 if there are none. */
static uint64_t number(const struct midge_request *request, const char *name) {
    struct midge_text text = midge_parameter(request, name);
    uint64_t value = 0;
    for (size_t at = 0; at < text.size && at < 18; at++) {
        if (text.data[at] < '0' || '9' < text.data[at]) return 0;
        value = value * 10 + (uint64_t)(text.data[at] - '0');
    }
    return value;
}

static const struct midge_response *handle(const struct midge_request *request) {
    uint64_t kib = number(request, "kib"), pages = number(request, "pages");
    int64_t until = (int64_t)(number(request, "us") * 1000u);
    if (kib > 0) {
        /* A heap of its own, behind everything else: the host takes it back with the request. */
        size_t wanted = (size_t)((kib * 1024u + WASM_PAGE - 1) / WASM_PAGE);
        size_t before = kib <= 4194304u ? __builtin_wasm_memory_grow(0, wanted) : (size_t)-1;
        if (before == (size_t)-1) return midge_respond_text(507, "text/plain", MIDGE_TEXT("no memory\n"));
        volatile unsigned char *heap = (volatile unsigned char *)(before * WASM_PAGE);
        uint64_t most = (uint64_t)wanted * (WASM_PAGE / PAGE);
        uint64_t count = pages < most ? pages : most;
        /* Spread evenly: no two are neighbours while there is room. */
        for (uint64_t page = 0; page < count; page++) heap[page * most / count * PAGE] = 1;
    }
    int64_t left = until - midge_clock_monotonic_ns();
    if (left > 0 && midge_parameter(request, "wait").data) {
        midge_sleep_ns(left);
    } else {
        while (midge_clock_monotonic_ns() < until) {}
    }
    struct midge_buffer line = {0};
    midge_append(&line, midge_part(request, request->query));
    midge_append(&line, MIDGE_TEXT("\n"));
    return midge_respond_buffer(200, "text/plain; charset=utf-8", &line);
}

MIDGE_FUNCTION(handle, 65536, 4096)
