/* Loaded before libc (LD_PRELOAD): memory that runs out when a test says so, and the count of what is held. With
 * PYTHONMALLOC=malloc every object of Python comes from here, and what libcrypto takes does in any case.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdatomic.h>

/* glibc's own names of what is replaced here. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void __libc_free(void *memory);

/* Of the thread that tests: how many allocations until one fails (0: none does), and whether all after it fail too. */
static _Thread_local long countdown;
static _Thread_local int is_lasting;
static _Thread_local long failed;
static atomic_long held;

static int runs_out(void)
{
    if (countdown == 0)
        return 0;
    if (countdown > 1) {
        countdown--;
        return 0;
    }
    if (!is_lasting)
        countdown = 0;
    failed++;
    errno = ENOMEM;
    return 1;
}

static void *counted(void *memory)
{
    if (memory != NULL)
        atomic_fetch_add(&held, 1);
    return memory;
}

void *malloc(size_t size)
{
    return runs_out() ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return runs_out() ? NULL : counted(__libc_calloc(count, size));
}

void *realloc(void *memory, size_t size)
{
    if (runs_out())
        return NULL;
    return memory == NULL ? counted(__libc_malloc(size)) : __libc_realloc(memory, size);
}

void free(void *memory)
{
    if (memory != NULL)
        atomic_fetch_sub(&held, 1);
    __libc_free(memory);
}

/* Call it without arguments; from the allocation of this number on one fails, or all do. Never number 0. */
PyObject *call_failing(PyObject *callable, long number, int lasting)
{
    failed = 0;
    is_lasting = lasting;
    countdown = number;
    PyObject *result = PyObject_CallNoArgs(callable);
    countdown = 0;
    return result;
}

/* How many allocations failed in the last call. */
long failed_allocations(void)
{
    return failed;
}

/* How many pieces of memory the process holds. */
long held_allocations(void)
{
    return atomic_load(&held);
}
