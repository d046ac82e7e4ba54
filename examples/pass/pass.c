/* pass: sends back what it gets, as it comes, and the fields behind it. A body of any size passes through 16 KiB. */
#include "midge.h"

static unsigned char piece[16384];

static const struct midge_response *handle(const struct midge_request *request) {
    struct midge_text first = midge_part(request, request->body);
    struct midge_text length = midge_header(request, "content-length");
    struct midge_text type = midge_header(request, "content-type");
    if (length.data) midge_set_header(MIDGE_TEXT("content-length"), length);
    if (type.data) midge_set_header(MIDGE_TEXT("content-type"), type);
    midge_start(200, NULL);
    midge_response_write(first.data, first.size);
    if (request->flags & MIDGE_BODY_PARTIAL) {
        size_t size;
        while ((size = midge_body_read(piece, sizeof piece)) > 0) midge_response_write(piece, size);
    }
    /* A body whose length was told has nothing behind it. */
    struct midge_fetch_answer trailers;
    if (!length.data && !midge_trailers(0, &trailers) && trailers.header_count) midge_trailers_pass(0, &trailers);
    return midge_written;
}

MIDGE_FUNCTION(handle, 65536, 16384)
