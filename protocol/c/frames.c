/* The frame cipher of frames.py. */

#include "native.h"

#include <stddef.h>
#include <structmember.h>

enum {
    HEADER_BYTES = 2 * BLOCK_BYTES, /* header ciphertext and its MAC */
    MAX_FIRST_FRAME_BYTES = 2048,   /* see frames.py */
    FIRST_CONTENT_BYTES = 64 * 1024 /* never allocate more than this on the strength of a header */
};

/* One direction: its keystream, its MAC, and the digest that the next header starts from. */
typedef struct {
    EVP_CIPHER_CTX *stream;
    Keccak mac;
    uint8_t digest[BLOCK_BYTES];
} Direction;

/* What the peer must send next, and how much of it has arrived. */
enum Stage {
    HEADER, /* HEADER_BYTES, kept in `held` until they are complete */
    BODY,   /* content and padding, absorbed and decrypted into `content` as they arrive */
    TAG,    /* BLOCK_BYTES, kept in `held` */
    BROKEN, /* nothing: a frame was refused or memory ran out, and this direction's keys are wiped */
};

typedef struct {
    PyObject_HEAD
    Direction egress, ingress; /* a direction without a stream is broken for good */
    EVP_CIPHER_CTX *mac_cipher;
    /* Unprocessed input, from `at` to `size`: in the chunk as it came, in our growing copy, or, during `open`, in memory of the
     * caller. */
    PyObject *chunk;
    uint8_t *copy;
    const uint8_t *lent;
    size_t at, size, room;
    enum Stage stage;
    size_t arrived;
    uint8_t held[HEADER_BYTES];
    PyObject *content; /* in BODY and TAG; grows with the received bytes, up to `content_bytes` */
    size_t content_bytes;
    Py_ssize_t buffered_bytes, limit_bytes;
    Tally *tally; /* takes messages that nobody reads; may be NULL */
    Py_ssize_t counted;
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

/* End this direction: nothing can be sealed or opened in it any more. */
static void wipe_direction(Direction *way)
{
    free_context(way->stream);
    wipe(way, sizeof *way);
}

static PyObject *cipher_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    const char *aes, *mac, *egress, *ingress;
    Py_ssize_t aes_bytes, mac_bytes, egress_bytes, ingress_bytes;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "FrameCipher takes the secrets and no keywords");
        return NULL;
    }
    /* A tuple keeps its items alive while they are read. */
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
    /* If one of these fails, `cipher_dealloc` frees and wipes the earlier ones. */
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
    self->lent = NULL;
    self->at = self->size = self->room = 0;
}

static void cipher_dealloc(FrameCipher *self)
{
    PyTypeObject *type = Py_TYPE(self);
    drop_fed(self);
    Py_XDECREF(self->content);
    Py_XDECREF(self->tally);
    free_context(self->mac_cipher);
    wipe_direction(&self->egress);
    wipe_direction(&self->ingress);
    wipe(self->held, sizeof self->held);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* If a frame cannot be opened, or memory runs out, no later frame can be opened: drop everything buffered. */
static void break_ingress(FrameCipher *self)
{
    drop_fed(self);
    Py_CLEAR(self->content);
    wipe_direction(&self->ingress);
    wipe(self->held, sizeof self->held);
    self->stage = BROKEN;
    self->arrived = 0;
    self->buffered_bytes = 0;
}

static ModuleState *state_of_cipher(FrameCipher *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

static void xor_block(uint8_t *into, const uint8_t *with)
{
    for (int at = 0; at < BLOCK_BYTES; at++)
        into[at] ^= with[at];
}

/* The MAC's step for a header or for a body's own digest: absorb AES(digest) ^ seed, return the new digest. */
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
        PyErr_Format(state_of_cipher(self)->usage_error, "a message of %zd bytes is over the %d of a frame", content.len, MAX_FRAME_BYTES);
        goto done;
    }
    if (way->stream == NULL) {
        PyErr_SetString(state_of_cipher(self)->usage_error, "a frame after one that was not sealed");
        goto done;
    }
    size_t size = (size_t)content.len, padding = -size % BLOCK_BYTES;
    frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(HEADER_BYTES + size + padding + BLOCK_BYTES));
    if (frame == NULL)
        goto broken;
    uint8_t *header = (uint8_t *)PyBytes_AS_STRING(frame), *body = header + HEADER_BYTES;
    /* Header data [capability-id, context-id], both always zero, and zeros up to a whole block. */
    const uint8_t plain[BLOCK_BYTES] = {(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, 0xc2, 0x80, 0x80};
    static const uint8_t ZEROS[BLOCK_BYTES];
    if (run_cipher(way->stream, header, plain, BLOCK_BYTES) ||
        step_mac(self, &way->mac, way->digest, header, header + BLOCK_BYTES) ||
        run_cipher(way->stream, body, content.buf, size) || run_cipher(way->stream, body + size, ZEROS, padding))
        goto broken;
    absorb(&way->mac, body, size + padding);
    if (step_body_mac(self, &way->mac, way->digest))
        goto broken;
    memcpy(body + size + padding, way->digest, BLOCK_BYTES);
    goto done;
broken:
    /* If a message is not sent, the stream must not continue without it. */
    Py_CLEAR(frame);
    wipe_direction(way);
done:
    PyBuffer_Release(&content);
    return frame;
}

static const uint8_t *input(const FrameCipher *self)
{
    if (self->copy != NULL)
        return self->copy;
    return self->lent != NULL ? self->lent : (const uint8_t *)PyBytes_AS_STRING(self->chunk);
}

/* Make room for this many more bytes behind the waiting ones, in a copy of them. */
static int make_room(FrameCipher *self, size_t more)
{
    const size_t waiting = self->size - self->at;
    if (self->copy == NULL) {
        uint8_t *copy = PyMem_Malloc(waiting + more);
        if (copy == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        memcpy(copy, input(self) + self->at, waiting);
        drop_fed(self);
        self->copy = copy;
        self->room = waiting + more;
    } else {
        memmove(self->copy, self->copy + self->at, waiting);
        if (self->room - waiting < more) {
            /* An eighth in reserve, so that each byte is copied only a few times, whatever the size of the pieces. */
            const size_t room = (waiting + more) + (waiting + more) / 8;
            uint8_t *copy = PyMem_Realloc(self->copy, room);
            if (copy == NULL) {
                PyErr_NoMemory();
                return -1;
            }
            self->copy = copy;
            self->room = room;
        }
    }
    self->at = 0;
    self->size = waiting;
    return 0;
}

/* The caller stopped before the end of the input: join this to the rest. After a failure, the stream lacks it. */
static int append(FrameCipher *self, const void *data, size_t size)
{
    if ((self->copy == NULL || self->room - self->size < size) && make_room(self, size))
        return -1;
    memcpy(self->copy + self->size, data, size);
    self->size += size;
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
    } else if (append(self, PyBytes_AS_STRING(data), more)) {
        break_ingress(self);
        return NULL;
    }
    self->buffered_bytes += (Py_ssize_t)more;
    Py_RETURN_NONE;
}

/* Take up to `wanted` bytes of the input; returns their address and number. */
static size_t take(FrameCipher *self, size_t wanted, const uint8_t **from)
{
    const uint8_t *fed = input(self);
    const size_t waiting = self->size - self->at, taken = wanted < waiting ? wanted : waiting;
    *from = fed + self->at;
    self->at += taken;
    self->arrived += taken;
    return taken;
}

/* Fill `held` up to `wanted`; returns whether it is full. */
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
        PyErr_SetString(state_of_cipher(self)->frame_error, "a frame header whose MAC differs");
        return -1;
    }
    if (run_cipher(ingress->stream, plain, self->held, BLOCK_BYTES))
        return -1;
    const size_t size = (size_t)plain[0] << 16 | (size_t)plain[1] << 8 | plain[2];
    if ((Py_ssize_t)size > self->limit_bytes) {
        PyErr_Format(state_of_cipher(self)->oversized_frame_error, "a frame of %zu bytes where %zd are allowed", size,
                     self->limit_bytes);
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

/* Make the content long enough for this many bytes. */
static int grow_content(FrameCipher *self, size_t wanted)
{
    size_t room = (size_t)PyBytes_GET_SIZE(self->content);
    if (wanted <= room)
        return 0;
    while (room < wanted)
        room *= 2;
    if (room > self->content_bytes)
        room = self->content_bytes;
    return _PyBytes_Resize(&self->content, (Py_ssize_t)room); /* on failure `content` is NULL */
}

static size_t padded_bytes(const FrameCipher *self)
{
    return self->content_bytes + -self->content_bytes % BLOCK_BYTES;
}

/* Absorb and decrypt the part of a body and its padding that has arrived. */
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

/* Check the MAC of a body; returns its content, or NULL with an error. */
static PyObject *close_body(FrameCipher *self)
{
    uint8_t tag[BLOCK_BYTES];
    if (step_body_mac(self, &self->ingress.mac, tag))
        return NULL;
    if (differ(tag, self->held, BLOCK_BYTES)) {
        PyErr_SetString(state_of_cipher(self)->frame_error, "a frame body whose MAC differs");
        return NULL;
    }
    PyObject *content = self->content;
    memcpy(self->ingress.digest, tag, BLOCK_BYTES);
    self->buffered_bytes -= (Py_ssize_t)(padded_bytes(self) + BLOCK_BYTES);
    self->content = NULL;
    await(self, HEADER);
    return content;
}

/* The next content. NULL with an error set, or without one if no complete frame waits. */
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
            PyObject *content = close_body(self);
            if (content == NULL || self->tally == NULL ||
                !tally_takes(self->tally, (const uint8_t *)PyBytes_AS_STRING(content), (size_t)PyBytes_GET_SIZE(content)))
                return content;
            self->counted++;
            Py_DECREF(content);
        }
    }
    return NULL;
}

static PyObject *cipher_next(FrameCipher *self)
{
    if (self->stage == BROKEN) {
        PyErr_SetString(state_of_cipher(self)->frame_error, "a frame after one that was refused");
        return NULL;
    }
    PyObject *content = open_next(self);
    if (content != NULL)
        return content;
    if (PyErr_Occurred())
        break_ingress(self);
    else
        drop_fed(self);
    return NULL;
}

/* `feed` and the first of `frames`. What is opened at once is not copied. */
static PyObject *cipher_open(FrameCipher *self, PyObject *argument)
{
    Py_buffer data;
    if (PyObject_GetBuffer(argument, &data, PyBUF_SIMPLE))
        return NULL;
    PyObject *content = NULL;
    if (self->stage == BROKEN) {
        content = cipher_next(self); /* raises */
        goto done;
    }
    self->buffered_bytes += data.len;
    if (self->at == self->size) {
        drop_fed(self);
        self->lent = data.buf;
        self->size = (size_t)data.len;
    } else if (append(self, data.buf, (size_t)data.len)) {
        break_ingress(self);
        goto done;
    }
    content = cipher_next(self);
    /* The caller overwrites its memory: what was not opened yet is copied. */
    if (self->at == self->size)
        drop_fed(self);
    else if (self->lent != NULL && make_room(self, 0)) {
        break_ingress(self);
        Py_CLEAR(content);
    }
    if (content == NULL && !PyErr_Occurred())
        content = Py_NewRef(Py_None);
done:
    PyBuffer_Release(&data);
    return content;
}

static PyObject *cipher_frames(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    Py_INCREF(self);
    return self;
}

static const char seal_doc[] = "seal($self, content, /)\n--\n\nOne frame around `content`. See frames.py.";
static const char feed_doc[] = "feed($self, data, /)\n--\n\nTake a chunk as it arrived; `frames` opens it.";
static const char open_doc[] = "open($self, data, /)\n--\n\n`feed`, and the first of `frames` or None. See frames.py.";
static const char frames_doc[] = "frames($self, /)\n--\n\nYield the content of every whole frame fed so far. See frames.py.";

static PyMethodDef cipher_methods[] = {
    {"seal", (PyCFunction)cipher_seal, METH_O, seal_doc},
    {"feed", (PyCFunction)cipher_feed, METH_O, feed_doc},
    {"open", (PyCFunction)cipher_open, METH_O, open_doc},
    {"frames", cipher_frames, METH_NOARGS, frames_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef cipher_members[] = {
    {"buffered_bytes", T_PYSSIZET, offsetof(FrameCipher, buffered_bytes), READONLY, "Bytes fed that belong to no frame yielded yet."},
    {"counted", T_PYSSIZET, offsetof(FrameCipher, counted), READONLY, "Frames that the tally has taken."},
    {"limit_bytes", T_PYSSIZET, offsetof(FrameCipher, limit_bytes), 0, "The longest content accepted next."},
    {NULL, 0, 0, 0, NULL},
};

/* See frames.py: the bytes of an incomplete content so far. */
static PyObject *cipher_begun(FrameCipher *self, void *Py_UNUSED(nothing))
{
    const int is_there = self->content_bytes >= BLOCK_BYTES &&
                         (self->stage == TAG || (self->stage == BODY && self->arrived >= BLOCK_BYTES));
    if (!is_there)
        Py_RETURN_NONE;
    return Py_BuildValue("(ny#)", (Py_ssize_t)self->content_bytes, PyBytes_AS_STRING(self->content), (Py_ssize_t)BLOCK_BYTES);
}

static PyObject *cipher_get_tally(FrameCipher *self, void *Py_UNUSED(nothing))
{
    return Py_NewRef(self->tally == NULL ? Py_None : (PyObject *)self->tally);
}

static int cipher_set_tally(FrameCipher *self, PyObject *tally, void *Py_UNUSED(nothing))
{
    if (tally == NULL || (tally != Py_None && !Py_IS_TYPE(tally, state_of_cipher(self)->tally_type))) {
        PyErr_SetString(PyExc_TypeError, "the tally of a cipher is a Tally or None");
        return -1;
    }
    Tally *before = self->tally;
    self->tally = tally == Py_None ? NULL : (Tally *)Py_NewRef(tally);
    Py_XDECREF(before);
    return 0;
}

static PyGetSetDef cipher_getters[] = {
    {"tally", (getter)cipher_get_tally, (setter)cipher_set_tally, "Takes the messages that nobody reads, or None.", NULL},
    {"begun", (getter)cipher_begun, NULL, "Length and first block of a content that has arrived in part, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot cipher_slots[] = {
    {Py_tp_doc, "FrameCipher(secrets, /)\n--\n\nBoth directions of one connection after the handshake. See frames.py."},
    {Py_tp_new, cipher_new},
    {Py_tp_dealloc, cipher_dealloc},
    {Py_tp_methods, cipher_methods},
    {Py_tp_members, cipher_members},
    {Py_tp_getset, cipher_getters},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, cipher_next},
    {0, NULL},
};

PyType_Spec frame_cipher_spec = {
    .name = "rlpx.protocol._native.FrameCipher",
    .basicsize = sizeof(FrameCipher),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = cipher_slots,
};
