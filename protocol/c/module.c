/* The module protocol._native. */

#include "native.h"

#ifndef SOURCES
#define SOURCES "unknown" /* bin/compile tells the checksum of what it compiles */
#endif

PyObject *frame_error, *oversized_frame_error, *usage_error, *rlp_error;

static PyMethodDef native_methods[] = {
    {"keccak256", native_keccak256, METH_O, NULL},
    {"xor", (PyCFunction)(void (*)(void))native_xor, METH_FASTCALL, NULL},
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
    const int is_complete = (frame_error = PyObject_GetAttrString(errors, "FrameError")) != NULL &&
                            (oversized_frame_error = PyObject_GetAttrString(errors, "OversizedFrameError")) != NULL &&
                            (usage_error = PyObject_GetAttrString(errors, "UsageError")) != NULL &&
                            (rlp_error = PyObject_GetAttrString(errors, "RlpError")) != NULL && load_libcrypto() == 0;
    Py_DECREF(errors);
    if (!is_complete)
        return NULL;
    PyObject *type = PyType_FromSpec(&frame_cipher_spec);
    module = PyModule_Create(&native_module);
    if (type == NULL || module == NULL || PyModule_AddStringConstant(module, "SOURCES", SOURCES) ||
        PyModule_AddObject(module, "FrameCipher", type)) {
        Py_XDECREF(type);
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
