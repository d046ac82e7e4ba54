/* midge.h: write midge functions in C.
 *
 * One header, no library. It mirrors the contract, version 1 (abi/src/contract.rs), byte by byte;
 * abi/tests/drift.rs fails when the two part. Build with clang 16 or newer:
 *
 *   clang --target=wasm32-unknown-unknown -std=c99 -O2 -ffreestanding -nostdlib -mbulk-memory -I abi/include \
 *     -Wl,--no-entry -Wl,--stack-first -Wl,-z,stack-size=9216 -Wl,--strip-debug -o hello.wasm hello.c
 *
 * A whole function:
 *
 *   #include "midge.h"
 *   static const struct midge_response *handle(const struct midge_request *request) {
 *       (void)request;
 *       return midge_respond_text(200, "text/plain", MIDGE_TEXT("hello\n"));
 *   }
 *   MIDGE_FUNCTION(handle, 65536, 65536)
 *
 * Memory, with the flags above. What a small request touches lies together: each 4 KiB page that a
 * request dirties is a page that the host restores afterwards.
 *
 *   0        | stack, grows down          | an overflow runs below address 0 and traps
 *   9216     | constants | statics        | 9216 = two pages and 1 KiB, so the stack's first KiB
 *            | midge_state                |   shares its page with statics and the request
 *   area     | request block | heap -> ...| the heap begins behind the block
 *   area end | ... heap                   | what MIDGE_FUNCTION asks beyond the area
 *
 * Invariants: one call answers one request; the heap starts anew with each call; nothing is freed.
 * Not here: freeing, growing the memory, floating point text, a C library.
 */
#ifndef MIDGE_H
#define MIDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- The contract: numbers and records ---------------------------------------------------------- */

#define MIDGE_VERSION 1u
#define MIDGE_MAGIC 0x4547444Du /* the bytes "MDGE" */
#define MIDGE_AREA_SIZE_MIN 4096u
#define MIDGE_AREA_SIZE_MAX 67108864u
#define MIDGE_AREA_ALIGN 16u
/* Bit of midge_request.flags: the client speaks HTTP/1.0. */
#define MIDGE_HTTP_1_0 1u
/* Bit of midge_request.flags: the body goes on beyond the block; midge_body_read gives the rest. */
#define MIDGE_BODY_PARTIAL 2u
/* Set in midge_response.flags: the function failed, the body is a message for the host's log. */
#define MIDGE_RESPONSE_ERROR 1u
/* The most random bytes that one call of midge_random gives. */
#define MIDGE_RANDOM_BYTES_MAX 65536u

/* Codes of midge_request.method; MIDGE_OTHER means: read method_name. */
enum midge_method {
    MIDGE_OTHER = 0,
    MIDGE_GET = 1,
    MIDGE_HEAD = 2,
    MIDGE_POST = 3,
    MIDGE_PUT = 4,
    MIDGE_DELETE = 5,
    MIDGE_OPTIONS = 6,
    MIDGE_PATCH = 7,
    MIDGE_TRACE = 8,
    MIDGE_CONNECT = 9
};

/* Levels of midge_log. */
enum midge_level { MIDGE_ERROR = 1, MIDGE_WARN = 2, MIDGE_INFO = 3, MIDGE_DEBUG = 4 };

/* What a guest says about itself, once, when its artifact is built. */
struct midge_contract {
    uint32_t magic;
    uint16_t version;
    uint16_t reserved; /* 0 */
    uint32_t area;
    uint32_t area_size;
};

/* A region of the request block: offset from the block's start. Absent parts have size 0. */
struct midge_span {
    uint32_t offset;
    uint32_t size;
};

/* One row of the request's header table. Names arrive in lower case. */
struct midge_request_header {
    struct midge_span name;
    struct midge_span value;
};

/* The start of a request block. */
struct midge_request {
    uint32_t size; /* of the whole block */
    uint16_t version;
    uint16_t method; /* enum midge_method */
    uint32_t flags;
    uint32_t header_count;
    uint32_t headers; /* offset of the header table */
    uint32_t reserved;
    struct midge_span method_name;
    struct midge_span target;
    struct midge_span path; /* still percent-encoded */
    struct midge_span query;
    struct midge_span authority;
    struct midge_span body;
    uint8_t request_id[16];
    uint64_t deadline_ns;     /* the time that the call may take, from its start */
    uint8_t peer_address[16]; /* IPv6, or IPv4 mapped into it; zero if unknown */
    uint16_t peer_port;
    uint8_t reserved_tail[14];
};

/* One row of a response's header table: addresses, not offsets. */
struct midge_response_header {
    uint32_t name;
    uint32_t name_size;
    uint32_t value;
    uint32_t value_size;
};

/* What midge_handle returns the address of. */
struct midge_response {
    uint16_t status; /* 200 to 599 */
    uint16_t flags;
    uint32_t header_count;
    uint32_t headers;
    uint32_t body;
    uint32_t body_size;
    uint32_t reserved[3]; /* 0 */
};

/* What the fetching imports return where something is not there yet. */
#define MIDGE_LATER (-1)
/* They return this less an error's code. */
#define MIDGE_ERRORS_FROM (-2)
/* Requests that one call may have under way, or answered and not closed. */
#define MIDGE_FETCHES_PER_CALL_MAX 16u
/* Most rows of one midge_wait. */
#define MIDGE_WAIT_ROWS_MAX 64u
/* Bits of midge_fetch_record.flags: by TLS; a body follows. */
#define MIDGE_FETCH_TLS 1u
#define MIDGE_FETCH_BODY 2u
/* midge_fetch_record.body_size of a body whose end tells its length. */
#define MIDGE_BODY_SIZE_UNKNOWN 0xFFFFFFFFFFFFFFFFu

/* Why there is no response, or no whole one; numbered as error-code of wasi:http. */
enum midge_fetch_error {
    MIDGE_FETCH_ERROR_DNS_TIMEOUT = 0,
    MIDGE_FETCH_ERROR_DNS = 1,
    MIDGE_FETCH_ERROR_UNAVAILABLE = 3,
    MIDGE_FETCH_ERROR_PROHIBITED = 4,
    MIDGE_FETCH_ERROR_UNROUTABLE = 5,
    MIDGE_FETCH_ERROR_REFUSED = 6,
    MIDGE_FETCH_ERROR_TERMINATED = 7,
    MIDGE_FETCH_ERROR_CONNECT_TIMEOUT = 8,
    MIDGE_FETCH_ERROR_READ_TIMEOUT = 9,
    MIDGE_FETCH_ERROR_WRITE_TIMEOUT = 10,
    MIDGE_FETCH_ERROR_LIMIT = 11,
    MIDGE_FETCH_ERROR_TLS = 12,
    MIDGE_FETCH_ERROR_CERTIFICATE = 13,
    MIDGE_FETCH_ERROR_ALERT = 14,
    MIDGE_FETCH_ERROR_DENIED = 15, /* the host's log says which grant would allow it */
    MIDGE_FETCH_ERROR_BODY_SIZE = 17,
    MIDGE_FETCH_ERROR_METHOD = 18,
    MIDGE_FETCH_ERROR_URI = 19,
    MIDGE_FETCH_ERROR_INCOMPLETE = 25,
    MIDGE_FETCH_ERROR_HEAD_TOO_LONG = 26,
    MIDGE_FETCH_ERROR_BODY_TOO_LONG = 28, /* said by this header, never by the host */
    MIDGE_FETCH_ERROR_TRANSFER_CODING = 31,
    MIDGE_FETCH_ERROR_RESPONSE_TIMEOUT = 33,
    MIDGE_FETCH_ERROR_PROTOCOL = 35,
    MIDGE_FETCH_ERROR_INTERNAL = 38
};

/* What a request to another server asks for: addresses, not offsets. midge_fetch_to fills it. */
struct midge_fetch_record {
    uint32_t flags; /* MIDGE_FETCH_TLS, MIDGE_FETCH_BODY */
    uint32_t method;
    uint32_t method_size;
    uint32_t authority; /* host, and port if it is not the scheme's */
    uint32_t authority_size;
    uint32_t target; /* path and query */
    uint32_t target_size;
    uint32_t header_count;
    uint32_t headers;  /* rows of struct midge_response_header */
    uint32_t reserved; /* 0 */
    uint64_t body_size;
    uint64_t connect_ns;       /* longest time for a connection; 0 for the host's own */
    uint64_t first_byte_ns;    /* for the response's head */
    uint64_t between_bytes_ns; /* between two pieces of its body */
};

/* midge_wait_row.kind: what is waited for. */
enum midge_wait_for {
    MIDGE_WAIT_BODY = 1,       /* more of the request's own body */
    MIDGE_WAIT_FETCH_HEAD = 2, /* the head of a fetch's response */
    MIDGE_WAIT_FETCH_BODY = 3, /* more of its body */
    MIDGE_WAIT_FETCH_ROOM = 4  /* room for more of the fetch's own body */
};

/* One thing that is waited for. */
struct midge_wait_row {
    uint16_t kind;     /* enum midge_wait_for */
    uint16_t is_ready; /* the host writes 1 where it is there, or never will be */
    uint32_t handle;   /* which fetch; 0 for the request's own body */
};

/* ---- Imports ------------------------------------------------------------------------------------ */

#ifdef __wasm__
#define MIDGE_IMPORT(name) __attribute__((import_module("midge"), import_name(name)))
#define MIDGE_EXPORT(name) __attribute__((export_name(name)))
#else /* compiled natively only to check the layouts */
#define MIDGE_IMPORT(name)
#define MIDGE_EXPORT(name)
#endif

/* One line for the host's log; level is an enum midge_level. The host cuts long lines. */
MIDGE_IMPORT("log") void midge_log_bytes(int32_t level, const void *line, size_t size);
/* Nanoseconds since 1970-01-01 UTC. */
MIDGE_IMPORT("clock_wall_ns") int64_t midge_clock_wall_ns(void);
/* Nanoseconds since the request began. */
MIDGE_IMPORT("clock_monotonic_ns") int64_t midge_clock_monotonic_ns(void);
/* Fills the region; more than MIDGE_RANDOM_BYTES_MAX traps. */
MIDGE_IMPORT("random") void midge_random(void *target, size_t size);
/* Waits for more of the request's body; returns how many bytes it wrote, 0 at the end. A function that uses it
 * is called as soon as there is a head, with what has come of the body in the block. */
MIDGE_IMPORT("body_read") size_t midge_body_read(void *target, size_t size);
/* Sends the head of the response, and its body as the first piece; midge_start fills the record. */
MIDGE_IMPORT("response_start") void midge_response_start(const struct midge_response *response);
/* Sends a piece of the body. Waits while the client has too much unread. */
MIDGE_IMPORT("response_write") void midge_response_write(const void *piece, size_t size);
/* Lets the call rest. */
MIDGE_IMPORT("sleep_ns") void midge_sleep_ns(int64_t time);
/* Ends the call as if the function had returned this. Does not return. */
MIDGE_IMPORT("exit") void midge_exit(const struct midge_response *response);

/* Requests to other servers. Those with a result return MIDGE_ERRORS_FROM less the code of an error; all but the
 * first and the last want the handle of a request, and trap at others. None of them waits but the last. What is
 * easier to use stands below. */

/* Begins a request. Returns its handle, above 0. */
MIDGE_IMPORT("fetch") int32_t midge_fetch(const struct midge_fetch_record *record);
/* Sends a piece of its body. Returns how much was taken; MIDGE_LATER where there is no room. */
MIDGE_IMPORT("fetch_write") int32_t midge_fetch_write(int32_t handle, const void *piece, size_t size);
/* Ends its body. */
MIDGE_IMPORT("fetch_finish") int32_t midge_fetch_finish(int32_t handle);
/* Writes the head of the response: status, count, rows of struct midge_request_header, texts. Returns its size, or
 * MIDGE_LATER. */
MIDGE_IMPORT("fetch_head") int32_t midge_fetch_head(int32_t handle, void *target, size_t size);
/* Reads on in the body of the response. Returns how much, 0 at its end, or MIDGE_LATER. */
MIDGE_IMPORT("fetch_read") int32_t midge_fetch_read(int32_t handle, void *target, size_t size);
/* Forgets a request and its response. What is open at the end of the call is closed by the host. */
MIDGE_IMPORT("fetch_close") void midge_fetch_close(int32_t handle);
/* Fields behind a body, of a request to another server, or for the handle 0 of this exchange. */

/* Writes what came behind a body that was read to its end, laid out as a head with 0 for the status. Returns its size, 0
 * where there are none, or MIDGE_LATER before the end. midge_trailers reads it onto the heap. */
MIDGE_IMPORT("trailers_read") int32_t midge_trailers_read(int32_t handle, void *target, size_t size);
/* Ends a body, with these fields behind it: of a response after midge_start, or of a fetch in place of
 * midge_fetch_finish. Returns 0 or an error. Where a message has no place for them (HTTP/1.0, or a length that was told)
 * they are left out, and so are those that a head alone may have. */
MIDGE_IMPORT("trailers_write")
int32_t midge_trailers_write(int32_t handle, const struct midge_response_header *rows, size_t count);

/* Waits until one of the rows is there, or the time in nanoseconds is over; a negative one never is. Returns how
 * many are ready. */
MIDGE_IMPORT("wait") int32_t midge_wait(struct midge_wait_row *rows, size_t count, int64_t time);

/* ---- Memory functions the compiler may call ----------------------------------------------------- */

/* Weak, so that several files may include this header. -ffreestanding keeps the compiler from turning
 * the loops back into calls of themselves. */
#ifdef __wasm__
/* Up to here a loop is cheaper than the bulk instruction, which engines carry out by a call. */
#define MIDGE_COPY_LOOP_MAX 64u

__attribute__((weak)) void *memcpy(void *restrict target, const void *restrict source, size_t size) {
    unsigned char *to = target;
    const unsigned char *from = source;
    if (size > MIDGE_COPY_LOOP_MAX) return __builtin_memcpy(target, source, size);
    while (size--) *to++ = *from++;
    return target;
}

__attribute__((weak)) void *memmove(void *target, const void *source, size_t size) {
    return __builtin_memmove(target, source, size);
}

__attribute__((weak)) void *memset(void *target, int value, size_t size) {
    return __builtin_memset(target, value, size);
}

__attribute__((weak)) int memcmp(const void *left, const void *right, size_t size) {
    const unsigned char *a = left, *b = right;
    for (; size--; a++, b++) {
        if (*a != *b) return *a < *b ? -1 : 1;
    }
    return 0;
}

__attribute__((weak)) size_t strlen(const char *text) {
    const char *end = text;
    while (*end) end++;
    return (size_t)(end - text);
}
#else
#include <string.h>
#endif

/* ---- State of a call ---------------------------------------------------------------------------- */

/* Rows of the response's header table. */
#define MIDGE_RESPONSE_HEADERS_MAX 16u

/* Weak, so that several files may include this header. */
struct midge_state {
    struct midge_response response;
    unsigned char *heap_next;
    unsigned char *heap_end;
    struct midge_response_header headers[MIDGE_RESPONSE_HEADERS_MAX];
};
/* The initialiser looks idle and is not: without it the compiler emits this at the end of the file, the
 * linker meets the area's section first, and all statics come to lie beyond area and heap: a page more for
 * each request. */
__attribute__((weak)) struct midge_state midge_state = {
    {0, 0, 0, 0, 0, 0, {0, 0, 0}}, NULL, NULL, {{0, 0, 0, 0}}};

static inline uint32_t midge_address(const void *pointer) { return (uint32_t)(uintptr_t)pointer; }

/* Called by the exported midge_handle before the function itself. */
static inline void midge_begin(const struct midge_request *request, unsigned char *area_end) {
    uintptr_t block_end = (uintptr_t)request + request->size;
    midge_state.response.header_count = 0;
    midge_state.heap_next = (unsigned char *)((block_end + 7u) & ~(uintptr_t)7u);
    midge_state.heap_end = area_end;
}

/* ---- Heap --------------------------------------------------------------------------------------- */

/* Returns size bytes aligned to 8, or NULL when the heap is used up. Lives until the response was read. */
static inline void *midge_heap_take(size_t size) {
    unsigned char *start = midge_state.heap_next;
    size_t free_bytes = (size_t)(midge_state.heap_end - start);
    if (size > free_bytes) return NULL;
    size_t taken = (size + 7u) & ~(size_t)7u;
    midge_state.heap_next = start + (taken < free_bytes ? taken : free_bytes);
    return start;
}

/* ---- Text --------------------------------------------------------------------------------------- */

/* Bytes somewhere else: not ended by a zero. data is NULL where a lookup found nothing. */
struct midge_text {
    const char *data;
    size_t size;
};

/* A string literal as midge_text. */
#define MIDGE_TEXT(literal) ((struct midge_text){(literal), sizeof(literal) - 1})

/* A string that ends with a zero as midge_text. */
static inline struct midge_text midge_text_of(const char *string) {
    struct midge_text text = {string, strlen(string)};
    return text;
}

static inline bool midge_text_equal(struct midge_text left, struct midge_text right) {
    return left.size == right.size && memcmp(left.data, right.data, left.size) == 0;
}

/* Compares with a string that ends with a zero. */
static inline bool midge_text_is(struct midge_text text, const char *string) {
    return midge_text_equal(text, midge_text_of(string));
}

/* ---- Reading the request ------------------------------------------------------------------------ */

/* The bytes of a span: midge_part(request, request->path). */
static inline struct midge_text midge_part(const struct midge_request *request, struct midge_span span) {
    struct midge_text text = {(const char *)request + span.offset, span.size};
    return text;
}

/* The row of the header table; index < request->header_count. */
static inline const struct midge_request_header *midge_header_row(const struct midge_request *request,
                                                                  uint32_t index) {
    const void *table = (const char *)request + request->headers;
    return (const struct midge_request_header *)table + index;
}

/* The value of the first header of that name, written in lower case; data is NULL if there is none. */
static inline struct midge_text midge_header(const struct midge_request *request, const char *name) {
    struct midge_text wanted = midge_text_of(name), none = {NULL, 0};
    for (uint32_t index = 0; index < request->header_count; index++) {
        const struct midge_request_header *row = midge_header_row(request, index);
        if (midge_text_equal(midge_part(request, row->name), wanted)) return midge_part(request, row->value);
    }
    return none;
}

/* The value of a hexadecimal digit, or -1. */
static inline int midge_hex_digit(char digit) {
    if ('0' <= digit && digit <= '9') return digit - '0';
    if ('a' <= digit && digit <= 'f') return digit - 'a' + 10;
    if ('A' <= digit && digit <= 'F') return digit - 'A' + 10;
    return -1;
}

/* Undoes form encoding (%41, +) into the heap; the text itself if nothing is encoded in it. Malformed
 * escapes stay as they are. data is NULL when the heap is used up. */
static inline struct midge_text midge_form_decode(struct midge_text text) {
    size_t plain = 0;
    while (plain < text.size && text.data[plain] != '%' && text.data[plain] != '+') plain++;
    if (plain == text.size) return text;
    char *decoded = midge_heap_take(text.size);
    struct midge_text result = {decoded, 0};
    if (!decoded) return result;
    for (size_t at = 0; at < text.size; at++) {
        char byte = text.data[at];
        if (byte == '%' && at + 2 < text.size) {
            int high = midge_hex_digit(text.data[at + 1]), low = midge_hex_digit(text.data[at + 2]);
            if (high >= 0 && low >= 0) {
                byte = (char)(high * 16 + low);
                at += 2;
            }
        } else if (byte == '+') {
            byte = ' ';
        }
        decoded[result.size++] = byte;
    }
    return result;
}

/* The decoded value of the first query parameter of that name; data is NULL if there is none. */
static inline struct midge_text midge_parameter(const struct midge_request *request, const char *name) {
    struct midge_text query = midge_part(request, request->query), wanted = midge_text_of(name), none = {NULL, 0};
    size_t start = 0;
    while (start < query.size) {
        size_t end = start, equals = query.size;
        for (; end < query.size && query.data[end] != '&'; end++) {
            if (query.data[end] == '=' && equals == query.size) equals = end;
        }
        size_t name_end = equals < end ? equals : end;
        struct midge_text found = {query.data + start, name_end - start};
        if (midge_text_equal(found, wanted)) {
            size_t value = equals < end ? equals + 1 : end;
            struct midge_text encoded = {query.data + value, end - value};
            return midge_form_decode(encoded);
        }
        start = end + 1;
    }
    return none;
}

/* ---- Writing text ------------------------------------------------------------------------------- */

/* Text that grows on the heap. Start it as: struct midge_buffer buffer = {0}; */
struct midge_buffer {
    char *data;
    size_t size;
    size_t capacity;
    bool is_full; /* something did not fit: midge_respond_buffer makes an error of it */
};

/* Makes room for size more bytes. The last piece of the heap grows where it stands. */
static inline bool midge_buffer_reserve(struct midge_buffer *buffer, size_t size) {
    if (size <= buffer->capacity - buffer->size) return true;
    size_t more = size > buffer->capacity ? size : buffer->capacity;
    bool is_last = buffer->data && (unsigned char *)buffer->data + buffer->capacity == midge_state.heap_next;
    char *taken = midge_heap_take(is_last ? more : buffer->size + more);
    if (!taken) {
        buffer->is_full = true;
        return false;
    }
    if (!is_last) {
        if (buffer->size) memcpy(taken, buffer->data, buffer->size);
        buffer->data = taken;
    }
    buffer->capacity = (size_t)((char *)midge_state.heap_next - buffer->data);
    return true;
}

static inline void midge_append(struct midge_buffer *buffer, struct midge_text text) {
    if (text.size == 0 || !midge_buffer_reserve(buffer, text.size)) return;
    memcpy(buffer->data + buffer->size, text.data, text.size);
    buffer->size += text.size;
}

/* Appends the decimal digits of a number. */
static inline void midge_append_number(struct midge_buffer *buffer, uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    struct midge_text text = {digits + at, sizeof digits - at};
    midge_append(buffer, text);
}

static inline struct midge_text midge_buffer_text(const struct midge_buffer *buffer) {
    struct midge_text text = {buffer->data, buffer->size};
    return text;
}

/* Writes one line into the host's log. */
static inline void midge_log(enum midge_level level, struct midge_text line) {
    midge_log_bytes((int32_t)level, line.data, line.size);
}

/* ---- Answering ---------------------------------------------------------------------------------- */

/* An answer that becomes a 500; the message goes to the host's log, never to the client. */
static inline const struct midge_response *midge_fail(const char *message) {
    struct midge_response *response = &midge_state.response;
    response->flags = MIDGE_RESPONSE_ERROR;
    response->header_count = 0;
    response->body = midge_address(message);
    response->body_size = (uint32_t)strlen(message);
    return response;
}

/* Adds a header to the answer, before or after midge_respond. The strings must stay until the function
 * returned: literals, parts of the request and heap do. False when the table is full. */
static inline bool midge_set_header(struct midge_text name, struct midge_text value) {
    struct midge_response *response = &midge_state.response;
    if (response->header_count == MIDGE_RESPONSE_HEADERS_MAX) return false;
    struct midge_response_header *row = &midge_state.headers[response->header_count++];
    row->name = midge_address(name.data);
    row->name_size = (uint32_t)name.size;
    row->value = midge_address(value.data);
    row->value_size = (uint32_t)value.size;
    return true;
}

/* The answer with this body, which must stay until the function returned. content_type may be NULL. */
static inline const struct midge_response *midge_respond(uint16_t status, const char *content_type,
                                                         const void *body, size_t size) {
    struct midge_response *response = &midge_state.response;
    if (content_type && !midge_set_header(MIDGE_TEXT("content-type"), midge_text_of(content_type))) {
        return midge_fail("more response headers than MIDGE_RESPONSE_HEADERS_MAX");
    }
    response->status = status;
    response->flags = 0;
    response->headers = midge_address(midge_state.headers);
    response->body = midge_address(body);
    response->body_size = (uint32_t)size;
    return response;
}

static inline const struct midge_response *midge_respond_text(uint16_t status, const char *content_type,
                                                              struct midge_text body) {
    return midge_respond(status, content_type, body.data, body.size);
}

/* The answer with a built body, or an error if it did not fit into the heap. */
static inline const struct midge_response *midge_respond_buffer(uint16_t status, const char *content_type,
                                                                const struct midge_buffer *buffer) {
    if (buffer->is_full) return midge_fail("the heap is used up");
    return midge_respond(status, content_type, buffer->data, buffer->size);
}

/* Starts an answer that is written piece by piece: midge_start(..), midge_response_write(..) as often as
 * needed, then return midge_written. A content-length set before is the length of the whole, and binds. */
static inline void midge_start(uint16_t status, const char *content_type) {
    midge_response_start(midge_respond(status, content_type, NULL, 0));
}

/* What a function returns that has written its answer. */
#define midge_written ((const struct midge_response *)NULL)

/* ---- Requests to other servers ------------------------------------------------------------------ */

/* Where the function's grant names them:
 *
 *   struct midge_fetch_record record;
 *   struct midge_fetch_answer answer;
 *   int32_t error = midge_fetch_to(&record, "GET", MIDGE_TEXT("https://api.example.com/rates"));
 *   if (!error) error = midge_fetch_send(&record, MIDGE_TEXT(""), &answer);
 *   if (error) return midge_respond_text(502, "text/plain", midge_fetch_error_text(error));
 *   struct midge_text body = midge_fetch_body(&answer, 65536, &error);
 */

/* A response of another server. */
struct midge_fetch_answer {
    int32_t handle;
    uint16_t status;
    uint32_t header_count;
    const char *head; /* on the heap: status, count, rows, texts */
};

/* What to tell of an error: half a sentence. */
static inline struct midge_text midge_fetch_error_text(int32_t error) {
    switch (MIDGE_ERRORS_FROM - error) {
    case MIDGE_FETCH_ERROR_DNS_TIMEOUT: return MIDGE_TEXT("the name was not resolved in time");
    case MIDGE_FETCH_ERROR_DNS: return MIDGE_TEXT("the name has no address");
    case MIDGE_FETCH_ERROR_UNAVAILABLE: return MIDGE_TEXT("the server cannot be reached");
    case MIDGE_FETCH_ERROR_PROHIBITED: return MIDGE_TEXT("the address is not one that may be connected to");
    case MIDGE_FETCH_ERROR_UNROUTABLE: return MIDGE_TEXT("there is no way to the address");
    case MIDGE_FETCH_ERROR_REFUSED: return MIDGE_TEXT("nobody listens there");
    case MIDGE_FETCH_ERROR_TERMINATED: return MIDGE_TEXT("the connection was closed before the response");
    case MIDGE_FETCH_ERROR_CONNECT_TIMEOUT: return MIDGE_TEXT("no connection in time");
    case MIDGE_FETCH_ERROR_READ_TIMEOUT: return MIDGE_TEXT("the response stopped");
    case MIDGE_FETCH_ERROR_WRITE_TIMEOUT: return MIDGE_TEXT("the request's body is not taken");
    case MIDGE_FETCH_ERROR_LIMIT: return MIDGE_TEXT("as many outgoing requests are under way as may be");
    case MIDGE_FETCH_ERROR_TLS: return MIDGE_TEXT("TLS failed");
    case MIDGE_FETCH_ERROR_CERTIFICATE: return MIDGE_TEXT("the server's certificate is not trusted");
    case MIDGE_FETCH_ERROR_ALERT: return MIDGE_TEXT("the server refused TLS");
    case MIDGE_FETCH_ERROR_DENIED: return MIDGE_TEXT("the request is not granted");
    case MIDGE_FETCH_ERROR_BODY_SIZE: return MIDGE_TEXT("the request's body has another length than was told");
    case MIDGE_FETCH_ERROR_METHOD: return MIDGE_TEXT("the method cannot be sent");
    case MIDGE_FETCH_ERROR_URI: return MIDGE_TEXT("the target cannot be sent");
    case MIDGE_FETCH_ERROR_INCOMPLETE: return MIDGE_TEXT("the response is not whole");
    case MIDGE_FETCH_ERROR_HEAD_TOO_LONG: return MIDGE_TEXT("the response's head is too long");
    case MIDGE_FETCH_ERROR_BODY_TOO_LONG: return MIDGE_TEXT("the response's body is longer than is taken");
    case MIDGE_FETCH_ERROR_TRANSFER_CODING: return MIDGE_TEXT("the response has an unknown transfer coding");
    case MIDGE_FETCH_ERROR_RESPONSE_TIMEOUT: return MIDGE_TEXT("no response in time");
    case MIDGE_FETCH_ERROR_PROTOCOL: return MIDGE_TEXT("the response is no HTTP");
    case MIDGE_FETCH_ERROR_INTERNAL: return MIDGE_TEXT("a fault of the host's");
    default: return MIDGE_TEXT("an error that has no name here");
    }
}

/* The result that stands for an error of this header's own. */
static inline int32_t midge_fetch_fail(enum midge_fetch_error error) {
    return MIDGE_ERRORS_FROM - (int32_t)error;
}

/* Fills the record of a request: a method in capitals, and an absolute URL of http or https, without a user name. Both
 * must stay until midge_fetch has read them. Headers, body and times may be set afterwards. Returns 0 or an error. */
static inline int32_t midge_fetch_to(struct midge_fetch_record *record, const char *method, struct midge_text url) {
    const struct midge_fetch_record empty = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    *record = empty;
    size_t start = 0, authority_end, end = url.size;
    if (url.size > 7 && memcmp(url.data, "http://", 7) == 0) {
        start = 7;
    } else if (url.size > 8 && memcmp(url.data, "https://", 8) == 0) {
        start = 8;
        record->flags = MIDGE_FETCH_TLS;
    } else {
        return midge_fetch_fail(MIDGE_FETCH_ERROR_URI);
    }
    for (size_t at = start; at < end; at++) {
        if (url.data[at] == '#') end = at;
        else if (url.data[at] <= ' ' || url.data[at] > '~') return midge_fetch_fail(MIDGE_FETCH_ERROR_URI);
    }
    for (authority_end = start; authority_end < end; authority_end++) {
        char byte = url.data[authority_end];
        if (byte == '/' || byte == '?') break;
        if (byte == '@') return midge_fetch_fail(MIDGE_FETCH_ERROR_URI);
    }
    /* Longer ones trap. */
    if (authority_end == start || authority_end - start > 261 || end - authority_end >= 16384) {
        return midge_fetch_fail(MIDGE_FETCH_ERROR_URI);
    }
    struct midge_text target = {url.data + authority_end, end - authority_end};
    if (target.size == 0) {
        target = MIDGE_TEXT("/");
    } else if (target.data[0] == '?') {
        char *whole = midge_heap_take(target.size + 1);
        if (!whole) return midge_fetch_fail(MIDGE_FETCH_ERROR_URI);
        whole[0] = '/';
        memcpy(whole + 1, target.data, target.size);
        target.data = whole;
        target.size++;
    }
    record->method = midge_address(method);
    record->method_size = (uint32_t)strlen(method);
    record->authority = midge_address(url.data + start);
    record->authority_size = (uint32_t)(authority_end - start);
    record->target = midge_address(target.data);
    record->target_size = (uint32_t)target.size;
    return 0;
}

/* A row for the header table of a request: record.headers = midge_address(rows), record.header_count. */
static inline struct midge_response_header midge_header_of(struct midge_text name, struct midge_text value) {
    struct midge_response_header row = {midge_address(name.data), (uint32_t)name.size, midge_address(value.data),
                                        (uint32_t)value.size};
    return row;
}

/* Waits for one thing of one request. */
static inline void midge_fetch_wait(int32_t handle, enum midge_wait_for kind) {
    struct midge_wait_row row = {(uint16_t)kind, 0, (uint32_t)handle};
    midge_wait(&row, 1, -1);
}

/* Sends the whole of a piece, and waits for room. Returns 0 or an error. */
static inline int32_t midge_fetch_write_all(int32_t handle, struct midge_text piece) {
    while (piece.size) {
        int32_t taken = midge_fetch_write(handle, piece.data, piece.size);
        if (taken == MIDGE_LATER) {
            midge_fetch_wait(handle, MIDGE_WAIT_FETCH_ROOM);
            continue;
        }
        if (taken < 0) return taken;
        piece.data += taken;
        piece.size -= (size_t)taken;
    }
    return 0;
}

/* Waits for the head of a response, which goes onto the heap. Returns 0 or an error. */
static inline int32_t midge_fetch_answer(int32_t handle, struct midge_fetch_answer *answer) {
    char *head = (char *)midge_state.heap_next;
    int32_t size;
    /* All of the heap is offered, and what the head needs is taken. */
    while ((size = midge_fetch_head(handle, head, (size_t)(midge_state.heap_end - midge_state.heap_next))) == MIDGE_LATER) {
        midge_fetch_wait(handle, MIDGE_WAIT_FETCH_HEAD);
    }
    if (size < 0) return size;
    midge_heap_take((size_t)size);
    answer->handle = handle;
    answer->status = (uint16_t)((const uint32_t *)(const void *)head)[0];
    answer->header_count = ((const uint32_t *)(const void *)head)[1];
    answer->head = head;
    return 0;
}

/* Sends a request with its body, if it has one, and waits for the head of the response. Returns 0 or an error. */
static inline int32_t midge_fetch_send(struct midge_fetch_record *record, struct midge_text body,
                                       struct midge_fetch_answer *answer) {
    if (body.size) {
        record->flags |= MIDGE_FETCH_BODY;
        record->body_size = body.size;
    }
    int32_t handle = midge_fetch(record), error = 0;
    if (handle < 0) return handle;
    if (body.size) {
        error = midge_fetch_write_all(handle, body);
        if (!error) error = midge_fetch_finish(handle);
    }
    if (!error) error = midge_fetch_answer(handle, answer);
    if (error) midge_fetch_close(handle);
    return error;
}

/* The name and the value of a header of a response; index < answer->header_count. */
static inline struct midge_text midge_fetch_header_name(const struct midge_fetch_answer *answer, uint32_t index) {
    const void *rows = answer->head + 8;
    struct midge_span name = ((const struct midge_request_header *)rows)[index].name;
    struct midge_text text = {answer->head + name.offset, name.size};
    return text;
}

static inline struct midge_text midge_fetch_header_value(const struct midge_fetch_answer *answer, uint32_t index) {
    const void *rows = answer->head + 8;
    struct midge_span value = ((const struct midge_request_header *)rows)[index].value;
    struct midge_text text = {answer->head + value.offset, value.size};
    return text;
}

/* The value of the first header of that name, written in lower case; data is NULL if there is none. */
static inline struct midge_text midge_fetch_header(const struct midge_fetch_answer *answer, const char *name) {
    struct midge_text none = {NULL, 0};
    for (uint32_t index = 0; index < answer->header_count; index++) {
        if (midge_text_is(midge_fetch_header_name(answer, index), name)) return midge_fetch_header_value(answer, index);
    }
    return none;
}

/* Waits for more of the body of a response. Returns how much, 0 at its end, or an error. */
static inline int32_t midge_fetch_next(const struct midge_fetch_answer *answer, void *target, size_t size) {
    int32_t read;
    while ((read = midge_fetch_read(answer->handle, target, size)) == MIDGE_LATER) {
        midge_fetch_wait(answer->handle, MIDGE_WAIT_FETCH_BODY);
    }
    return read;
}

/* Reads the rest of the body of a response onto the heap; *error is 0, or why there is none. */
static inline struct midge_text midge_fetch_body(const struct midge_fetch_answer *answer, size_t size_max,
                                                 int32_t *error) {
    char *start = (char *)midge_state.heap_next, beyond;
    size_t free_bytes = (size_t)(midge_state.heap_end - midge_state.heap_next), size = 0;
    if (size_max > free_bytes) size_max = free_bytes;
    for (;;) {
        /* Whether a full target has all of it, one byte more tells. */
        bool is_full = size == size_max;
        int32_t read = midge_fetch_next(answer, is_full ? &beyond : start + size, is_full ? 1 : size_max - size);
        if (read > 0 && is_full) read = midge_fetch_fail(MIDGE_FETCH_ERROR_BODY_TOO_LONG);
        if (read < 0) {
            struct midge_text none = {NULL, 0};
            *error = read;
            return none;
        }
        if (read == 0) break;
        size += (size_t)read;
    }
    midge_heap_take(size);
    *error = 0;
    struct midge_text body = {start, size};
    return body;
}

/* ---- Fields behind a body ----------------------------------------------------------------------- */

/* Reads what came behind the body of a response, or for the handle 0 of the request, onto the heap. The body was read to
 * its end before: otherwise there is nothing yet. midge_fetch_header and its like read it. Returns 0 or an error.
 *
 * Those behind one's own response, after midge_start(..) and all of its body:
 *
 *   struct midge_response_header rows[] = {midge_header_of(MIDGE_TEXT("grpc-status"), MIDGE_TEXT("0"))};
 *   midge_trailers_write(0, rows, 1);
 *   return midge_written;
 */
static inline int32_t midge_trailers(int32_t handle, struct midge_fetch_answer *trailers) {
    char *block = (char *)midge_state.heap_next;
    /* All of the heap is offered, and what they need is taken. */
    int32_t size = midge_trailers_read(handle, block, (size_t)(midge_state.heap_end - midge_state.heap_next));
    if (size < 0 && size != MIDGE_LATER) return size;
    trailers->handle = handle;
    trailers->status = 0;
    trailers->header_count = size > 0 ? ((const uint32_t *)(const void *)block)[1] : 0;
    trailers->head = block;
    if (size > 0) midge_heap_take((size_t)size);
    return 0;
}

/* Ends a body with what came behind another: of a fetch, or for the handle 0 of the response. Returns 0 or an error. */
static inline int32_t midge_trailers_pass(int32_t handle, const struct midge_fetch_answer *trailers) {
    struct midge_response_header *rows = midge_heap_take(trailers->header_count * sizeof *rows);
    if (!rows) return midge_fetch_fail(MIDGE_FETCH_ERROR_HEAD_TOO_LONG);
    for (uint32_t index = 0; index < trailers->header_count; index++) {
        rows[index] = midge_header_of(midge_fetch_header_name(trailers, index),
                                      midge_fetch_header_value(trailers, index));
    }
    return midge_trailers_write(handle, rows, trailers->header_count);
}

/* ---- Exports ------------------------------------------------------------------------------------ */

/* The largest request block: head, header table and body. Its size is an array's, so it is checked. */
#define MIDGE_AREA_SIZE(size) \
    ((size) / (size_t)((size) >= MIDGE_AREA_SIZE_MIN && (size) <= MIDGE_AREA_SIZE_MAX))

/* Defines the request area, the heap and the exports; once, at the end of the main file, outside of any
 * function. A section of its own whose name starts with .bss is laid behind all other statics, so that
 * these stand beside the request and not beyond the heap. */
#ifdef __wasm__
#define MIDGE_FUNCTION(handle, area_bytes, heap_bytes)                                               \
    __attribute__((section(".bss_midge_area"), aligned(16))) static unsigned char                    \
        midge_area[MIDGE_AREA_SIZE(area_bytes) + (heap_bytes)];                                      \
    static const struct midge_contract midge_contract_record = {                                     \
        MIDGE_MAGIC, (uint16_t)MIDGE_VERSION, 0, (uint32_t)midge_area, (area_bytes)};                \
    MIDGE_EXPORT("midge_contract") const struct midge_contract *midge_contract(void) {               \
        return &midge_contract_record;                                                               \
    }                                                                                                \
    MIDGE_EXPORT("midge_handle")                                                                     \
    const struct midge_response *midge_handle(const struct midge_request *request, uint32_t size) {  \
        (void)size;                                                                                  \
        midge_begin(request, midge_area + sizeof midge_area);                                        \
        return handle(request);                                                                      \
    }
#else
#define MIDGE_FUNCTION(handle, area_bytes, heap_bytes) \
    typedef unsigned char midge_area_type[MIDGE_AREA_SIZE(area_bytes) + (heap_bytes)];
#endif

#endif /* MIDGE_H */
