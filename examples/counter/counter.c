/* counter: counts in a global, and always answers 1: no request finds what another left behind. */
#include "midge.h"

static uint32_t count;

static const struct midge_response *handle(const struct midge_request *request) {
    (void)request;
    count++;
    struct midge_buffer line = {0};
    midge_append_number(&line, count);
    midge_append(&line, MIDGE_TEXT("\n"));
    return midge_respond_buffer(200, "text/plain; charset=utf-8", &line);
}

MIDGE_FUNCTION(handle, 65536, 4096)
