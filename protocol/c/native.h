/* Declarations that the parts of the compiled module share. frames.c, tally.c, ecies.c, crypto.c, rlp.c and snappy.c are twins of the
 * Python files with their names: the same rules and errors in a fraction of the time. Without a C compiler the Python files run
 * alone; tests compare both.
 */

#ifndef NATIVE_H
#define NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Keccak's lanes are little-endian words, and so must the machine's be"
#endif

enum {
    BLOCK_BYTES = 16,          /* of AES, and of a frame's tags */
    SECRET_BYTES = 32,
    DIGEST_BYTES = 32,
    MAX_FRAME_BYTES = 0xFFFFFF, /* the size field has 24 bits */
    SNAPPY_LENGTH_MAX_BYTES = 5 /* a Snappy block starts with its inflated length, 32 bits as a varint */
};

/* Overwrite secrets that are no longer needed. The empty assembly reads the memory, so that no compiler omits this. */
static inline void wipe(void *secrets, size_t size)
{
    memset(secrets, 0, size);
    __asm__ __volatile__("" : : "r"(secrets) : "memory");
}

/* -- keccak.c ------------------------------------------------------------------------------------------------------- */

/* A running Keccak-256: a digest does not finish it. It starts as zeros. */
typedef struct {
    uint64_t lanes[25];
    size_t at; /* where the next byte goes, below the rate */
} Keccak;

void choose_absorb(void);
void absorb(Keccak *state, const uint8_t *data, size_t size);
/* The first `size` bytes of the digest of everything absorbed so far. */
void digest_so_far(const Keccak *state, uint8_t *digest, size_t size);

/* -- libcrypto.c: functions that return an int return 0, or -1 with an exception set ---------------------------------------- */

typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_cipher_st EVP_CIPHER;
typedef struct evp_md_ctx_st EVP_MD_CTX;

extern const EVP_CIPHER *aes_128_ctr, *aes_256_ctr, *aes_256_ecb;

/* Raises `ImportError` if there is no libcrypto. */
int load_libcrypto(void);
/* A context that hashes one text after another; NULL with an exception set if memory runs out. `free_digest` accepts NULL. */
EVP_MD_CTX *new_digest(void);
void free_digest(EVP_MD_CTX *digest);
/* NULL with an exception set on failure. */
EVP_CIPHER_CTX *new_context(const EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *counter);
/* Use the same cipher with another key. */
int restart_context(EVP_CIPHER_CTX *context, const uint8_t *key, const uint8_t *counter);
/* libcrypto wipes the key; accepts NULL. */
void free_context(EVP_CIPHER_CTX *context);
/* Encrypt or decrypt by CTR, or encrypt whole blocks by ECB; output and input have the same size. */
int run_cipher(EVP_CIPHER_CTX *context, uint8_t *out, const uint8_t *in, size_t size);
/* SHA-256 of two parts, and HMAC-SHA-256 (RFC 2104) of them with a key of 32 bytes. */
typedef struct {
    const void *data;
    size_t size;
} Text;
int sha256(EVP_MD_CTX *context, Text first, Text second, uint8_t *digest);
int hmac_sha256(EVP_MD_CTX *context, const uint8_t *key, Text first, Text second, uint8_t *tag);
/* Whether two byte strings differ, in constant time. */
int differ(const uint8_t *left, const uint8_t *right, size_t size);

/* -- the module ------------------------------------------------------------------------------------------------------- */

/* libsecp256k1's representation of a point. */
typedef struct {
    uint8_t opaque[64];
} PublicKey;

typedef struct {
    uint8_t opaque[65];
} RecoverableSignature;

typedef int HashFunction(uint8_t *, const uint8_t *, const uint8_t *, void *);
typedef void IllegalCallback(const char *, void *);

/* Functions of coincurve's libsecp256k1 by address, with the types of its headers. */
typedef struct {
    void *context; /* NULL until Python has passed the addresses */
    int (*ecdh)(const void *, uint8_t *, const PublicKey *, const uint8_t *, HashFunction *, void *);
    int (*parse)(const void *, PublicKey *, const uint8_t *, size_t);
    int (*create)(const void *, PublicKey *, const uint8_t *);
    int (*serialize)(const void *, uint8_t *, size_t *, const PublicKey *, unsigned);
    int (*parse_signature)(const void *, RecoverableSignature *, const uint8_t *, int);
    int (*recover)(const void *, PublicKey *, const RecoverableSignature *, const uint8_t *);
    void (*set_illegal_callback)(void *, IllegalCallback *, const void *);
    PyObject *owner;     /* the Python object that owns the context */
    const char *illegal; /* the library's message about a refused argument, until it is raised */
} Curve;

/* -- tally.c -------------------------------------------------------------------------------------------------------- */

enum {
    CODES = 256 /* a message code is one byte */
};

/* Counts the messages that nobody reads, see tally.py. */
typedef struct {
    PyObject_HEAD
    Py_buffer counters; /* by code: messages, then the bytes of their contents */
    /* By code, the bounds of the messages that it takes: none if the first one is 0. */
    uint32_t frame_limits[CODES], limits[CODES];
} Tally;

/* Take the content of a frame and count it; 0 if the receiver must look at it. */
int tally_takes(Tally *tally, const uint8_t *content, size_t size);

/* The state of one module object. Two module objects share nothing but libcrypto's addresses. */
typedef struct {
    PyObject *frame_error, *oversized_frame_error, *usage_error, *rlp_error, *snappy_error; /* of protocol/errors.py */
    /* Reused contexts, because setting one up takes longer than its work. Every call holds Python's lock. */
    EVP_MD_CTX *digest;
    EVP_CIPHER_CTX *ecies;
    PyTypeObject *tally_type;
    Curve curve;
} ModuleState;

static inline ModuleState *state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

/* The functions and the types of the module, with their docstrings. */
extern PyType_Spec frame_cipher_spec;                              /* frames.c */
extern PyType_Spec tally_spec;                                     /* tally.c */
extern const char ecies_encrypt_doc[], ecies_decrypt_doc[];        /* ecies.c */
extern const char curve_doc[], keccak256_doc[], xor_doc[];         /* crypto.c */
extern const char rlp_bounds_doc[], rlp_read_doc[];                /* rlp.c */
extern const char inflate_doc[];                                   /* snappy.c */
PyObject *native_ecies_encrypt(PyObject *module, PyObject *arguments);
PyObject *native_ecies_decrypt(PyObject *module, PyObject *arguments);
PyObject *native_curve(PyObject *module, PyObject *arguments);
/* libsecp256k1 outlives the module and must not call it afterwards. */
void forget_curve(Curve *curve);
PyObject *native_keccak256(PyObject *module, PyObject *argument);
PyObject *native_xor(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *native_inflate(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *native_rlp_bounds(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *native_rlp_read(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

#endif
