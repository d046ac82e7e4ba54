/* hello: greets whom the query names. The smallest function that reads something of its request. */
#include "midge.h"

static const struct midge_response *handle(const struct midge_request *request) {
    struct midge_text name = midge_parameter(request, "name");
    struct midge_buffer greeting = {0};
    midge_append(&greeting, MIDGE_TEXT("Hello, "));
    midge_append(&greeting, name.size ? name : MIDGE_TEXT("world"));
    midge_append(&greeting, MIDGE_TEXT("!\n"));
    return midge_respond_buffer(200, "text/plain; charset=utf-8", &greeting);
}

MIDGE_FUNCTION(handle, 65536, 4096)
