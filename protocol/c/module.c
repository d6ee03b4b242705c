/* The module rlpx.protocol._native: multi-phase initialisation (PEP 489), with everything it holds in its state. */

#include "native.h"

#ifndef SOURCES
#define SOURCES "unknown" /* bin/compile passes the checksum of the sources */
#endif

static int load_error(PyObject *errors, const char *name, PyObject **error)
{
    *error = PyObject_GetAttrString(errors, name);
    return *error == NULL ? -1 : 0;
}

/* A new type that is in the module; NULL with an exception set on failure. */
static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    /* CPython 3.11 sets no exception if it has no memory for the type's name. */
    if (type == NULL && !PyErr_Occurred())
        PyErr_NoMemory();
    if (type != NULL && PyModule_AddType(module, type))
        Py_CLEAR(type);
    return type;
}

static int native_exec(PyObject *module)
{
    ModuleState *state = state_of(module); /* all zeros */
    choose_absorb();
    PyObject *errors = PyImport_ImportModule("rlpx.protocol.errors");
    if (errors == NULL)
        return -1;
    const int is_incomplete = load_error(errors, "FrameError", &state->frame_error) ||
                              load_error(errors, "OversizedFrameError", &state->oversized_frame_error) ||
                              load_error(errors, "UsageError", &state->usage_error) ||
                              load_error(errors, "RlpError", &state->rlp_error) ||
                              load_error(errors, "SnappyError", &state->snappy_error);
    Py_DECREF(errors);
    if (is_incomplete || load_libcrypto() || (state->digest = new_digest()) == NULL)
        return -1;
    state->tally_type = add_type(module, &tally_spec);
    if (state->tally_type == NULL)
        return -1;
    PyTypeObject *cipher_type = add_type(module, &frame_cipher_spec);
    if (cipher_type == NULL)
        return -1;
    Py_DECREF(cipher_type);
    return PyModule_AddStringConstant(module, "SOURCES", SOURCES);
}

static int native_traverse(PyObject *module, visitproc visit, void *arg)
{
    ModuleState *state = state_of(module);
    Py_VISIT(state->frame_error);
    Py_VISIT(state->oversized_frame_error);
    Py_VISIT(state->usage_error);
    Py_VISIT(state->rlp_error);
    Py_VISIT(state->snappy_error);
    Py_VISIT(state->tally_type);
    return 0;
}

static int native_clear(PyObject *module)
{
    ModuleState *state = state_of(module);
    Py_CLEAR(state->frame_error);
    Py_CLEAR(state->oversized_frame_error);
    Py_CLEAR(state->usage_error);
    Py_CLEAR(state->rlp_error);
    Py_CLEAR(state->snappy_error);
    Py_CLEAR(state->tally_type);
    return 0;
}

static void native_free(void *module)
{
    ModuleState *state = state_of(module);
    native_clear(module);
    forget_curve(&state->curve);
    free_digest(state->digest);
    free_context(state->ecies);
    state->digest = NULL;
    state->ecies = NULL;
}

static PyMethodDef native_methods[] = {
    {"keccak256", native_keccak256, METH_O, keccak256_doc},
    {"xor", (PyCFunction)(void (*)(void))native_xor, METH_FASTCALL, xor_doc},
    {"ecies_encrypt", native_ecies_encrypt, METH_VARARGS, ecies_encrypt_doc},
    {"ecies_decrypt", native_ecies_decrypt, METH_VARARGS, ecies_decrypt_doc},
    {"curve", native_curve, METH_VARARGS, curve_doc},
    {"inflate", (PyCFunction)(void (*)(void))native_inflate, METH_FASTCALL, inflate_doc},
    {"rlp_bounds", (PyCFunction)(void (*)(void))native_rlp_bounds, METH_FASTCALL, rlp_bounds_doc},
    {"rlp_read", (PyCFunction)(void (*)(void))native_rlp_read, METH_FASTCALL, rlp_read_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot native_slots[] = {
    {Py_mod_exec, native_exec},
    {0, NULL},
};

static struct PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "rlpx.protocol._native",
    .m_doc = "The compiled twins of frames.py, tally.py, ecies.py, crypto.py, rlp.py and p2p.py; see native.py.",
    .m_size = sizeof(ModuleState),
    .m_methods = native_methods,
    .m_slots = native_slots,
    .m_traverse = native_traverse,
    .m_clear = native_clear,
    .m_free = native_free,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&native_module);
}
