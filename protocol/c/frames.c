/* The frame cipher of frames.py. */

#include "native.h"

#include <stddef.h>
#include <structmember.h>

enum {
    HEADER_BYTES = 2 * BLOCK_BYTES, /* header ciphertext and its MAC */
    MAX_FIRST_FRAME_BYTES = 2048,   /* see frames.py */
    FIRST_CONTENT_BYTES = 64 * 1024 /* a header alone makes nobody set aside more than this */
};

/* One direction: its keystream, its MAC, and the digest that the next header starts from. */
typedef struct {
    EVP_CIPHER_CTX *stream;
    Keccak mac;
    uint8_t digest[BLOCK_BYTES];
} Direction;

/* What is awaited of the peer, and how much of it has arrived in each. */
enum Stage {
    HEADER, /* HEADER_BYTES, kept in `held`: they are checked whole */
    BODY,   /* the content and its padding: absorbed and decrypted into `content` as they come */
    TAG,    /* BLOCK_BYTES, kept in `held` */
    BROKEN, /* nothing: a frame was refused, or memory ran out */
};

typedef struct {
    PyObject_HEAD
    Direction egress, ingress;
    EVP_CIPHER_CTX *mac_cipher;
    /* What was fed and is not looked at yet, from `at` to `size`: in a chunk as it came, or in a copy that grows. */
    PyObject *chunk;
    uint8_t *copy;
    size_t at, size, room;
    enum Stage stage;
    size_t arrived;
    uint8_t held[HEADER_BYTES];
    PyObject *content; /* in BODY and TAG; it grows with what arrives, up to `content_bytes` */
    size_t content_bytes;
    Py_ssize_t buffered_bytes, limit_bytes;
} FrameCipher;

static int begin_direction(Direction *way, const uint8_t *aes, const char *seed, Py_ssize_t seed_bytes)
{
    static const uint8_t ZERO_COUNTER[BLOCK_BYTES];
    way->stream = new_context(aes_256_ctr, aes, ZERO_COUNTER);
    if (way->stream == NULL)
        return -1;
    absorb(&way->mac, (const uint8_t *)seed, (size_t)seed_bytes);
    digest_so_far(&way->mac, way->digest, BLOCK_BYTES);
    return 0;
}

static PyObject *cipher_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    const char *aes, *mac, *egress, *ingress;
    Py_ssize_t aes_bytes, mac_bytes, egress_bytes, ingress_bytes;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "FrameCipher takes the secrets and no keywords");
        return NULL;
    }
    /* A tuple: it keeps its items while they are looked at. */
    PyObject *secrets;
    if (!PyArg_ParseTuple(arguments, "O!:FrameCipher", &PyTuple_Type, &secrets) ||
        !PyArg_ParseTuple(secrets, "y#y#y#y#;the secrets are four byte strings", &aes, &aes_bytes, &mac, &mac_bytes, &egress,
                          &egress_bytes, &ingress, &ingress_bytes))
        return NULL;
    if (aes_bytes != SECRET_BYTES || mac_bytes != SECRET_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the secrets of AES and MAC have 32 bytes");
        return NULL;
    }
    FrameCipher *self = (FrameCipher *)type->tp_alloc(type, 0); /* all zeros */
    if (self == NULL)
        return NULL;
    self->limit_bytes = MAX_FIRST_FRAME_BYTES;
    self->mac_cipher = new_context(aes_256_ecb, (const uint8_t *)mac, NULL);
    if (self->mac_cipher == NULL || begin_direction(&self->egress, (const uint8_t *)aes, egress, egress_bytes) ||
        begin_direction(&self->ingress, (const uint8_t *)aes, ingress, ingress_bytes)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void drop_fed(FrameCipher *self)
{
    Py_CLEAR(self->chunk);
    PyMem_Free(self->copy);
    self->copy = NULL;
    self->at = self->size = self->room = 0;
}

static void cipher_dealloc(FrameCipher *self)
{
    PyTypeObject *type = Py_TYPE(self);
    drop_fed(self);
    Py_XDECREF(self->content);
    free_context(self->mac_cipher);
    free_context(self->egress.stream);
    free_context(self->ingress.stream);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static void xor_block(uint8_t *into, const uint8_t *with)
{
    for (int at = 0; at < BLOCK_BYTES; at++)
        into[at] ^= with[at];
}

/* The MAC's step for a header or for a body's own digest: absorb AES(digest) ^ seed, give the new digest. */
static int step_mac(FrameCipher *self, Keccak *mac, const uint8_t *digest, const uint8_t *seed, uint8_t *tag)
{
    uint8_t block[BLOCK_BYTES];
    if (run_cipher(self->mac_cipher, block, digest, BLOCK_BYTES))
        return -1;
    xor_block(block, seed);
    absorb(mac, block, BLOCK_BYTES);
    digest_so_far(mac, tag, BLOCK_BYTES);
    return 0;
}

static int step_body_mac(FrameCipher *self, Keccak *mac, uint8_t *tag)
{
    uint8_t digest[BLOCK_BYTES];
    digest_so_far(mac, digest, BLOCK_BYTES);
    return step_mac(self, mac, digest, digest, tag);
}

static PyObject *cipher_seal(FrameCipher *self, PyObject *argument)
{
    Direction *way = &self->egress;
    Py_buffer content;
    if (PyObject_GetBuffer(argument, &content, PyBUF_SIMPLE))
        return NULL;
    PyObject *frame = NULL;
    if (content.len > MAX_FRAME_BYTES) {
        PyErr_Format(usage_error, "a message of %zd bytes is over the %d of a frame", content.len, MAX_FRAME_BYTES);
        goto done;
    }
    size_t size = (size_t)content.len, padding = -size % BLOCK_BYTES;
    frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(HEADER_BYTES + size + padding + BLOCK_BYTES));
    if (frame == NULL)
        goto done;
    uint8_t *header = (uint8_t *)PyBytes_AS_STRING(frame), *body = header + HEADER_BYTES;
    /* Header data [capability-id, context-id], both always zero, and zeros up to a whole block. */
    const uint8_t plain[BLOCK_BYTES] = {(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, 0xc2, 0x80, 0x80};
    static const uint8_t ZEROS[BLOCK_BYTES];
    if (run_cipher(way->stream, header, plain, BLOCK_BYTES) ||
        step_mac(self, &way->mac, way->digest, header, header + BLOCK_BYTES) ||
        run_cipher(way->stream, body, content.buf, size) || run_cipher(way->stream, body + size, ZEROS, padding)) {
        Py_CLEAR(frame);
        goto done;
    }
    absorb(&way->mac, body, size + padding);
    if (step_body_mac(self, &way->mac, way->digest))
        Py_CLEAR(frame);
    else
        memcpy(body + size + padding, way->digest, BLOCK_BYTES);
done:
    PyBuffer_Release(&content);
    return frame;
}

/* Room for so many more bytes behind those that wait, in a copy of them. */
static int make_room(FrameCipher *self, size_t more)
{
    const size_t waiting = self->size - self->at;
    if (self->copy == NULL) {
        uint8_t *copy = PyMem_Malloc(waiting + more);
        if (copy == NULL)
            return -1;
        memcpy(copy, PyBytes_AS_STRING(self->chunk) + self->at, waiting);
        drop_fed(self);
        self->copy = copy;
        self->room = waiting + more;
    } else {
        memmove(self->copy, self->copy + self->at, waiting);
        if (self->room - waiting < more) {
            /* An eighth in reserve: pieces of any size are copied a few times each. */
            const size_t room = (waiting + more) + (waiting + more) / 8;
            uint8_t *copy = PyMem_Realloc(self->copy, room);
            if (copy == NULL)
                return -1;
            self->copy = copy;
            self->room = room;
        }
    }
    self->at = 0;
    self->size = waiting;
    return 0;
}

static PyObject *cipher_feed(FrameCipher *self, PyObject *data)
{
    if (!PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "a chunk is bytes");
        return NULL;
    }
    if (self->stage == BROKEN)
        Py_RETURN_NONE;
    const size_t more = (size_t)PyBytes_GET_SIZE(data);
    if (self->at == self->size) {
        drop_fed(self);
        Py_INCREF(data);
        self->chunk = data;
        self->size = more;
    } else {
        /* The caller has stopped in between: what comes is joined to what waits. */
        if ((self->copy == NULL || self->room - self->size < more) && make_room(self, more))
            return PyErr_NoMemory();
        memcpy(self->copy + self->size, PyBytes_AS_STRING(data), more);
        self->size += more;
    }
    self->buffered_bytes += (Py_ssize_t)more;
    Py_RETURN_NONE;
}

/* Up to `wanted` bytes of what was fed, which count as arrived: where they stand, and how many. */
static size_t take(FrameCipher *self, size_t wanted, const uint8_t **from)
{
    const uint8_t *fed = self->copy != NULL ? self->copy : (const uint8_t *)PyBytes_AS_STRING(self->chunk);
    const size_t waiting = self->size - self->at, taken = wanted < waiting ? wanted : waiting;
    *from = fed + self->at;
    self->at += taken;
    self->arrived += taken;
    return taken;
}

/* Fill `held` up to `wanted`; whether it is full. */
static int hold(FrameCipher *self, size_t wanted)
{
    const uint8_t *piece;
    const size_t start = self->arrived, taken = take(self, wanted - start, &piece);
    memcpy(self->held + start, piece, taken);
    return self->arrived == wanted;
}

static void await(FrameCipher *self, enum Stage stage)
{
    self->stage = stage;
    self->arrived = 0;
}

/* Check and decrypt a whole header, and make room for the content that follows it. */
static int open_header(FrameCipher *self)
{
    Direction *ingress = &self->ingress;
    uint8_t tag[BLOCK_BYTES], plain[BLOCK_BYTES];
    if (step_mac(self, &ingress->mac, ingress->digest, self->held, tag))
        return -1;
    if (differ(tag, self->held + BLOCK_BYTES, BLOCK_BYTES)) {
        PyErr_SetString(frame_error, "a frame header whose MAC differs");
        return -1;
    }
    if (run_cipher(ingress->stream, plain, self->held, BLOCK_BYTES))
        return -1;
    const size_t size = (size_t)plain[0] << 16 | (size_t)plain[1] << 8 | plain[2];
    if ((Py_ssize_t)size > self->limit_bytes) {
        PyErr_Format(oversized_frame_error, "a frame of %zu bytes where %zd are allowed", size, self->limit_bytes);
        return -1;
    }
    self->content = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(size < FIRST_CONTENT_BYTES ? size : FIRST_CONTENT_BYTES));
    if (self->content == NULL)
        return -1;
    self->content_bytes = size;
    self->buffered_bytes -= HEADER_BYTES;
    await(self, size ? BODY : TAG);
    return 0;
}

/* Make the content long enough for so many bytes of it. */
static int grow_content(FrameCipher *self, size_t wanted)
{
    size_t room = (size_t)PyBytes_GET_SIZE(self->content);
    if (wanted <= room)
        return 0;
    while (room < wanted)
        room *= 2;
    if (room > self->content_bytes)
        room = self->content_bytes;
    return _PyBytes_Resize(&self->content, (Py_ssize_t)room); /* where it fails, `content` is NULL */
}

static size_t padded_bytes(const FrameCipher *self)
{
    return self->content_bytes + -self->content_bytes % BLOCK_BYTES;
}

/* Absorb and decrypt what has come of a body and its padding. */
static int open_body_piece(FrameCipher *self)
{
    const uint8_t *piece;
    uint8_t padding[BLOCK_BYTES];
    const size_t start = self->arrived, size = take(self, padded_bytes(self) - start, &piece);
    size_t text = start < self->content_bytes ? self->content_bytes - start : 0;
    if (text > size)
        text = size;
    if (grow_content(self, start + text))
        return -1;
    absorb(&self->ingress.mac, piece, size);
    if (run_cipher(self->ingress.stream, (uint8_t *)PyBytes_AS_STRING(self->content) + start, piece, text))
        return -1;
    if (run_cipher(self->ingress.stream, padding, piece + text, size - text))
        return -1;
    if (self->arrived == padded_bytes(self))
        await(self, TAG);
    return 0;
}

/* Check a body's MAC: its content, or NULL with an error. */
static PyObject *close_body(FrameCipher *self)
{
    uint8_t tag[BLOCK_BYTES];
    if (step_body_mac(self, &self->ingress.mac, tag))
        return NULL;
    if (differ(tag, self->held, BLOCK_BYTES)) {
        PyErr_SetString(frame_error, "a frame body whose MAC differs");
        return NULL;
    }
    PyObject *content = self->content;
    memcpy(self->ingress.digest, tag, BLOCK_BYTES);
    self->buffered_bytes -= (Py_ssize_t)(padded_bytes(self) + BLOCK_BYTES);
    self->content = NULL;
    await(self, HEADER);
    return content;
}

/* The next content; NULL with an error, or without where nothing whole waits. */
static PyObject *open_next(FrameCipher *self)
{
    while (self->at < self->size) {
        if (self->stage == HEADER) {
            if (hold(self, HEADER_BYTES) && open_header(self))
                return NULL;
        } else if (self->stage == BODY) {
            if (open_body_piece(self))
                return NULL;
        } else if (hold(self, BLOCK_BYTES)) {
            return close_body(self);
        }
    }
    return NULL;
}

static PyObject *cipher_next(FrameCipher *self)
{
    if (self->stage == BROKEN) {
        PyErr_SetString(frame_error, "a frame after one that was refused");
        return NULL;
    }
    PyObject *content = open_next(self);
    if (content != NULL)
        return content;
    drop_fed(self);
    if (PyErr_Occurred()) {
        await(self, BROKEN);
        Py_CLEAR(self->content);
        self->buffered_bytes = 0;
    }
    return NULL;
}

static PyObject *cipher_frames(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    Py_INCREF(self);
    return self;
}

static PyMethodDef cipher_methods[] = {
    {"seal", (PyCFunction)cipher_seal, METH_O, NULL},
    {"feed", (PyCFunction)cipher_feed, METH_O, NULL},
    {"frames", cipher_frames, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef cipher_members[] = {
    {"buffered_bytes", T_PYSSIZET, offsetof(FrameCipher, buffered_bytes), READONLY, NULL},
    {"limit_bytes", T_PYSSIZET, offsetof(FrameCipher, limit_bytes), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot cipher_slots[] = {
    {Py_tp_doc, "See frames.py."},
    {Py_tp_new, cipher_new},
    {Py_tp_dealloc, cipher_dealloc},
    {Py_tp_methods, cipher_methods},
    {Py_tp_members, cipher_members},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, cipher_next},
    {0, NULL},
};

PyType_Spec frame_cipher_spec = {
    .name = "protocol._native.FrameCipher",
    .basicsize = sizeof(FrameCipher),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = cipher_slots,
};
