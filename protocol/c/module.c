/* The module protocol._native. */

#include "native.h"

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
    frame_error = PyObject_GetAttrString(errors, "FrameError");
    oversized_frame_error = PyObject_GetAttrString(errors, "OversizedFrameError");
    usage_error = PyObject_GetAttrString(errors, "UsageError");
    rlp_error = PyObject_GetAttrString(errors, "RlpError");
    Py_DECREF(errors);
    if (frame_error == NULL || oversized_frame_error == NULL || usage_error == NULL || rlp_error == NULL || load_libcrypto())
        return NULL;
    PyObject *type = PyType_FromSpec(&frame_cipher_spec);
    module = PyModule_Create(&native_module);
    if (type == NULL || module == NULL || PyModule_AddObject(module, "FrameCipher", type)) {
        Py_XDECREF(type);
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
