/* The counters of tally.py. */

#include "native.h"

static PyObject *tally_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *counters;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Tally takes the counters and no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "O:Tally", &counters))
        return NULL;
    Tally *self = (Tally *)type->tp_alloc(type, 0); /* all zeros */
    if (self == NULL)
        return NULL;
    /* As long as this view lasts, an array cannot be resized. */
    if (PyObject_GetBuffer(counters, &self->counters, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_ND)) {
        Py_DECREF(self);
        return NULL;
    }
    const char *format = self->counters.format;
    if (format == NULL || strcmp(format, "Q") || self->counters.itemsize != sizeof(uint64_t) ||
        self->counters.len < (Py_ssize_t)(2 * CODES * sizeof(uint64_t))) {
        PyErr_SetString(PyExc_ValueError, "the counters are 64-bit integers, two for each code");
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void tally_dealloc(Tally *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyBuffer_Release(&self->counters); /* accepts a view that was never made */
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* A number from 0 to `limit`; -1 with an exception set otherwise. */
static int read_number(PyObject *from, uint64_t limit, uint32_t *number)
{
    const unsigned long long value = PyLong_AsUnsignedLongLong(from);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
    }
    if (value > limit) {
        PyErr_SetString(PyExc_ValueError, "a code is one byte, and a bound has 32 bits");
        return -1;
    }
    *number = (uint32_t)value;
    return 0;
}

static PyObject *tally_skip(Tally *self, PyObject *const *arguments, Py_ssize_t count)
{
    uint32_t code, frame_limit, limit;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "skip takes a code and two bounds");
        return NULL;
    }
    if (read_number(arguments[0], CODES - 1, &code) || read_number(arguments[1], UINT32_MAX, &frame_limit) ||
        read_number(arguments[2], UINT32_MAX, &limit))
        return NULL;
    self->frame_limits[code] = frame_limit;
    self->limits[code] = limit;
    Py_RETURN_NONE;
}

static PyObject *tally_skip_nothing(Tally *self, PyObject *Py_UNUSED(nothing))
{
    memset(self->frame_limits, 0, sizeof self->frame_limits); /* no content is as short as that */
    Py_RETURN_NONE;
}

/* Whether the bytes start with a Snappy length up to `limit`. */
static int is_inflated_within(const uint8_t *bytes, size_t size, uint32_t limit)
{
    uint64_t length = 0;
    for (size_t at = 0; at < size && at < SNAPPY_LENGTH_MAX_BYTES; at++) {
        length |= (uint64_t)(bytes[at] & 0x7F) << 7 * at;
        if (bytes[at] < 0x80)
            return length <= limit;
    }
    return 0;
}

int tally_takes(Tally *self, const uint8_t *content, size_t size)
{
    if (size == 0)
        return 0;
    const uint8_t code = content[0];
    if (size > self->frame_limits[code] || !is_inflated_within(content + 1, size - 1, self->limits[code]))
        return 0;
    uint64_t *counters = self->counters.buf;
    counters[code]++;
    counters[CODES + code] += size;
    return 1;
}

static PyObject *tally_takes_bytes(Tally *self, PyObject *content)
{
    if (!PyBytes_CheckExact(content)) {
        PyErr_SetString(PyExc_TypeError, "a content is bytes");
        return NULL;
    }
    return PyBool_FromLong(tally_takes(self, (const uint8_t *)PyBytes_AS_STRING(content), (size_t)PyBytes_GET_SIZE(content)));
}

static const char skip_doc[] = "skip($self, code, frame_limit_bytes, limit_bytes, /)\n--\n\nTake messages of this code. See tally.py.";
static const char nothing_doc[] = "skip_nothing($self, /)\n--\n\nTake no message any more.";
static const char takes_doc[] = "takes($self, content, /)\n--\n\nTake a content and count it, or return False. See tally.py.";

static PyMethodDef tally_methods[] = {
    {"skip", (PyCFunction)(void (*)(void))tally_skip, METH_FASTCALL, skip_doc},
    {"skip_nothing", (PyCFunction)tally_skip_nothing, METH_NOARGS, nothing_doc},
    {"takes", (PyCFunction)tally_takes_bytes, METH_O, takes_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tally_slots[] = {
    {Py_tp_doc, "Tally(counters, /)\n--\n\nCounters of messages by code. See tally.py."},
    {Py_tp_new, tally_new},
    {Py_tp_dealloc, tally_dealloc},
    {Py_tp_methods, tally_methods},
    {0, NULL},
};

PyType_Spec tally_spec = {
    .name = "rlpx.protocol._native.Tally",
    .basicsize = sizeof(Tally),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tally_slots,
};
