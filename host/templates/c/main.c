/* A function in the contract of midge: answers every request with what was asked. */
#include "midge.h"

static const struct midge_response *handle(const struct midge_request *request) {
    struct midge_buffer text = {0};
    midge_append(&text, MIDGE_TEXT("hello from "));
    midge_append(&text, midge_part(request, request->target));
    midge_append(&text, MIDGE_TEXT("\n"));
    return midge_respond_buffer(200, "text/plain; charset=utf-8", &text);
}

MIDGE_FUNCTION(handle, 65536, 65536)
