/* The symmetric half of ecies.py: `rlpx.md`, "ECIES Encryption". */

#include "native.h"

enum { MAX_TEXT_BYTES = 0xFFFFFF }; /* far beyond any packet, and an int holds it */

typedef struct {
    uint8_t encryption[BLOCK_BYTES], mac[DIGEST_BYTES];
} EciesKeys;

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
    /* Always the same one, with another key: to set one up takes longer than its work. */
    static EVP_CIPHER_CTX *context;
    if (context == NULL)
        context = new_context(aes_128_ctr, keys->encryption, iv);
    else if (restart_context(context, keys->encryption, iv))
        return -1;
    return context == NULL ? -1 : run_cipher(context, out, in, size);
}

/* Ciphertext and tag of ECIES under a shared secret. */
PyObject *native_ecies_encrypt(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *secret, *iv, *text, *mac_data;
    Py_ssize_t secret_bytes, iv_bytes, text_bytes, mac_data_bytes;
    if (!PyArg_ParseTuple(arguments, "y#y#y#y#:ecies_encrypt", &secret, &secret_bytes, &iv, &iv_bytes, &text, &text_bytes,
                          &mac_data, &mac_data_bytes))
        return NULL;
    if (iv_bytes != BLOCK_BYTES || text_bytes > MAX_TEXT_BYTES) {
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
PyObject *native_ecies_decrypt(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *secret, *sealed, *mac_data;
    Py_ssize_t secret_bytes, sealed_bytes, mac_data_bytes;
    if (!PyArg_ParseTuple(arguments, "y#y#y#:ecies_decrypt", &secret, &secret_bytes, &sealed, &sealed_bytes, &mac_data,
                          &mac_data_bytes))
        return NULL;
    if (sealed_bytes < BLOCK_BYTES + DIGEST_BYTES || sealed_bytes > MAX_TEXT_BYTES) {
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
