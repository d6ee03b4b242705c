/* The curve and the digests of crypto.py. The curve is coincurve's libsecp256k1: its functions are called by their
 * addresses, without cffi's objects in between.
 */

#include "native.h"

enum {
    ID_BYTES = 64,
    POINT_BYTES = 65, /* 0x04, x, y */
    UNCOMPRESSED = 2, /* SECP256K1_EC_UNCOMPRESSED */
    MAX_RECOVERY_ID = 3
};

/* libsecp256k1 calls this if it refuses an argument; without it the process would abort. The result of the function is
 * meaningless then: secp256k1_ecdh continues with a point of zeros and returns 1.
 */
static void note_illegal(const char *text, void *curve)
{
    ((Curve *)curve)->illegal = text;
}

/* The curve for the next call. A refusal that another user of the context has caused is cleared, not raised. */
static Curve *curve_of(ModuleState *state)
{
    state->curve.illegal = NULL;
    return &state->curve;
}

/* Raise an error if the library has refused an argument; returns whether it has. */
static int raise_illegal(ModuleState *state)
{
    const char *text = state->curve.illegal;
    if (text == NULL)
        return 0;
    PyErr_Format(state->usage_error, "libsecp256k1 refuses an argument: %s", text);
    return 1;
}

/* A tuple of a point in libsecp256k1's representation and its 64 bytes x, y. */
static PyObject *point_and_id(ModuleState *state, const PublicKey *point)
{
    uint8_t serialized[POINT_BYTES];
    size_t size = sizeof serialized;
    Curve *curve = curve_of(state);
    curve->serialize(curve->context, serialized, &size, point, UNCOMPRESSED);
    if (raise_illegal(state))
        return NULL;
    return Py_BuildValue("y#y#", (const char *)point->opaque, (Py_ssize_t)sizeof point->opaque, (const char *)serialized + 1,
                         (Py_ssize_t)ID_BYTES);
}

/* The result of a function that has found no point: None, or NULL if the library has refused an argument. */
static PyObject *no_point(ModuleState *state)
{
    if (raise_illegal(state))
        return NULL;
    Py_RETURN_NONE;
}

/* The bytes of an argument that must have this size. */
static const uint8_t *bytes_of(PyObject *argument, Py_ssize_t size)
{
    if (!PyBytes_Check(argument) || PyBytes_GET_SIZE(argument) != size) {
        PyErr_Format(PyExc_ValueError, "%zd bytes belong here", size);
        return NULL;
    }
    return (const uint8_t *)PyBytes_AS_STRING(argument);
}

static const char curve_parse_doc[] = "curve_parse(node_id, /)\n--\n\n"
                                      "The point of 64 bytes x, y, or None if it is not on the curve.";

static PyObject *native_parse(PyObject *module, PyObject *argument)
{
    ModuleState *state = state_of(module);
    Curve *curve = curve_of(state);
    const uint8_t *id = bytes_of(argument, ID_BYTES);
    uint8_t serialized[POINT_BYTES] = {0x04};
    PublicKey point;
    if (id == NULL)
        return NULL;
    memcpy(serialized + 1, id, ID_BYTES);
    if (!curve->parse(curve->context, &point, serialized, sizeof serialized))
        return no_point(state);
    return PyBytes_FromStringAndSize((const char *)point.opaque, sizeof point.opaque);
}

static const char curve_create_doc[] = "curve_create(secret, /)\n--\n\n"
                                       "The point and the id of a 32-byte secret, or None if it is not valid.";

static PyObject *native_create(PyObject *module, PyObject *argument)
{
    ModuleState *state = state_of(module);
    Curve *curve = curve_of(state);
    const uint8_t *secret = bytes_of(argument, SECRET_BYTES);
    PublicKey point;
    if (secret == NULL)
        return NULL;
    if (!curve->create(curve->context, &point, secret))
        return no_point(state);
    return point_and_id(state, &point);
}

static int raw_x(uint8_t *output, const uint8_t *x, const uint8_t *Py_UNUSED(y), void *Py_UNUSED(data))
{
    memcpy(output, x, SECRET_BYTES);
    return 1;
}

static const char curve_ecdh_doc[] = "curve_ecdh(point, secret, /)\n--\n\n"
                                     "The x coordinate of the shared point, 32 bytes, in constant time.";

static PyObject *native_ecdh(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    ModuleState *state = state_of(module);
    Curve *curve = curve_of(state);
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
    PyObject *result = NULL;
    const int is_made = curve->ecdh(curve->context, shared, &point, secret, raw_x, NULL);
    if (!raise_illegal(state)) {
        if (is_made)
            result = PyBytes_FromStringAndSize((const char *)shared, SECRET_BYTES);
        else
            PyErr_SetString(state->usage_error, "not a valid secret");
    }
    wipe(shared, sizeof shared);
    return result;
}

static const char curve_recover_doc[] =
    "curve_recover(digest, signature, /)\n--\n\n"
    "The point and the id of the key that made a signature of 65 bytes, or None if there is none.";

static PyObject *native_recover(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    ModuleState *state = state_of(module);
    Curve *curve = curve_of(state);
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
        !curve->parse_signature(curve->context, &parsed, signature, signature[ID_BYTES]) ||
        !curve->recover(curve->context, &point, &parsed, digest))
        return no_point(state);
    return point_and_id(state, &point);
}

void forget_curve(Curve *curve)
{
    if (curve->context != NULL)
        curve->set_illegal_callback(curve->context, NULL, NULL);
    curve->context = NULL;
    Py_CLEAR(curve->owner);
}

const char curve_doc[] = "curve(owner, context, ecdh, parse, create, serialize, parse_signature, recover, set_illegal_callback, /)\n"
                         "--\n\n"
                         "Return functions that call libsecp256k1 by the addresses of its context and functions:\n"
                         "curve_parse, curve_create, curve_ecdh and curve_recover.";

PyObject *native_curve(PyObject *module, PyObject *arguments)
{
    static PyMethodDef functions[] = {
        {"curve_parse", native_parse, METH_O, curve_parse_doc},
        {"curve_create", native_create, METH_O, curve_create_doc},
        {"curve_ecdh", (PyCFunction)(void (*)(void))native_ecdh, METH_FASTCALL, curve_ecdh_doc},
        {"curve_recover", (PyCFunction)(void (*)(void))native_recover, METH_FASTCALL, curve_recover_doc},
    };
    unsigned long long at[8];
    PyObject *owner;
    if (!PyArg_ParseTuple(arguments, "OKKKKKKKK:curve", &owner, at, at + 1, at + 2, at + 3, at + 4, at + 5, at + 6, at + 7))
        return NULL;
    for (size_t number = 0; number < Py_ARRAY_LENGTH(at); number++)
        if (at[number] == 0) {
            PyErr_SetString(PyExc_ValueError, "an address of libsecp256k1 is zero");
            return NULL;
        }
    Curve *curve = &state_of(module)->curve;
    forget_curve(curve);
    Py_INCREF(owner);
    *curve = (Curve){
        .owner = owner,
        .context = (void *)(uintptr_t)at[0],
        .ecdh = (__typeof__(curve->ecdh))(uintptr_t)at[1],
        .parse = (__typeof__(curve->parse))(uintptr_t)at[2],
        .create = (__typeof__(curve->create))(uintptr_t)at[3],
        .serialize = (__typeof__(curve->serialize))(uintptr_t)at[4],
        .parse_signature = (__typeof__(curve->parse_signature))(uintptr_t)at[5],
        .recover = (__typeof__(curve->recover))(uintptr_t)at[6],
        .set_illegal_callback = (__typeof__(curve->set_illegal_callback))(uintptr_t)at[7],
    };
    curve->set_illegal_callback(curve->context, note_illegal, curve);
    /* The functions hold a reference to the module, so its state lives as long as they do. */
    return Py_BuildValue("NNNN", PyCFunction_New(functions, module), PyCFunction_New(functions + 1, module),
                         PyCFunction_New(functions + 2, module), PyCFunction_New(functions + 3, module));
}

const char keccak256_doc[] = "keccak256(data, /)\n--\n\n"
                             "Keccak-256 as Ethereum uses it (the original padding, not SHA-3's).";

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
    /* The input of a handshake's digests is secret. */
    wipe(&state, sizeof state);
    return PyBytes_FromStringAndSize((const char *)digest, DIGEST_BYTES);
}

const char xor_doc[] = "xor(left, right, /)\n--\n\nExclusive or of two byte strings of one length.";

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
