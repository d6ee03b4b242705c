/* What crypto.py does with curve and digests. The curve is coincurve's libsecp256k1, which tells where its functions are:
 * they are called without cffi's objects in between.
 */

#include "native.h"

enum {
    ID_BYTES = 64,
    POINT_BYTES = 65, /* 0x04, x, y */
    UNCOMPRESSED = 2, /* SECP256K1_EC_UNCOMPRESSED */
    MAX_RECOVERY_ID = 3
};

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
static PyObject *native_parse(PyObject *Py_UNUSED(module), PyObject *argument)
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
static PyObject *native_create(PyObject *Py_UNUSED(module), PyObject *argument)
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

static PyObject *native_ecdh(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
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
static PyObject *native_recover(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
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
PyObject *native_curve(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    static PyMethodDef functions[] = {
        {"curve_parse", native_parse, METH_O, NULL},
        {"curve_create", native_create, METH_O, NULL},
        {"curve_ecdh", (PyCFunction)(void (*)(void))native_ecdh, METH_FASTCALL, NULL},
        {"curve_recover", (PyCFunction)(void (*)(void))native_recover, METH_FASTCALL, NULL},
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

PyObject *native_keccak256(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Py_buffer data;
    Keccak state = {.at = 0};
    uint8_t digest[DIGEST_BYTES];
    if (PyObject_GetBuffer(argument, &data, PyBUF_SIMPLE))
        return NULL;
    absorb(&state, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    digest_so_far(&state, digest, DIGEST_BYTES);
    return PyBytes_FromStringAndSize((const char *)digest, DIGEST_BYTES);
}

PyObject *native_xor(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2 || !PyBytes_Check(arguments[0]) || !PyBytes_Check(arguments[1]) ||
        PyBytes_GET_SIZE(arguments[0]) != PyBytes_GET_SIZE(arguments[1])) {
        PyErr_SetString(PyExc_ValueError, "xor takes two byte strings of one length");
        return NULL;
    }
    const Py_ssize_t size = PyBytes_GET_SIZE(arguments[0]);
    PyObject *result = PyBytes_FromStringAndSize(NULL, size);
    if (result == NULL)
        return NULL;
    const char *left = PyBytes_AS_STRING(arguments[0]), *right = PyBytes_AS_STRING(arguments[1]);
    char *out = PyBytes_AS_STRING(result);
    for (Py_ssize_t at = 0; at < size; at++)
        out[at] = left[at] ^ right[at];
    return result;
}
