/* AES and SHA-256 of OpenSSL: of the libcrypto that Python's own hashlib uses, or else the machine's, found when the module is
 * loaded, since a machine need not have its headers.
 */

#include "native.h"

#include <dlfcn.h>

typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;

static EVP_CIPHER_CTX *(*context_new)(void);
static void (*context_free)(EVP_CIPHER_CTX *);
static int (*encrypt_init)(EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const uint8_t *, const uint8_t *);
static int (*encrypt_update)(EVP_CIPHER_CTX *, uint8_t *, int *, const uint8_t *, int);
const EVP_CIPHER *aes_128_ctr, *aes_256_ctr, *aes_256_ecb;
static EVP_MD_CTX *(*digest_new)(void);
static int (*digest_init)(EVP_MD_CTX *, const EVP_MD *, void *);
static int (*digest_update)(EVP_MD_CTX *, const void *, size_t);
static int (*digest_final)(EVP_MD_CTX *, uint8_t *, unsigned *);
static int (*compare)(const void *, const void *, size_t);
static const EVP_MD *sha_256;
/* Always the same one: every call holds Python's lock. */
static EVP_MD_CTX *digest_context;

/* A cipher or a digest. From OpenSSL 3 on one that was fetched once saves looking it up in every context. */
static const void *load_algorithm(void *library, const char *fetcher, const char *name, const char *getter)
{
    void *(*fetch)(void *, const char *, const char *);
    const void *(*get)(void);
    fetch = (__typeof__(fetch))dlsym(library, fetcher);
    if (fetch != NULL)
        return fetch(NULL, name, NULL);
    get = (__typeof__(get))dlsym(library, getter);
    return get == NULL ? NULL : get();
}

int load_libcrypto(void)
{
    static const char *const NAMES[] = {"libcrypto.so.3", "libcrypto.so.1.1", NULL};
    void *library = NULL;
    /* It brings the libcrypto that Python was made with: then that is the one of the name. */
    PyObject *hashlib = PyImport_ImportModule("_hashlib");
    Py_XDECREF(hashlib);
    PyErr_Clear();
    for (const char *const *name = NAMES; library == NULL && *name != NULL; name++)
        library = dlopen(*name, RTLD_NOW | RTLD_LOCAL);
    if (library != NULL) {
        context_new = (__typeof__(context_new))dlsym(library, "EVP_CIPHER_CTX_new");
        context_free = (__typeof__(context_free))dlsym(library, "EVP_CIPHER_CTX_free");
        encrypt_init = (__typeof__(encrypt_init))dlsym(library, "EVP_EncryptInit_ex");
        encrypt_update = (__typeof__(encrypt_update))dlsym(library, "EVP_EncryptUpdate");
        digest_new = (__typeof__(digest_new))dlsym(library, "EVP_MD_CTX_new");
        digest_init = (__typeof__(digest_init))dlsym(library, "EVP_DigestInit_ex");
        digest_update = (__typeof__(digest_update))dlsym(library, "EVP_DigestUpdate");
        digest_final = (__typeof__(digest_final))dlsym(library, "EVP_DigestFinal_ex");
        compare = (__typeof__(compare))dlsym(library, "CRYPTO_memcmp");
        aes_128_ctr = load_algorithm(library, "EVP_CIPHER_fetch", "AES-128-CTR", "EVP_aes_128_ctr");
        aes_256_ctr = load_algorithm(library, "EVP_CIPHER_fetch", "AES-256-CTR", "EVP_aes_256_ctr");
        aes_256_ecb = load_algorithm(library, "EVP_CIPHER_fetch", "AES-256-ECB", "EVP_aes_256_ecb");
        sha_256 = load_algorithm(library, "EVP_MD_fetch", "SHA2-256", "EVP_sha256");
        digest_context = digest_new == NULL ? NULL : digest_new();
        if (context_new && context_free && encrypt_init && encrypt_update && digest_init && digest_update && digest_final &&
            compare && aes_128_ctr && aes_256_ctr && aes_256_ecb && sha_256 && digest_context)
            return 0;
    }
    PyErr_SetString(PyExc_ImportError, "no libcrypto of OpenSSL 1.1 or 3 to take AES and SHA-256 from");
    return -1;
}

EVP_CIPHER_CTX *new_context(const EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *counter)
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

int restart_context(EVP_CIPHER_CTX *context, const uint8_t *key, const uint8_t *counter)
{
    if (encrypt_init(context, NULL, NULL, key, counter))
        return 0;
    PyErr_SetString(PyExc_SystemError, "AES of libcrypto failed");
    return -1;
}

void free_context(EVP_CIPHER_CTX *context)
{
    context_free(context);
}

/* At most a frame goes in, whose size an int holds. */
int run_cipher(EVP_CIPHER_CTX *context, uint8_t *out, const uint8_t *in, size_t size)
{
    int written;
    if (size == 0 || (encrypt_update(context, out, &written, in, (int)size) && written == (int)size))
        return 0;
    PyErr_SetString(PyExc_SystemError, "AES of libcrypto failed");
    return -1;
}

int sha256(const void *first, size_t first_bytes, const void *second, size_t second_bytes, uint8_t *digest)
{
    if (digest_init(digest_context, sha_256, NULL) && digest_update(digest_context, first, first_bytes) &&
        digest_update(digest_context, second, second_bytes) && digest_final(digest_context, digest, NULL))
        return 0;
    PyErr_SetString(PyExc_SystemError, "SHA-256 of libcrypto failed");
    return -1;
}

int hmac_sha256(const uint8_t *key, const void *first, size_t first_bytes, const void *second, size_t second_bytes,
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

int differ(const uint8_t *left, const uint8_t *right, size_t size)
{
    return compare(left, right, size) != 0;
}
