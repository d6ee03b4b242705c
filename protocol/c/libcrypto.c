/* AES and SHA-256 of OpenSSL: from the libcrypto that Python's own hashlib uses, otherwise from the machine's. It is found when
 * the module is loaded, because a machine may lack its headers.
 */

#include "native.h"

#include <dlfcn.h>

typedef struct evp_md_st EVP_MD;

static EVP_CIPHER_CTX *(*context_new)(void);
static void (*context_free)(EVP_CIPHER_CTX *);
static int (*encrypt_init)(EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const uint8_t *, const uint8_t *);
static int (*encrypt_update)(EVP_CIPHER_CTX *, uint8_t *, int *, const uint8_t *, int);
const EVP_CIPHER *aes_128_ctr, *aes_256_ctr, *aes_256_ecb;
static EVP_MD_CTX *(*digest_new)(void);
static void (*digest_free)(EVP_MD_CTX *);
static int (*digest_init)(EVP_MD_CTX *, const EVP_MD *, void *);
static int (*digest_update)(EVP_MD_CTX *, const void *, size_t);
static int (*digest_final)(EVP_MD_CTX *, uint8_t *, unsigned *);
static void (*clear_errors)(void);
static int (*compare)(const void *, const void *, size_t);
static const EVP_MD *sha_256;

/* A cipher or a digest. From OpenSSL 3 on, fetching it once saves a look-up in every context. */
static const void *load_algorithm(void *library, const char *fetcher, const char *name, const char *function)
{
    void *(*fetch)(void *, const char *, const char *);
    const void *(*get)(void);
    fetch = (__typeof__(fetch))dlsym(library, fetcher);
    if (fetch != NULL)
        return fetch(NULL, name, NULL);
    get = (__typeof__(get))dlsym(library, function);
    return get == NULL ? NULL : get();
}

int load_libcrypto(void)
{
    static const char *const NAMES[] = {"libcrypto.so.3", "libcrypto.so.1.1", NULL};
    static int is_loaded;
    void *library = NULL;
    if (is_loaded)
        return 0;
    /* Importing it loads the libcrypto that Python was built with, which dlopen then finds by name. */
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
        digest_free = (__typeof__(digest_free))dlsym(library, "EVP_MD_CTX_free");
        digest_init = (__typeof__(digest_init))dlsym(library, "EVP_DigestInit_ex");
        digest_update = (__typeof__(digest_update))dlsym(library, "EVP_DigestUpdate");
        digest_final = (__typeof__(digest_final))dlsym(library, "EVP_DigestFinal_ex");
        clear_errors = (__typeof__(clear_errors))dlsym(library, "ERR_clear_error");
        compare = (__typeof__(compare))dlsym(library, "CRYPTO_memcmp");
        aes_128_ctr = load_algorithm(library, "EVP_CIPHER_fetch", "AES-128-CTR", "EVP_aes_128_ctr");
        aes_256_ctr = load_algorithm(library, "EVP_CIPHER_fetch", "AES-256-CTR", "EVP_aes_256_ctr");
        aes_256_ecb = load_algorithm(library, "EVP_CIPHER_fetch", "AES-256-ECB", "EVP_aes_256_ecb");
        sha_256 = load_algorithm(library, "EVP_MD_fetch", "SHA2-256", "EVP_sha256");
        is_loaded = context_new && context_free && encrypt_init && encrypt_update && digest_new && digest_free &&
                    digest_init && digest_update && digest_final && clear_errors && compare && aes_128_ctr && aes_256_ctr && aes_256_ecb &&
                    sha_256;
        if (is_loaded)
            return 0;
    }
    PyErr_SetString(PyExc_ImportError, "no libcrypto of OpenSSL 1.1 or 3 to take AES and SHA-256 from");
    return -1;
}

/* Clear libcrypto's error queue: another user of it, such as ssl, would take our error for its own. */
static int refuse(PyObject *error, const char *text)
{
    clear_errors();
    PyErr_SetString(error, text);
    return -1;
}

EVP_MD_CTX *new_digest(void)
{
    EVP_MD_CTX *digest = digest_new();
    if (digest == NULL)
        refuse(PyExc_MemoryError, "libcrypto has no memory for a context");
    return digest;
}

void free_digest(EVP_MD_CTX *digest)
{
    if (digest != NULL)
        digest_free(digest);
}

EVP_CIPHER_CTX *new_context(const EVP_CIPHER *cipher, const uint8_t *key, const uint8_t *counter)
{
    EVP_CIPHER_CTX *context = context_new();
    if (context == NULL || !encrypt_init(context, cipher, NULL, key, counter)) {
        free_context(context);
        refuse(PyExc_MemoryError, "libcrypto has no memory for a context");
        return NULL;
    }
    return context;
}

int restart_context(EVP_CIPHER_CTX *context, const uint8_t *key, const uint8_t *counter)
{
    if (encrypt_init(context, NULL, NULL, key, counter))
        return 0;
    return refuse(PyExc_SystemError, "AES of libcrypto failed");
}

void free_context(EVP_CIPHER_CTX *context)
{
    if (context != NULL)
        context_free(context);
}

/* The input is a frame at most, whose size fits an int. */
int run_cipher(EVP_CIPHER_CTX *context, uint8_t *out, const uint8_t *in, size_t size)
{
    int written;
    if (size == 0 || (encrypt_update(context, out, &written, in, (int)size) && written == (int)size))
        return 0;
    return refuse(PyExc_SystemError, "AES of libcrypto failed");
}

static int refuse_digest(void)
{
    /* This can fail only for lack of memory, which OpenSSL allocates for each digest. */
    return refuse(PyExc_MemoryError, "SHA-256 of libcrypto has no memory");
}

/* Finish what a context has begun. */
static int finish_digest(EVP_MD_CTX *context, Text first, Text second, uint8_t *digest)
{
    if (digest_update(context, first.data, first.size) && digest_update(context, second.data, second.size) &&
        digest_final(context, digest, NULL))
        return 0;
    return refuse_digest();
}

int sha256(EVP_MD_CTX *context, Text first, Text second, uint8_t *digest)
{
    return digest_init(context, sha_256, NULL) ? finish_digest(context, first, second, digest) : refuse_digest();
}

int hmac_sha256(EVP_MD_CTX *context, const uint8_t *key, Text first, Text second, uint8_t *tag)
{
    uint8_t pad[64], inner[DIGEST_BYTES];
    int result = -1;
    memset(pad, 0x36, sizeof pad);
    for (int at = 0; at < DIGEST_BYTES; at++)
        pad[at] ^= key[at];
    if (!digest_init(context, sha_256, NULL) || !digest_update(context, pad, sizeof pad)) {
        refuse_digest();
    } else if (finish_digest(context, first, second, inner) == 0) {
        for (size_t at = 0; at < sizeof pad; at++)
            pad[at] ^= 0x36 ^ 0x5c;
        result = sha256(context, (Text){pad, sizeof pad}, (Text){inner, sizeof inner}, tag);
    }
    wipe(pad, sizeof pad);
    wipe(inner, sizeof inner);
    return result;
}

int differ(const uint8_t *left, const uint8_t *right, size_t size)
{
    return compare(left, right, size) != 0;
}
