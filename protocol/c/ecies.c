/* The symmetric half of ecies.py: `rlpx.md`, "ECIES Encryption". */

#include "native.h"

enum { MAX_TEXT_BYTES = 0xFFFFFF }; /* far longer than any packet, and within an int */

typedef struct {
    uint8_t encryption[BLOCK_BYTES], mac[DIGEST_BYTES];
} EciesKeys;

/* See `_keys` in ecies.py. */
static int derive_ecies_keys(EVP_MD_CTX *digest, Text secret, EciesKeys *keys)
{
    static const uint8_t KDF_COUNTER[4] = {0, 0, 0, 1};
    uint8_t derived[DIGEST_BYTES];
    int result = sha256(digest, (Text){KDF_COUNTER, sizeof KDF_COUNTER}, secret, derived);
    if (result == 0) {
        memcpy(keys->encryption, derived, BLOCK_BYTES);
        result = sha256(digest, (Text){derived + BLOCK_BYTES, BLOCK_BYTES}, (Text){NULL, 0}, keys->mac);
    }
    wipe(derived, sizeof derived);
    return result;
}

static int encrypt_once(ModuleState *state, const uint8_t *key, const uint8_t *iv, Text in, uint8_t *out)
{
    static const uint8_t NO_KEY[BLOCK_BYTES];
    if (state->ecies == NULL)
        state->ecies = new_context(aes_128_ctr, key, iv);
    else if (restart_context(state->ecies, key, iv))
        return -1;
    if (state->ecies == NULL)
        return -1;
    const int result = run_cipher(state->ecies, out, in.data, in.size);
    /* The context is kept, its key is not. */
    return restart_context(state->ecies, NO_KEY, NO_KEY) ? -1 : result;
}

const char ecies_encrypt_doc[] = "ecies_encrypt(shared_secret, iv, plaintext, mac_data, /)\n--\n\n"
                                 "IV, ciphertext and tag under the shared x coordinate. See ecies.py.";

PyObject *native_ecies_encrypt(PyObject *module, PyObject *arguments)
{
    ModuleState *state = state_of(module);
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
    const Text authentic = {out, BLOCK_BYTES + (size_t)text_bytes};
    EciesKeys keys;
    memcpy(out, iv, BLOCK_BYTES);
    if (derive_ecies_keys(state->digest, (Text){secret, (size_t)secret_bytes}, &keys) ||
        encrypt_once(state, keys.encryption, out, (Text){text, (size_t)text_bytes}, ciphertext) ||
        hmac_sha256(state->digest, keys.mac, authentic, (Text){mac_data, (size_t)mac_data_bytes}, out + authentic.size))
        Py_CLEAR(sealed);
    wipe(&keys, sizeof keys);
    return sealed;
}

const char ecies_decrypt_doc[] = "ecies_decrypt(shared_secret, sealed, mac_data, /)\n--\n\n"
                                 "The plaintext of what `ecies_encrypt` gives; None where the tag is wrong. See ecies.py.";

PyObject *native_ecies_decrypt(PyObject *module, PyObject *arguments)
{
    ModuleState *state = state_of(module);
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
    const Text authentic = {in, (size_t)sealed_bytes - DIGEST_BYTES};
    const Text ciphertext = {in + BLOCK_BYTES, authentic.size - BLOCK_BYTES};
    uint8_t tag[DIGEST_BYTES];
    EciesKeys keys;
    PyObject *text = NULL;
    if (derive_ecies_keys(state->digest, (Text){secret, (size_t)secret_bytes}, &keys) == 0 &&
        hmac_sha256(state->digest, keys.mac, authentic, (Text){mac_data, (size_t)mac_data_bytes}, tag) == 0) {
        if (differ(tag, in + authentic.size, DIGEST_BYTES)) {
            Py_INCREF(Py_None);
            text = Py_None;
        } else {
            text = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)ciphertext.size);
            if (text != NULL &&
                encrypt_once(state, keys.encryption, in, ciphertext, (uint8_t *)PyBytes_AS_STRING(text)))
                Py_CLEAR(text);
        }
    }
    wipe(&keys, sizeof keys);
    return text;
}
