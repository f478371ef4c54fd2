/* put_file of put_file.py, which says what it does, with the interpreter's lock given away once for all of it. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int
fill(int fd, const char *content, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, content, size);
        if (written < 0 && errno != EINTR)
            return errno;
        if (written > 0) {
            content += written;
            size -= written;
        }
    }
    return 0;
}

static PyObject *
put_file(PyObject *self, PyObject *args)
{
    int folder, mode, must_chmod, must_sync, failed = 0;
    PyObject *name, *target;
    Py_buffer content;

    if (!PyArg_ParseTuple(args, "iO&y*ippO&", &folder, PyUnicode_FSConverter, &name, &content, &mode, &must_chmod,
                          &must_sync, PyUnicode_FSConverter, &target))
        return NULL;
    const char *source_path = PyBytes_AS_STRING(name), *target_path = PyBytes_AS_STRING(target);

    Py_BEGIN_ALLOW_THREADS
    int fd = openat(folder, source_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        failed = errno;
    else {
        failed = fill(fd, content.buf, content.len);
        if (!failed && must_chmod && fchmod(fd, mode))
            failed = errno;
        if (!failed && must_sync && fsync(fd))
            failed = errno;
        if (close(fd) && !failed)
            failed = errno;
        if (!failed && *target_path && renameat(folder, source_path, AT_FDCWD, target_path))
            failed = errno;
    }
    Py_END_ALLOW_THREADS

    Py_DECREF(name);
    Py_DECREF(target);
    PyBuffer_Release(&content);
    if (failed) {
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"put_file", put_file, METH_VARARGS, "See put_file.py."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_put_file", NULL, 0, methods};

PyMODINIT_FUNC
PyInit__put_file(void)
{
    return PyModuleDef_Init(&module);
}
