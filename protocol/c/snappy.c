/* Undoing Snappy: the twin of inflate in p2p.py. */

#include "native.h"

enum {
    WORD_BYTES = 16 /* what is copied at a time where both sides have room for it */
};

/* A piece that has yet to be read. */
typedef struct {
    const uint8_t *at, *end;
} Input;

static size_t bytes_left(const Input *input)
{
    return (size_t)(input->end - input->at);
}

/* A little-endian number of `size` bytes; the caller has checked that they are there. */
static size_t read_number(Input *input, size_t size)
{
    size_t number = 0;
    for (size_t at = 0; at < size; at++)
        number |= (size_t)input->at[at] << 8 * at;
    input->at += size;
    return number;
}

/* The inflated length that a block starts with, up to `limit`; -1 if there is none, and -2 if it is over the limit. */
static Py_ssize_t read_length(Input *input, uint64_t limit, uint64_t *length)
{
    *length = 0;
    for (int at = 0; at < SNAPPY_LENGTH_MAX_BYTES && input->at < input->end; at++) {
        const uint8_t byte = *input->at++;
        *length |= (uint64_t)(byte & 0x7F) << 7 * at;
        if (byte < 0x80)
            return *length > limit ? -2 : (Py_ssize_t)*length;
    }
    return -1;
}

/* Copy in words: both sides have room for the last one. */
static void copy_words(uint8_t *to, const uint8_t *from, size_t size)
{
    for (size_t at = 0; at < size; at += WORD_BYTES)
        memcpy(to + at, from + at, WORD_BYTES);
}

/* Repeat what stands `offset` bytes before `to`, which may be less than `size`. */
static void repeat(uint8_t *to, size_t offset, size_t size, size_t room)
{
    const uint8_t *from = to - offset;
    if (offset >= WORD_BYTES && room >= size + WORD_BYTES) {
        copy_words(to, from, size);
        return;
    }
    /* The start of the copy is the pattern of the rest of it, twice as much each time. */
    size_t done = offset < size ? offset : size;
    memcpy(to, from, done);
    while (done < size) {
        const size_t more = done < size - done ? done : size - done;
        memcpy(to + done, to, more);
        done += more;
    }
}

/* Fill `out` with the elements of the input; -1 if they are not exactly that much, or no Snappy. */
static int inflate_elements(Input input, uint8_t *out, size_t out_bytes)
{
    uint8_t *to = out, *end = out + out_bytes;
    while (input.at < input.end) {
        const uint8_t tag = *input.at++;
        const size_t room = (size_t)(end - to);
        if ((tag & 3) == 0) {
            size_t size = (tag >> 2) + 1u;
            if (size > 60) {
                const size_t digits = size - 60;
                if (bytes_left(&input) < digits)
                    return -1;
                size = read_number(&input, digits) + 1;
            }
            const size_t left = bytes_left(&input);
            if (size > left || size > room)
                return -1;
            if (size <= 4 * WORD_BYTES && left >= size + WORD_BYTES && room >= size + WORD_BYTES)
                copy_words(to, input.at, size);
            else
                memcpy(to, input.at, size);
            input.at += size;
            to += size;
            continue;
        }
        static const size_t OFFSET_BYTES[] = {0, 1, 2, 4};
        const size_t digits = OFFSET_BYTES[tag & 3];
        if (bytes_left(&input) < digits)
            return -1;
        size_t offset = read_number(&input, digits), size = (tag >> 2) + 1u;
        if ((tag & 3) == 1) {
            offset |= (size_t)(tag >> 5) << 8;
            size = (tag >> 2 & 7u) + 4;
        }
        if (offset == 0 || offset > (size_t)(to - out) || size > room)
            return -1;
        repeat(to, offset, size, room);
        to += size;
    }
    return to == end ? 0 : -1;
}

PyObject *native_inflate(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *error = state_of(module)->snappy_error;
    if (count < 2 || count > 3 || !PyBytes_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "inflate takes bytes, a limit, and where to start");
        return NULL;
    }
    const Py_ssize_t limit = PyLong_AsSsize_t(arguments[1]), start = count == 3 ? PyLong_AsSsize_t(arguments[2]) : 0;
    if (PyErr_Occurred())
        return NULL;
    const Py_ssize_t size = PyBytes_GET_SIZE(arguments[0]);
    if (limit < 0 || start < 0) {
        PyErr_SetString(PyExc_ValueError, "a limit and a start are not negative");
        return NULL;
    }
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(arguments[0]);
    Input input = {data + (start < size ? start : size), data + size};
    uint64_t announced;
    const Py_ssize_t length = read_length(&input, (uint64_t)limit, &announced);
    if (length == -1) {
        PyErr_SetString(error, "a payload without a Snappy length");
        return NULL;
    }
    if (length < 0) {
        PyErr_Format(error, "a payload that says it inflates to %llu bytes where %zd are allowed", (unsigned long long)announced,
                     limit);
        return NULL;
    }
    PyObject *inflated = PyBytes_FromStringAndSize(NULL, length);
    if (inflated == NULL)
        return NULL;
    if (inflate_elements(input, (uint8_t *)PyBytes_AS_STRING(inflated), (size_t)length)) {
        Py_DECREF(inflated);
        PyErr_SetString(error, "a payload that is not Snappy");
        return NULL;
    }
    return inflated;
}

const char inflate_doc[] = "inflate(payload, limit, start=0, /)\n--\n\nUndo Snappy. See p2p.py.";
