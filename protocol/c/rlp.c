/* The decoder of rlp.py. */

#include "native.h"

/* As in rlp.py. */
enum { SHORT_STRING = 0x80, SHORT_LIST = 0xC0, SHORT_MAX_BYTES = 55, MAX_DEPTH = 16 };

typedef struct {
    int is_list;
    Py_ssize_t payload, end;
} Bounds;

/* The input, and the error to raise if it is malformed. */
typedef struct {
    const uint8_t *data;
    PyObject *error;
} Source;

static int refuse_rlp(Source source, const char *words)
{
    PyErr_SetString(source.error, words);
    return -1;
}

static int find_bounds(Source source, Py_ssize_t start, Py_ssize_t limit, Bounds *found)
{
    const uint8_t *data = source.data;
    if (start >= limit)
        return refuse_rlp(source, "the RLP ends early");
    const uint8_t first = data[start];
    if (first < SHORT_STRING) {
        *found = (Bounds){0, start, start + 1};
        return 0;
    }
    found->is_list = first >= SHORT_LIST;
    uint64_t length = first - (found->is_list ? SHORT_LIST : SHORT_STRING);
    Py_ssize_t payload = start + 1;
    if (length > SHORT_MAX_BYTES) {
        payload += (Py_ssize_t)(length - SHORT_MAX_BYTES);
        if (payload > limit)
            return refuse_rlp(source, "the RLP ends early");
        length = 0;
        for (Py_ssize_t at = start + 1; at < payload; at++)
            length = length << 8 | data[at];
        if (length <= SHORT_MAX_BYTES || data[start + 1] == 0)
            return refuse_rlp(source, "a length that is not written in its shortest form");
    }
    if (length > (uint64_t)(limit - payload))
        return refuse_rlp(source, "the RLP ends early");
    if (!found->is_list && length == 1 && data[payload] < SHORT_STRING)
        return refuse_rlp(source, "a byte that is not written in its shortest form");
    found->payload = payload;
    found->end = payload + (Py_ssize_t)length;
    return 0;
}

static PyObject *read_item(Source source, Py_ssize_t start, Py_ssize_t limit, int depth, Py_ssize_t *left,
                           Py_ssize_t *end)
{
    Bounds found;
    if (--*left < 0) {
        refuse_rlp(source, "more RLP items than fit the message");
        return NULL;
    }
    if (find_bounds(source, start, limit, &found))
        return NULL;
    *end = found.end;
    if (!found.is_list)
        return PyBytes_FromStringAndSize((const char *)source.data + found.payload, found.end - found.payload);
    if (depth > MAX_DEPTH) {
        refuse_rlp(source, "RLP lists nested too deep");
        return NULL;
    }
    PyObject *items = PyList_New(0);
    for (Py_ssize_t at = found.payload; items != NULL && at < found.end;) {
        PyObject *item = read_item(source, at, found.end, depth + 1, left, &at);
        if (item == NULL || PyList_Append(items, item))
            Py_CLEAR(items);
        Py_XDECREF(item);
    }
    return items;
}

const char rlp_bounds_doc[] = "rlp_bounds(data, start, limit, /)\n--\n\n"
                              "Whether the item at `start` is a list, and where its payload begins and ends. See rlp.py.";

PyObject *native_rlp_bounds(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Bounds found;
    if (count != 3 || !PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "rlp_bounds takes bytes, a start and a limit");
        return NULL;
    }
    const Py_ssize_t start = PyLong_AsSsize_t(arguments[1]);
    if (start == -1 && PyErr_Occurred())
        return NULL;
    const Py_ssize_t limit = PyLong_AsSsize_t(arguments[2]);
    if (limit == -1 && PyErr_Occurred())
        return NULL;
    if (start < 0 || limit > PyBytes_GET_SIZE(arguments[0])) {
        PyErr_SetString(PyExc_IndexError, "start and limit are not in the data");
        return NULL;
    }
    const Source source = {(const uint8_t *)PyBytes_AS_STRING(arguments[0]), state_of(module)->rlp_error};
    if (find_bounds(source, start, limit, &found))
        return NULL;
    return Py_BuildValue("Onn", found.is_list ? Py_True : Py_False, found.payload, found.end);
}

const char rlp_read_doc[] = "rlp_read(data, max_items, /)\n--\n\n"
                            "The first item, and where it ends. See rlp.py.";

PyObject *native_rlp_read(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t end;
    if (count != 2 || !PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "rlp_read takes bytes and the most items");
        return NULL;
    }
    Py_ssize_t left = PyLong_AsSsize_t(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    const Source source = {(const uint8_t *)PyBytes_AS_STRING(arguments[0]), state_of(module)->rlp_error};
    PyObject *item = read_item(source, 0, PyBytes_GET_SIZE(arguments[0]), 1, &left, &end);
    return item == NULL ? NULL : Py_BuildValue("Nn", item, end);
}
