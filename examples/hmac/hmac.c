/* hmac: lets a POST pass only if its `x-signature` header is the HMAC-SHA256 of the body, as webhooks do.
 *
 * SHA-256 after FIPS 180-4, HMAC after RFC 2104. The key stands in the source for the example's sake.
 */
#include "midge.h"

#define DIGEST_SIZE 32
#define BLOCK_SIZE 64
/* The length in bits fills the last 8 bytes of the last block. */
#define LENGTH_SIZE 8

static const struct midge_text KEY = {"a key for examples only", 23};
static const struct midge_text PREFIX = {"sha256=", 7};

static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t word, unsigned count) { return word >> count | word << (32 - count); }

static void compress(uint32_t state[8], const unsigned char *block) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t low = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t high = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + low + w[i - 7] + high;
    }
    for (int i = 0; i < 8; i++) s[i] = state[i];
    for (int i = 0; i < 64; i++) {
        uint32_t sum_high = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t first = s[7] + sum_high + choice + ROUND[i] + w[i];
        uint32_t sum_low = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
        uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        for (int j = 7; j > 0; j--) s[j] = s[j - 1];
        s[4] += first;
        s[0] = first + sum_low + majority;
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
}

/* The digest of one block (HMAC's padded key) followed by a text: all that HMAC asks of a hash. */
static void digest_after(const unsigned char block[BLOCK_SIZE], struct midge_text text,
                         unsigned char digest[DIGEST_SIZE]) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const unsigned char *bytes = (const unsigned char *)text.data;
    size_t left = text.size;
    compress(state, block);
    for (; left >= BLOCK_SIZE; left -= BLOCK_SIZE, bytes += BLOCK_SIZE) compress(state, bytes);

    unsigned char last[BLOCK_SIZE] = {0};
    memcpy(last, bytes, left);
    last[left] = 0x80;
    if (left + 1 > BLOCK_SIZE - LENGTH_SIZE) {
        compress(state, last);
        memset(last, 0, sizeof last);
    }
    uint64_t bits = ((uint64_t)text.size + BLOCK_SIZE) * 8;
    for (int i = 0; i < LENGTH_SIZE; i++) last[BLOCK_SIZE - 1 - i] = (unsigned char)(bits >> 8 * i);
    compress(state, last);
    for (int i = 0; i < DIGEST_SIZE; i++) digest[i] = (unsigned char)(state[i / 4] >> (24 - i % 4 * 8));
}

static void hmac(struct midge_text key, struct midge_text message, unsigned char mac[DIGEST_SIZE]) {
    unsigned char inner_key[BLOCK_SIZE], outer_key[BLOCK_SIZE], inner[DIGEST_SIZE];
    for (size_t i = 0; i < BLOCK_SIZE; i++) {
        unsigned char byte = i < key.size ? (unsigned char)key.data[i] : 0;
        inner_key[i] = byte ^ 0x36;
        outer_key[i] = byte ^ 0x5c;
    }
    digest_after(inner_key, message, inner);
    struct midge_text inner_text = {(const char *)inner, sizeof inner};
    digest_after(outer_key, inner_text, mac);
}

/* Reads every digit whatever it finds, so that the time tells nothing about the first wrong one. */
static bool is_signature(struct midge_text header, const unsigned char mac[DIGEST_SIZE]) {
    if (header.size != PREFIX.size + 2 * DIGEST_SIZE) return false;
    if (memcmp(header.data, PREFIX.data, PREFIX.size) != 0) return false;
    const char *digits = header.data + PREFIX.size;
    int difference = 0;
    for (int i = 0; i < DIGEST_SIZE; i++) {
        int high = midge_hex_digit(digits[2 * i]), low = midge_hex_digit(digits[2 * i + 1]);
        /* A character that is no digit is -1 and leaves bits above the eighth. */
        difference |= (high * 16 | low) ^ mac[i];
    }
    return difference == 0;
}

static const struct midge_response *handle(const struct midge_request *request) {
    if (request->method != MIDGE_POST) {
        midge_set_header(MIDGE_TEXT("allow"), MIDGE_TEXT("POST"));
        return midge_respond_text(405, "text/plain; charset=utf-8", MIDGE_TEXT("post a signed body\n"));
    }
    unsigned char mac[DIGEST_SIZE];
    hmac(KEY, midge_part(request, request->body), mac);
    if (!is_signature(midge_header(request, "x-signature"), mac)) {
        midge_log(MIDGE_WARN, MIDGE_TEXT("refused a body whose signature does not match"));
        return midge_respond_text(401, "text/plain; charset=utf-8", MIDGE_TEXT("bad signature\n"));
    }
    return midge_respond_text(200, "text/plain; charset=utf-8", MIDGE_TEXT("accepted\n"));
}

MIDGE_FUNCTION(handle, 65536, 0)
