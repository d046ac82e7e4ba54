/* A function in the contract, which divides by zero in a function that its compiler puts into another. */
#include "midge.h"

static inline __attribute__((always_inline)) int half(int price, int by) {
    return price / by;
}

static __attribute__((noinline)) int price(int count) {
    int doubled = count * 2;
    return half(doubled, count - 1);
}

static const struct midge_response *handle(const struct midge_request *request) {
    struct midge_buffer text = {0};
    struct midge_text target = midge_part(request, request->target);
    if (price((int)target.size) == 6) midge_append(&text, MIDGE_TEXT("hello"));
    return midge_respond_buffer(200, "text/plain", &text);
}

MIDGE_FUNCTION(handle, 65536, 65536)
