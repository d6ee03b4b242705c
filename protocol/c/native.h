/* What the parts of the compiled module share. frames.c, ecies.c, crypto.c and rlp.c are twins of the Python files of their
 * names, with the same rules and errors, in a fraction of the time. Whoever has no C compiler runs the Python ones; tests
 * hold the two against each other.
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
    MAX_FRAME_BYTES = 0xFFFFFF /* the size field has 24 bits */
};

/* Of protocol/errors.py. */
extern PyObject *frame_error, *oversized_frame_error, *usage_error, *rlp_error;

/* -- keccak.c ------------------------------------------------------------------------------------------------------- */

/* A Keccak-256 that goes on after a digest; all zeros at first. */
typedef struct {
    uint64_t lanes[25];
    size_t at; /* where the next byte goes, below the rate */
} Keccak;

void choose_permute(void);
void absorb(Keccak *state, const uint8_t *data, size_t size);
/* The first `size` bytes of the digest of what has been absorbed so far. */
void digest_so_far(const Keccak *state, uint8_t *digest, size_t size);

/* -- libcrypto.c: those that give an int give 0, or -1 with an exception set ---------------------------------------- */

typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_cipher_st EVP_CIPHER;

extern const EVP_CIPHER *aes_128_ctr, *aes_256_ctr, *aes_256_ecb;

int load_libcrypto(void);
/* NULL with an exception set where there is none. */
EVP_CIPHER_CTX *new_context(const EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *counter);
/* The same cipher with another key. */
int restart_context(EVP_CIPHER_CTX *context, const uint8_t *key, const uint8_t *counter);
/* Wipes its key; NULL is fine. */
void free_context(EVP_CIPHER_CTX *context);
/* Encrypt or decrypt by CTR, or encrypt whole blocks by ECB: as many bytes come out as go in. */
int run_cipher(EVP_CIPHER_CTX *context, uint8_t *out, const uint8_t *in, size_t size);
/* SHA-256 of two parts, and its HMAC (RFC 2104) with a key of 32 bytes. */
int sha256(const void *first, size_t first_bytes, const void *second, size_t second_bytes, uint8_t *digest);
int hmac_sha256(const uint8_t *key, const void *first, size_t first_bytes, const void *second, size_t second_bytes,
                uint8_t *tag);
/* In constant time. */
int differ(const uint8_t *left, const uint8_t *right, size_t size);

/* -- what the module offers ----------------------------------------------------------------------------------------- */

extern PyType_Spec frame_cipher_spec;                                                    /* frames.c */
PyObject *native_ecies_encrypt(PyObject *module, PyObject *arguments);                   /* ecies.c */
PyObject *native_ecies_decrypt(PyObject *module, PyObject *arguments);
PyObject *native_curve(PyObject *module, PyObject *arguments);                           /* crypto.c */
PyObject *native_keccak256(PyObject *module, PyObject *argument);
PyObject *native_xor(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *native_rlp_bounds(PyObject *module, PyObject *const *arguments, Py_ssize_t count); /* rlp.c */
PyObject *native_rlp_read(PyObject *module, PyObject *const *arguments, Py_ssize_t count);

#endif
