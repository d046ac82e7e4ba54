/* digest: hashes what passes. POST reads a body of any size and answers with its length and FNV-1a digest of
 * 64-bit words; GET ?bytes=N writes N bytes and says their digest in the log. */
#include "midge.h"

static uint64_t piece[4096]; /* 32 KiB */

/* FNV-1a (Fowler, Noll, Vo) over little-endian words of eight bytes: the usual one, eight times as fast. */
struct digest {
    uint64_t value;
    uint64_t size;
    uint64_t word; /* the bytes since the last whole word */
};

static void digest_bytes(struct digest *digest, const unsigned char *bytes, size_t size) {
    uint64_t value = digest->value, word = digest->word, count = digest->size;
    digest->size += size;
    while (size && (count & 7)) {
        word |= (uint64_t)*bytes++ << (8 * (count++ & 7));
        size--;
        if (!(count & 7)) {
            value = (value ^ word) * 1099511628211u;
            word = 0;
        }
    }
    for (; size >= 8; size -= 8, bytes += 8, count += 8) {
        uint64_t next;
        __builtin_memcpy(&next, bytes, 8);
        value = (value ^ next) * 1099511628211u;
    }
    for (; size; size--) word |= (uint64_t)*bytes++ << (8 * (count++ & 7));
    digest->value = value;
    digest->word = word;
}

static void append_digest(struct midge_buffer *text, const struct digest *digest) {
    uint64_t value = (digest->value ^ digest->word) * 1099511628211u;
    char digits[16];
    for (int at = 0; at < 16; at++) digits[at] = "0123456789abcdef"[value >> (60 - 4 * at) & 15];
    struct midge_text hex = {digits, sizeof digits};
    midge_append_number(text, digest->size);
    midge_append(text, MIDGE_TEXT(" bytes, digest "));
    midge_append(text, hex);
    midge_append(text, MIDGE_TEXT("\n"));
}

/* The number of a parameter; 0 if it is none. */
static uint64_t number(struct midge_text text) {
    uint64_t value = 0;
    for (size_t at = 0; at < text.size; at++) {
        if (text.data[at] < '0' || text.data[at] > '9' || value > UINT64_MAX / 16) return 0;
        value = value * 10 + (uint64_t)(text.data[at] - '0');
    }
    return value;
}

static const struct midge_response *handle(const struct midge_request *request) {
    struct digest digest = {14695981039346656037u, 0, 0};
    struct midge_buffer text = {0};
    if (request->method != MIDGE_GET) {
        struct midge_text first = midge_part(request, request->body);
        digest_bytes(&digest, (const unsigned char *)first.data, first.size);
        size_t size;
        if (request->flags & MIDGE_BODY_PARTIAL) {
            while ((size = midge_body_read(piece, sizeof piece)) > 0) {
                digest_bytes(&digest, (const unsigned char *)piece, size);
            }
        }
        append_digest(&text, &digest);
        return midge_respond_buffer(200, "text/plain", &text);
    }
    struct midge_text bytes = midge_parameter(request, "bytes");
    uint64_t left = number(bytes);
    if (left) midge_set_header(MIDGE_TEXT("content-length"), bytes);
    midge_start(200, "application/octet-stream");
    uint64_t seed = 1;
    while (left) {
        size_t size = left < sizeof piece ? (size_t)left : sizeof piece;
        for (size_t at = 0; at < sizeof piece / sizeof piece[0]; at++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            piece[at] = seed;
        }
        digest_bytes(&digest, (const unsigned char *)piece, size);
        midge_response_write(piece, size);
        left -= size;
    }
    append_digest(&text, &digest);
    midge_log(MIDGE_INFO, midge_buffer_text(&text));
    return midge_written;
}

MIDGE_FUNCTION(handle, 65536, 4096)
