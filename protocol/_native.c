/* The compiled twins of `PythonFrameCipher` in frames.py, of the symmetric half of ecies.py, and of the decoder in rlp.py:
 * the same rules and errors, in a fifth of the time. Whoever has no C compiler runs the Python ones; tests hold the two
 * against each other.
 *
 * The curve is coincurve's libsecp256k1, called without cffi's objects in between. AES and SHA-256 are OpenSSL's, out of the
 * libcrypto that Python's own ssl module uses, found when the module is loaded. Keccak is here: no library hands out digests
 * of a running Keccak-256 without finishing it but safe-pysha3, which is Python's.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Keccak's lanes are little-endian words, and so must the machine's be"
#endif

enum {
    BLOCK_BYTES = 16,
    HEADER_BYTES = 2 * BLOCK_BYTES, /* header ciphertext and its MAC */
    SECRET_BYTES = 32,
    DIGEST_BYTES = 32,
    ID_BYTES = 64,
    POINT_BYTES = 65,     /* 0x04, x, y */
    UNCOMPRESSED = 2,     /* SECP256K1_EC_UNCOMPRESSED */
    MAX_RECOVERY_ID = 3,
    RATE_BYTES = 136,               /* of Keccak-256: what one permutation absorbs */
    MAX_FRAME_BYTES = 0xFFFFFF,     /* the size field has 24 bits */
    MAX_FIRST_FRAME_BYTES = 2048,   /* see frames.py */
    FIRST_CONTENT_BYTES = 64 * 1024, /* a header alone makes nobody set aside more than this */
    /* As in rlp.py. */
    SHORT_STRING = 0x80,
    SHORT_LIST = 0xC0,
    SHORT_MAX_BYTES = 55,
    MAX_DEPTH = 16
};

static PyObject *frame_error, *oversized_frame_error, *usage_error, *rlp_error;

/* -- Keccak-256, FIPS 202's permutation with Ethereum's padding ---------------------------------------------------------- */

typedef struct {
    uint64_t lanes[25];
    size_t at; /* where the next byte goes, below RATE_BYTES */
} Keccak;

static const uint64_t ROUND_CONSTANTS[24] = {
    0x0000000000000001, 0x0000000000008082, 0x800000000000808a, 0x8000000080008000, 0x000000000000808b, 0x0000000080000001,
    0x8000000080008081, 0x8000000000008009, 0x000000000000008a, 0x0000000000000088, 0x0000000080008009, 0x000000008000000a,
    0x000000008000808b, 0x800000000000008b, 0x8000000000008089, 0x8000000000008003, 0x8000000000008002, 0x8000000000000080,
    0x000000000000800a, 0x800000008000000a, 0x8000000080008081, 0x8000000000008080, 0x0000000080000001, 0x8000000080008008,
};

#define ROTATED(lane, bits) ((lane) << (bits) | (lane) >> (64 - (bits)))
#define COLUMN(a, x) (a##x##0 ^ a##x##1 ^ a##x##2 ^ a##x##3 ^ a##x##4)
/* One row of the next state: rho and pi pick and turn five lanes, chi mixes them. */
#define ROW(e, y, b0, b1, b2, b3, b4)                                                                                       \
    do {                                                                                                                    \
        uint64_t t0 = b0, t1 = b1, t2 = b2, t3 = b3, t4 = b4;                                                               \
        e##0##y = t0 ^ (~t1 & t2);                                                                                          \
        e##1##y = t1 ^ (~t2 & t3);                                                                                          \
        e##2##y = t2 ^ (~t3 & t4);                                                                                          \
        e##3##y = t3 ^ (~t4 & t0);                                                                                          \
        e##4##y = t4 ^ (~t0 & t1);                                                                                          \
    } while (0)
#define ROUND(a, e, constant)                                                                                               \
    do {                                                                                                                    \
        uint64_t c0 = COLUMN(a, 0), c1 = COLUMN(a, 1), c2 = COLUMN(a, 2), c3 = COLUMN(a, 3), c4 = COLUMN(a, 4);             \
        uint64_t d0 = c4 ^ ROTATED(c1, 1), d1 = c0 ^ ROTATED(c2, 1), d2 = c1 ^ ROTATED(c3, 1), d3 = c2 ^ ROTATED(c4, 1),    \
                 d4 = c3 ^ ROTATED(c0, 1);                                                                                  \
        ROW(e, 0, a##00 ^ d0, ROTATED(a##11 ^ d1, 44), ROTATED(a##22 ^ d2, 43), ROTATED(a##33 ^ d3, 21),                    \
            ROTATED(a##44 ^ d4, 14));                                                                                       \
        e##00 ^= constant;                                                                                                  \
        ROW(e, 1, ROTATED(a##30 ^ d3, 28), ROTATED(a##41 ^ d4, 20), ROTATED(a##02 ^ d0, 3), ROTATED(a##13 ^ d1, 45),        \
            ROTATED(a##24 ^ d2, 61));                                                                                       \
        ROW(e, 2, ROTATED(a##10 ^ d1, 1), ROTATED(a##21 ^ d2, 6), ROTATED(a##32 ^ d3, 25), ROTATED(a##43 ^ d4, 8),          \
            ROTATED(a##04 ^ d0, 18));                                                                                       \
        ROW(e, 3, ROTATED(a##40 ^ d4, 27), ROTATED(a##01 ^ d0, 36), ROTATED(a##12 ^ d1, 10), ROTATED(a##23 ^ d2, 15),       \
            ROTATED(a##34 ^ d3, 56));                                                                                       \
        ROW(e, 4, ROTATED(a##20 ^ d2, 62), ROTATED(a##31 ^ d3, 55), ROTATED(a##42 ^ d4, 39), ROTATED(a##03 ^ d0, 41),       \
            ROTATED(a##14 ^ d1, 2));                                                                                        \
    } while (0)
#define EACH_LANE(do_with)                                                                                                  \
    do_with(0, 0) do_with(1, 0) do_with(2, 0) do_with(3, 0) do_with(4, 0) do_with(0, 1) do_with(1, 1) do_with(2, 1)         \
    do_with(3, 1) do_with(4, 1) do_with(0, 2) do_with(1, 2) do_with(2, 2) do_with(3, 2) do_with(4, 2) do_with(0, 3)         \
    do_with(1, 3) do_with(2, 3) do_with(3, 3) do_with(4, 3) do_with(0, 4) do_with(1, 4) do_with(2, 4) do_with(3, 4)         \
    do_with(4, 4)
#define LOAD(x, y) uint64_t a##x##y = lanes[x + 5 * y], e##x##y;
#define STORE(x, y) lanes[x + 5 * y] = a##x##y;

static inline __attribute__((always_inline)) void permute_lanes(uint64_t *lanes)
{
    EACH_LANE(LOAD)
    for (int number = 0; number < 24; number += 2) {
        ROUND(a, e, ROUND_CONSTANTS[number]);
        ROUND(e, a, ROUND_CONSTANTS[number + 1]);
    }
    EACH_LANE(STORE)
}

static void permute_anywhere(uint64_t *lanes)
{
    permute_lanes(lanes);
}

static void (*permute)(uint64_t *lanes) = permute_anywhere;

#if defined(__x86_64__)
/* With andn and rorx a permutation takes a quarter less: 0.26 us, not 0.35. */
__attribute__((target("bmi,bmi2"))) static void permute_with_bmi(uint64_t *lanes)
{
    permute_lanes(lanes);
}

static void choose_permute(void)
{
    if (__builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
        permute = permute_with_bmi;
}
#else
static void choose_permute(void)
{
}
#endif

static void absorb(Keccak *state, const uint8_t *data, size_t size)
{
    while (size) {
        uint8_t *into = (uint8_t *)state->lanes + state->at;
        size_t taken = RATE_BYTES - state->at, done = 0;
        if (taken > size)
            taken = size;
        for (; done + 8 <= taken; done += 8) {
            uint64_t left, right;
            memcpy(&left, into + done, 8);
            memcpy(&right, data + done, 8);
            left ^= right;
            memcpy(into + done, &left, 8);
        }
        for (; done < taken; done++)
            into[done] ^= data[done];
        data += taken;
        size -= taken;
        state->at += taken;
        if (state->at == RATE_BYTES) {
            permute(state->lanes);
            state->at = 0;
        }
    }
}

/* The first half of the digest of what has been absorbed so far; the state goes on. */
static void half_digest(const Keccak *state, uint8_t *digest)
{
    uint64_t lanes[25];
    memcpy(lanes, state->lanes, sizeof lanes);
    ((uint8_t *)lanes)[state->at] ^= 0x01;
    ((uint8_t *)lanes)[RATE_BYTES - 1] ^= 0x80;
    permute(lanes);
    memcpy(digest, lanes, BLOCK_BYTES);
}

/* -- AES and SHA-256 of OpenSSL, whose headers a machine need not have ----------------------------------------------------------------- */

typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_cipher_st EVP_CIPHER;
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;

static EVP_CIPHER_CTX *(*context_new)(void);
static void (*context_free)(EVP_CIPHER_CTX *);
static int (*encrypt_init)(EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const uint8_t *, const uint8_t *);
static int (*encrypt_update)(EVP_CIPHER_CTX *, uint8_t *, int *, const uint8_t *, int);
static const EVP_CIPHER *aes_128_ctr, *aes_256_ctr, *aes_256_ecb;
static EVP_MD_CTX *(*digest_new)(void);
static int (*digest_init)(EVP_MD_CTX *, const EVP_MD *, void *);
static int (*digest_update)(EVP_MD_CTX *, const void *, size_t);
static int (*digest_final)(EVP_MD_CTX *, uint8_t *, unsigned *);
static const EVP_MD *sha_256;
/* Always the same one: every call holds Python's lock. */
static EVP_MD_CTX *digest_context;

/* A cipher or a digest. From OpenSSL 3 on one that was fetched once saves looking it up in every context. */
static const void *load_algorithm(void *library, const char *fetcher, const char *name, const char *getter)
{
    void *(*fetch)(void *, const char *, const char *);
    const void *(*get)(void);
    *(void **)&fetch = dlsym(library, fetcher);
    if (fetch != NULL)
        return fetch(NULL, name, NULL);
    *(void **)&get = dlsym(library, getter);
    return get == NULL ? NULL : get();
}

static int load_libcrypto(void)
{
    static const char *const NAMES[] = {"libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.3.dylib", NULL};
    void *library = NULL;
    for (const char *const *name = NAMES; library == NULL && *name != NULL; name++)
        library = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
    if (library != NULL) {
        *(void **)&context_new = dlsym(library, "EVP_CIPHER_CTX_new");
        *(void **)&context_free = dlsym(library, "EVP_CIPHER_CTX_free");
        *(void **)&encrypt_init = dlsym(library, "EVP_EncryptInit_ex");
        *(void **)&encrypt_update = dlsym(library, "EVP_EncryptUpdate");
        *(void **)&digest_new = dlsym(library, "EVP_MD_CTX_new");
        *(void **)&digest_init = dlsym(library, "EVP_DigestInit_ex");
        *(void **)&digest_update = dlsym(library, "EVP_DigestUpdate");
        *(void **)&digest_final = dlsym(library, "EVP_DigestFinal_ex");
        aes_128_ctr = load_algorithm(library, "EVP_CIPHER_fetch", "AES-128-CTR", "EVP_aes_128_ctr");
        aes_256_ctr = load_algorithm(library, "EVP_CIPHER_fetch", "AES-256-CTR", "EVP_aes_256_ctr");
        aes_256_ecb = load_algorithm(library, "EVP_CIPHER_fetch", "AES-256-ECB", "EVP_aes_256_ecb");
        sha_256 = load_algorithm(library, "EVP_MD_fetch", "SHA2-256", "EVP_sha256");
        digest_context = digest_new == NULL ? NULL : digest_new();
        if (context_new && context_free && encrypt_init && encrypt_update && digest_init && digest_update && digest_final &&
            aes_128_ctr && aes_256_ctr && aes_256_ecb && sha_256 && digest_context)
            return 0;
    }
    PyErr_SetString(PyExc_ImportError, "no libcrypto of OpenSSL 1.1 or 3 to take AES and SHA-256 from");
    return -1;
}

static EVP_CIPHER_CTX *new_context(const EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *counter)
{
    EVP_CIPHER_CTX *context = context_new();
    if (context == NULL || !encrypt_init(context, cipher, NULL, key, counter)) {
        if (context != NULL)
            context_free(context);
        PyErr_NoMemory();
        return NULL;
    }
    return context;
}

/* CTR or ECB on whole blocks: as many bytes come out as go in. At most a frame goes in, which an int holds. */
static int encrypt(EVP_CIPHER_CTX *context, uint8_t *out, const uint8_t *in, size_t size)
{
    int written;
    if (size == 0 || (encrypt_update(context, out, &written, in, (int)size) && written == (int)size))
        return 0;
    PyErr_SetString(PyExc_SystemError, "AES of libcrypto failed");
    return -1;
}

static void xor_block(uint8_t *into, const uint8_t *with)
{
    for (int at = 0; at < BLOCK_BYTES; at++)
        into[at] ^= with[at];
}

/* In constant time. */
static int differ(const uint8_t *left, const uint8_t *right, size_t size)
{
    uint8_t found = 0;
    for (size_t at = 0; at < size; at++)
        found |= left[at] ^ right[at];
    return found != 0;
}

/* -- the frame cipher ------------------------------------------------------------------------------------------------------ */

/* One direction: its keystream, its MAC, and the digest that the next header starts from. */
typedef struct {
    EVP_CIPHER_CTX *stream;
    Keccak mac;
    uint8_t digest[BLOCK_BYTES];
} Direction;

typedef struct {
    PyObject_HEAD
    Direction egress, ingress;
    EVP_CIPHER_CTX *mac_cipher;
    /* What was fed and is not looked at yet, from `at` to `size`: in a chunk as it came, or in a copy that grows. */
    PyObject *chunk;
    uint8_t *copy;
    size_t at, size, room;
    /* The piece that is under way: a header, or a body with its MAC. How much of it has come; of a header and of a MAC
     * itself, because they are checked whole. A body is absorbed and decrypted as it comes. */
    uint8_t held[HEADER_BYTES];
    size_t come;
    PyObject *content; /* NULL while a header is awaited; longer than what has come, shorter than the whole at first */
    size_t content_bytes;
    Py_ssize_t buffered_bytes, limit_bytes;
} FrameCipher;

static int begin_direction(Direction *way, const uint8_t *aes, const char *seed, Py_ssize_t seed_bytes)
{
    static const uint8_t ZERO_COUNTER[BLOCK_BYTES];
    way->stream = new_context(aes_256_ctr, aes, ZERO_COUNTER);
    if (way->stream == NULL)
        return -1;
    absorb(&way->mac, (const uint8_t *)seed, (size_t)seed_bytes);
    half_digest(&way->mac, way->digest);
    return 0;
}

static PyObject *cipher_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    const char *aes, *mac, *egress, *ingress;
    Py_ssize_t aes_bytes, mac_bytes, egress_bytes, ingress_bytes;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "FrameCipher takes the secrets and no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "(y#y#y#y#):FrameCipher", &aes, &aes_bytes, &mac, &mac_bytes, &egress, &egress_bytes,
                          &ingress, &ingress_bytes))
        return NULL;
    if (aes_bytes != SECRET_BYTES || mac_bytes != SECRET_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the secrets of AES and MAC have 32 bytes");
        return NULL;
    }
    FrameCipher *self = (FrameCipher *)type->tp_alloc(type, 0); /* all zeros */
    if (self == NULL)
        return NULL;
    self->limit_bytes = MAX_FIRST_FRAME_BYTES;
    self->mac_cipher = new_context(aes_256_ecb, (const uint8_t *)mac, NULL);
    if (self->mac_cipher == NULL || begin_direction(&self->egress, (const uint8_t *)aes, egress, egress_bytes) ||
        begin_direction(&self->ingress, (const uint8_t *)aes, ingress, ingress_bytes)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void drop_fed(FrameCipher *self)
{
    Py_CLEAR(self->chunk);
    PyMem_Free(self->copy);
    self->copy = NULL;
    self->at = self->size = self->room = 0;
}

static void cipher_dealloc(FrameCipher *self)
{
    PyTypeObject *type = Py_TYPE(self);
    drop_fed(self);
    Py_XDECREF(self->content);
    /* They wipe their keys. */
    context_free(self->mac_cipher);
    context_free(self->egress.stream);
    context_free(self->ingress.stream);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The MAC's step for a header or for a body's own digest: absorb AES(digest) ^ seed, give the new digest. */
static int step_mac(FrameCipher *self, Keccak *mac, const uint8_t *digest, const uint8_t *seed, uint8_t *tag)
{
    uint8_t block[BLOCK_BYTES];
    if (encrypt(self->mac_cipher, block, digest, BLOCK_BYTES))
        return -1;
    xor_block(block, seed);
    absorb(mac, block, BLOCK_BYTES);
    half_digest(mac, tag);
    return 0;
}

static int step_body_mac(FrameCipher *self, Keccak *mac, uint8_t *tag)
{
    uint8_t digest[BLOCK_BYTES];
    half_digest(mac, digest);
    return step_mac(self, mac, digest, digest, tag);
}

static PyObject *cipher_seal(FrameCipher *self, PyObject *argument)
{
    Direction *way = &self->egress;
    Py_buffer content;
    if (PyObject_GetBuffer(argument, &content, PyBUF_SIMPLE))
        return NULL;
    PyObject *frame = NULL;
    if (content.len > MAX_FRAME_BYTES) {
        PyErr_Format(usage_error, "a message of %zd bytes is over the %d of a frame", content.len, MAX_FRAME_BYTES);
        goto done;
    }
    size_t size = (size_t)content.len, padding = -size % BLOCK_BYTES;
    frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(HEADER_BYTES + size + padding + BLOCK_BYTES));
    if (frame == NULL)
        goto done;
    uint8_t *header = (uint8_t *)PyBytes_AS_STRING(frame), *body = header + HEADER_BYTES;
    /* Header data [capability-id, context-id], both always zero, and zeros up to a whole block. */
    const uint8_t plain[BLOCK_BYTES] = {(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, 0xc2, 0x80, 0x80};
    static const uint8_t ZEROS[BLOCK_BYTES];
    if (encrypt(way->stream, header, plain, BLOCK_BYTES) ||
        step_mac(self, &way->mac, way->digest, header, header + BLOCK_BYTES) ||
        encrypt(way->stream, body, content.buf, size) || encrypt(way->stream, body + size, ZEROS, padding)) {
        Py_CLEAR(frame);
        goto done;
    }
    absorb(&way->mac, body, size + padding);
    if (step_body_mac(self, &way->mac, way->digest))
        Py_CLEAR(frame);
    else
        memcpy(body + size + padding, way->digest, BLOCK_BYTES);
done:
    PyBuffer_Release(&content);
    return frame;
}

static PyObject *cipher_feed(FrameCipher *self, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "a chunk is bytes");
        return NULL;
    }
    const size_t more = (size_t)PyBytes_GET_SIZE(data);
    if (self->at == self->size) {
        drop_fed(self);
        Py_INCREF(data);
        self->chunk = data;
        self->size = more;
    } else {
        /* The caller has stopped in between: join what waits, in a copy whose room doubles. */
        const size_t waiting = self->size - self->at;
        if (self->copy == NULL || self->room - self->size < more) {
            const size_t room = 2 * (waiting + more);
            uint8_t *copy = PyMem_Malloc(room);
            if (copy == NULL)
                return PyErr_NoMemory();
            const uint8_t *from = self->copy != NULL ? self->copy : (const uint8_t *)PyBytes_AS_STRING(self->chunk);
            memcpy(copy, from + self->at, waiting);
            drop_fed(self);
            self->copy = copy;
            self->size = waiting;
            self->room = room;
        }
        memcpy(self->copy + self->size, PyBytes_AS_STRING(data), more);
        self->size += more;
    }
    self->buffered_bytes += (Py_ssize_t)more;
    Py_RETURN_NONE;
}

/* Take up to `wanted` of what was fed: how much, and where it stands. */
static size_t take(FrameCipher *self, size_t wanted, const uint8_t **from)
{
    const uint8_t *fed = self->copy != NULL ? self->copy : (const uint8_t *)PyBytes_AS_STRING(self->chunk);
    const size_t fed_bytes = self->size - self->at;
    *from = fed + self->at;
    if (wanted > fed_bytes)
        wanted = fed_bytes;
    self->at += wanted;
    self->come += wanted;
    return wanted;
}

/* Check and decrypt a whole header, and make room for the content that follows it. */
static int open_header(FrameCipher *self)
{
    Direction *way = &self->ingress;
    uint8_t tag[BLOCK_BYTES], plain[BLOCK_BYTES];
    self->come = 0;
    self->buffered_bytes -= HEADER_BYTES;
    if (step_mac(self, &way->mac, way->digest, self->held, tag))
        return -1;
    if (differ(tag, self->held + BLOCK_BYTES, BLOCK_BYTES)) {
        PyErr_SetString(frame_error, "a frame header whose MAC differs");
        return -1;
    }
    if (encrypt(way->stream, plain, self->held, BLOCK_BYTES))
        return -1;
    const size_t size = (size_t)plain[0] << 16 | (size_t)plain[1] << 8 | plain[2];
    if ((Py_ssize_t)size > self->limit_bytes) {
        PyErr_Format(oversized_frame_error, "a frame of %zu bytes where %zd are allowed", size, self->limit_bytes);
        return -1;
    }
    self->content_bytes = size;
    self->content = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(size < FIRST_CONTENT_BYTES ? size : FIRST_CONTENT_BYTES));
    return self->content == NULL ? -1 : 0;
}

/* Absorb and decrypt what has come of a body and its padding. */
static int open_body_piece(FrameCipher *self, size_t padded)
{
    const uint8_t *piece;
    const size_t start = self->come, size = take(self, padded - start, &piece);
    size_t text = start < self->content_bytes ? self->content_bytes - start : 0;
    if (text > size)
        text = size;
    size_t room = (size_t)PyBytes_GET_SIZE(self->content);
    if (start + text > room) {
        while (room < start + text)
            room *= 2;
        if (room > self->content_bytes)
            room = self->content_bytes;
        if (_PyBytes_Resize(&self->content, (Py_ssize_t)room)) /* sets it to NULL where it fails */
            return -1;
    }
    uint8_t padding[BLOCK_BYTES];
    absorb(&self->ingress.mac, piece, size);
    return encrypt(self->ingress.stream, (uint8_t *)PyBytes_AS_STRING(self->content) + start, piece, text) ||
                   encrypt(self->ingress.stream, padding, piece + text, size - text)
               ? -1
               : 0;
}

/* Check a body's MAC: its content, or an error. */
static PyObject *close_body(FrameCipher *self, size_t padded)
{
    PyObject *content = self->content;
    uint8_t tag[BLOCK_BYTES];
    self->content = NULL;
    self->come = 0;
    self->buffered_bytes -= (Py_ssize_t)(padded + BLOCK_BYTES);
    if (step_body_mac(self, &self->ingress.mac, tag)) {
        Py_DECREF(content);
        return NULL;
    }
    if (differ(tag, self->held, BLOCK_BYTES)) {
        Py_DECREF(content);
        PyErr_SetString(frame_error, "a frame body whose MAC differs");
        return NULL;
    }
    memcpy(self->ingress.digest, tag, BLOCK_BYTES);
    return content;
}

static PyObject *cipher_next(FrameCipher *self)
{
    while (self->at < self->size) {
        const uint8_t *piece;
        if (self->content == NULL) {
            const size_t start = self->come, size = take(self, HEADER_BYTES - start, &piece);
            memcpy(self->held + start, piece, size);
            if (self->come == HEADER_BYTES && open_header(self))
                return NULL;
            continue;
        }
        const size_t padded = self->content_bytes + -self->content_bytes % BLOCK_BYTES;
        if (self->come < padded) {
            if (open_body_piece(self, padded))
                return NULL;
            continue;
        }
        const size_t start = self->come - padded, size = take(self, BLOCK_BYTES - start, &piece);
        memcpy(self->held + start, piece, size);
        if (self->come == padded + BLOCK_BYTES)
            return close_body(self, padded);
    }
    drop_fed(self);
    return NULL;
}

static PyObject *cipher_frames(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    Py_INCREF(self);
    return self;
}

static PyMethodDef cipher_methods[] = {
    {"seal", (PyCFunction)cipher_seal, METH_O, NULL},
    {"feed", (PyCFunction)cipher_feed, METH_O, NULL},
    {"frames", cipher_frames, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef cipher_members[] = {
    {"buffered_bytes", T_PYSSIZET, offsetof(FrameCipher, buffered_bytes), READONLY, NULL},
    {"limit_bytes", T_PYSSIZET, offsetof(FrameCipher, limit_bytes), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot cipher_slots[] = {
    {Py_tp_doc, "See frames.py."},
    {Py_tp_new, cipher_new},
    {Py_tp_dealloc, cipher_dealloc},
    {Py_tp_methods, cipher_methods},
    {Py_tp_members, cipher_members},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, cipher_next},
    {0, NULL},
};

static PyType_Spec cipher_spec = {
    .name = "protocol._native.FrameCipher",
    .basicsize = sizeof(FrameCipher),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = cipher_slots,
};

/* -- the symmetric half of ECIES: rlpx.md, "ECIES Encryption" ---------------------------------------------------------------- */

typedef struct {
    uint8_t encryption[BLOCK_BYTES], mac[DIGEST_BYTES];
} EciesKeys;

/* SHA-256 of the two parts. */
static int sha256(const void *first, size_t first_bytes, const void *second, size_t second_bytes, uint8_t *digest)
{
    if (digest_init(digest_context, sha_256, NULL) && digest_update(digest_context, first, first_bytes) &&
        digest_update(digest_context, second, second_bytes) && digest_final(digest_context, digest, NULL))
        return 0;
    PyErr_SetString(PyExc_SystemError, "SHA-256 of libcrypto failed");
    return -1;
}

/* RFC 2104, for a key shorter than a block of 64 bytes; the message comes in two parts. */
static int hmac_sha256(const uint8_t *key, const void *first, size_t first_bytes, const void *second, size_t second_bytes,
                       uint8_t *tag)
{
    uint8_t pad[64], inner[DIGEST_BYTES];
    memset(pad, 0x36, sizeof pad);
    for (int at = 0; at < DIGEST_BYTES; at++)
        pad[at] ^= key[at];
    if (!digest_init(digest_context, sha_256, NULL) || !digest_update(digest_context, pad, sizeof pad) ||
        !digest_update(digest_context, first, first_bytes) || !digest_update(digest_context, second, second_bytes) ||
        !digest_final(digest_context, inner, NULL)) {
        PyErr_SetString(PyExc_SystemError, "SHA-256 of libcrypto failed");
        return -1;
    }
    for (size_t at = 0; at < sizeof pad; at++)
        pad[at] ^= 0x36 ^ 0x5c;
    return sha256(pad, sizeof pad, inner, sizeof inner, tag);
}

/* See `_keys` in ecies.py. */
static int derive_ecies_keys(const char *secret, Py_ssize_t secret_bytes, EciesKeys *keys)
{
    static const uint8_t KDF_COUNTER[4] = {0, 0, 0, 1};
    uint8_t derived[DIGEST_BYTES];
    if (sha256(KDF_COUNTER, sizeof KDF_COUNTER, secret, (size_t)secret_bytes, derived))
        return -1;
    memcpy(keys->encryption, derived, BLOCK_BYTES);
    return sha256(derived + BLOCK_BYTES, BLOCK_BYTES, NULL, 0, keys->mac);
}

static int encrypt_once(const EciesKeys *keys, const uint8_t *iv, uint8_t *out, const void *in, size_t size)
{
    EVP_CIPHER_CTX *context = new_context(aes_128_ctr, keys->encryption, iv);
    if (context == NULL)
        return -1;
    const int result = encrypt(context, out, in, size);
    context_free(context);
    return result;
}

/* -- secp256k1 of coincurve, which tells where its functions are ----------------------------------------------------------- */

typedef struct {
    uint8_t opaque[64];
} PublicKey;

typedef struct {
    uint8_t opaque[65];
} RecoverableSignature;

typedef int RawHash(uint8_t *, const uint8_t *, const uint8_t *, void *);

static const void *curve_context;
static int (*curve_ecdh)(const void *, uint8_t *, const PublicKey *, const uint8_t *, RawHash *, void *);
static int (*curve_pubkey_parse)(const void *, PublicKey *, const uint8_t *, size_t);
static int (*curve_pubkey_create)(const void *, PublicKey *, const uint8_t *);
static int (*curve_pubkey_serialize)(const void *, uint8_t *, size_t *, const PublicKey *, unsigned);
static int (*curve_signature_parse)(const void *, RecoverableSignature *, const uint8_t *, int);
static int (*curve_recover)(const void *, PublicKey *, const RecoverableSignature *, const uint8_t *);

/* A point as libsecp256k1 keeps it, and its 64 bytes x, y. */
static PyObject *point_and_id(const PublicKey *point)
{
    uint8_t serialized[POINT_BYTES];
    size_t size = sizeof serialized;
    curve_pubkey_serialize(curve_context, serialized, &size, point, UNCOMPRESSED);
    return Py_BuildValue("y#y#", (const char *)point->opaque, (Py_ssize_t)sizeof point->opaque, (const char *)serialized + 1,
                         (Py_ssize_t)ID_BYTES);
}

/* The bytes of an argument that must have so many. */
static const uint8_t *bytes_of(PyObject *argument, Py_ssize_t size)
{
    if (!PyBytes_Check(argument) || PyBytes_GET_SIZE(argument) != size) {
        PyErr_Format(PyExc_ValueError, "%zd bytes belong here", size);
        return NULL;
    }
    return (const uint8_t *)PyBytes_AS_STRING(argument);
}

/* 64 bytes x, y to a point, or None where they are none of the curve. */
static PyObject *native_curve_parse(PyObject *Py_UNUSED(module), PyObject *argument)
{
    const uint8_t *id = bytes_of(argument, ID_BYTES);
    uint8_t serialized[POINT_BYTES] = {0x04};
    PublicKey point;
    if (id == NULL)
        return NULL;
    memcpy(serialized + 1, id, ID_BYTES);
    if (!curve_pubkey_parse(curve_context, &point, serialized, sizeof serialized))
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)point.opaque, sizeof point.opaque);
}

/* The point of a valid secret, and its id; None where the secret is not valid. */
static PyObject *native_curve_create(PyObject *Py_UNUSED(module), PyObject *argument)
{
    const uint8_t *secret = bytes_of(argument, SECRET_BYTES);
    PublicKey point;
    if (secret == NULL)
        return NULL;
    if (!curve_pubkey_create(curve_context, &point, secret))
        Py_RETURN_NONE;
    return point_and_id(&point);
}

static int raw_x(uint8_t *output, const uint8_t *x, const uint8_t *Py_UNUSED(y), void *Py_UNUSED(data))
{
    memcpy(output, x, SECRET_BYTES);
    return 1;
}

static PyObject *native_curve_ecdh(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    PublicKey point;
    uint8_t shared[SECRET_BYTES];
    const uint8_t *opaque = count == 2 ? bytes_of(arguments[0], sizeof point) : NULL;
    const uint8_t *secret = opaque != NULL ? bytes_of(arguments[1], SECRET_BYTES) : NULL;
    if (secret == NULL) {
        if (count != 2)
            PyErr_SetString(PyExc_TypeError, "curve_ecdh takes a point and a secret");
        return NULL;
    }
    memcpy(&point, opaque, sizeof point);
    if (!curve_ecdh(curve_context, shared, &point, secret, raw_x, NULL)) {
        PyErr_SetString(PyExc_ValueError, "not a valid secret");
        return NULL;
    }
    return PyBytes_FromStringAndSize((const char *)shared, SECRET_BYTES);
}

/* The point, and its id, whose key signed a digest; None where nobody's did. */
static PyObject *native_curve_recover(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    RecoverableSignature parsed;
    PublicKey point;
    const uint8_t *digest = count == 2 ? bytes_of(arguments[0], DIGEST_BYTES) : NULL;
    const uint8_t *signature = digest != NULL ? bytes_of(arguments[1], ID_BYTES + 1) : NULL;
    if (signature == NULL) {
        if (count != 2)
            PyErr_SetString(PyExc_TypeError, "curve_recover takes a digest and a signature");
        return NULL;
    }
    if (signature[ID_BYTES] > MAX_RECOVERY_ID ||
        !curve_signature_parse(curve_context, &parsed, signature, signature[ID_BYTES]) ||
        !curve_recover(curve_context, &point, &parsed, digest))
        Py_RETURN_NONE;
    return point_and_id(&point);
}

/* From the addresses of context and functions to what calls them. */
static PyObject *native_curve(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    static PyMethodDef functions[] = {
        {"curve_parse", native_curve_parse, METH_O, NULL},
        {"curve_create", native_curve_create, METH_O, NULL},
        {"curve_ecdh", (PyCFunction)(void (*)(void))native_curve_ecdh, METH_FASTCALL, NULL},
        {"curve_recover", (PyCFunction)(void (*)(void))native_curve_recover, METH_FASTCALL, NULL},
    };
    unsigned long long at[7];
    if (!PyArg_ParseTuple(arguments, "KKKKKKK:curve", at, at + 1, at + 2, at + 3, at + 4, at + 5, at + 6))
        return NULL;
    curve_context = (const void *)(uintptr_t)at[0];
    curve_ecdh = (__typeof__(curve_ecdh))(uintptr_t)at[1];
    curve_pubkey_parse = (__typeof__(curve_pubkey_parse))(uintptr_t)at[2];
    curve_pubkey_create = (__typeof__(curve_pubkey_create))(uintptr_t)at[3];
    curve_pubkey_serialize = (__typeof__(curve_pubkey_serialize))(uintptr_t)at[4];
    curve_signature_parse = (__typeof__(curve_signature_parse))(uintptr_t)at[5];
    curve_recover = (__typeof__(curve_recover))(uintptr_t)at[6];
    return Py_BuildValue("NNNN", PyCFunction_New(functions, NULL), PyCFunction_New(functions + 1, NULL),
                         PyCFunction_New(functions + 2, NULL), PyCFunction_New(functions + 3, NULL));
}

/* -- RLP: see rlp.py ------------------------------------------------------------------------------------------------------- */

typedef struct {
    int is_list;
    Py_ssize_t payload, end;
} Bounds;

static int refuse_rlp(const char *words)
{
    PyErr_SetString(rlp_error, words);
    return -1;
}

static int find_bounds(const uint8_t *data, Py_ssize_t start, Py_ssize_t limit, Bounds *found)
{
    if (start >= limit)
        return refuse_rlp("the RLP ends early");
    const uint8_t first = data[start];
    if (first < SHORT_STRING) {
        *found = (Bounds){0, start, start + 1};
        return 0;
    }
    found->is_list = first >= SHORT_LIST;
    uint64_t length = first - (found->is_list ? SHORT_LIST : SHORT_STRING);
    Py_ssize_t payload = start + 1;
    if (length > SHORT_MAX_BYTES) {
        payload += (Py_ssize_t)(length - SHORT_MAX_BYTES);
        if (payload > limit)
            return refuse_rlp("the RLP ends early");
        length = 0;
        for (Py_ssize_t at = start + 1; at < payload; at++)
            length = length << 8 | data[at];
        if (length <= SHORT_MAX_BYTES || data[start + 1] == 0)
            return refuse_rlp("a length that is not written in its shortest form");
    }
    if (length > (uint64_t)(limit - payload))
        return refuse_rlp("the RLP ends early");
    if (!found->is_list && length == 1 && data[payload] < SHORT_STRING)
        return refuse_rlp("a byte that is not written in its shortest form");
    found->payload = payload;
    found->end = payload + (Py_ssize_t)length;
    return 0;
}

static PyObject *read_item(const uint8_t *data, Py_ssize_t start, Py_ssize_t limit, int depth, Py_ssize_t *left,
                           Py_ssize_t *end)
{
    Bounds found;
    if (--*left < 0) {
        refuse_rlp("more RLP items than fit the message");
        return NULL;
    }
    if (find_bounds(data, start, limit, &found))
        return NULL;
    *end = found.end;
    if (!found.is_list)
        return PyBytes_FromStringAndSize((const char *)data + found.payload, found.end - found.payload);
    if (depth > MAX_DEPTH) {
        refuse_rlp("RLP lists nested too deep");
        return NULL;
    }
    PyObject *items = PyList_New(0);
    for (Py_ssize_t at = found.payload; items != NULL && at < found.end;) {
        PyObject *item = read_item(data, at, found.end, depth + 1, left, &at);
        if (item == NULL || PyList_Append(items, item))
            Py_CLEAR(items);
        Py_XDECREF(item);
    }
    return items;
}

static PyObject *native_rlp_bounds(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Bounds found;
    if (count != 3 || !PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "rlp_bounds takes bytes, a start and a limit");
        return NULL;
    }
    const Py_ssize_t start = PyLong_AsSsize_t(arguments[1]), limit = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    if (start < 0 || limit > PyBytes_GET_SIZE(arguments[0])) {
        PyErr_SetString(PyExc_IndexError, "start and limit are not in the data");
        return NULL;
    }
    if (find_bounds((const uint8_t *)PyBytes_AS_STRING(arguments[0]), start, limit, &found))
        return NULL;
    return Py_BuildValue("Onn", found.is_list ? Py_True : Py_False, found.payload, found.end);
}

static PyObject *native_rlp_read(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t end;
    if (count != 2 || !PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "rlp_read takes bytes and the most items");
        return NULL;
    }
    Py_ssize_t left = PyLong_AsSsize_t(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(arguments[0]);
    PyObject *item = read_item(data, 0, PyBytes_GET_SIZE(arguments[0]), 1, &left, &end);
    return item == NULL ? NULL : Py_BuildValue("Nn", item, end);
}

/* -- the module -------------------------------------------------------------------------------------------------------------- */

static PyObject *native_keccak256(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Py_buffer data;
    if (PyObject_GetBuffer(argument, &data, PyBUF_SIMPLE))
        return NULL;
    Keccak state = {.at = 0};
    absorb(&state, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    ((uint8_t *)state.lanes)[state.at] ^= 0x01;
    ((uint8_t *)state.lanes)[RATE_BYTES - 1] ^= 0x80;
    permute(state.lanes);
    return PyBytes_FromStringAndSize((const char *)state.lanes, DIGEST_BYTES);
}

/* Ciphertext and tag of ECIES under a shared secret. */
static PyObject *native_ecies_encrypt(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *secret, *iv, *text, *mac_data;
    Py_ssize_t secret_bytes, iv_bytes, text_bytes, mac_data_bytes;
    if (!PyArg_ParseTuple(arguments, "y#y#y#y#:ecies_encrypt", &secret, &secret_bytes, &iv, &iv_bytes, &text, &text_bytes,
                          &mac_data, &mac_data_bytes))
        return NULL;
    if (iv_bytes != BLOCK_BYTES || text_bytes > MAX_FRAME_BYTES) {
        PyErr_SetString(PyExc_ValueError, "an IV of 16 bytes, and a packet's text");
        return NULL;
    }
    PyObject *sealed = PyBytes_FromStringAndSize(NULL, BLOCK_BYTES + text_bytes + DIGEST_BYTES);
    if (sealed == NULL)
        return NULL;
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(sealed), *ciphertext = out + BLOCK_BYTES;
    const size_t authentic_bytes = BLOCK_BYTES + (size_t)text_bytes;
    EciesKeys keys;
    memcpy(out, iv, BLOCK_BYTES);
    if (derive_ecies_keys(secret, secret_bytes, &keys) || encrypt_once(&keys, out, ciphertext, text, (size_t)text_bytes) ||
        hmac_sha256(keys.mac, out, authentic_bytes, mac_data, (size_t)mac_data_bytes, out + authentic_bytes))
        Py_CLEAR(sealed);
    return sealed;
}

/* The plaintext of IV, ciphertext and tag; None where the tag is wrong. */
static PyObject *native_ecies_decrypt(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *secret, *sealed, *mac_data;
    Py_ssize_t secret_bytes, sealed_bytes, mac_data_bytes;
    if (!PyArg_ParseTuple(arguments, "y#y#y#:ecies_decrypt", &secret, &secret_bytes, &sealed, &sealed_bytes, &mac_data,
                          &mac_data_bytes))
        return NULL;
    if (sealed_bytes < BLOCK_BYTES + DIGEST_BYTES || sealed_bytes > MAX_FRAME_BYTES) {
        PyErr_SetString(PyExc_ValueError, "an IV of 16 bytes, a packet's ciphertext, and a tag of 32");
        return NULL;
    }
    const uint8_t *in = (const uint8_t *)sealed;
    const size_t authentic_bytes = (size_t)sealed_bytes - DIGEST_BYTES, text_bytes = authentic_bytes - BLOCK_BYTES;
    uint8_t tag[DIGEST_BYTES];
    EciesKeys keys;
    if (derive_ecies_keys(secret, secret_bytes, &keys) ||
        hmac_sha256(keys.mac, in, authentic_bytes, mac_data, (size_t)mac_data_bytes, tag))
        return NULL;
    if (differ(tag, in + authentic_bytes, DIGEST_BYTES))
        Py_RETURN_NONE;
    PyObject *text = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)text_bytes);
    if (text != NULL && encrypt_once(&keys, in, (uint8_t *)PyBytes_AS_STRING(text), in + BLOCK_BYTES, text_bytes))
        Py_CLEAR(text);
    return text;
}

static PyMethodDef native_methods[] = {
    {"keccak256", native_keccak256, METH_O, NULL},
    {"ecies_encrypt", native_ecies_encrypt, METH_VARARGS, NULL},
    {"ecies_decrypt", native_ecies_decrypt, METH_VARARGS, NULL},
    {"curve", native_curve, METH_VARARGS, NULL},
    {"rlp_bounds", (PyCFunction)(void (*)(void))native_rlp_bounds, METH_FASTCALL, NULL},
    {"rlp_read", (PyCFunction)(void (*)(void))native_rlp_read, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT, .m_name = "protocol._native", .m_size = -1, .m_methods = native_methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
    choose_permute();
    PyObject *errors = PyImport_ImportModule("protocol.errors"), *module = NULL;
    if (errors == NULL)
        return NULL;
    frame_error = PyObject_GetAttrString(errors, "FrameError");
    oversized_frame_error = PyObject_GetAttrString(errors, "OversizedFrameError");
    usage_error = PyObject_GetAttrString(errors, "UsageError");
    rlp_error = PyObject_GetAttrString(errors, "RlpError");
    Py_DECREF(errors);
    if (frame_error == NULL || oversized_frame_error == NULL || usage_error == NULL || rlp_error == NULL || load_libcrypto())
        return NULL;
    PyObject *type = PyType_FromSpec(&cipher_spec);
    module = PyModule_Create(&native_module);
    if (type == NULL || module == NULL || PyModule_AddObject(module, "FrameCipher", type)) {
        Py_XDECREF(type);
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
