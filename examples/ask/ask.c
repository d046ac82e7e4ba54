/* ask: asks another server, where its grant names it, and tells what it said.
 *
 *   GET  /ask?url=URL     its answer, with the headers below, as it comes, and the fields behind it
 *   POST /ask?url=URL     the same for the posted body
 *   GET  /ask?url=URL&size=1   how many bytes it answers with; 16 KiB at most are read
 */
#include "midge.h"

#define WHOLE_BYTES_MAX 16384
#define PIECE_BYTES 4096

static const struct midge_response *refuse(int32_t error) {
    struct midge_buffer text = {0};
    midge_append(&text, midge_fetch_error_text(error));
    midge_append(&text, MIDGE_TEXT("\n"));
    return midge_respond_buffer(502, "text/plain", &text);
}

static const struct midge_response *size_of(const struct midge_fetch_answer *answer) {
    int32_t error;
    struct midge_text body = midge_fetch_body(answer, WHOLE_BYTES_MAX, &error);
    if (error) return refuse(error);
    struct midge_buffer text = {0};
    midge_append_number(&text, body.size);
    midge_append(&text, MIDGE_TEXT(" bytes\n"));
    return midge_respond_buffer(200, "text/plain", &text);
}

static const struct midge_response *pass(const struct midge_fetch_answer *answer) {
    static const char *const names[] = {"content-type", "etag", "location"};
    for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
        struct midge_text value = midge_fetch_header(answer, names[index]);
        if (value.data) midge_set_header(midge_text_of(names[index]), value);
    }
    midge_start(answer->status, NULL);
    char piece[PIECE_BYTES];
    for (;;) {
        int32_t size = midge_fetch_next(answer, piece, sizeof piece);
        /* The head is out: what broke off is cut off, so that no client takes it for the whole. */
        if (size < 0) return midge_fail("the answer broke off");
        if (size == 0) break;
        midge_response_write(piece, (size_t)size);
    }
    struct midge_fetch_answer trailers;
    if (!midge_trailers(answer->handle, &trailers) && trailers.header_count) midge_trailers_pass(0, &trailers);
    return midge_written;
}

static const struct midge_response *handle(const struct midge_request *request) {
    struct midge_text url = midge_parameter(request, "url"), body = {NULL, 0};
    if (!url.data) return midge_respond_text(400, "text/plain", MIDGE_TEXT("ask for ?url=\n"));
    const char *method = "GET";
    if (request->method == MIDGE_POST) {
        method = "POST";
        body = midge_part(request, request->body);
    }

    struct midge_fetch_record record;
    int32_t error = midge_fetch_to(&record, method, url);
    if (error) return refuse(error);
    struct midge_response_header headers[] = {
        midge_header_of(MIDGE_TEXT("accept"), MIDGE_TEXT("*/*")),
        midge_header_of(MIDGE_TEXT("te"), MIDGE_TEXT("trailers")),
    };
    record.headers = midge_address(headers);
    record.header_count = sizeof headers / sizeof *headers;
    record.first_byte_ns = 5000000000u;

    struct midge_fetch_answer answer;
    error = midge_fetch_send(&record, body, &answer);
    if (error) return refuse(error);
    return midge_parameter(request, "size").data ? size_of(&answer) : pass(&answer);
}

MIDGE_FUNCTION(handle, 65536, 65536)
